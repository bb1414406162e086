"""All pairs of points: distances, nearest, soft minimum. The one rule: truth is 320 bits on the inputs as rounded."""

import numpy as np
import pytest
import tersor
import tersor.hyperbolic as h
import torch
from exact import acosh, dot, norm, real, sqrt, ulp
from tersor.bench import _peak
from tersor.testing import EPS, LEAST
from test_hyperbolic import CURVATURES, FLAT, RADII, Entry, cells, flat

PAIR = Entry(None, ("ball", "ball"), 1, 4)


def truth(x, y, c):
    """The textbook's arcosh of every pair."""
    alpha, beta, q = 1 - c * dot(x, x), 1 - c * dot(y, y), dot(x - y, x - y)
    return (acosh(1 + 2 * c * q / (alpha * beta)) / sqrt(c))[..., 0]


def sweep(dtype, d, c, *, seed=0, largest=99):
    """Points of every radius, and beside each one near it, one opposite, one at random and one further in."""
    cs = cells(PAIR, dtype, d, 1, [r for r in RADII[dtype] if r <= largest], seed, (c,))
    return cs.arguments


@pytest.mark.parametrize("c", CURVATURES + FLAT)
@pytest.mark.parametrize("d", [2, 3, 17, pytest.param(131, marks=pytest.mark.full)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truth(dtype, d, c):
    x, y = sweep(dtype, d, c)
    got = h.cdist(x, y, c)
    want = truth(real(x)[:, None], real(y)[None], flat(real(c)))
    error = np.abs(real(got) - want) / np.maximum(ulp(want, EPS[dtype]), LEAST[dtype])
    bound = PAIR.f32 if dtype == "float32" else PAIR.f64
    assert np.max(error) <= bound
    # and the kernels that never write a distance down
    near, at = h.knn(x, y, len(y), c)
    np.testing.assert_array_equal(near, np.take_along_axis(got, at, -1))
    assert (np.diff(near, axis=-1) >= 0).all()
    np.testing.assert_array_equal(np.sort(at, -1), np.broadcast_to(np.arange(len(y)), at.shape))


@pytest.mark.parametrize("c", [*CURVATURES, 0.0, 1e-9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients(dtype, c):
    """Up to radius 6: central differences of 80 bits for every pair, judged by the size of what is summed."""
    x, y = sweep(dtype, 3, c, seed=1, largest=6)
    g = np.random.default_rng(0).standard_normal((len(x), len(y))).astype(dtype)
    a, b, k = real(x)[:, None], real(y)[None], flat(real(c))
    scale = 2.0**-80 / sqrt(np.where(k < 1e-8, 1, k))
    wide = real(g)

    def slope(move):
        up, down = move(scale), move(-scale)
        return (truth(*up) - truth(*down)) / (2 * scale)

    unit = [np.where(np.arange(3) == j, real(1.0), real(0.0)) for j in range(3)]
    dx = np.stack([slope(lambda t, u=u: (a + t * u, b, k)) for u in unit], -1) * wide[..., None]
    dy = np.stack([slope(lambda t, u=u: (a, b + t * u, k)) for u in unit], -1) * wide[..., None]
    step = k * 2.0**-80
    dc = (truth(a, b, k + step) - truth(a, b, k - step)) / (2 * step) * wide
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    curvature = torch.tensor(float(c), dtype=torch.float64, requires_grad=True)
    got = torch.autograd.grad(h.cdist(*leaves, curvature), [*leaves, curvature], torch.tensor(g))
    bound = {"float64": 1e-13, "float32": 1e-5}[dtype]
    for name, mine, terms, axis in (("dx", got[0], dx, 1), ("dy", got[1], dy, 0)):
        error = norm(real(mine.numpy()) - np.sum(terms, axis))[:, 0]
        size = np.sum(norm(terms)[..., 0], axis)
        assert (error <= bound * size + LEAST[dtype]).all(), name
    size = np.sum(np.maximum(np.abs(dc), np.abs(wide) * truth(a, b, k) * min(1 / c if c else 36, 36)))
    assert abs(real(got[2].item()) - np.sum(dc)) <= bound * size


@pytest.mark.parametrize("c", [0.0, 1e-30, 1.0, 5.0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_equal_points_and_symmetry(dtype, c):
    rng = np.random.default_rng(3)
    x = (rng.uniform(-1, 1, (150, 19)) * 0.4 / np.sqrt(19 * max(c, 1))).astype(dtype)
    d = h.cdist(x, x, c)
    assert d.dtype == x.dtype
    assert (np.diagonal(d) == 0).all()
    np.testing.assert_array_equal(d, d.T)
    y = x[::-1][:77] * np.asarray(0.5, dtype)
    np.testing.assert_array_equal(h.cdist(x, y, c), h.cdist(y, x, c).T)
    order = rng.permutation(len(y))
    np.testing.assert_array_equal(h.cdist(x, y[order], c), h.cdist(x, y, c)[:, order])
    if dtype == "float32":
        t = torch.tensor(x, requires_grad=True)
        (g,) = torch.autograd.grad(h.cdist(t[:1], t[:1], c).sum(), t)
        assert (g == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(dtype):
    torch.manual_seed(0)
    x, y = (torch.rand(n, 21).sub(0.5).mul(0.3).to(getattr(torch, dtype)) for n in (33, 70))
    want = h.cdist(x.float(), y.float(), 1.3)
    assert torch.equal(h.cdist(x, y, 1.3), want.to(x.dtype))
    g = torch.randn(33, 70).to(x.dtype)
    for dt in (x.dtype, torch.float32):
        a, b = x.to(dt).requires_grad_(), y.to(dt).requires_grad_()
        d = torch.autograd.grad(h.cdist(a, b, 1.3), [a, b], g.to(dt))
        if dt == x.dtype:
            kept = d
    assert all(torch.equal(k, w.to(k.dtype)) for k, w in zip(kept, d, strict=True))


@pytest.mark.parametrize("c", [0.0, 1e-30, 0.7])
def test_gradcheck(c):
    torch.manual_seed(1)
    x = torch.rand(2, 1, 5, 3, dtype=torch.float64).sub(0.5).requires_grad_()
    y = torch.rand(3, 70, 3, dtype=torch.float64).sub(0.5).requires_grad_()
    c = torch.tensor(c, dtype=torch.float64, requires_grad=c == 0.7)
    beta = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(h.cdist, (x, y, c), atol=1e-6)
    assert torch.autograd.gradcheck(lambda *a: h.knn(a[0], a[1], 4, a[2])[0], (x, y, c), atol=1e-6)
    assert torch.autograd.gradcheck(h.softmin_dist, (x, y, beta, c), atol=1e-6)
    assert h.cdist(x, y, c).shape == (2, 3, 5, 70)
    # only what is asked for
    (dy,) = torch.autograd.grad(h.cdist(x.detach(), y, c.detach()).sum(), y)
    assert torch.equal(dy, torch.autograd.grad(h.cdist(x, y, c).sum(), y)[0])


@pytest.mark.parametrize("c", [0.0, 1e-30, 0.7])
def test_second_derivatives(c):
    torch.manual_seed(1)
    x = torch.rand(2, 1, 3, 2, dtype=torch.float64).sub(0.5).requires_grad_()
    y = torch.rand(3, 5, 2, dtype=torch.float64).sub(0.5).requires_grad_()
    c = torch.tensor(c, dtype=torch.float64, requires_grad=c == 0.7)
    beta = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(h.cdist, (x, y, c), atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda *a: h.knn(a[0], a[1], 2, a[2])[0], (x, y, c), atol=1e-6)
    assert torch.autograd.gradgradcheck(h.softmin_dist, (x, y, beta, c), atol=1e-6)
    # x alone, and x on both sides
    assert torch.autograd.gradgradcheck(lambda x: h.cdist(x, y.detach(), 0.7), x, atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda x: h.softmin_dist(x[0, 0], x[1, 0]), x, atol=1e-6)
    # a gradient of a gradient of a gradient
    assert torch.autograd.gradgradcheck(
        lambda x: torch.autograd.grad(h.cdist(x, y[0].detach(), 0.7).square().sum(), x, create_graph=True)[0],
        x.detach()[:1, 0, :2].requires_grad_(),
        atol=1e-6,
    )


def test_second_derivatives_of_equal_points():
    """Where the first is 0 by definition the second is, too, and no number is infinite; other pairs do not notice."""
    torch.manual_seed(2)
    base = torch.rand(4, 3, dtype=torch.float64).sub(0.5)

    def second(f, rows):
        x = rows.clone().requires_grad_()
        k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        first = torch.autograd.grad(f(x, k), [x, k], create_graph=True)
        return torch.autograd.grad(sum((v * v).sum() for v in first), [x, k])

    for f in (h.cdist, h.softmin_dist, lambda x, y, c: h.knn(x, y, 3, c)[0]):
        (own, _) = second(lambda x, k, f=f: f(x, x, c=k).sum(), base)
        assert torch.isfinite(own).all() and own.abs().max() > 0
    whole, k = second(lambda x, k: h.cdist(x, x, k).sum(), base)
    x = base.clone().requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    pairs = sum(h.dist(x[i], x[j], c) for i in range(4) for j in range(4) if i != j)
    first = torch.autograd.grad(pairs, [x, c], create_graph=True)
    want = torch.autograd.grad(sum((v * v).sum() for v in first), [x, c])
    torch.testing.assert_close((whole, k), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("c", [1e-6, 1.0, 1e3])
def test_second_derivatives_up_to_the_boundary(c):
    """Along a line: second differences of 80 bits for every pair, judged by what is summed."""
    x, y = sweep("float64", 3, c, seed=1, largest=6)
    rng = np.random.default_rng(0)
    # as long as the metric allows, so that no pair is moved further than another
    way, g = rng.standard_normal(x.shape), rng.standard_normal((len(x), len(y)))
    way = way / np.asarray(h.lambda_x(x, c))[:, None]
    a, b, k, t = real(x)[:, None], real(y)[None], flat(real(c)), real(way)[:, None]
    step = 2.0**-80
    ends = [truth(a + s * step * t, b, k) for s in (-1, 0, 1)]
    terms = (ends[0] - 2 * ends[1] + ends[2]) / step**2 * real(g)
    terms = np.where(ends[1] == 0, 0, terms)
    leaf = torch.tensor(x, requires_grad=True)
    (first,) = torch.autograd.grad(h.cdist(leaf, torch.tensor(y), c), leaf, torch.tensor(g), create_graph=True)
    (second,) = torch.autograd.grad(first, leaf, torch.tensor(way))
    got = np.sum(real(second.numpy()) * real(way), -1)
    # a pair that is r apart bends as 1/r times the square of what it moves
    size = np.sum(np.abs(real(g)) / np.where(ends[1] == 0, 1, np.minimum(ends[1], 1 / sqrt(k))), 1)
    assert (np.abs(got - np.sum(terms, 1)) <= 1e-12 * size).all()


def test_nearest_with_ties_and_strange_numbers():
    rng = np.random.default_rng(0)
    y = rng.integers(-2, 3, (300, 2)) * 0.1
    x = rng.integers(-2, 3, (40, 2)) * 0.1
    d = h.cdist(x, y, 1.5)
    near, at = h.knn(x, y, 17, 1.5)
    np.testing.assert_array_equal(at, np.argsort(d, -1, kind="stable")[:, :17])
    assert at.dtype == np.int64
    y[5] = np.nan
    y[6:] = 2.0  # outside the ball
    near, at = h.knn(x, y, 7, 1.0)
    assert (np.sort(at[:, :5], -1) == np.arange(5)).all()
    assert (at[:, 5:] == -1).all() and np.isnan(near[:, 5:]).all()
    assert h.knn(x, y, 0)[0].shape == (40, 0)


@pytest.mark.parametrize("beta", [1e-3, 1.0, 50.0, 1e6])
def test_softmin(beta):
    x, y = sweep("float64", 3, 1.0)
    d = h.cdist(x, y)
    s = h.softmin_dist(x, y, beta)
    low = d.min(-1)
    np.testing.assert_allclose(
        s, low - np.log(np.exp(-beta * (d - low[:, None])).sum(-1)) / beta, rtol=1e-13, atol=1e-12
    )
    assert (s <= low + 1e-12).all() and (s >= low - np.log(len(y)) / beta - 1e-12).all()
    np.testing.assert_array_equal(h.softmin_dist(x, y[:0], beta), np.inf)
    np.testing.assert_allclose(h.softmin_dist(x, y[:1], beta), d[:, 0], rtol=4e-16)


def test_empty():
    for n, m, d in ((0, 3, 2), (3, 0, 2), (2, 3, 0)):
        x, y = (torch.zeros(k, d, requires_grad=True) for k in (n, m))
        z = h.cdist(x, y)
        assert z.shape == (n, m) and (z == 0).all()
        dx, dy = torch.autograd.grad(z.sum(), [x, y])
        assert dx.shape == x.shape and dy.shape == y.shape and (dx == 0).all() and (dy == 0).all()


@pytest.mark.parametrize("tensor", [False, True])
def test_errors(tensor):
    make = torch.tensor if tensor else np.array
    x, y = make([[0.1, 0.2]]), make([[0.1, 0.3], [0.0, 0.0]])
    for bad in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="cdist: curvature"):
            h.cdist(x, y, bad)
    with pytest.raises(ValueError, match="cdist: c"):
        h.cdist(x, y, make([1.0, 2.0]))
    with pytest.raises(ValueError, match="cdist: last axes"):
        h.cdist(x, y[:, :1])
    with pytest.raises(ValueError, match="cdist: x must have two axes"):
        h.cdist(x[0], y)
    with pytest.raises(ValueError, match="cdist: shapes do not broadcast"):
        h.cdist(x[None][[0, 0]], y[None][[0, 0, 0]])
    with pytest.raises(TypeError, match="cdist"):
        h.cdist(x, y.astype(np.float32) if not tensor else y.double())
    for k in (-1, 3):
        with pytest.raises(ValueError, match="knn: k must be"):
            h.knn(x, y, k)
    for beta in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="softmin_dist: beta"):
            h.softmin_dist(x, y, beta)


def test_batches_and_threads():
    """Small pairs of stacks run side by side, large ones each on all threads: the bits are those of one alone."""
    before = tersor.get_num_threads()
    torch.manual_seed(0)
    results = []
    for batch, n, m, d in ((40, 33, 20, 7), (2, 300, 400, 60)):
        x, y = (torch.rand(batch, k, d).sub(0.5).div(d).requires_grad_() for k in (n, m))
        c = torch.tensor(1.2, requires_grad=True)
        g = torch.randn(batch, n, m)
        try:
            for threads in (1, 2, 5):
                tersor.set_num_threads(threads)
                z = h.cdist(x, y, c)
                s = h.softmin_dist(x, y, 3.0, c)
                ds = torch.autograd.grad([z, s], [x, y, c], [g, g[..., 0].contiguous()])
                results.append([v.detach().numpy().tobytes() for v in (z, s, *ds, *h.knn(x.detach(), y.detach(), 3))])
        finally:
            tersor.set_num_threads(before)
        assert all(r == results[0] for r in results)
        results.clear()
        for i in range(batch):
            assert torch.equal(h.cdist(x[i], y[i], c), z[i])
        x1, y1 = (v[1].detach().requires_grad_() for v in (x, y))
        alone = torch.autograd.grad(
            [h.cdist(x1, y1, c), h.softmin_dist(x1, y1, 3.0, c)], [x1, y1], [g[1], g[1, :, 0].contiguous()]
        )
        assert torch.equal(alone[0], ds[0][1]) and torch.equal(alone[1], ds[1][1])


@pytest.mark.serial
def test_memory_is_that_of_the_result():
    torch.manual_seed(0)
    n, d = 1500, 300
    x = (torch.rand(n, d) / d).requires_grad_()

    def both():
        h.cdist(x, x).sum().backward()

    both()
    spent = _peak(both)
    if np.isnan(spent):
        pytest.skip("this system does not tell")
    assert spent < 6 * 4 * n * n  # the result, its gradient and some room; all differences would be 2.7 GB


@pytest.mark.serial
def test_memory_of_second_derivatives():
    torch.manual_seed(0)
    n, d = 600, 300
    x = (torch.rand(n, d, dtype=torch.float64) / d).requires_grad_()

    def both():
        (first,) = torch.autograd.grad(h.cdist(x, x).sum(), x, create_graph=True)
        first.square().sum().backward()

    both()
    spent = _peak(both)
    if np.isnan(spent):
        pytest.skip("this system does not tell")
    assert spent < 100 * 8 * n * n  # all differences would be 300 of these


def test_gradients_of_many_rows():
    """More rows than one walk keeps the parts of: both sides, as float64 has them from two walks."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-0.3, 0.3, (8500, 3)), rng.uniform(-0.3, 0.3, (70, 3))
    g = torch.tensor(rng.standard_normal((8500, 70)).astype(np.float32))
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [torch.tensor(v.astype(np.float32)).to(dtype).requires_grad_() for v in (x, y)]
        results.append(torch.autograd.grad(h.cdist(*leaves, 1.3), leaves, g.to(dtype)))
    for single, double in zip(*results, strict=True):
        assert (single - double).abs().max() <= 2e-7 * double.abs().max()
