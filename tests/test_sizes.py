"""Distances of rows of any size. The one rule: truth is the textbook in 320 bits, or the same points in another unit."""

import numpy as np
import pytest
import tersor.hyperbolic as h
import torch
from exact import norm, real, sqrt, tanh
from test_hyperbolic import TABLE

POWERS = (-1000, -700, -530, 500, 700, 1000)


def points(d=3):
    """Two sets: anywhere, close to each other, at the origin, and far out."""
    rng = np.random.default_rng(0)
    x, y = h.expmap0(rng.standard_normal((2, 6, d)))
    y[1] = x[1] * (1 + 1e-12)
    y[2] = 0
    x[3], y[3] = h.expmap0(np.array([[9.0, 0, 0], [-9, 1, 0]]))[:, :d]
    x[4] = 1e-200  # beside a row that is not small
    return x, y


def unit(power):
    """2^power, and the curvature that is 0.7 in this unit, or 0 where that is no number."""
    c = np.ldexp(0.7, -2 * power) if abs(power) < 510 else 0.0
    return c, lambda v: np.ldexp(v, power)


@pytest.mark.parametrize("power", POWERS)
def test_distances_are_the_truth(power):
    c, by = unit(power)
    x, y = (by(v) for v in points())
    curvature = real(np.array([[c]])) if c else real(np.array([[1e-30]])) / real(by(1.0)) ** 2  # the limit
    for name, got, arguments in (
        ("dist", h.dist(x, y, c), (x, y)),
        ("dist", h.cdist(x, y, c).diagonal(), (x, y)),
        ("dist", h.knn(x[:1], y[:1], 1, c)[0][:, 0], (x[:1], y[:1])),
        ("dist0", h.dist0(x, c), (x,)),
    ):
        want = TABLE[name].truth(*[real(v) for v in arguments], curvature)
        assert (np.abs(real(got) - want) <= 4 * 2.0**-52 * want + 5e-324).all(), name


@pytest.mark.parametrize("power", [-500, 500])
def test_a_large_curvature(power):
    """1e300, and its inverse: gradients too are those in another unit."""
    found = []
    p = torch.tensor([[1.0, 2.0, -2.0]], dtype=torch.float64)
    for e in (0, power):
        c, by = unit(e)
        x, y = (torch.from_numpy(by(v)).requires_grad_() for v in points())
        q = (p * 2.0**e).requires_grad_()
        row = []
        for f in (
            h.dist,
            lambda x, y, c: h.cdist(x, y, c)[:, :4],
            lambda x, _, c: h.dist0(x, c),
            lambda x, _, c, q=q: h.busemann(x, q, c),
        ):
            k = torch.tensor(c, dtype=torch.float64, requires_grad=True)
            d = f(x, y, k)
            dx, dy, dq, dc = torch.autograd.grad(d[:4].sum(), (x, y, q, k), allow_unused=True)
            row += [d / 2.0**e, dx, dy, dq]
            assert not dc.isnan()
        found.append(row)
    for a, b in zip(*found, strict=True):
        if a is not None:
            torch.testing.assert_close(b, a, rtol=1e-13, atol=1e-15)


def test_directions_have_any_length():
    x = h.expmap0(np.random.default_rng(0).standard_normal((4, 3)))
    p = np.array([1.0, -2.0, 0.5])
    want = h.busemann(x, p)
    for power in (-1060, -600, 600, 1000):
        np.testing.assert_allclose(h.busemann(x, np.ldexp(p, power)), want, rtol=1e-15)


@pytest.mark.parametrize("eps", ["tight", "compat"])
def test_long_tangents_end_at_the_edge(eps):
    """In their own direction, in place too; where the curvature is next to nothing, not that far."""
    x = np.array([[3e200, 4e200], [3e300, -4e300], [1e155, 0.0], [0.1, 0.2], [np.inf, 1.0]])
    want = np.array([[0.6, 0.8], [0.6, -0.8], [1, 0]]) * (1 if eps == "tight" else 1 - 1e-5)
    for out in (None, x.copy()):
        y = h.expmap0(x if out is None else out, 1.0, eps, out=out)
        np.testing.assert_allclose(y[:3], want, rtol=4e-16)
        assert (np.linalg.norm(y[:3], axis=-1) < 1).all() and np.isfinite(h.dist0(y[:4])).all()
        np.testing.assert_array_equal(y[3], h.expmap0(x[3], 1.0, eps))
    c = 1e-320
    y = h.expmap0(x[:3], c, eps)
    z = sqrt(real(c)) * norm(real(x[:3]))
    assert (np.abs(norm(real(y)) / (norm(real(x[:3])) * tanh(z) / z) - 1) < (1e-14 if eps == "tight" else 2e-5)).all()
    far = h.expmap0(np.array([[3e30, 4e30]], np.float32), 1e300)
    assert np.linalg.norm(far.astype(float)) <= 1e-150
