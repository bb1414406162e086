"""Means of points. The one rule: truth is the textbook's weighted sum on the hyperboloid, in 320 bits on the rounded inputs."""

import numpy as np
import pytest
import tersor
import tersor.hyperbolic as h
import torch
from exact import dot, norm, real, sqrt, ulp
from tersor import lorentz, sparse
from tersor.hyperbolic import _newton
from tersor.sparse import CSR
from tersor.testing import EPS
from test_hyperbolic import CURVATURES, FLAT, RADII, flat


def truth(x, w, c):
    """The midpoint over the last axis but one."""
    factor = 2 / (1 - c * dot(x, x))
    total, time = np.sum(w * factor * x, -2), np.sum(w * (factor - 1), -2)
    v = total / time
    return v / (1 + sqrt(1 - c * dot(v, v)))


def clusters(dtype, d, c, *, members=3, seed=0, largest=99):
    """Groups at every radius: far apart, near each other, and some at the centre; with weights."""
    rng = np.random.default_rng([seed, d])
    radii = np.repeat([r for r in RADII[dtype] if r <= largest], 3)
    root = np.sqrt(c) if c > 1e-9 else 1.0

    def directions(*shape):
        u = rng.standard_normal((*shape, d))
        return u / np.linalg.norm(u, axis=-1, keepdims=True)

    def place(u, r):
        return u * (r if c <= 1e-9 else np.tanh(r / 2) / root)

    n, r = len(radii), radii[:, None, None]
    apart = place(directions(n, members), r)
    step = directions(n, members) * 0.05 * np.minimum(r, 1) / (1 if c <= 1e-9 else root * np.cosh(r / 2) ** 2)
    near = place(directions(n, 1), r) + step
    mixed = place(directions(n, members), r * np.linspace(0, 1, members)[:, None])
    kind = (np.arange(n) % 3)[:, None, None]
    return np.select([kind == 0, kind == 1], [apart, near], mixed).astype(dtype), rng.uniform(
        0.5, 2, (n, members)
    ).astype(dtype)


@pytest.mark.parametrize("c", CURVATURES + FLAT)
@pytest.mark.parametrize("d", [2, 3, 19])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truth(dtype, d, c):
    """Within 1 ulp of the row norm (float32), or 8 (1 + the condition): what a change of the inputs' last bits would do."""
    x, w = clusters(dtype, d, c)
    got = h.weighted_midpoint(x, w, c, reducedim=[1])
    exact, weights, k = real(x), real(w)[..., None], flat(real(c))
    want = truth(exact, weights, k)
    error = norm(real(got) - want)[:, 0]
    rng = np.random.default_rng(0)
    moved = [
        norm(truth(exact * (1 + 2.0**-80 * real(rng.choice([-1, 1], exact.shape))), weights, k) - want)[:, 0] * 2**80
        for _ in range(4)
    ]
    size = norm(want)[:, 0]
    condition = np.max(moved, 0) * EPS[dtype]
    # a point with no room inside the ball is moved by up to 2 eps
    edge = np.where(1 - sqrt(k) * size < 4 * EPS[dtype], 4 * EPS[dtype] * size, 0)
    unit = np.maximum(ulp(size, EPS[dtype]), 5e-324)
    bound = unit + edge if dtype == "float32" else 8 * (unit + condition) + edge
    assert (error <= bound).all(), np.asarray(error / bound, float)


