"""Horospherical and tangent principal components. The one rule: what is projected has the Busemann values, the tangents and the
spread that the textbook gives it, and nothing nearby is better."""

import gmpy2
import numpy as np
import pytest
import tersor.hyperbolic as h
import torch
from exact import dot, norm, real, sqrt
from tersor import lorentz
from tersor.testing import EPS

log, cosh = (np.frompyfunc(getattr(gmpy2, k), 1, 1) for k in ("log", "acosh"))
curved = pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
likes = pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def cloud(n=40, d=4, radius=2.0, c=1.0, seed=0):
    """Points around one that is not the origin, wider along the first axes."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((n, d)) * np.linspace(1, 0.2, d) * radius / 2
    return h.mobius_add(h.expmap0(np.full(d, 0.2), c), h.expmap0(v / np.sqrt(c), c), c)


def directions(k, d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0].T


def whole(x, c):
    """Time over the radius of curvature, and space over it, of points of the ball, in 320 bits."""
    x = sqrt(real(c)) * real(x)
    a = 1 - dot(x, x)
    return (1 + dot(x, x)) / a, 2 * x / a


@curved
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_horospheres_meet_in_the_projection(c, k, dtype):
    p = directions(k, 4).astype(dtype)
    x = np.concatenate([h.expmap0(directions(4, 4, 1) * r / np.sqrt(c), c) for r in (1e-3, 0.3, 1.0, 3.0, -2.0)])
    x = x.astype(dtype)
    y = h.horo_project(x, np.zeros(4, dtype), p, c)
    assert y.shape == (len(x), k) and y.dtype == x.dtype
    t, s = whole(x, c)
    u = s @ real(p).T
    # the span of the ideal points holds what is known of x; what is across goes to the side of the origin
    gram = 1 - real(p) @ real(p).T  # products of (1, p), turned: -1 + <p, q>
    known = t - u
    if k == 1:
        a = known[:, 0]
        want = ((1 / a - a) / 2)[:, None]
    else:
        # in coordinates of the ball of k dimensions the ideal points are the axes, as p are orthonormal but for rounding
        total, square = known.sum(-1), (known * known).sum(-1)
        tau = (square + 1) / (total + sqrt(np.maximum(total**2 - (k - 1) * (square + 1), real(0))))
        want = tau[:, None] - known
    assert abs(gram.astype(float) - (1 - np.eye(k))).max() < 10 * EPS[dtype]
    want = want / (1 + sqrt(1 + dot(want, want))) / sqrt(real(c))
    # far out a digit of p, or of x, is a distance
    bound = (200 if dtype == "float64" else 20) * EPS[dtype] * t[:, 0].astype(float)
    assert (norm(real(y) - want)[:, 0].astype(float) * np.sqrt(c) <= bound).all()


@curved
def test_what_a_projection_keeps(c):
    x, p = cloud(c=c), directions(2, 4)
    mean = h.frechet_mean(x, None, c)
    y = h.horo_project(x, mean, p, c)
    moved = h.mobius_add(-mean, x, c)
    for i in range(2):
        np.testing.assert_allclose(h.busemann(y, np.eye(2)[i], c), h.busemann(moved, p[i], c), rtol=1e-9, atol=1e-11)
    # on the side of the origin: no point of the same values is nearer
    s = lorentz.from_poincare(y, c)
    assert (np.sqrt(1 + c * (s**2).sum(-1)) - np.sqrt(c) * s.sum(-1) >= -1e-9).all()
    # geodesics to an ideal point keep distances
    way = h.expmap0(np.linspace(-2, 2, 5)[:, None] * p[:1] / np.sqrt(c), c)
    np.testing.assert_allclose(
        h.cdist(*[h.horo_project(way, 0 * mean, p, c)] * 2, c), h.cdist(way, way, c), rtol=1e-9, atol=1e-12
    )
    # distances do not grow along one component
    one = h.horo_project(x, mean, p[:1], c)
    assert (h.cdist(one, one, c) <= h.cdist(x, x, c) * (1 + 1e-9)).all()
    tangents = h.logmap0(moved, c) @ p.T
    np.testing.assert_allclose(h.logmap0(h.tangent_project(x, mean, p, c), c), tangents, rtol=1e-9, atol=1e-12)


def true_spread(x, mean, p, c):
    """The mean squared distance of one component's projections is twice the variance of its Busemann values."""
    b = h.busemann(h.mobius_add(-mean, x, c), p, c)
    return 2 * b.var(-1)


