"""Busemann functions, entailment cones and δ. The one rule: truth is the textbook in 320 bits on the rounded points; the ball
and the hyperboloid are one space."""

import gmpy2
import numpy as np
import pytest
import tersor.hyperbolic as h
import tersor.lorentz as lorentz
import torch
from exact import dot, norm, real, sqrt
from tersor.testing import EPS

log, asin, acos = (np.frompyfunc(getattr(gmpy2, k), 1, 1) for k in ("log", "asin", "acos"))
#: up to which radius angles of points in a type mean something
RADII = {"float32": (1e-3, 0.1, 1, 3, 6, 10, 15), "float64": (1e-3, 0.1, 1, 3, 6, 10)}
types = pytest.mark.parametrize("dtype", RADII)
curved = pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
MODELS = {"ball": h, "lorentz": lorentz}
models = pytest.mark.parametrize("model", MODELS)


def pairs(dtype, c, model, d=3):
    """Points of every radius, and others: anywhere, near, behind, before and straight behind."""
    rng = np.random.default_rng(0)
    r = np.repeat(RADII[dtype], 5)[:, None]
    u, w = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in rng.standard_normal((2, len(r), d)))
    turn = u + 1e-3 * w
    s = np.select(
        [np.arange(len(r))[:, None] % 5 == i for i in range(5)],
        [w * r, u * r + 0.05 * np.minimum(r, 1) * w, turn * r * 1.2, turn * r * 0.8, u * (r + 0.5)],
    )
    x, y = (lorentz.expmap0(v / np.sqrt(c), c) for v in (u * r, s))
    if model == "ball":
        x, y = lorentz.to_poincare(x, c), lorentz.to_poincare(y, c)
    return x.astype(dtype), y.astype(dtype), w.astype(dtype)


def whole(x, c, model):
    """Time over the radius of curvature, and space over it, in 320 bits."""
    x = sqrt(real(c)) * real(x)
    if model == "lorentz":
        return sqrt(1 + dot(x, x)), x
    a = 1 - dot(x, x)
    return (1 + dot(x, x)) / a, 2 * x / a


@types
@curved
@models
def test_busemann(dtype, c, model):
    x, y, p = pairs(dtype, c, model)
    for ideal in (p, -x / np.linalg.norm(x, axis=-1, keepdims=True), x):  # at random, behind the origin, straight ahead
        t, s = whole(x, c, model)
        q = real(ideal) / norm(real(ideal))
        want = log(t - dot(s, q))[:, 0] / sqrt(real(c))
        got = MODELS[model].busemann(x, ideal.astype(dtype), c)
        # a direction that a type has is off by its rounding, which far out is a distance
        size = np.maximum(np.abs(want.astype(float)), 1.0)
        bound = 2 if dtype == "float32" else 40
        assert np.max(np.abs(real(got) - want).astype(float) / size) <= bound * EPS[dtype], ideal is x
    assert (MODELS[model].busemann(0 * x, p, c) == 0).all()
    # 1-Lipschitz, and as fast as that along the way to p
    near = MODELS[model].busemann(x, p, c) - MODELS[model].busemann(y, p, c)
    assert (np.abs(near) <= MODELS[model].dist(x, y, c) * (1 + 1e-5) + 1e-5).all()


