"""The hyperboloid. The one rule: truth is the textbook with times, in 320 bits on the rounded space parts."""

import numpy as np
import pytest
import tersor
import tersor.hyperbolic as h
import tersor.lorentz as lorentz
import torch
from exact import acosh, asinh, cosh, dot, norm, ratio, real, sinh, sqrt, ulp
from tersor.testing import EPS, LEAST
from test_hyperbolic import CURVATURES, FLAT, flat

#: in float64 neighbours at a radius of 36 are a quarter apart, across the radius; along it 1e-16 at any
RADII = {"float32": (0, 1e-3, 0.1, 1, 3, 6, 10, 15), "float64": (0, 1e-3, 0.1, 1, 3, 6, 10, 15, 18, 22, 28, 36)}


def spaces(dtype, d, c, *, seed=0, largest=99, kinds=7):
    """Pairs of every radius: at random, near across, near along the radius, opposite, one further in, one step of the metric
    away across and along, the next numbers."""
    rng = np.random.default_rng([seed, d])
    root = np.sqrt(c) if c > 1e-9 else 1.0
    radii = np.repeat([r for r in RADII[dtype] if r <= largest], kinds)[:, None]
    grow = (lambda r: r) if c <= 1e-9 else (lambda r: np.sinh(r) / root)

    def directions():
        u = rng.standard_normal((len(radii), d))
        return u / np.linalg.norm(u, axis=-1, keepdims=True)

    u = directions()
    x = u * grow(radii)
    near = 0.05 * np.minimum(radii, 1)
    other = [
        directions() * grow(radii),
        x + directions() * near / root,
        u * grow(radii + near),
        -x,
        directions() * grow(radii / 3),
        u * grow(radii + rng.uniform(-near, near)) + directions() * np.minimum(radii, 2) / root,
        np.where(x == 0, x, np.nextafter(x.astype(dtype), directions().astype(dtype))),
    ]
    y = np.select([np.arange(len(radii))[:, None] % kinds == i for i in range(kinds)], other[:kinds])
    return x.astype(dtype), y.astype(dtype)


def tau(s, c):
    return sqrt(1 + c * dot(s, s))


def true_dist(x, y, c):
    # of equal rows the textbook's arcosh leaves what 320 bits cancel
    same = np.all(x == y, -1)
    return np.where(same, real(0.0), (acosh(tau(x, c) * tau(y, c) - c * dot(x, y)) / sqrt(c))[..., 0])


@pytest.mark.parametrize("c", CURVATURES + FLAT)
@pytest.mark.parametrize("d", [2, 3, 17])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_distances(dtype, d, c):
    x, y = spaces(dtype, d, c)
    k = flat(real(c))
    want = true_dist(real(x), real(y), k)
    got = lorentz.dist(x, y, c)
    error = np.abs(real(got) - want) / np.maximum(ulp(want, EPS[dtype]), LEAST[dtype])
    assert np.max(error) <= (1 if dtype == "float32" else 4)
    np.testing.assert_array_equal(got, lorentz.dist(y, x, c))
    assert (lorentz.dist(x, x, c) == 0).all()
    centre = asinh(sqrt(k) * norm(real(x)))[:, 0] / sqrt(k)
    error = np.abs(real(lorentz.dist0(x, c)) - centre) / np.maximum(ulp(centre, EPS[dtype]), LEAST[dtype])
    assert np.max(error) <= (1 if dtype == "float32" else 4)
    pairs = true_dist(real(x)[:, None], real(y)[None], k)
    all_of_them = lorentz.cdist(x, y, c)
    error = np.abs(real(all_of_them) - pairs) / np.maximum(ulp(pairs, EPS[dtype]), LEAST[dtype])
    assert np.max(error) <= (1 if dtype == "float32" else 4)
    np.testing.assert_array_equal(all_of_them.T, lorentz.cdist(y, x, c))
    if dtype == "float64":
        np.testing.assert_array_equal(np.diagonal(all_of_them), got)