@curved
def test_the_first_component_is_the_best_of_a_circle(c):
    x = cloud(50, 2, 2.5, c)
    mean, rows, values = h.horo_pca(x, 2, c)
    np.testing.assert_allclose(mean, h.frechet_mean(x, None, c), rtol=1e-12)
    a = np.linspace(0, 2 * np.pi, 3601)
    best = max(true_spread(x, mean, np.stack([np.cos(a), np.sin(a)], -1)[:, None], c))
    np.testing.assert_allclose(values[0], true_spread(x, mean, rows[0], c), rtol=1e-9)
    assert best * (1 - 1e-9) <= values[0] <= best * 1.01  # peaks are sharp, the circle is coarse


@curved
def test_no_direction_nearby_spreads_more(c):
    x = cloud(60, 5, 2.0, c)
    mean, rows, values = h.horo_pca(x, 3, c)
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-13)
    rng = np.random.default_rng(0)

    def spread(p):  # arcosh of products on the hyperboloid, pair by pair
        s = lorentz.from_poincare(h.horo_project(x, mean, p, c), c)
        t = np.sqrt(1 / c + (s**2).sum(-1))
        return (np.arccosh(np.maximum(c * (np.outer(t, t) - s @ s.T), 1)) ** 2).mean() / c

    for k in (1, 2, 3):
        np.testing.assert_allclose(values[k - 1], spread(rows[:k]), rtol=1e-9)
        for size in (1e-3, 1e-2, 1e-1):
            near = rows[k - 1] + size * rng.standard_normal(5)
            near = near - rows[: k - 1].T @ (rows[: k - 1] @ near)
            other = np.concatenate([rows[: k - 1], near[None] / np.linalg.norm(near)])
            assert spread(other) <= values[k - 1] * (1 + 1e-9)
    # the axes of tangents, in either direction, spread less
    axes = h.tangent_pca(x, 1, c)[1]
    assert max(true_spread(x, mean, a, c) for a in (*axes, *-axes)) < values[0]


@likes
def test_flat_space_has_its_principal_components(like):
    x = np.random.default_rng(0).standard_normal((30, 4)) * [2, 1, 0.5, 0.1]
    _, values, axes = np.linalg.svd(x - x.mean(0))
    axes = axes * np.sign(np.take_along_axis(axes, abs(axes).argmax(-1)[:, None], -1))
    for f in (h.tangent_pca, h.horo_pca):
        mean, rows, spread = (np.asarray(a) for a in f(like(x), 3, 0.0))
        np.testing.assert_allclose(mean, x.mean(0), atol=1e-12)
        np.testing.assert_allclose(rows * np.sign((rows * axes[:3]).sum(-1))[:, None], axes[:3], atol=1e-7)
        per = 4 * values[:3] ** 2 / 30  # distances are twice those of coordinates
        np.testing.assert_allclose(spread, per if f is h.tangent_pca else 2 * np.cumsum(per), rtol=1e-10)
    np.testing.assert_allclose(h.horo_project(x, mean, rows, 0.0), (x - mean) @ rows.T, atol=1e-12)