@curved
def test_busemann_next_to_an_ideal_point(c):
    """As far out as float64 has points, straight before p or beside it: value and gradients keep their digits."""
    rng = np.random.default_rng(2)
    gaps, turns = (1e-6, 1e-9, 1e-11, 1e-13, 1e-14, 1e-15), (0.0, 1e-16, 1e-14, 1e-12, 1e-8)
    gap, turn = (v.reshape(-1, 1) for v in np.meshgrid(gaps, turns))
    for d, long in ((2, 1.0), (19, 1e-3), (40, 7.0)):
        p, q = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in rng.standard_normal((2, len(gap), d)))
        x = p + turn * q
        x *= (1 - gap / 2) / np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(c)
        p *= long
        kept = np.array([bool(h.is_point(row, c)) for row in x])
        x, p = x[kept], p[kept]
        assert len(x) > 20
        k, px, pp = sqrt(real(c)), real(x), real(p)
        q = pp / norm(pp)
        way, alpha = q - k * px, 1 - real(c) * dot(px, px)
        v = dot(way, way)
        want = log(v / alpha)[:, 0] / k
        at = [torch.tensor(a, requires_grad=True) for a in (x, p, np.full((len(x), 1), c))]
        got = h.busemann(*at)
        assert (abs(real(got.detach().numpy()) - want) <= 4 * EPS["float64"] * abs(want)).all()
        dx, dp, dc = (g.numpy() for g in torch.autograd.grad(got.sum(), at))
        t, xx, c_ = dot(px, q), dot(px, px), real(c)
        wants = (
            (dx, 2 * (k * px / alpha - way / v)),
            (dp, -2 / (v * norm(pp)) * (px - t * q)),
            (dc, ((xx - t / k) / v + xx / alpha) / k - want[:, None] / (2 * c_)),
        )
        for g, w in wants:
            assert (norm(real(g) - w) <= 64 * EPS["float64"] * norm(w)).all()


@types
@curved
@models
def test_cones(dtype, c, model):
    x, y, _ = pairs(dtype, c, model)
    space, k = MODELS[model], 0.1
    t, s = whole(x, c, model)
    lean = 2 * k / norm(s)[:, 0]
    want = np.array([asin(v) if v < 1 else asin(gmpy2.mpfr(1)) for v in lean])
    got = space.half_aperture(x, c, k)
    assert (
        np.max(np.abs(real(got) - want).astype(float) / want.astype(float))
        <= (2 if dtype == "float32" else 40) * EPS[dtype]
    )
    # the tangent of the geodesic, and that of the ray, by whole vectors
    b, r = whole(y, c, model)
    cosh = t * b - dot(s, r)
    n = norm(s)
    way = dot(r - cosh * s, s) / n - (b - cosh * t) * 0
    along = (way / t)[:, 0]  # the tangent of a ray is longer in space than it is by t
    length = sqrt(cosh**2 - 1)[:, 0]
    want = np.array([acos(max(min(v, gmpy2.mpfr(1)), gmpy2.mpfr(-1))) for v in along / length])
    got = space.exterior_angle(x, y, c)
    error = np.abs(real(got) - want).astype(float)
    assert np.max(error) <= (4 * EPS["float32"] if dtype == "float32" else 1e-9)
    gap = np.maximum(got - space.half_aperture(x, c, k), 0)
    np.testing.assert_allclose(space.entailment_loss(x, y, c, k), gap, rtol=1e-5, atol=1e-7)
    # straight behind, as far out as the type can say so
    assert (space.entailment_loss(x[4:25:5], y[4:25:5], c) == 0).all()


@curved
def test_one_space(c):
    rng = np.random.default_rng(0)
    x, y, p = rng.standard_normal((3, 9, 4))
    a, b = lorentz.to_poincare(x, c), lorentz.to_poincare(y, c)
    for name, one, other in (
        ("busemann", (x, p), (a, p)),
        ("half_aperture", (x,), (a,)),
        ("exterior_angle", (x, y), (a, b)),
        ("entailment_loss", (x, y), (a, b)),
    ):
        np.testing.assert_allclose(getattr(lorentz, name)(*one, c), getattr(h, name)(*other, c), rtol=1e-10, atol=1e-12)


