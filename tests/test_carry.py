"""Moving clouds of tangent vectors. The one rule: truth goes through the ball in 320 bits, by the textbook's gyrogroup."""

import numpy as np
import pytest
import tersor.hyperbolic as h
import torch
from exact import norm, real, sqrt, ulp
from tersor import nn as tnn
from tersor.hyperbolic._carry import carry, spread
from tersor.hyperbolic._normal import normalize
from tersor.testing import EPS
from test_hyperbolic import CURVATURES, FLAT, RADII, _exp0, _gyration, _log0, _mobius_add, flat
from test_midpoint import truth as midpoint


def clouds(dtype, d, c, seed=0, members=4, largest=99):
    """Tangent vectors at every radius: far apart, near each other (where the type has numbers), and some at the centre."""
    rng = np.random.default_rng([seed, d])
    radii = np.repeat([r for r in RADII[dtype] if r <= largest], 3)[:, None, None] / 2
    root = np.sqrt(c) if c > 1e-9 else 1.0
    u = rng.standard_normal((len(radii), members, d))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    kind = (np.arange(len(radii)) % 3)[:, None, None]
    near = u[:, :1] * radii + u * 0.05 * np.minimum(radii, 1) * np.where(radii > 3, np.abs(u[:, :1]) > 2, 1)
    mixed = u * radii * np.linspace(0, 1, members)[:, None]
    return (np.select([kind == 0, kind == 1], [u * radii, near], mixed) / root).astype(dtype)


def carried(x, m, b, r, c):
    x, m, b = (_exp0(v, c) for v in (x, m, b))
    z = _exp0(r * _log0(_mobius_add(-m, x, c), c), c)
    return _log0(_mobius_add(b, _gyration(b, -m, z, c), c), c)


def squared(x, m, c):
    return (2 * norm(_log0(_mobius_add(-_exp0(m, c), _exp0(x, c), c), c))) ** 2


def moved(f, want, arrays, eps, times=16):
    """How far the rows of f move when the last bit of every number does."""
    rng = np.random.default_rng(0)
    most = 0 * norm(want)
    for _ in range(times):
        near = [a * (1 + real(eps) * real(rng.choice([-1, 1], a.shape))) for a in arrays]
        most = np.maximum(most, norm(f(*near) - want))
    return most


def within(got, want, condition, dtype, drift=0.0):
    """1 ulp of the row norm (float32) or 8, and as many times the condition, and what float64 inside moves a row by."""
    size, times = norm(want)[..., 0], {"float32": 1, "float64": 8}[dtype]
    unit = np.maximum(ulp(size, EPS[dtype]), 5e-324)
    error, bound = norm(real(got) - want)[..., 0], times * (unit + condition[..., 0] + drift)
    assert (error <= bound).all(), np.asarray(error / bound, float)


@pytest.mark.parametrize("c", CURVATURES + FLAT)
@pytest.mark.parametrize("d", [2, 3, 19])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truth(dtype, d, c):
    k = flat(real(c))
    v = clouds(dtype, d, c)
    x, m = v[:, 1:], v[:, :1]
    b, r = clouds(dtype, d, c, seed=1, largest=3)[:1, :1], 0.7
    exact = [real(a) for a in (x, m, b)]
    want = carried(*exact, real(r), k)
    condition = moved(lambda *a: carried(*a, real(r), k), want, exact, EPS[dtype])
    # as documented, e^(2√c|x|) machine epsilons of a distance 1/2√c
    root = max(np.sqrt(c), 1e-30)
    longest = np.maximum(np.linalg.norm(x.astype(float), axis=-1), np.linalg.norm(m.astype(float), axis=-1))
    drift = np.exp(2 * root * longest) * EPS["float64"] / (2 * root) if c > 1e-9 else 0.0
    within(carry(x, m, b, r, c), want, condition, dtype, drift)
    want = squared(*exact[:2], k)
    condition = moved(lambda *a: squared(*a, k), want, exact[:2], EPS[dtype])
    within(spread(x, m, c)[..., None], want, condition, dtype)


@pytest.mark.parametrize("c", CURVATURES + FLAT)
@pytest.mark.parametrize("d", [2, 3, 19])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truth_of_midpoints(dtype, d, c):
    k = flat(real(c))
    x = clouds(dtype, d, c)
    w = np.random.default_rng(1).uniform(0.5, 2, x.shape[:2]).astype(dtype)

    def middle(x):
        return _log0(midpoint(_exp0(x, k), real(w)[..., None], k), k)

    got = h.weighted_midpoint(x, w, c, reducedim=[1], tangent=True)
    want = middle(real(x))
    within(got, want, moved(middle, want, [real(x)], EPS[dtype]), dtype)
    # one alone is its own midpoint, as far as float64 has directions: to radius 15
    x = clouds(dtype, d, c, largest=15)
    alone = h.weighted_midpoint(x[:, :1], None, c, reducedim=[1], tangent=True)
    size = np.linalg.norm(x[:, 0].astype(float), axis=-1)
    assert (np.linalg.norm(alone.astype(float) - x[:, 0], axis=-1) <= 8 * EPS[dtype] * size).all()


