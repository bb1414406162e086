"""Kernels of infinitely wide networks, against their textbook forms in many digits and against wide layers."""

import math

import mpmath
import numpy as np
import pytest
from tersor.project import arccos_features, dual, ntk
from tersor.project.dual import POLYNOMIALS

torch = pytest.importorskip("torch")

mp = mpmath.mp.clone()
mp.dps = 60


def relu(r):
    t = mp.acos(r)
    return (mp.sqrt(1 - r * r) + r * (mp.pi - t)) / mp.pi


TEXTBOOK = {
    "relu": relu,
    "erf": lambda r: mp.asin(2 * r / 3) / mp.asin(mp.mpf(2) / 3),
    "sine": lambda r: mp.sinh(r) / mp.sinh(1),
    "exp": lambda r: mp.exp(r - 1),
    **{k: lambda r, c=c: mp.polyval([mp.mpf(v) for v in c[::-1]], r) for k, c in POLYNOMIALS.items()},
}
EVERY = pytest.mark.parametrize("kind", sorted(TEXTBOOK))


@EVERY
def test_duals(kind):
    rho = np.array([-1.0, -0.999, -0.4, 0.0, 0.3, 0.9, 0.99999, 1.0])
    value, slope = dual(rho, kind)
    for r, v, d in zip(rho, value, slope, strict=True):
        assert abs(v - TEXTBOOK[kind](mp.mpf(r))) < 4e-16
        if abs(r) < 0.9999:
            assert abs(d - mp.diff(TEXTBOOK[kind], mp.mpf(r))) < 1e-14
    assert value[-1] == 1


