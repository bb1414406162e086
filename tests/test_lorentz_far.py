"""Distances of the hyperboloid at any radius that float64 has. The one rule: truth is the textbook's arcosh, in as many bits as
the square of cosh has digits."""

import gmpy2
import numpy as np
import pytest
import torch
from tersor import lorentz

EPS = 2.0**-52


def exact(x, y, c):
    """The distance, and its slopes by x, y and c."""
    with gmpy2.context(gmpy2.get_context(), precision=7000, emax=10**6, emin=-(10**6)):
        a, b = ([gmpy2.mpfr(float(v)) for v in row] for row in (x, y))
        c = gmpy2.mpfr(float(c))
        xx, yy, xy = (sum(p * q for p, q in zip(u, v, strict=True)) for u, v in ((a, a), (b, b), (a, b)))
        tx, ty = gmpy2.sqrt(1 + c * xx), gmpy2.sqrt(1 + c * yy)
        cosh = tx * ty - c * xy
        sinh, root, whole = gmpy2.sqrt(cosh**2 - 1), gmpy2.sqrt(c), gmpy2.acosh(cosh)
        dx = [float(root * (p * ty / tx - q) / sinh) for p, q in zip(a, b, strict=True)]
        dy = [float(root * (q * tx / ty - p) / sinh) for p, q in zip(a, b, strict=True)]
        dc = ((xx * ty / tx + yy * tx / ty) / 2 - xy) / sinh / root - whole / (2 * c * root)
        return float(whole / root), np.array(dx), np.array(dy), float(dc)


def partners(x, rng):
    other = rng.standard_normal(3) * abs(x).max()
    return {
        "apart": other,
        "across": -x,
        "ray": 3 * x,
        "near": np.nextafter(x, np.inf),
        "inner": other * 2.0**-300,
        "origin": 0 * x,
    }


@pytest.mark.parametrize("c", [0.3, 1.0, 1e-40, 1e100])
@pytest.mark.parametrize("kind", partners(np.ones(3), np.random.default_rng(0)))
def test_at_any_radius(kind, c):
    rng = np.random.default_rng(0)
    for power in (*range(-1000, 1000, 90), 1015):
        x = np.ldexp(np.round(rng.standard_normal(3) * 1000), power - 10)  # of few digits: a multiple is one
        y = partners(x, rng)[kind]
        if not np.isfinite(y).all() or (kind == "near" and power < -950):  # of subnormal distances
            continue
        want, *slopes = exact(x, y, c)
        leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, y, c)]
        d = lorentz.dist(*leaves)
        assert abs(d.item() - want) <= 8 * EPS * want, power
        assert lorentz.dist(y, x, c) == d.item() == lorentz.cdist(x[None], y[None], c)[0, 0]
        dx, dy, dc = torch.autograd.grad(d, leaves)
        for got, slope in zip((dx, dy), slopes, strict=False):
            assert abs(got.numpy() - slope).max() <= 1e-9 * abs(slope).max() + 1e-300, power
        assert abs(dc.item() - slopes[2]) <= 1e-9 * (abs(slopes[2]) + want / c) or np.isinf(slopes[2]), power
    assert lorentz.dist(x, x, c) == 0


def test_of_many_rows():
    """Whose gradients are added up where one row serves all; what is no number stays so."""
    x = np.array([[1e200, 0.0], [0.0, 2e300], [3.0, 4.0], [1e-200, 0.0], [0.0, 0.0]])
    rows, one = (
        torch.tensor(x, requires_grad=True),
        torch.tensor([1e180, 1e180], dtype=torch.float64, requires_grad=True),
    )
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    d = lorentz.dist(rows, one, c)
    found = torch.autograd.grad(d.sum(), (rows, one, c))
    each = [exact(row, one.detach().numpy(), 0.7) for row in x]
    for got, want in zip((d.detach(), found[0], found[1], found[2]), zip(*each, strict=True), strict=True):
        want = np.array(want)
        np.testing.assert_allclose(got, want if want.shape == got.shape else want.sum(0), rtol=1e-12, atol=1e-190)
    x[1, 0], x[2, 0] = np.nan, np.inf
    assert np.isnan(lorentz.dist(x, x[0])).tolist() == [False, True, True, False, False]
    y = lorentz.dist2(rows, one, 0.7)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), rows)[0], 2 * d.detach()[:, None] * found[0])


def test_the_largest_distance():
    x = np.array([1.7e308, 0.0])
    assert lorentz.dist(x, -x) == pytest.approx(2 * np.arcsinh(1.7e308), rel=1e-15)