@models
def test_gradients_and_limits(model):
    space = MODELS[model]
    g = torch.Generator().manual_seed(0)
    x, y, p = (0.25 * torch.randn(5, 3, dtype=torch.float64, generator=g) for _ in range(3))
    leaves = [v.requires_grad_() for v in (x, y, p)]
    c = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    for f, a in (
        (space.busemann, (x, p, c)),
        (lambda x, c: space.half_aperture(x, c, 0.02), (x, c)),
        (space.exterior_angle, (x, y, c)),
        (lambda x, y, c: space.entailment_loss(x, y, c, 0.02), (x, y, c)),
    ):
        assert torch.autograd.gradcheck(f, a) and torch.autograd.gradgradcheck(f, a)
    x, y, p = (v.detach() for v in leaves)
    zero = torch.zeros_like(x, requires_grad=True)
    unit = 2.0 if model == "ball" else 1.0
    (d,) = torch.autograd.grad(space.busemann(zero, p, 0.8).sum(), zero)
    torch.testing.assert_close(d, -unit * p / p.norm(dim=-1, keepdim=True))
    for scale in (1e-300, 1e-180, 1e180, 1e300):
        torch.testing.assert_close(space.busemann(x, p * scale, 0.8), space.busemann(x, p, 0.8))
    flat = -unit * (p / p.norm(dim=-1, keepdim=True) * x).sum(-1)
    torch.testing.assert_close(space.busemann(x, p, 0.0), flat)
    torch.testing.assert_close(space.busemann(x, p, 1e-12), flat, rtol=1e-5, atol=1e-6)
    assert (space.half_aperture(x, 0.0) == torch.pi / 2).all()
    euclid = torch.acos(torch.nn.functional.cosine_similarity(x, y - x, dim=-1))
    torch.testing.assert_close(space.exterior_angle(x, y, 0.0), euclid)
    with pytest.raises(ValueError, match="min_radius must be positive"):
        space.half_aperture(x, 1.0, 0.0)
    for f in (space.half_aperture, lambda v: space.exterior_angle(v, y), lambda v: space.entailment_loss(v, y)):
        assert torch.autograd.grad(f(zero).sum(), zero)[0].isfinite().all()
    assert (space.exterior_angle(zero, y) == 0).all() and (space.exterior_angle(x, x) == 0).all()
    assert space.exterior_angle(zero.detach() * torch.nan, y).isnan().all()
    assert (space.half_aperture(x, 1.0, 1e200) == torch.pi / 2).all()
    if model == "ball":
        out = torch.full((5, 3), 0.9, dtype=torch.float64)
        for v in (h.busemann(out, p), h.half_aperture(out), h.exterior_angle(out, y), h.exterior_angle(y, out)):
            assert v.isnan().all()


@pytest.mark.parametrize("like", [np.asarray, torch.as_tensor])
def test_delta(like):
    """Trees have none, a circle has much, the plane less than log(1 + √2) of its curvature radius; by the definition."""
    n = 31
    tree = np.full((n, n), np.inf)
    np.fill_diagonal(tree, 0)
    for i in range(1, n):
        tree[i, (i - 1) // 2] = tree[(i - 1) // 2, i] = i % 3 + 1
    for k in range(n):
        tree = np.minimum(tree, tree[:, k : k + 1] + tree[k])
    assert float(h.delta_hyperbolicity(like(tree))) == 0
    at = np.arange(12)
    circle = np.minimum((at[:, None] - at) % 12, (at - at[:, None]) % 12).astype(float)
    d = circle
    product = (d[3][None] + d[3][:, None] - d) / 2
    want = max(
        min(product[i, k], product[k, j]) - product[i, j] for i in range(12) for j in range(12) for k in range(12)
    )
    assert float(h.delta_hyperbolicity(like(circle), 3)) == want > 0
    assert float(h.delta_hyperbolicity(like(circle), 3, relative=True)) == 2 * want / 6
    points = np.random.default_rng(0).standard_normal((60, 2)) * 4
    plane = lorentz.cdist(lorentz.expmap0(points), lorentz.expmap0(points))
    assert 0.1 < float(h.delta_hyperbolicity(like(plane))) <= np.log(1 + np.sqrt(2))
    one = like(np.zeros((1, 1)))
    assert float(h.delta_hyperbolicity(one)) == 0 and float(h.delta_hyperbolicity(one, relative=True)) == 0
    for bad in (np.zeros((2, 3)), np.zeros((0, 0)), np.zeros(4)):
        with pytest.raises(ValueError, match=r"d must be \[n, n\]"):
            h.delta_hyperbolicity(like(bad))
    with pytest.raises(ValueError, match="base must be one of 12"):
        h.delta_hyperbolicity(like(circle), 12)