@likes
@curved
def test_tangent_components_of_a_geodesic(like, c):
    line = np.array([0.6, 0.0, 0.8])
    x = h.mobius_add(h.expmap0(np.array([0.1, 0.4, 0.0]), c), h.expmap0(np.linspace(-1, 1.2, 9)[:, None] * line, c), c)
    mean, rows, values = (np.asarray(a) for a in h.tangent_pca(like(x), 2, c))
    assert values[1] <= 1e-14 * values[0]
    np.testing.assert_allclose(values[0], h.frechet_variance(x, None, c), rtol=1e-10)
    y = h.tangent_project(x, mean, rows[:1], c)
    np.testing.assert_allclose(h.cdist(y, y, c), h.cdist(x, x, c), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("f", [h.tangent_pca, h.horo_pca], ids=["tangent", "horo"])
def test_libraries_and_types(f):
    x = cloud()
    want = f(x, 2, 0.7)
    for got, a in zip(f(torch.from_numpy(x).requires_grad_(), 2, torch.tensor(0.7)), want, strict=True):
        assert got.dtype == torch.float64 and not got.requires_grad
        np.testing.assert_allclose(got.numpy(), a, rtol=1e-5, atol=1e-6)
    for got, a in zip(f(x.astype(np.float32), 2, 0.7), want, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, a, rtol=1e-4, atol=1e-5)
    for a, b in zip(f(x[::-1].copy()[::-1], 2, 0.7), want, strict=True):  # strides
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("f", [h.tangent_pca, h.horo_pca], ids=["tangent", "horo"])
@likes
def test_few_points_and_bad_ones(f, like):
    one = np.array([[0.3, 0.1, 0.0]])
    for x, k in ((one, 3), (np.repeat(one, 4, 0), 2), (np.zeros((3, 3)), 1)):
        mean, rows, values = (np.asarray(a) for a in f(like(x), k))
        np.testing.assert_allclose(mean, x[0], atol=1e-14)
        np.testing.assert_allclose(rows @ rows.T, np.eye(k), atol=1e-14)
        np.testing.assert_allclose(values, 0, atol=1e-25)
    for bad in (np.nan, 2.0, np.inf):
        with pytest.raises(ValueError, match=f"{f.__name__}: x"):
            f(like(np.array([[0.1, 0.0], [bad, 0.0]])), 1)
    with pytest.raises(ValueError, match=f"{f.__name__}: x must be"):
        f(like(np.zeros((0, 2))), 1)
    with pytest.raises(ValueError, match=f"{f.__name__}: x must be"):
        f(like(np.zeros(2)), 1)
    for k in (0, 4, -1):
        with pytest.raises(ValueError, match=f"{f.__name__}: k must be"):
            f(like(one), k)
    with pytest.raises(TypeError, match=f"{f.__name__}: k"):
        f(like(one), 1.5)
    with pytest.raises(ValueError, match=f"{f.__name__}: c"):
        f(like(one), 1, like(np.ones((1, 1))))
    with pytest.raises(ValueError, match=f"{f.__name__}: curvature"):
        f(like(one), 1, -1.0)


@likes
def test_errors_of_projections(like):
    x, m, p = (like(a) for a in (np.zeros((2, 3)), np.zeros(3), np.eye(3)[:2]))
    for f in (h.tangent_project, h.horo_project):
        for args, name in (((x, m[:2], p), "mean"), ((x, m, p[:, :2]), "components"), ((x, m, p[0]), "components")):
            with pytest.raises(ValueError, match=f"{f.__name__}: {name} must be"):
                f(*args)
        assert f(x[:0], m, p).shape == (0, 2)
        assert np.isnan(np.asarray(f(like(np.full((1, 3), 0.9)), m, p))).all()  # no point of the ball
    with pytest.raises(ValueError, match="horo_pca: tol and max_iter"):
        h.horo_pca(x, 1, tol=-1.0)
    with pytest.raises(ValueError, match="horo_pca: tol and max_iter"):
        h.horo_pca(x, 1, tol=float("nan"))


@pytest.mark.parametrize("f", [h.tangent_project, h.horo_project], ids=["tangent", "horo"])
def test_gradients(f):
    x, m, p = (torch.from_numpy(a).requires_grad_() for a in (cloud(4, 3), np.full(3, 0.1), directions(2, 3)))
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(f, (x, m, p, c))
    assert torch.autograd.gradgradcheck(f, (x, m, p, c))
    whole_graph = torch.compile(lambda x: f(x, m, p, 0.7), fullgraph=True)
    torch.testing.assert_close(whole_graph(x), f(x, m, p, 0.7))
    origin = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(f(origin, 0 * m.detach(), p.detach()).sum(), origin)
    torch.testing.assert_close(g[0], p.detach().sum(0))


def test_points_at_the_edge():
    x = h.expmap0(np.random.default_rng(0).standard_normal((20, 4)) * 30)
    mean, rows, values = h.horo_pca(x, 2)
    assert np.isfinite(values).all() and np.isfinite(mean).all()
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-12)
    assert np.isfinite(h.dist0(h.horo_project(x, mean, rows))).all()


@pytest.mark.parametrize("find", [h.tangent_pca, h.horo_pca])
@pytest.mark.parametrize("unit", [2.0**-400, 2.0**-500, 2.0**400])
def test_any_unit(find, unit):
    """Curvatures of 1e240 and of 1e-240: lengths times a power of two, the same points."""
    x = cloud(n=12, d=3)
    mean, rows, values = find(x, 2)
    far = find(x * unit, 2, 1 / unit / unit)
    np.testing.assert_allclose(far[0] / unit, mean, rtol=1e-12)
    np.testing.assert_allclose(far[1], rows, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(far[2] / unit / unit, values, rtol=1e-10)