@pytest.mark.parametrize("c", [*CURVATURES, 0.0, 1e-9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_distances(dtype, c):
    x, y = spaces(dtype, 3, c, seed=1, largest=6, kinds=6)
    g = np.random.default_rng(0).standard_normal(len(x)).astype(dtype)
    a, b, k = real(x), real(y), flat(real(c))
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    curvature = torch.full((len(x), 1), float(c), dtype=torch.float64, requires_grad=True)
    got = torch.autograd.grad(lorentz.dist(*leaves, curvature), [*leaves, curvature], torch.tensor(g))
    step = 2.0**-80 * sqrt(np.where(k < 1e-8, real(1.0), 1 / k))
    # a gradient has the metric's length: of its parts the one along the radius is the smaller by τ
    bound = {"float64": 1e-13, "float32": 1e-5}[dtype]
    for mine, slot in zip(got[:2], (0, 1), strict=True):
        want = np.empty_like(a)
        for j in range(3):
            move = np.where(np.arange(3) == j, step, real(0.0))
            up = (a + move, b, k) if slot == 0 else (a, b + move, k)
            down = (a - move, b, k) if slot == 0 else (a, b - move, k)
            want[:, j] = (true_dist(*up) - true_dist(*down)) / (2 * step) * real(g)
        error = norm(real(mine.numpy()) - want)[:, 0]
        assert (error <= bound * np.maximum(norm(want)[:, 0], np.abs(g)) + LEAST[dtype]).all()
    # next to no curvature: what a small step changes drowns in what the textbook's arcosh cancels
    dk = k * np.where(k < 1e-20, 0.5, 2.0**-80)
    want = (true_dist(a, b, k + dk) - true_dist(a, b, k - dk)) / (2 * dk) * real(g)
    size = np.abs(real(g)) * np.maximum(
        true_dist(a, b, k) / k if c > 1e-8 else 0, norm(a)[:, 0] ** 2 + norm(b)[:, 0] ** 2
    )
    assert (np.abs(real(got[2].numpy()[:, 0]) - want) <= bound * np.maximum(np.abs(want), size) + LEAST[dtype]).all()


def test_what_is_not_a_number_stays_so():
    x = np.array([[np.nan, 1.0], [np.inf, 0.0], [1e9, 1e9], [1e9, 1e9]])
    y = np.array([[1.0, 1.0], [1.0, 0.0], [1e9, np.nextafter(1e9, 0)], [np.nan, 0.0]])
    d = lorentz.dist(x, y)
    assert np.isnan(d[[0, 1, 3]]).all() and np.isfinite(d[2]) and d[2] > 0


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("one", [False, True], ids=["pairs", "one-for-all"])
def test_gradients_of_distances_far_out(c, one):
    """At any radius the same digits, of a row that serves all and of c too, where they are sums."""
    x, y = spaces("float64", 3, c, seed=2, kinds=7)
    at = len(x) // 7 * 7 - 1
    x, y = (np.nextafter(y[at : at + 1], 0), y) if one else (x, y)
    g = np.random.default_rng(0).standard_normal(len(y))
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, y, np.array(c))]
    got = torch.autograd.grad(lorentz.dist(*leaves), leaves, torch.tensor(g))
    a, b, k = real(x) + 0 * real(y), real(y), real(c)
    # exact: f(t_y/t_x x - y), f = g/(the hyperbolic sine of what is between them)
    d = true_dist(a, b, k)[:, None]
    s = sinh(sqrt(k) * d) / sqrt(k)
    f = np.where(d == 0, real(0.0), real(g)[:, None] / np.where(d == 0, real(1.0), s))
    ta, tb = tau(a, k), tau(b, k)
    wanted = f * (tb / ta * a - b), f * (ta / tb * b - a)
    size = np.abs(real(g))[:, None] + np.zeros_like(f)
    for mine, want in zip(got[:2], wanted, strict=True):
        shared = len(mine) == 1
        error = norm(real(mine.numpy()) - (np.sum(want, 0)[None] if shared else want))
        assert (error <= 1e-12 * (np.sum(size) if shared else size)).all()
    dk = k * 2.0**-80
    want = np.sum((true_dist(a, b, k + dk) - true_dist(a, b, k - dk)) / (2 * dk) * real(g))
    size = np.sum(np.abs(real(g)) * d[:, 0] / k)
    assert abs(real(got[2].item()) - want) <= 1e-12 * size


@pytest.mark.parametrize("c", CURVATURES)
def test_gradients_of_pairs_of_unlike_lengths(c):
    """What is left of the longer row beside the shorter one keeps its digits, whichever is the longer."""
    rng = np.random.default_rng(3)
    radii = np.repeat([(12, 2), (18, 6), (19, 10), (15, 0.5), (3, 1), (2, 12), (9, 19), (8, 8.7)], 12, 0).astype(float)
    u, v = (n / np.linalg.norm(n, axis=-1, keepdims=True) for n in rng.standard_normal((2, len(radii), 3)))
    x, y = u * np.sinh(radii[:, :1]) / np.sqrt(c), v * np.sinh(radii[:, 1:]) / np.sqrt(c)
    leaves = [torch.tensor(w, requires_grad=True) for w in (x, y)]
    got = torch.autograd.grad(lorentz.dist(*leaves, c).sum(), leaves)
    a, b, k = real(x), real(y), real(c)
    f = sqrt(k) / sinh(sqrt(k) * true_dist(a, b, k)[:, None])
    ta, tb = tau(a, k), tau(b, k)
    for mine, want, parts in zip(
        got,
        (f * (tb / ta * a - b), f * (ta / tb * b - a)),
        (f * (tb / ta * norm(a) + norm(b)), f * (ta / tb * norm(b) + norm(a))),
        strict=True,
    ):
        assert (norm(real(mine.numpy()) - want) <= 8 * EPS["float64"] * parts).all()


def test_distances_along_an_axis():
    """Neighbours that nothing is across: of float32 to the largest there are."""
    for dtype, radii in (("float32", 89), ("float64", 60)):
        x = np.sinh(np.arange(1.0, radii)).astype(dtype)[:, None] * np.array([[1.0, 0.0]], dtype)
        for y in (np.nextafter(x, 0), x * np.asarray(0.75, dtype)):
            want = asinh(real(x[:, 0])) - asinh(real(y[:, 0]))
            got = lorentz.dist(x, y)
            assert np.max(np.abs(real(got) - want) / ulp(want, EPS[dtype])) <= (1 if dtype == "float32" else 4)