@pytest.mark.parametrize("c", [*CURVATURES, 0.0, 1e-9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients(dtype, c):
    """Up to radius 6, by central differences of 80 bits, judged by the size of what is summed."""
    x, w = clusters(dtype, 3, c, seed=1, largest=6)
    g = np.random.default_rng(0).standard_normal((len(x), 3)).astype(dtype)
    exact, weights, k, up = real(x), real(w)[..., None], flat(real(c)), real(g)
    step = 2.0**-80 / sqrt(np.where(k < 1e-8, 1, k))

    def slope(plus, minus, size):
        return np.sum(up * (truth(*plus) - truth(*minus)), -1) / (2 * size)

    want_x, want_w = np.empty_like(exact), np.empty_like(weights)
    for i in range(x.shape[1]):
        for j in range(3):
            move = np.where((np.arange(3) == j) & (np.arange(x.shape[1]) == i)[:, None], step, real(0.0))
            want_x[:, i, j] = slope((exact + move, weights, k), (exact - move, weights, k), step)
        move = np.where(np.arange(x.shape[1])[:, None] == i, real(2.0**-80), real(0.0))
        want_w[:, i, 0] = slope((exact, weights + move, k), (exact, weights - move, k), 2.0**-80)
    dk = k * 2.0**-80
    want_c = slope((exact, weights, k + dk), (exact, weights, k - dk), dk)
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, w)]
    curvature = torch.tensor(float(c), dtype=torch.float64, requires_grad=True)
    got = torch.autograd.grad(
        h.weighted_midpoint(*leaves, curvature, reducedim=[1]), [*leaves, curvature], torch.tensor(g)
    )
    bound = {"float64": 1e-13, "float32": 1e-5}[dtype]
    error = norm(real(got[0].numpy()) - want_x)[..., 0]
    assert (error <= bound * (norm(want_x)[..., 0] + norm(up))).all()
    reach = norm(exact)[..., 0].max(-1, keepdims=True)
    error = np.abs(real(got[1].numpy()) - want_w[..., 0])
    assert (error <= bound * (np.abs(want_w[..., 0]) + norm(up) * reach)).all()
    length = norm(truth(exact, weights, k))[:, 0] * norm(up)[:, 0]
    size = np.sum(np.maximum(np.abs(want_c), length * np.minimum(1 / k, reach[:, 0] ** 2)))
    assert abs(real(got[2].item()) - np.sum(want_c)) <= bound * size


def points(*shape, c=1.0, seed=0, radius=2.0):
    rng = np.random.default_rng(seed)
    return np.asarray(h.expmap0(rng.standard_normal(shape) * radius / (2 * np.sqrt(shape[-1] * max(c, 1))), c))


@pytest.mark.parametrize("c", [0.0, 1e-9, 1.0, 2.5])
def test_properties(c):
    x, w = points(7, 5, 4, c=c), np.random.default_rng(1).uniform(0.1, 3, (7, 5))
    m = h.weighted_midpoint(x, w, c, reducedim=[1])
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(
        h.weighted_midpoint(x[:, order], w[:, order], c, reducedim=[1]), m, rtol=1e-13, atol=1e-15
    )
    np.testing.assert_allclose(h.weighted_midpoint(x, 17.3 * w, c, reducedim=[1]), m, rtol=1e-13, atol=1e-15)
    a = points(4, c=c, seed=2)
    there = h.weighted_midpoint(h.mobius_add(a, x, c), w, c, reducedim=[1])
    np.testing.assert_allclose(there, h.mobius_add(a, m, c), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        h.weighted_midpoint(x[:, :2], None, c, reducedim=[1]), h.geodesic(0.5, x[:, 0], x[:, 1], c)
    )
    same = np.repeat(x[:, :1], 6, 1)
    np.testing.assert_allclose(h.weighted_midpoint(same, None, c, reducedim=[1]), x[:, 0], rtol=4e-16)
    # the way for curvatures with axes
    rows = h.weighted_midpoint(x, w, np.full((7, 1, 1), c), reducedim=[1])
    np.testing.assert_allclose(rows, m, rtol=1e-12, atol=1e-14)


