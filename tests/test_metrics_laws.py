"""Power laws, slopes and what layers do. The one rule: references are scipy's, or are written out."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from drawn import LIBRARIES, draw, probabilities
from scipy import stats
from tersor import metrics


@LIBRARIES
def test_a_power_law_is_a_line(library):
    x = np.exp(draw().standard_normal(30))
    y = 3.0 * x**-0.8 * np.exp(0.1 * draw(1).standard_normal(30))
    want = stats.linregress(np.log(x), np.log(y))
    got = metrics.fit_power_law(library(x), library(y))
    for a, b in zip(
        got, (-want.slope, want.intercept, want.stderr, want.intercept_stderr, want.rvalue**2), strict=True
    ):
        assert math.isclose(a, b, rel_tol=1e-11)
    w = draw(2).integers(1, 4, 30)
    doubled = metrics.fit_power_law(library(np.repeat(x, w)), library(np.repeat(y, w)))
    heavy = metrics.fit_power_law(library(x), library(y), weight=library(w.astype(np.float64)))
    assert all(
        math.isclose(a, b, rel_tol=1e-11)
        for a, b in zip((*doubled[:2], doubled.r2), (*heavy[:2], heavy.r2), strict=True)
    )
    two = metrics.fit_power_law(library(np.array([1.0, 2.0])), library(np.array([4.0, 1.0])))
    assert math.isclose(two.alpha, 2) and math.isclose(two.log_c, math.log(4)) and math.isnan(two.alpha_stderr)


@pytest.mark.parametrize(
    ("said", "x", "y"),
    [
        ("x must be positive, got 0", [0.0, 1], [1.0, 1]),
        ("y must be positive, got -1", [2.0, 1], [1.0, -1]),
        ("x must have two different values", [2.0, 2], [1.0, 3]),
        ("y holds non-finite", [2.0, 3], [1.0, np.inf]),
        ("y has 1 rows, x 2", [2.0, 3], [1.0]),
    ],
)
def test_what_a_power_law_refuses(said, x, y):
    with pytest.raises(ValueError, match=f"fit_power_law: {said}"):
        metrics.fit_power_law(np.array(x), np.array(y))


def steepest(x, y):
    best = 0.0
    for i in range(len(x)):
        for j in range(i):
            d, rise = (
                math.sqrt(sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(x[i], x[j], strict=True))),
                abs(y[i] - y[j]),
            )
            if rise:
                best = max(best, float(rise) / d if d else math.inf)
    return best


@LIBRARIES
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e4, 1e-3), (-1e6, 1.0), (0.0, 1e150)])
def test_the_steepest_pair(library, offset, scale):
    x = offset + scale * draw().standard_normal((70, 3))
    y = draw(1).standard_normal(70)
    assert math.isclose(metrics.label_sharpness(library(x), library(y)), steepest(x.tolist(), y), rel_tol=1e-12)


def test_the_steepest_pair_lies_in_different_tiles():
    x = 100 * draw().standard_normal((700, 4))
    x[650] = x[3] + 1e-7
    y = (np.arange(700) % 2).astype(np.int64)
    y[650], y[3] = 0, 1
    assert math.isclose(metrics.label_sharpness(x, y), 1 / np.linalg.norm(x[650] - x[3]), rel_tol=1e-15)
    x[650] = x[3]
    assert metrics.label_sharpness(x, y) == math.inf
    assert metrics.label_sharpness(x[:, :0], np.zeros(700, int)) == 0
    with pytest.raises(ValueError, match="x has 1 rows"):
        metrics.label_sharpness(x[:1], y[:1])


@LIBRARIES
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_what_a_block_adds(library, kind):
    u, r = draw().standard_normal((5, 2, 7)).astype(kind), draw(1).standard_normal((5, 2, 7)).astype(kind)
    u[0, 0], r[0, 1], u[1, 0], r[1, 0] = 0, 0, 0, 0
    ratio, cosine = metrics.residual_contribution(library(u), library(r))
    a, b = u.astype(float), r.astype(float)
    with np.errstate(all="ignore"):
        want = np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        angle = np.nan_to_num((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
    assert np.asarray(ratio).dtype == np.asarray(cosine).dtype == kind
    np.testing.assert_allclose(np.asarray(ratio), want.astype(kind), rtol=2 * np.finfo(kind).eps)
    np.testing.assert_allclose(np.asarray(cosine), angle.astype(kind), rtol=4 * np.finfo(kind).eps, atol=1e-15)
    assert ratio[0, 0] == 0 and math.isinf(ratio[0, 1]) and math.isnan(ratio[1, 0]) and cosine[0, 1] == 0
    big, small = metrics.residual_contribution(library(1e200 * a), library(1e-200 * b))
    assert math.isinf(big[2, 0]) and math.isclose(small[2, 0], angle[2, 0], rel_tol=1e-13)


@LIBRARIES
def test_norms_of_gradients_are_those_of_the_weights_gradient(library):
    """Each place's part of the gradient of a convolution's weight, by unfolding."""
    a, g = draw().standard_normal((2, 3, 5, 6)), draw(1).standard_normal((2, 4, 5, 6))
    patches = torch.nn.functional.unfold(torch.from_numpy(a), 3, padding=1).numpy().reshape(2, 27, 5, 6)
    for kind, rows in (("conv1", a), ("conv3", patches)):
        outer = np.einsum("nchw,ndhw->nhwcd", rows, g)
        got = metrics.norm_grad(library(a), library(g), kind)
        np.testing.assert_allclose(np.asarray(got), np.sqrt((outer**2).sum((-1, -2))), rtol=1e-13)
    same = np.asarray(metrics.norm_grad(library(a), library(g[:, :3].copy()), "scaling"))
    np.testing.assert_allclose(same, np.linalg.norm(a * g[:, :3], axis=1), rtol=1e-13)
    np.testing.assert_allclose(np.asarray(metrics.norm_grad(library(a), library(g), "bias")), np.linalg.norm(g, axis=1))
    for wrong, kind in ((g, "scaling"), (g[..., :2].copy(), "conv1"), (g[0], "conv3")):
        with pytest.raises(ValueError, match="norm_grad: activation and gradient must have"):
            metrics.norm_grad(library(a), library(wrong), kind)
    with pytest.raises(ValueError, match="norm_grad: kind must be one of"):
        metrics.norm_grad(library(a), library(g), "conv5")


@LIBRARIES
def test_barriers(library):
    losses = np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 2.0], [0.0, np.nan, 1.0], [0.1, 0.2, np.inf]])
    got = np.asarray(metrics.loss_barrier(library(losses)))
    np.testing.assert_array_equal(got, [1.5, 0, np.nan, np.nan])
    skew = np.asarray(metrics.loss_barrier(library(losses[:1]), [0, 0.9, 1]))
    np.testing.assert_allclose(skew, [3 - 1.9])
    one = metrics.loss_barrier(library(losses[0].astype(np.float32)))
    assert one == 1.5 and (isinstance(one, float) or one.dtype is torch.float64)
    for wrong in ([0, 1], [0, 0.5, 0.9], [0, 2, 1], [0.1, 0.5, 1]):
        with pytest.raises(ValueError, match="loss_barrier: alphas must"):
            metrics.loss_barrier(library(losses), wrong)
    with pytest.raises(ValueError, match="losses must have two or more"):
        metrics.loss_barrier(library(losses[:, :1]))


@LIBRARIES
def test_class_correlation(library):
    p = probabilities(20, 3)
    got = np.asarray(metrics.class_correlation(library(p)))
    want = p.T @ p
    np.testing.assert_allclose(got, want / want.sum(1, keepdims=True), rtol=1e-14)
    assert np.isnan(np.asarray(metrics.class_correlation(library(p * [1, 0, 1])))[1]).all()


def test_windows_of_a_curriculum():
    assert metrics.curriculum_window(10, 0) == range(10)
    assert [metrics.curriculum_window(10, i).start for i in range(1, 8)] == [1, 2, 3, 4, 5, 0, 1]
    assert len(metrics.curriculum_window(5, 1)) == 2  # 2.5, half to even
    for wrong in ((10, 1, 0.04), (10, 1, 1.2), (10, -1), (0, 1), (10, 1, math.nan)):
        with pytest.raises(ValueError, match="curriculum_window: "):
            metrics.curriculum_window(*wrong)


def test_groups_of_numbers_are_the_quantizers():
    from tersor import quant

    assert metrics.kmeans_1d is quant.kmeans_1d and "kmeans_1d" in metrics.__all__