def test_far_pairs_and_threads():
    """Rows that are done once more, beside rows that are not, in blocks: the same bits, and those of each row alone."""
    before = tersor.get_num_threads()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 19)) * np.exp(rng.uniform(0, 36, (3000, 1)))
    y = x + rng.standard_normal(x.shape)
    c = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    one = torch.tensor(x[7], requires_grad=True)
    g = torch.tensor(rng.standard_normal(3000))
    results = []
    try:
        for threads in (1, 2, 5):
            tersor.set_num_threads(threads)
            leaves = [torch.tensor(v, requires_grad=True) for v in (x, y)]
            d = lorentz.dist(*leaves, c)
            shared = lorentz.dist(one, leaves[1], c)
            ds = torch.autograd.grad([d, shared], [*leaves, c, one], [g, g])
            results.append([v.detach().numpy().tobytes() for v in (d, shared, *ds)])
    finally:
        tersor.set_num_threads(before)
    assert results[0] == results[1] == results[2]
    numbers = d.detach().numpy()
    assert np.isfinite(numbers).all()
    for i in range(0, 3000, 100):
        assert lorentz.dist(x[i], y[i], 1.3) == numbers[i]


@pytest.mark.parametrize("c", CURVATURES + FLAT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_midpoints(dtype, c):
    """Clusters around one point, two opposite ones, points of every radius: the vector sum, brought back."""
    k, rng = flat(real(c)), np.random.default_rng(0)
    x, y = spaces(dtype, 4, c, seed=3, largest=18)
    w = rng.uniform(0.1, 2, (len(x), 3)).astype(dtype)
    third = np.roll(y, 1, 0)
    groups = [
        (np.stack([x, y, x], 1), w),
        (np.stack([x, y, third], 1), w),
        (x[None], w[:, 0][None]),
        (x[:, None], w[:, :1]),
    ]
    for points, weights in groups:
        a, b = real(points), real(weights)[..., None]
        total, time = np.sum(b * a, -2), np.sum(b * tau(a, k), -2)
        want = total / sqrt(time**2 - k * dot(total, total))
        got = lorentz.midpoint(points, weights, c)
        # a sum is judged by what it adds
        size = np.sum(norm(b * a), -2) / sqrt(time**2 - k * dot(total, total))
        error = norm(real(got) - want) / np.maximum(ulp(size, EPS[dtype]), LEAST[dtype])
        assert np.max(error) <= (1 if dtype == "float32" else 16)


@pytest.mark.parametrize("c", CURVATURES + FLAT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_maps_at_the_origin(dtype, c):
    x, _ = spaces(dtype, 5, c)
    k = flat(real(c))

    def close(got, want, condition=1.0):
        error = norm(real(got) - want) / np.maximum(ulp(norm(want), EPS[dtype]), LEAST[dtype])
        assert np.max(error / condition) <= (1 if dtype == "float32" else 8)

    v = lorentz.logmap0(x, c)
    close(v, ratio(asinh, sqrt(k) * norm(real(x))) * real(x))
    # sinh has the condition r coth r
    reach = 1 if dtype == "float32" else 1 + sqrt(k) * norm(real(v))
    close(lorentz.expmap0(v, c), ratio(sinh, sqrt(k) * norm(real(v))) * real(v), reach)
    ball = lorentz.to_poincare(x, c)
    assert (norm(real(ball)) < 1 / sqrt(k)).all()
    inside = np.asarray(norm(real(x))[:, 0] * sqrt(k) < 100, bool)
    close(ball[inside], (real(x) / (1 + tau(real(x), k)))[inside])
    close(lorentz.from_poincare(ball, c), 2 * real(ball) / (1 - k * dot(real(ball), real(ball))))
    klein = lorentz.to_klein(x, c)
    assert (norm(real(klein)) < 1 / sqrt(k)).all()
    # the Klein ball ends at a radius of 18
    klein = klein[np.asarray(norm(real(x))[:, 0] * sqrt(k) < np.sinh(18.5), bool)]
    inside = inside[: len(klein)]
    close(klein[inside], (real(x) / tau(real(x), k))[: len(klein)][inside])
    close(lorentz.from_klein(klein, c), real(klein) / sqrt(1 - k * dot(real(klein), real(klein))))
    close(
        lorentz.klein_to_poincare(klein, c)[inside],
        (real(klein) / (1 + sqrt(1 - k * dot(real(klein), real(klein)))))[inside],
    )
    ball = ball[: len(klein)][inside]
    close(lorentz.poincare_to_klein(ball, c), 2 * real(ball) / (1 + k * dot(real(ball), real(ball))))


@pytest.mark.parametrize("c", [0.0, 1e-9, 0.3, 2.0])
def test_the_same_space_as_the_ball(c):
    rng = np.random.default_rng(0)
    v, u, w = rng.standard_normal((3, 20, 4)) * 0.4 / np.sqrt(max(c, 1))
    x, y = h.expmap0(v, c), h.expmap0(u, c)
    s, r = lorentz.from_poincare(x, c), lorentz.from_poincare(y, c)
    # a tangent of the ball at 0 is twice as long as its coordinates
    np.testing.assert_allclose(lorentz.expmap0(2 * v, c), s, rtol=1e-13)
    np.testing.assert_allclose(lorentz.logmap0(s, c), 2 * v, rtol=1e-12)
    np.testing.assert_allclose(lorentz.dist(s, r, c), h.dist(x, y, c), rtol=1e-13)
    np.testing.assert_allclose(lorentz.dist0(s, c), h.dist0(x, c), rtol=1e-13)
    np.testing.assert_allclose(lorentz.cdist(s, r, c), h.cdist(x, y, c), rtol=1e-12)
    for there, back in ((lorentz.to_poincare, lorentz.from_poincare), (lorentz.to_klein, lorentz.from_klein)):
        np.testing.assert_allclose(back(there(s, c), c), s, rtol=1e-12)
    np.testing.assert_allclose(lorentz.klein_to_poincare(lorentz.to_klein(s, c), c), x, rtol=1e-12)
    np.testing.assert_allclose(lorentz.poincare_to_klein(x, c), lorentz.to_klein(s, c), rtol=1e-13)
    weights = rng.uniform(0.1, 2, 20)
    m = lorentz.midpoint(s, weights, c)
    np.testing.assert_allclose(m, lorentz.from_poincare(h.weighted_midpoint(x, weights, c), c), rtol=1e-12, atol=1e-14)
    # maps at a point
    way = lorentz.logmap(s, r, c)
    np.testing.assert_allclose(lorentz.expmap(s, way, c), r, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(length(s, way, c), lorentz.dist(s, r, c), rtol=1e-12)
    np.testing.assert_allclose(
        lorentz.geodesic(0.3, s, r, c), lorentz.from_poincare(h.geodesic(0.3, x, y, c), c), rtol=1e-12, atol=1e-13
    )
    there = lorentz.parallel_transport(s, r, w, c)
    np.testing.assert_allclose(length(r, there, c), length(s, w, c), rtol=1e-12)
    np.testing.assert_allclose(lorentz.parallel_transport(r, s, there, c), w, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(
        lorentz.parallel_transport(s, r, way, c), -lorentz.logmap(r, s, c), rtol=1e-11, atol=1e-12
    )
    zero = np.zeros_like(s)
    np.testing.assert_allclose(
        lorentz.parallel_transport0(r, w, c), lorentz.parallel_transport(zero, r, w, c), rtol=1e-12
    )
    np.testing.assert_allclose(
        lorentz.parallel_transport0back(r, w, c), lorentz.parallel_transport(r, zero, w, c), rtol=1e-11, atol=1e-13
    )
    np.testing.assert_allclose(lorentz.expmap(zero, w, c), lorentz.expmap0(w, c), rtol=1e-13)
    np.testing.assert_allclose(lorentz.logmap(zero, r, c), lorentz.logmap0(r, c), rtol=1e-12)


def length(s, v, c):
    return np.sqrt((v * v).sum(-1) - c * (s * v).sum(-1) ** 2 / (1 + c * (s * s).sum(-1)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_maps_at_a_point_far_out(dtype):
    """Along one radius everything is known: s = sinh of the distance."""
    r = np.array([0.5, 3.0, 9.0, 12.0])[:, None]
    u = np.array([[1.0, 0.0]])
    x, y = (u * np.sinh(r)).astype(dtype), (u * np.sinh(r + 1.5)).astype(dtype)
    a, b = real(x), real(y)
    d = asinh(norm(b)) - asinh(norm(a))
    want = a / norm(a) * cosh(asinh(norm(a))) * d
    error = norm(real(lorentz.logmap(x, y)) - want) / norm(want)
    assert np.max(error) <= {"float32": 2e-7, "float64": 1e-13 * np.cosh(12.0)}[dtype]
    v = want.astype(float).astype(dtype)
    n = norm(real(v)) / sqrt(1 + dot(a, a))
    want = a / norm(a) * sinh(asinh(norm(a)) + n)
    error = norm(real(lorentz.expmap(x, v)) - want) / norm(want)
    assert np.max(error) <= {"float32": 2e-7, "float64": 1e-13 * np.cosh(12.0)}[dtype]


@pytest.mark.parametrize("c", [0.0, 0.8])
def test_gradcheck(c):
    torch.manual_seed(0)
    x, y, v = torch.randn(3, 5, 3, dtype=torch.float64).unbind()
    w = torch.rand(5, dtype=torch.float64) + 0.1
    k = torch.tensor(c, dtype=torch.float64, requires_grad=c > 0)
    m = torch.randn(2, 4, dtype=torch.float64)
    for t in (x, y, v, w, m):
        t.requires_grad_()
    for f in (lorentz.dist, lorentz.cdist, lorentz.logmap):
        assert torch.autograd.gradcheck(f, (x, y, k))
    for f in (lorentz.dist0, lorentz.expmap0, lorentz.logmap0, lorentz.to_poincare, lorentz.to_klein):
        assert torch.autograd.gradcheck(f, (x, k))
    inside = (x.detach() / 8).requires_grad_()
    for f in (lorentz.from_poincare, lorentz.from_klein, lorentz.klein_to_poincare, lorentz.poincare_to_klein):
        assert torch.autograd.gradcheck(f, (inside, k))
    for f in (lorentz.parallel_transport0, lorentz.parallel_transport0back, lorentz.expmap):
        assert torch.autograd.gradcheck(f, (x, v, k))
    assert torch.autograd.gradcheck(lorentz.parallel_transport, (x, y, v, k))
    assert torch.autograd.gradcheck(lambda x, y, k: lorentz.geodesic(0.3, x, y, k), (x, y, k))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lorentz.midpoint, (x, w, k))
        assert check(lorentz.dist, (x, y, k)) and check(lorentz.cdist, (x, y[:3], k))
        assert check(lambda x: lorentz.cdist(x[:2], x[2:], c), x)
    if c:
        assert torch.autograd.gradcheck(lambda x, m, k: lorentz.linear(x, m, None, k), (x, m, k))
        assert torch.autograd.gradcheck(lorentz.time, (x, k))
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for f in (lorentz.expmap0, lorentz.logmap0):
        assert torch.equal(torch.autograd.grad(f(zero, k).sum(), zero)[0], torch.ones_like(zero))
    assert torch.equal(torch.autograd.grad(lorentz.dist0(zero, k).sum(), zero)[0], torch.zeros_like(zero))


def test_geoopt_agrees():
    geoopt = pytest.importorskip("geoopt.manifolds.lorentz.math")
    torch.manual_seed(0)
    c, (s, r, v) = 0.7, torch.randn(3, 6, 4, dtype=torch.float64).unbind()
    k = torch.tensor(1 / c, dtype=torch.float64)

    def whole(s):
        return torch.cat((lorentz.time(s, c), s), -1)

    x, y = whole(s), whole(r)
    torch.testing.assert_close(lorentz.dist(s, r, c), geoopt.dist(x, y, k=k), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(lorentz.dist0(s, c), geoopt.dist0(x, k=k), rtol=1e-9, atol=1e-9)
    u = torch.cat(((s * v).sum(-1, keepdim=True) / lorentz.time(s, c), v), -1)
    torch.testing.assert_close(lorentz.expmap(s, v, c), geoopt.expmap(x, u, k=k)[..., 1:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(lorentz.logmap(s, r, c), geoopt.logmap(x, y, k=k)[..., 1:], rtol=1e-6, atol=1e-6)
    moved = geoopt.parallel_transport(x, y, u, k=k)[..., 1:]
    torch.testing.assert_close(lorentz.parallel_transport(s, r, v, c), moved, rtol=1e-6, atol=1e-6)
    # geoopt's is the unit ball at every curvature
    unit = lorentz.to_poincare(s, c) * c**0.5
    torch.testing.assert_close(unit, geoopt.lorentz_to_poincare(x, k), rtol=1e-9, atol=1e-9)


def test_linear_and_errors():
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((5, 3)), rng.standard_normal((2, 4)), rng.standard_normal(2)
    whole = np.concatenate([np.sqrt(1 / 0.5 + (x * x).sum(-1, keepdims=True)), x], -1)
    np.testing.assert_allclose(lorentz.linear(x, w, b, 0.5), whole @ w.T + b, rtol=1e-13)
    np.testing.assert_allclose(lorentz.linear(x, w[:, 1:], b, 0.0), x @ w[:, 1:].T + b, rtol=1e-13)
    with pytest.raises(ValueError, match="linear: weight"):
        lorentz.linear(x, w[:, :2])
    for f in (lorentz.dist0, lorentz.expmap0, lorentz.to_poincare, lorentz.from_klein):
        with pytest.raises(ValueError, match="curvature"):
            f(x, -1.0)
    with pytest.raises(TypeError, match="logmap: y"):
        lorentz.logmap(x, x.astype(np.float32))
    with pytest.raises(TypeError, match="float64"):
        lorentz.dist(x, x.astype(np.float32))


#: every function of rows, with arrays of its kinds
ROWS = {
    "add_time": lambda x, y, v, **k: lorentz.add_time(x, 0.7, **k),
    "dist": lambda x, y, v, **k: lorentz.dist(x, y, 0.7, **k),
    "dist2": lambda x, y, v, **k: lorentz.dist2(x, y, 0.7, **k),
    "dist0": lambda x, y, v, **k: lorentz.dist0(x, 0.7, **k),
    "inner": lambda x, y, v, **k: lorentz.inner(x, y, v, 0.7, **k),
    "norm": lambda x, y, v, **k: lorentz.norm(x, v, 0.7, **k),
    "egrad2rgrad": lambda x, y, v, **k: lorentz.egrad2rgrad(x, v, 0.7, **k),
    "expmap": lambda x, y, v, **k: lorentz.expmap(x, v, 0.7, **k),
    "expmap0": lambda x, y, v, **k: lorentz.expmap0(v, 0.7, **k),
    "logmap": lambda x, y, v, **k: lorentz.logmap(x, y, 0.7, **k),
    "logmap0": lambda x, y, v, **k: lorentz.logmap0(x, 0.7, **k),
    "geodesic": lambda x, y, v, **k: lorentz.geodesic(0.3, x, y, 0.7, **k),
    "gyro_add": lambda x, y, v, **k: lorentz.gyro_add(x, y, 0.7, **k),
    "parallel_transport": lambda x, y, v, **k: lorentz.parallel_transport(x, y, v, 0.7, **k),
    "parallel_transport0": lambda x, y, v, **k: lorentz.parallel_transport0(y, v, 0.7, **k),
    "parallel_transport0back": lambda x, y, v, **k: lorentz.parallel_transport0back(x, v, 0.7, **k),
    "time": lambda x, y, v, **k: lorentz.time(x, 0.7, **k),
    "to_poincare": lambda x, y, v, **k: lorentz.to_poincare(x, 0.7, **k),
    "to_klein": lambda x, y, v, **k: lorentz.to_klein(x, 0.7, **k),
    "from_poincare": lambda x, y, v, **k: lorentz.from_poincare(x / 9, 0.7, **k),
    "from_klein": lambda x, y, v, **k: lorentz.from_klein(x / 9, 0.7, **k),
    "poincare_to_klein": lambda x, y, v, **k: lorentz.poincare_to_klein(x / 9, 0.7, **k),
    "klein_to_poincare": lambda x, y, v, **k: lorentz.klein_to_poincare(x / 9, 0.7, **k),
    "busemann": lambda x, y, v, **k: lorentz.busemann(x, y, 0.7, **k),
    "half_aperture": lambda x, y, v, **k: lorentz.half_aperture(x, 0.7, **k),
    "exterior_angle": lambda x, y, v, **k: lorentz.exterior_angle(x, y, 0.7, **k),
    "entailment_loss": lambda x, y, v, **k: lorentz.entailment_loss(x, y, 0.7, **k),
    "linear": lambda x, y, v, **k: lorentz.linear(x, y.reshape(-1, 3)[:2], None, 0.7, **k),
    "mlr": lambda x, y, v, **k: lorentz.mlr(x, y.reshape(-1, 3)[:2], None, 0.7, **k),
    "fc": lambda x, y, v, **k: lorentz.fc(x, y.reshape(-1, 3)[:2], None, 0.7, **k),
}
#: of a batch of rows, whose axes are not free; of rows without a curvature
OTHERS = {"cdist", "frechet_mean", "frechet_variance", "drop_time"}
OTHERS |= {"check_points", "is_point", "midpoint", "segment_midpoint", "weighted_midpoint_bmm"}
#: how many columns a weight has for points of three coordinates
WEIGHTS = {"linear": 4, "mlr": 3, "fc": 3}
each_of_rows = pytest.mark.parametrize("name", ROWS)


def test_no_function_of_rows_is_left_out():
    assert set(lorentz.__all__) - set(ROWS) == OTHERS


@each_of_rows
@pytest.mark.parametrize("like", [np.asarray, torch.as_tensor])
def test_rows_along_any_axis(name, like):
    f, a = ROWS[name], [like(v) for v in np.random.default_rng(0).standard_normal((3, 2, 4, 3))]
    want = np.asarray(f(*a))
    reduced = want.ndim == 2
    for dim in (0, 1, -2, -3):
        moved = [like(np.ascontiguousarray(np.moveaxis(np.asarray(v), -1, dim))) for v in a]
        if name in WEIGHTS:
            moved[1] = a[1]
        got = np.asarray(f(*moved, dim=dim))
        np.testing.assert_allclose(got, want if reduced else np.moveaxis(want, -1, dim), rtol=1e-13)
        if reduced:
            np.testing.assert_array_equal(f(*moved, dim=dim, keepdim=True), np.expand_dims(got, dim))
    if reduced:
        np.testing.assert_array_equal(f(*a, keepdim=True), want[..., None])
    with pytest.raises(np.exceptions.AxisError):
        f(*a, dim=3)


@each_of_rows
@pytest.mark.parametrize("like", [np.asarray, torch.as_tensor])
def test_curvatures_that_are_none(name, like):
    """Negative ones, and one for each coordinate: refused by every function, a tensor as a number is."""
    import inspect

    f = getattr(lorentz, name)
    a = [like(v) for v in np.random.default_rng(0).uniform(0.01, 0.1, (3, 4, 3))]
    given = {k: a[i] for i, k in enumerate(k for k in inspect.signature(f).parameters if k in "xyuvp")}
    given |= {"t": 0.3} if name == "geodesic" else {}
    if name in WEIGHTS:
        given["weight"] = like(np.ones((2, WEIGHTS[name])))
    f(**given, c=0.5 if name in ("mlr", "fc") else like(np.full((4, 1), 0.5)))  # hyperplanes have one curvature
    for bad in (-1.0, like(np.array(-1.0)), like(np.full((4, 1), -0.5)), float("nan")):
        with pytest.raises(ValueError, match=rf"^{name}: .*curvature"):
            f(**given, c=bad)
    with pytest.raises(ValueError, match=rf"^{name}: c must be a number or end in an axis of 1, got shape \(3,\)"):
        f(**given, c=like(np.array([0.1, 0.5, 4.0])))
    if name == "geodesic":
        with pytest.raises(ValueError, match="geodesic: t must be a number or end in an axis of 1"):
            f(**{**given, "t": like(np.array([0.0, 0.5, 1.0]))})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_lengths_beyond_the_type(dtype):
    """Cut where that is asked, so that what is made of the points is a number; else infinite, as IEEE 754 has it."""
    for c in (0.0, 0.5, 1.0, 4.0):
        u = torch.tensor([[3.0, 4.0], [0.3, -0.1]], dtype=getattr(torch, dtype))
        v = u * torch.tensor([[3000.0], [1.0]], dtype=u.dtype)
        x = lorentz.expmap0(v, c, clip=True)
        y = lorentz.expmap(x, -v, c, clip=True)
        z = lorentz.expmap(x, v, c, clip=True)
        for p in (x, y, z):
            assert p.isfinite().all() and lorentz.dist0(p, c).isfinite().all()
            assert c == 0 or lorentz.time(p, c).isfinite().all()
        assert torch.equal(x[1], lorentz.expmap0(v, c)[1]) and torch.equal(y[1], lorentz.expmap(x, -v, c)[1])
        if c:
            assert not lorentz.expmap0(v, c)[0].isfinite().all()
            edge = {"float16": 10, "float32": 100, "float64": 150}[dtype]
            torch.testing.assert_close(
                x[0].double().norm(), torch.tensor(2.0**edge, dtype=torch.float64), rtol=2e-3, atol=0
            )
        w = v.clone().requires_grad_()
        lorentz.logmap0(lorentz.expmap0(w, c, clip=True), c).sum().backward()
        assert w.grad.isfinite().all()


@pytest.mark.parametrize("c", [0.3, 1.0])
def test_all_pairs_and_midpoints_of_float32_far_out(c):
    """As far as the type reaches: random directions, right angles, along one ray, the origin."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal((40, 5))
    r = np.r_[np.linspace(0.0, 85, 39), 18.0][:, None]
    x = (u / np.linalg.norm(u, axis=-1, keepdims=True) * np.sinh(r) / np.sqrt(c)).astype(np.float32)
    x[7] = x[-1] * np.float32(1.0001)
    want = true_dist(real(x)[:, None], real(x)[None], real(c))
    got = lorentz.cdist(x, x, c)
    assert np.max(np.abs(real(got) - want) / np.maximum(ulp(want, EPS["float32"]), LEAST["float32"])) <= 1
    np.testing.assert_array_equal(got, lorentz.dist(x[:, None], x[None], c))
    leaves = [torch.tensor(x, requires_grad=True) for _ in range(2)]
    g = torch.tensor(rng.standard_normal((40, 40)), dtype=torch.float32)
    (a,) = torch.autograd.grad(lorentz.cdist(leaves[0], torch.tensor(x), c), leaves[0], g)
    (b,) = torch.autograd.grad(lorentz.dist(leaves[1][:, None], torch.tensor(x)[None], c), leaves[1], g)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    s = x.reshape(8, 5, 5)
    w = rng.uniform(0.1, 2, (8, 5)).astype(np.float32)
    p, k = real(s), real(w)[..., None]
    total, time = np.sum(k * p, -2), np.sum(k * tau(p, real(c)), -2)
    root = sqrt(time**2 - real(c) * dot(total, total))
    error = norm(real(lorentz.midpoint(s, w, c)) - total / root) / ulp(np.sum(norm(k * p), -2) / root, EPS["float32"])
    assert np.max(error) <= 1


@pytest.mark.parametrize("c", [0.0, 0.5, 2.0])
def test_hessians_of_squares(c):
    """At equal points twice the metric, in either model, by what a step to the side has."""
    x = torch.tensor([0.3, 0.1, -0.2], dtype=torch.float64)
    for space in (lorentz, h):
        square = lambda a, f=space.dist2: f(a, x, c)  # noqa: E731
        for at, close in ((x, 1e-10), (x + 1e-5, 1e-3), (x + 0.2, None)):
            hessian = torch.autograd.functional.hessian(square, at.clone())
            if close is None:  # where both are smooth
                want = torch.autograd.functional.hessian(lambda a, f=space.dist: f(a, x, c) ** 2, at.clone())
                torch.testing.assert_close(hessian, want, rtol=1e-9, atol=1e-10)
            else:
                eye = torch.eye(3, dtype=torch.float64)
                metric = torch.stack([space.inner(x, e, eye, c) for e in eye])
                torch.testing.assert_close(hessian, 2 * metric, rtol=close, atol=close)
        kernel = torch.autograd.functional.hessian(lambda a, f=square: torch.exp(-f(a)), x.clone())
        torch.testing.assert_close(kernel, -2 * metric, rtol=1e-9, atol=1e-9)


def test_squares_are_squares():
    for dtype in ("float32", "float64"):
        x, y = spaces(dtype, 3, 0.7, largest=15)
        np.testing.assert_allclose(lorentz.dist2(x, y, 0.7), lorentz.dist(x, y, 0.7) ** 2, rtol=4 * EPS[dtype])
        assert (lorentz.dist2(x, x, 0.7) == 0).all()
        a, b = (lorentz.to_poincare(v, 0.7) for v in (x, y))
        np.testing.assert_allclose(h.dist2(a, b, 0.7), h.dist(a, b, 0.7) ** 2, rtol=16 * EPS[dtype], atol=1e-300)
        np.testing.assert_array_equal(h.dist2(a.T, b.T, 0.7, dim=0, keepdim=True)[0], h.dist2(a, b, 0.7))


def test_the_metric_and_addition():
    """Products of whole vectors, with their times; and what moves along with the origin."""
    rng, c = np.random.default_rng(0), 0.6
    x, u, v = rng.standard_normal((3, 7, 4)) * 2
    t = lorentz.time(x, c)
    whole = (u * v).sum(-1) - ((x * u).sum(-1) / t[:, 0]) * ((x * v).sum(-1) / t[:, 0])
    np.testing.assert_allclose(lorentz.inner(x, u, v, c), whole, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(lorentz.norm(x, u, c) ** 2, lorentz.inner(x, u, u, c), rtol=1e-12)
    g = rng.standard_normal((7, 4))
    # the inner product with a vector is the derivative along it
    np.testing.assert_allclose(lorentz.inner(x, lorentz.egrad2rgrad(x, g, c), v, c), (g * v).sum(-1), rtol=1e-10)
    a, b = lorentz.to_poincare(x, c), lorentz.to_poincare(u, c)
    np.testing.assert_allclose(lorentz.gyro_add(x, u, c), lorentz.from_poincare(h.mobius_add(a, b, c), c), rtol=1e-8)
    np.testing.assert_allclose(lorentz.gyro_add(x, u, 0.0), x + u)
    np.testing.assert_allclose(lorentz.gyro_add(-x, lorentz.gyro_add(x, u, c), c), u, rtol=1e-9, atol=1e-10)


def test_outside_the_ball_is_nowhere():
    x = np.array([[1.2, 0.0], [0.3, 0.4]])
    for f in (
        lorentz.from_poincare,
        lorentz.from_klein,
        lorentz.poincare_to_klein,
        lorentz.klein_to_poincare,
        h.inv_sproj,
    ):
        y = f(x)
        assert np.isnan(y[0]).all() and np.isfinite(y[1]).all(), f
    assert np.isnan(h.dist2(x, x[::-1])).all()
    assert np.isnan(h.frechet_mean(x)).all() and np.isnan(h.frechet_variance(x))


@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("size", [1e155, 1e200, 1e300])
def test_squares_beyond_the_type(size, like):
    c = 2.0
    x = np.array([[size, 0.0], [-3 * size, 4 * size], [0.5, -0.25]])
    n = np.array([size, 5 * size, 0.3125**0.5])
    time = np.array([size, 5 * size, (0.5 + 0.3125) ** 0.5])
    np.testing.assert_allclose(np.asarray(lorentz.time(like(x), c))[:, 0], time, rtol=1e-15)
    np.testing.assert_allclose(np.asarray(lorentz.add_time(like(x), c))[:, 0], time, rtol=1e-15)
    far = np.arcsinh(np.sqrt(c) * n) / np.sqrt(c)
    np.testing.assert_allclose(np.asarray(lorentz.dist0(like(x), c)), far, rtol=1e-15)
    np.testing.assert_allclose(np.asarray(lorentz.logmap0(like(x), c)), x * (far / n)[:, None], rtol=1e-15)
    for f in (lorentz.to_poincare, lorentz.to_klein):
        y = np.asarray(f(like(x), c))
        np.testing.assert_allclose(y[:2], (x / n[:, None])[:2] / np.sqrt(c), rtol=1e-15)
        assert np.isfinite(h.dist0(y, c)).all()  # inside
    # what has no number says so
    with np.errstate(all="ignore"):
        assert np.isnan(np.asarray(lorentz.midpoint(like(x)))).all()
        assert np.isnan(np.asarray(lorentz.weighted_midpoint_bmm(like(x), like(np.ones((1, 3)))))).all()


def test_gradients_where_squares_are_beyond_the_type():
    x = torch.tensor([[1e200, 0.0], [0.3, 0.4]], dtype=torch.float64, requires_grad=True)
    c = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for f in (lorentz.time, lorentz.dist0, lorentz.logmap0, lorentz.to_poincare):
        for g in torch.autograd.grad(f(x, c).sum(), (x, c)):
            assert g.isfinite().all(), f


def test_a_trace_of_all_pairs_is_short():
    """Which one call for each row would not be."""
    x, y = (torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (20, 30))
    seen = []

    def backend(graph, _):
        seen.append(sum("dist" in str(n.target) for n in graph.graph.nodes))
        return graph

    whole = torch.compile(lambda x, y: lorentz.cdist(x, y, 0.7), fullgraph=True, backend=backend)
    assert torch.equal(whole(x, y), lorentz.cdist(x, y, 0.7))
    assert torch.equal(whole(x, y[:0]), lorentz.cdist(x, y[:0], 0.7))
    assert 0 < seen[0] <= 16


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
def test_truth_of_conversions_and_of_the_metric(dtype, c):
    rng = np.random.default_rng(0)
    a, b, v, w = rng.standard_normal((4, 40, 3))
    r = np.repeat([1e-3, 0.3, 1, 3, 6], 8)[:, None] / np.sqrt(c)
    x, y = (lorentz.expmap0(u / np.linalg.norm(u, axis=-1, keepdims=True) * r, c).astype(dtype) for u in (a, b))
    v, w = v.astype(dtype), w.astype(dtype)
    s, q, k, eps = real(x), real(y), real(c), EPS[dtype]
    t, tq = sqrt(1 + k * dot(s, s)), sqrt(1 + k * dot(q, q))
    ball, klein = lorentz.to_poincare(x, c), lorentz.to_klein(x, c)
    p, n = real(ball), real(klein)
    back = {"poincare": 1 - k * dot(p, p), "klein": 1 - k * dot(n, n)}
    carried = {name: real(u) - s * (k * dot(s, real(u)) / (t * (1 + t))) for name, u in (("v", v), ("w", w))}
    length = sqrt(dot(carried["v"], carried["v"]))
    # what is asked, the truth, and by what a digit of float64 grows on the way there
    cases = {
        "to_poincare": (ball, s / (1 + t), 1),
        "to_klein": (klein, s / t, 1),
        "from_poincare": (lorentz.from_poincare(ball, c), 2 * p / back["poincare"], 1),
        "from_klein": (lorentz.from_klein(klein, c), n / sqrt(back["klein"]), 1),
        "poincare_to_klein": (lorentz.poincare_to_klein(ball, c), 2 * p / (1 + k * dot(p, p)), 1),
        "klein_to_poincare": (lorentz.klein_to_poincare(klein, c), n / (1 + sqrt(back["klein"])), 1),
        "gyro_add": (lorentz.gyro_add(x, y, c), q + s * (tq + k * dot(s, q) / (1 + t)), t * tq),
        "egrad2rgrad": (lorentz.egrad2rgrad(x, v, c), real(v) + k * dot(s, real(v)) * s, 1),
        "norm": (lorentz.norm(x, v, c, keepdim=True), length, t),
    }
    for name, (got, want, grown) in cases.items():
        error = norm(real(got) - want) / norm(want)
        bound = eps + 8 * EPS["float64"] * np.asarray(grown, dtype=float)
        assert (error.astype(float) <= bound).all(), name
    inner = dot(carried["v"], carried["w"])
    scale = length * sqrt(dot(carried["w"], carried["w"]))
    error = np.abs(real(lorentz.inner(x, v, w, c, keepdim=True)) - inner) / scale
    assert (error.astype(float) <= eps + 8 * EPS["float64"] * np.asarray(t, dtype=float)).all()
