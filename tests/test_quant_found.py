"""What a stranger's hands found in quantizers: each was wrong, and silent or misnamed."""

import numpy as np
import pytest
from tersor import quant

BOTH = pytest.mark.parametrize("torch", [False, True])


def given(x, torch):
    return pytest.importorskip("torch").from_numpy(x) if torch else x


def plain(x):
    return np.asarray(x)


@BOTH
@pytest.mark.parametrize(
    "scheme", ["nf4-row", "fp4-row", "dynamic8-row", "mxfp4-row", "mxfp8_e4m3-row", "nvfp4-row", "int4-row"]
)
def test_rows_of_nothing_have_the_scale_of_zeros(scheme, torch):
    want = quant.encode(np.zeros((1, 32), np.float32), scheme).scale[0, 0]
    for _ in range(3):  # memory that was used before
        np.full(3, 7, np.float32).sum()
        e = quant.encode(given(np.zeros((3, 0), np.float32), torch), scheme)
        assert plain(e.scale).shape == (3, 1) and (plain(e.scale) == want).all()
        assert plain(quant.decode(e)).shape == (3, 0)


@pytest.mark.parametrize("pair", [(5, 3), (0, 300), (-1, 200), (-200, 5)])
def test_codes_of_requantize_fit_a_byte(pair):
    with pytest.raises(ValueError, match=r"requantize: codes from .* do not fit a byte"):
        quant.requantize(np.array([260]), 1 << 30, 30, pair)
    assert quant.requantize(np.array([260]), 1 << 30, 30, (0, 200)).tolist() == [200]


@BOTH
@pytest.mark.parametrize("size", [1e160, 1e-170, 5e-324, 1.0])
def test_directions_of_rows_of_any_length(size, torch):
    x, c = np.array([[size, size], [0, 0], [-size, 0]]), np.array([[-1.0, 0], [1e200, 1e200], [0, 1e-200]])
    got = quant.codebook_assign(given(x, torch), given(c, torch), metric="cosine")
    assert plain(got).tolist() == [1, 0, 0]
    best = quant.codebook_assign(given(x, torch), given(c, torch), metric="cosine", k=3)
    assert sorted(plain(best)[0].tolist()) == [0, 1, 2]


@BOTH
@pytest.mark.parametrize("value", [0.1, 0.3, 1e300, -0.7])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 23, 99])
def test_rows_that_do_not_vary_are_0(value, n, torch):
    x = given(np.full((2, n), value), torch)
    assert (plain(quant.l1_normalize(x)) == 0).all()
    if torch:
        x.requires_grad_()
        (quant.l1_normalize(x) * np.pi).sum().backward()
        assert (x.grad == 0).all()


@pytest.mark.parametrize("scheme", ["nf4", "int4", "mxfp4"])
@pytest.mark.parametrize("block", [0, -1])
def test_a_block_has_elements(scheme, block):
    with pytest.raises(ValueError, match=f"encode: block must be at least 1, got {block}"):
        quant.encode(np.zeros((2, 64), np.float32), scheme, block=block)


@BOTH
def test_means_of_groups_of_numbers_far_apart(torch):
    def centers(x, k, **w):
        return plain(quant.kmeans_1d(given(np.array(x), torch), k, **w).centers).tolist()

    assert centers([1e16, 1e16 + 2, 1.0], 2) == [1, 1e16]  # the mean of the other two is rounded to even
    assert centers([0.001, 1e5, 2e5], 3) == [0.001, 1e5, 2e5]
    assert centers([1.1, 1e6, 1e6 + 1], 2) == [1.1, 1e6 + 0.5]
    w = given(np.array([1.0, 3.0, 1.0]), torch)
    assert centers([0.0, 4.0, 1e9], 2, weights=w) == [3, 1e9]


def test_how_many_is_said_by_its_name():
    x = np.arange(6.0)
    for k in (-1, 0, 7, 10**30):
        with pytest.raises(ValueError, match="kmeans_1d: k must lie within 1 and the 6"):
            quant.kmeans_1d(x, k)
        with pytest.raises(ValueError, match="codebook_assign: k must lie within 1 and the 6"):
            quant.codebook_assign(x[:, None], x[:, None], k=k)
    with pytest.raises(ValueError, match=r"weights have shape \(0,\), x \(6,\)"):
        quant.kmeans_1d(x, 2, weights=np.zeros(0))


def test_what_is_not_finite_does_not_enter_a_codebook():
    size, total, x = np.ones(2), np.ones((2, 3)), np.ones((4, 3))
    labels = np.array([0, 1, 0, 1])
    for change in ({"x": x * np.nan}, {"size": size * np.inf}, {"total": total * np.nan}):
        parts = {"size": size, "total": total, "x": x} | change
        with pytest.raises(ValueError, match=f"codebook_ema: {next(iter(change))} holds non-finite"):
            quant.codebook_ema(labels, parts["size"], parts["total"], parts["x"])
    with pytest.raises(ValueError, match="eps must be finite"):
        quant.codebook_ema(labels, size, total, x, eps=np.inf)


def test_nested_scales_far_below_the_mean_turn_no_sign():
    x = np.full((300, 64), 0.5, np.float32)
    x[:, 0], x[0, 0] = 1, 3
    x[1:40], x[1:40, 0] = 5e-5, 1e-4
    back = quant.decode(quant.encode(x, "nf4", nested=True))
    assert (back * x >= 0).all()


def test_zero_points_of_a_reparametrization_are_finite():
    gamma, w = np.ones(3), np.ones((2, 3))
    with pytest.raises(ValueError, match="repq_reparam: zero points are finite"):
        quant.repq_reparam(gamma, gamma, w, np.ones(2), np.ones(3), np.array([0, np.nan, 1]))