def slopes(f, arrays, g):
    """The gradients of <g, f> by every number of every array, by differences of 80 bits."""
    out = []
    for a, x in enumerate(arrays):
        want = np.empty_like(x)
        for i in np.ndindex(x.shape):
            step = np.zeros(x.shape, object)
            step[i] = real(2.0**-80)
            plus, minus = ([y + s * step if k == a else y for k, y in enumerate(arrays)] for s in (1, -1))
            want[i] = np.sum(g * (f(*plus) - f(*minus))) / (2 * real(2.0**-80))
        out.append(want)
    return out


@pytest.mark.parametrize("c", [1e-9, 0.1, 1.0, 7.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_normalisation(dtype, c):
    """Of a whole batch, up to radius 6: points, the target, the spread, the curvature."""
    rng = np.random.default_rng(0)
    for cloud in clouds(dtype, 2, c, seed=2, largest=6)[1:]:
        if np.ptp(np.linalg.norm(cloud - cloud[0], axis=-1)) < 1e-3 / np.sqrt(max(c, 1)):
            continue  # a spread that the epsilon of the layer is larger than
        b, gamma = (rng.standard_normal(2) * 0.1).astype(dtype), np.asarray([0.8], dtype)
        g, ks = rng.standard_normal(cloud.shape).astype(dtype), np.asarray([c])

        def f(x, b, gamma, c):
            m = _log0(midpoint(_exp0(x, c), real([1.0]), c), c)[None]
            v = np.sum(squared(x, m, c)) / len(x)
            return carried(x, m, b[None], gamma / sqrt(v + real([1e-5])), c)

        exact = [real(a) for a in (cloud, b, gamma, ks)]
        want = slopes(f, exact, real(g))
        leaves = [torch.tensor(a, requires_grad=True) for a in (cloud, b, gamma[0], ks[0])]
        y = normalize(*leaves)[0]
        tolerance = 1e-4 if dtype == "float32" else 1e-9
        assert np.allclose(np.asarray(f(*exact), float), y.detach().numpy(), rtol=tolerance, atol=tolerance)
        got = torch.autograd.grad(y, leaves, torch.tensor(g))
        # a change of the last bits of the batch
        rng2 = np.random.default_rng(3)
        near = [exact[0] * (1 + real(2.0**-60) * real(rng2.choice([-1, 1], cloud.shape))), *exact[1:]]
        turned = [np.abs(a - b) * 2.0**60 for a, b in zip(slopes(f, near, real(g)), want, strict=True)]
        bound = {"float64": 1e-13, "float32": 1e-5}[dtype]
        for one, true, change in zip(got, want, turned, strict=True):
            size = np.max(np.abs(true)) + np.max(change) + float(np.abs(g).max())
            assert np.max(np.abs(real(np.atleast_1d(one.numpy())) - true)) <= bound * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_length_is_too_long(dtype):
    """A cloud that lies where a ball of float32 has no numbers is normalised as one at the origin is."""
    torch.manual_seed(0)
    z = torch.randn(400, 3, dtype=torch.float64) * 0.3
    far = torch.tensor([[9.0, 0, 0]], dtype=torch.float64)
    along = torch.zeros_like(z)
    along[:, 0] = z[:, 0]
    layer = tnn.PoincareBatchNorm(3, epsilon=0.0).to(dtype)
    # along a line through 0 distances are differences, at any radius
    near, y = (layer((v + along).to(dtype)).double() for v in (0 * far, far))
    assert (2 * y).square().sum(-1).mean().item() == pytest.approx(1, rel=1e-5 if dtype == torch.float32 else 1e-7)
    assert (y - near).abs().max() < (1e-4 if dtype == torch.float32 else 1e-6)
    x = (far + z).to(dtype).requires_grad_()
    layer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    wild = layer(torch.randn(50, 3, dtype=dtype) * 1e4)
    assert torch.isfinite(wild).all()


def test_squared_distances():
    x, m = np.array([[1.0, 0.5]]), np.array([[0.3, -2.0]])
    d = spread(x, m, 0.7)
    want = h.dist(h.expmap0(x, 0.7), h.expmap0(m, 0.7), 0.7) ** 2
    np.testing.assert_allclose(d, want, rtol=1e-13)
    assert spread(x, x, 0.7)[0] == 0