@pytest.mark.parametrize("kind", ["relu", "poly2", "poly5", "poly9", (0.0, 0.25, 0.5, 0.25)])
def test_near_minus_one_what_is_small_keeps_its_digits(kind):
    """relu falls as (1 + ρ)^1.5 there, the fifth polynomial as (1 + ρ)²."""
    rho = np.concatenate([[-1 + 2.0**-53], 10.0 ** -np.arange(15) / 3 - 1])
    form = TEXTBOOK[kind if isinstance(kind, str) else "poly5"]
    value, slope = dual(rho, kind)
    for r, v, d in zip(rho, value, slope, strict=True):
        want, step = form(mp.mpf(r)), mp.diff(form, mp.mpf(r), h=mp.mpf(10) ** -25)
        assert abs(v - want) <= 1e-15 * abs(want)
        assert abs(d - step) <= 2e-15 * abs(step)
    for v, w in zip(dual(torch.from_numpy(rho), kind), (value, slope), strict=True):
        np.testing.assert_allclose(v, w, rtol=1e-14)
    leaf = torch.tensor([-1.0, -0.999, -0.7, -0.2], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(dual(leaf, kind)[0].sum(), leaf)
    np.testing.assert_allclose(found, dual(leaf.detach().numpy(), kind)[1], rtol=1e-12, atol=1e-15)


def test_tensors_beyond_the_range_are_continued_as_it_is_said():
    value, slope = dual(torch.tensor([-2.0, 1.5]))
    assert value.tolist() == [0, 1.5] and slope.tolist() == [0, 1]
    assert dual(torch.tensor([2.0]), "erf")[0].isnan().all()
    assert dual(torch.tensor([2.0]), "poly3")[0].tolist() == [5.0]


@EVERY
@pytest.mark.parametrize("s", [1e-14, 1e-10, 1e-3, 0.7, 1.9])
def test_gaps_keep_their_digits_through_depth(kind, s):
    """Where the textbook form has none left."""
    sigma = theta = 1 - mp.mpf(s)
    for _ in range(8):
        slope = mp.diff(TEXTBOOK[kind], sigma, h=mp.mpf(10) ** -25)
        sigma = TEXTBOOK[kind](sigma)
        theta = sigma + theta * slope
    gap = np.array([s])
    assert abs(ntk(1 - gap, 8, kind, gap=gap)[0] - theta) < 1e-15 + 2e-14 * abs(theta)
    assert abs(ntk(1 - gap, 8, kind, gap=gap, which="nngp")[0] - sigma) < 1e-14


@pytest.mark.parametrize("kind", ["erf", "sine", "poly2", "poly3"])
@pytest.mark.parametrize("depth", [60, 200])
def test_odd_activations_keep_small_gaps_on_both_sides(kind, depth):
    """So deep that the gap of neighbours has grown to order 1: what a layer rounds of it has grown too."""
    for s in (2.0**-53, 3e-11, 1e-6):
        rho = np.array([1 - s])
        sigma = mp.mpf(rho[0])
        for _ in range(depth):
            sigma = TEXTBOOK[kind](sigma)
        found = ntk(np.stack([rho, -rho]), depth, kind, which="nngp").ravel()
        assert abs(found[0] - sigma) < 1e-12 * sigma and found[1] == -found[0]
        theta = ntk(np.stack([rho, -rho]), depth, kind).ravel()
        assert theta[1] == -theta[0]


@pytest.mark.parametrize("kind", ["erf", "sine", "poly2", "poly3", "poly5", "poly9"])
@pytest.mark.parametrize("rho", [1e-200, -1e-20, 1e-9, 0.01, 0.3, 0.9])
def test_small_correlations_keep_theirs(kind, rho):
    """Odd activations and all without a mean lose what two inputs share, layer after layer, and never all of it."""
    sigma = theta = mp.mpf(rho)
    for _ in range(60):
        slope = mp.diff(TEXTBOOK[kind], sigma, h=mp.mpf(10) ** -25 * abs(sigma))
        sigma = TEXTBOOK[kind](sigma)
        theta = sigma + theta * slope
    found = np.array([rho])
    assert abs(ntk(found, 60, kind)[0] - theta) < 3e-13 * abs(theta)
    assert abs(ntk(found, 60, kind, which="nngp")[0] - sigma) < 3e-13 * abs(sigma)


def test_a_wide_layer_computes_it():
    x = np.random.default_rng(0).standard_normal((2, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    draws = [np.prod(arccos_features(x, 400, seed=seed), 0).sum() for seed in range(300)]
    want = dual(np.array(x[0] @ x[1]))[0]
    assert abs(np.mean(draws) - want) < 5 * np.std(draws) / math.sqrt(len(draws))


@EVERY
def test_tensors(kind):
    rho = torch.tensor([-0.9, -0.1, 0.2, 0.95], dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(ntk(rho, 3, kind).detach().numpy(), ntk(rho.detach().numpy(), 3, kind), rtol=1e-14)
    assert torch.autograd.gradcheck(lambda r: ntk(r, 3, kind), [rho])
    assert torch.autograd.gradcheck(lambda r: dual(r, kind), [rho])
    ends = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    value, slope = dual(1 - ends.detach(), kind, gap=ends)
    value.sum().backward()
    torch.testing.assert_close(ends.grad, -slope.detach())
    assert ntk(rho.detach().float(), 2, kind).dtype == torch.float32
    compiled = torch.compile(lambda r: ntk(r, 2, kind), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rho.detach()), ntk(rho.detach(), 2, kind))


def test_depth_and_coefficients():
    rho = np.linspace(-1, 1, 9)
    assert np.array_equal(ntk(rho, 0), rho) and np.array_equal(ntk(rho, 4, (0, 1), which="nngp"), rho)
    np.testing.assert_allclose(ntk(rho, 2, (0, 0.5, 0, 0.5)), ntk(rho, 2, "poly3"), rtol=0, atol=0)
    assert dual(np.array([1 + 2e-16, -1 - 2e-16]))[0][0] == 1


@pytest.mark.parametrize("kind", ["relu", "erf", "sine", "exp", "poly3"])
def test_nan_stays(kind):
    rho = np.array([math.nan, 0.5])
    for x in (rho, torch.from_numpy(rho)):
        for y in (*dual(x, kind), ntk(x, 1, kind)):
            assert [math.isnan(v) for v in y.tolist()] == [True, False]


def test_what_is_refused():
    rho = np.zeros(3)
    for f in (
        lambda: dual(rho + 1.1), lambda: dual(rho, "tanh"), lambda: dual(rho, (0.5, 0.6)), lambda: dual(rho, (2.0, -1.0)),
        lambda: ntk(rho, -1), lambda: ntk(rho, 1, which="kernel"), lambda: dual(rho, gap=np.zeros(2)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^(dual|ntk): "):
            f()
    for f in (lambda: dual([0.0]), lambda: dual(rho, 3), lambda: ntk(rho, 1.5), lambda: dual(np.zeros(3, int))):
        with pytest.raises(TypeError, match=r"^(dual|ntk): "):
            f()