def test_a_large_group_and_threads():
    x, w = points(20_000, 5, radius=6.0), np.random.default_rng(1).uniform(0, 1, 20_000)
    before = tersor.get_num_threads()
    results = []
    try:
        for n in (1, 2, 5):
            tersor.set_num_threads(n)
            t = torch.tensor(x, requires_grad=True)
            m = h.weighted_midpoint(t, torch.tensor(w))
            (g,) = torch.autograd.grad(m.sum(), t)
            results.append((m.detach().numpy().tobytes(), g.numpy().tobytes()))
    finally:
        tersor.set_num_threads(before)
    assert all(r == results[0] for r in results)
    want = truth(real(x[:20_000]), real(w)[:, None], real(1.0))
    np.testing.assert_allclose(np.frombuffer(results[0][0]), np.asarray(want, float), rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("c", [0.0, 1.3])
def test_segments(c, index):
    rng = np.random.default_rng(0)
    x = points(30, 5, c=c)
    counts = np.array([3, 0, 7, 1, 12])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(index)
    indices = rng.integers(0, 30, indptr[-1]).astype(index)
    a = CSR(rng.uniform(0.2, 2, indptr[-1]), indices, indptr, (5, 30))
    got = h.segment_midpoint(a, x, c)
    for i in range(5):
        part = slice(a.indptr[i], a.indptr[i + 1])
        want = h.weighted_midpoint(x[a.indices[part]], a.data[part], c)
        np.testing.assert_allclose(got[i], want, rtol=1e-13, atol=1e-15)
    t = torch.tensor(x, requires_grad=True)
    data = torch.tensor(a.data, requires_grad=True)
    k = torch.tensor(c, dtype=torch.float64, requires_grad=c > 0)
    pattern = [torch.tensor(v) for v in (a.indices, a.indptr)]
    assert torch.autograd.gradcheck(
        lambda t, data, k: h.segment_midpoint(CSR(data, *pattern, (5, 30)), t, k), (t, data, k), atol=1e-6
    )
    assert torch.equal(h.segment_midpoint(a, t, c), torch.tensor(got))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, None, 0), ((3, 2), 1, (1, 0)), (3, 2, 1), (4, 3, 2)])
def test_windows(kernel, stride, padding):
    x = torch.tensor(points(2, 9, 8, 3, c=1.5), requires_grad=True)
    flat_mean = torch.nn.functional.avg_pool2d(
        x.movedim(-1, 1), kernel, stride, padding, count_include_pad=False
    ).movedim(1, -1)
    torch.testing.assert_close(h.window_midpoint(x, kernel, stride, padding, 0.0), flat_mean)
    y = h.window_midpoint(x, kernel, stride, padding, 1.5)
    assert y.shape == flat_mean.shape
    np.testing.assert_array_equal(
        h.window_midpoint(x.detach().numpy(), kernel, stride, padding, 1.5), y.detach().numpy()
    )
    (kh, kw), (sh, _), (ph, pw) = ((v, v) if isinstance(v, int) else v for v in (kernel, stride or kernel, padding))
    rows, cols = slice(max(sh - ph, 0), min(sh - ph + kh, 9)), slice(0, min(kw - pw, 8))
    torch.testing.assert_close(y[1, 1, 0], h.weighted_midpoint(x[1, rows, cols], None, 1.5))
    c = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    small = x.detach()[:1, :5, :5].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, c: h.window_midpoint(x, kernel, stride, padding, c), (small, c), atol=1e-6
    )


@pytest.mark.parametrize("c", [0.0, 1e-30, 0.7])
def test_gradcheck(c):
    x = torch.tensor(points(3, 4, 2, 3, c=c), requires_grad=True)
    w = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).add(0.2).requires_grad_()
    k = torch.tensor(c, dtype=torch.float64, requires_grad=c == 0.7)
    for over in ([0], [1, 2], [0, 1, 2]):
        assert torch.autograd.gradcheck(lambda x, w, k, o=over: h.weighted_midpoint(x, w, k, reducedim=o), (x, w, k))
    assert torch.autograd.gradcheck(
        lambda x, w, k: h.weighted_midpoint(x, w - 0.7, k, reducedim=[1], posweight=True, lincomb=True), (x, w, k)
    )


@pytest.mark.parametrize("c", [0.0, 1e-9, 1.0, 3.0])
@pytest.mark.parametrize("radius", [0.0, 0.1, 3.0, 10.0])
def test_frechet_mean(c, radius):
    x = points(4, 9, 3, c=c, radius=radius)
    w = np.random.default_rng(1).uniform(0.1, 3, (4, 9))
    m = h.frechet_mean(x, w, c)
    pull = h.logmap(np.repeat(m[:, None], 9, 1), x, c) * h.lambda_x(m, c)[:, None, None]
    spread = np.linalg.norm(pull, axis=-1).max(-1)
    total = np.linalg.norm((w[..., None] * pull).sum(1), axis=-1)
    assert (total <= 1e-12 * np.maximum(spread, 1e-300) * w.sum(-1) * np.asarray(h.lambda_x(m, c))).all()
    pair = h.frechet_mean(x[:, :2], None, c)
    np.testing.assert_allclose(pair, h.geodesic(0.5, x[:, 0], x[:, 1], c), rtol=1e-9, atol=1e-12)
    a = points(3, c=c, seed=5)
    np.testing.assert_allclose(
        h.frechet_mean(h.mobius_add(a, x, c), w, c), h.mobius_add(a, m, c), rtol=1e-9, atol=1e-11
    )
    # no other point does better
    least = h.frechet_variance(x, w, c)
    for seed in range(3):
        other = h.mobius_add(m, points(4, 3, c=c, seed=seed, radius=0.1), c)
        assert (h.frechet_variance(x, w, c, other) >= least * (1 - 1e-12)).all()
    if c == 0:
        np.testing.assert_allclose(
            m, np.average(x, axis=1, weights=np.repeat(w[..., None], 3, -1)), rtol=1e-12, atol=1e-15
        )
    narrow = h.frechet_mean(x.astype(np.float32), w.astype(np.float32), c)
    assert narrow.dtype == np.float32
    if radius <= 3:
        np.testing.assert_allclose(narrow, m, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("c", [0.0, 0.7])
def test_frechet_gradients(c):
    x = torch.tensor(points(2, 5, 3), requires_grad=True)
    w = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).add(0.2).requires_grad_()
    k = torch.tensor(c, dtype=torch.float64, requires_grad=c > 0)
    m = torch.tensor(points(2, 3, seed=3), requires_grad=True)
    assert torch.autograd.gradcheck(h.frechet_mean, (x, w, k))
    assert torch.autograd.gradcheck(lambda x: h.frechet_mean(x, None, c), x)
    assert torch.autograd.gradcheck(h.frechet_variance, (x, w, k))
    assert torch.autograd.gradcheck(h.frechet_variance, (x, w, k, m))
    for f in (h.frechet_mean, h.frechet_variance):
        assert torch.autograd.gradgradcheck(f, (x, w, k))
        assert torch.autograd.gradgradcheck(lambda x, f=f: f(x, None, c), x)
        far = torch.tensor(h.logmap0(points(4, 2, c=c, radius=6.0), c), requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda v, f=f: f(h.expmap0(v, c), None, c), far)
    assert torch.autograd.gradgradcheck(h.frechet_variance, (x, w, k, m))
    # third ones, through the equation that the mean solves
    assert torch.autograd.gradgradcheck(
        lambda x: torch.autograd.grad(h.frechet_mean(x, None, c).square().sum(), x, create_graph=True)[0],
        x[0, :3].detach().requires_grad_(),
    )
    # a point that is the mean
    around = torch.tensor([[0.3, 0.1], [0.0, 0.0], [-0.3, -0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.equal(h.frechet_mean(around, None, c), torch.zeros(2, dtype=torch.float64))
    for f in (h.frechet_mean, h.frechet_variance):
        assert torch.autograd.gradgradcheck(lambda x, f=f: f(x, None, c), around)
    same = x.detach()[:, :1].repeat(1, 4, 1).requires_grad_()
    (g,) = torch.autograd.grad(h.frechet_mean(same, None, c).sum(), same)
    torch.testing.assert_close(g, torch.full_like(g, 0.25), rtol=1e-9, atol=1e-9)


def test_zero_weights_and_empty():
    x = torch.tensor(points(4, 3), requires_grad=True)
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    m = h.weighted_midpoint(x, w)
    assert (m == 0).all()
    assert all(torch.isfinite(v).all() for v in torch.autograd.grad(m.sum(), [x, w]))
    assert (h.weighted_midpoint(np.zeros((0, 3))) == 0).all()
    assert h.weighted_midpoint(np.zeros((0, 4, 3)), reducedim=[1]).shape == (0, 3)


def test_errors():
    x, w = points(4, 5, 3), np.ones((4, 5))
    for bad in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="curvature"):
            h.weighted_midpoint(x, w, bad)
    with pytest.raises(ValueError, match="do not broadcast"):
        h.weighted_midpoint(x, w[:, :3])
    with pytest.raises(TypeError, match="weights"):
        h.weighted_midpoint(x, w.astype(np.float32))
    with pytest.raises(ValueError, match="holds dim"):
        h.weighted_midpoint(x, w, reducedim=[-1])
    a = CSR(np.ones(2), np.array([0, 4]), np.array([0, 2]), (1, 5))
    with pytest.raises(ValueError, match="segment_midpoint: x must be"):
        h.segment_midpoint(a, x)
    with pytest.raises(TypeError, match="segment_midpoint"):
        h.segment_midpoint(a, x[0].astype(np.float32))
    with pytest.raises(TypeError, match="must be a CSR"):
        h.segment_midpoint(x, x)
    for bad in (
        {"kernel_size": 0},
        {"kernel_size": 2, "stride": 0},
        {"kernel_size": 2, "padding": 2},
        {"kernel_size": 9},
    ):
        with pytest.raises(ValueError, match="window_midpoint"):
            h.window_midpoint(x, **bad)
    for who in (h.frechet_mean, h.frechet_variance):
        with pytest.raises(ValueError, match="N > 0"):
            who(np.zeros((0, 3)))
        with pytest.raises(TypeError, match="weights"):
            who(x, w.astype(np.float32))
        with pytest.raises(ValueError, match="do not broadcast"):
            who(x, np.ones(4))


@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_weights_are_not_negative(like):
    """The sum of points need be no point then, and a Fréchet mean not the only one: none of the functions takes them."""
    x, w = like(np.array([[0.3, 0.1], [-0.2, 0.4]])), like(np.array([1.0, -0.4]))
    matrix = sparse.from_dense(w[None])
    calls = {
        "weighted_midpoint": [lambda: h.weighted_midpoint(x, w)],
        "frechet_mean": [lambda: h.frechet_mean(x, w), lambda: lorentz.frechet_mean(x, w)],
        "frechet_variance": [lambda: h.frechet_variance(x, w), lambda: lorentz.frechet_variance(x, w)],
        "weighted_midpoint_bmm": [
            lambda: h.weighted_midpoint_bmm(x, w[None]),
            lambda: lorentz.weighted_midpoint_bmm(x, w[None]),
        ],
        "midpoint": [lambda: lorentz.midpoint(x, w)],
        "segment_midpoint": [lambda: h.segment_midpoint(matrix, x)],
    }
    for name, fs in calls.items():
        for f in fs:
            with pytest.raises(ValueError, match=f"^{name}: weights must not be negative"):
                f()
    if like is torch.from_numpy:  # a graph that was compiled looks at them too
        graph = torch.compile(lambda x, w: h.frechet_mean(x, w), fullgraph=True, backend="aot_eager")
        with pytest.raises(ValueError, match=r"^frechet_mean: weights must not be negative, weights\[\.\.\., 0\] is"):
            graph(x, -abs(w) - 1)
    turned = h.weighted_midpoint(x * like(np.array([[1.0], [-1.0]])), abs(w))
    np.testing.assert_allclose(h.weighted_midpoint(x, w, posweight=True), turned, rtol=1e-15)
    for f in (h.weighted_midpoint, lorentz.midpoint):
        assert (np.asarray(f(x, 0 * abs(w))) == 0).all()


@pytest.mark.parametrize("power", [-1070, -600, 600, 1022])
def test_of_weights_only_ratios_count(power):
    """Also where their squares, or their sums, are no numbers of float64."""
    rng = np.random.default_rng(0)
    x, w = h.expmap0(rng.standard_normal((4, 3, 2))), 2.0 ** rng.integers(-2, 2, (4, 3))
    far = np.ldexp(w, power)
    c = torch.full((4, 1, 1), 0.8, dtype=torch.float64)
    lists = sparse.from_dense(torch.ones(4, 3, dtype=torch.float64))
    for f in (
        lambda x, w: h.weighted_midpoint(x, w, 0.8, reducedim=[1]),
        lambda x, w: h.weighted_midpoint(x, w, c, reducedim=[1]),
        lambda x, w: h.weighted_midpoint_bmm(x, w[:, None], 0.8),
        lambda x, w: h.frechet_mean(x, w, 0.8),
        lambda x, w: h.frechet_variance(x, w, 0.8),
        lambda x, w: lorentz.midpoint(x, w, 0.8),
        lambda x, w: lorentz.weighted_midpoint_bmm(x, w[:, None], 0.8),
        lambda x, w: h.segment_midpoint(lists.with_data(w.ravel()), x[:3, 0], 0.8),
        lambda x, w: lorentz.segment_midpoint(lists.with_data(w.ravel()), x[:3, 0], 0.8),
    ):
        a, b, y = torch.from_numpy(w).requires_grad_(), torch.from_numpy(far).requires_grad_(), torch.from_numpy(x)
        one, other = f(y, a), f(y, b)
        torch.testing.assert_close(other, one, rtol=1e-14, atol=1e-15)
        (da,), (db,) = torch.autograd.grad(one.sum(), a), torch.autograd.grad(other.sum(), b)
        if abs(power) < 1000:  # where the slope, which is 2^-power times as steep, is a number
            torch.testing.assert_close(db * 2.0**power, da, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(h.weighted_midpoint(x, far, 0.8), h.weighted_midpoint(x, w, 0.8), rtol=1e-14)


@pytest.mark.parametrize("power", [-500, 500])
def test_a_mean_has_any_unit(power):
    """Lengths times a power of two, the curvature over its square: the same points."""
    rng = np.random.default_rng(0)
    x, w = torch.from_numpy(h.expmap0(rng.standard_normal((4, 5, 2)))), torch.from_numpy(rng.uniform(1, 2, (4, 5)))
    unit, found = 2.0**power, []
    for u in (1.0, unit):
        c = torch.tensor(1 / u / u, dtype=torch.float64, requires_grad=True)
        leaves = [(x * u).requires_grad_(), w.clone().requires_grad_(), c]
        y = h.frechet_mean(*leaves) / u
        found.append([y, *torch.autograd.grad(y.sum(), leaves)])
    (a, *one), (b, *other) = found
    torch.testing.assert_close(b, a, rtol=1e-13, atol=1e-15)
    for da, db, powers in zip(one, other, (1, 0, -2), strict=True):  # a slope by a length, by a number, and by c
        for _ in range(abs(powers)):
            db = db * unit if powers > 0 else db / unit
        torch.testing.assert_close(db, da, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("family", [h, lorentz], ids=["ball", "lorentz"])
def test_frechet_means_by_a_matrix(family, like, monkeypatch):
    """Those of the points spread to each row of weights, however small the pieces are that they are spread in."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 1, 7, 3)) / 3, rng.uniform(0, 2, (2, 5, 7))
    spread, given = like(np.broadcast_to(x, (2, 5, 7, 3)).copy()), like(w)
    many, one = like(x), like(x[0, 0])
    for piece in (1 << 18, 50, 1):
        monkeypatch.setattr(_newton, "PIECE", piece)
        for f in (family.frechet_mean, family.frechet_variance):
            want = np.asarray(f(spread, given, 0.8))
            np.testing.assert_allclose(np.asarray(f(many, given, 0.8)), want, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(np.asarray(f(one, given[0], 0.8)), want[0], rtol=1e-12, atol=1e-13)
            assert tuple(f(one, given, 0.8).shape[:2]) == (2, 5)
            assert np.isnan(np.asarray(f(like(np.full((2, 3), np.nan)), like(np.ones((4, 2))), 0.8))).all()
            assert f(one, given[:0], 0.8).shape[:2] == (0, 5)
    for f in (family.frechet_mean, family.frechet_variance):
        with pytest.raises(ValueError, match=f"^{f.__name__}: weights .* do not broadcast"):
            f(one, given[..., :6])
    curvatures = rng.uniform(0.5, 1, (5, 1))
    if family is h:
        want = [h.frechet_mean(x[0, 0], w[0, i], k[0]) for i, k in enumerate(curvatures)]
        np.testing.assert_allclose(np.asarray(h.frechet_mean(one, given[0], like(curvatures))), want, rtol=1e-13)


@pytest.mark.parametrize("piece", [1 << 18, 50, 1])
def test_gradients_of_frechet_means_by_a_matrix(piece, monkeypatch):
    monkeypatch.setattr(_newton, "PIECE", piece)
    x = torch.tensor(points(5, 2), requires_grad=True)
    w = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).add(0.2).requires_grad_()
    for c in (0.7, [[0.4], [0.7], [1.0]]):
        k = torch.tensor(c, dtype=torch.float64, requires_grad=True)
        for f in (h.frechet_mean, h.frechet_variance):
            assert torch.autograd.gradcheck(f, (x, w, k))
            assert torch.autograd.gradgradcheck(f, (x, w, k))
    at = torch.stack((x[0], x[0])).detach()  # a mean that is a point has second derivatives too
    assert torch.autograd.gradgradcheck(lambda x: h.frechet_variance(x, w[:2], 0.7, at), x)
    compiled = torch.compile(lambda x, w: h.frechet_mean(x, w, 0.7), fullgraph=True)
    torch.testing.assert_close(compiled(x, w), h.frechet_mean(x, w, 0.7))
    batch = torch.func.vmap(lambda x: h.frechet_mean(x, w, 0.7))(torch.stack((x, x / 2)))
    torch.testing.assert_close(batch[1], h.frechet_mean(x / 2, w, 0.7))


@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_midpoints_where_squares_leave_float64(like):
    """In so flat a ball that points are longer than 1e154, and in flat space: the same points in another unit."""
    rng = np.random.default_rng(0)
    x, w = h.expmap0(rng.standard_normal((4, 6, 2))), rng.uniform(1, 2, (4, 6))
    lists = sparse.from_dense(like(np.ones((4, 6))))
    for f in (
        lambda x, w, c: h.weighted_midpoint(x, w, c, reducedim=[1]),
        lambda x, w, c: h.weighted_midpoint(x, w, c, reducedim=[1], lincomb=True),
        lambda x, w, c: h.weighted_midpoint(x, w, like(np.full((4, 1, 1), c)), reducedim=[1]),
        lambda x, w, c: h.weighted_midpoint_bmm(x, w[:, None], c),
        lambda x, w, c: h.segment_midpoint(lists, x[0], c),
        lambda x, w, c: h.window_midpoint(x, 2, c=c),
    ):
        near, flat = (np.asarray(f(like(x), like(w), c)) for c in (1.0, 0.0))
        for power in (500, 515, 530):
            got = np.asarray(f(like(np.ldexp(x, power)), like(w), 2.0 ** (-2 * power)))
            np.testing.assert_allclose(np.ldexp(got, -power), near, rtol=1e-14, atol=1e-16)
        for power in (515, 1000):
            got = np.asarray(f(like(np.ldexp(x, power)), like(w), 0.0))
            np.testing.assert_allclose(np.ldexp(got, -power), flat, rtol=1e-14, atol=1e-16)
    largest = like(np.array([[2.0**1023, 0.0], [2.0**1023, 0.0]]))  # the square of whose unit is beyond float64
    for c in (0.0, like(np.zeros(1))):
        np.testing.assert_array_equal(np.asarray(h.weighted_midpoint(largest, None, c)), [2.0**1023, 0.0])
    assert np.isnan(np.asarray(h.weighted_midpoint(like(np.ldexp(x, 600)), None, 1e-200))).all()  # outside
    leaves = torch.tensor(np.ldexp(x, 515), requires_grad=True), torch.tensor(x, requires_grad=True)
    for leaf, c in zip(leaves, (2.0**-1030, 1.0), strict=True):
        h.weighted_midpoint(leaf, None, c).sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-13, atol=1e-15)
