"""The ball's functions as users call them: axes, words, composites. The one rule: the definition is the reference."""

import numpy as np
import pytest
import torch
from tersor import hyperbolic as H
from tersor._op import OPS
from tersor._sample import Draw, Rows

C = 0.7
ROWS = [op for op in OPS.values() if op.axis]


def points(*kinds, lead=(4, 3), d=5, seed=0, scale=1.5, c=C):
    return Rows(*kinds)(Draw(seed, "float64", lead, d, scale, c))[0][:-1]


def public(op):
    return getattr(H, op.name, None) if not op.reference.__name__.startswith("_") else None


@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.key)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_rows_along_any_axis(op, kind):
    call = public(op)
    if call is None:
        pytest.skip("behind a public function of another order")
    xs, _ = op.sample(Draw(0, "float64", (4, 3), 5, 0.9, C))
    want = call(*xs)
    lift = np.asarray if kind == "numpy" else torch.tensor
    for dim in (0, 1, -3, -2, 2, -1):
        moved = [lift(np.moveaxis(x, -1, dim)) if isinstance(x, np.ndarray) else x for x in xs]
        got = np.asarray(call(*moved, dim=dim))
        if op.keepdim:
            np.testing.assert_array_equal(got, want)
            kept = np.asarray(call(*moved, dim=dim, keepdim=True))
            np.testing.assert_array_equal(kept, np.expand_dims(want, dim))
        else:
            np.testing.assert_array_equal(got, np.moveaxis(want, -1, dim))
    with pytest.raises(ValueError, match="axis"):
        call(*map(lift, xs[:-1]), xs[-1], dim=3)


def test_axis_and_curvature_per_row():
    x, y = points("ball", "ball")
    c = np.random.default_rng(0).uniform(0.1, 0.6, (4, 1))
    want = H.mobius_add(x, y, c[:, None])
    got = H.mobius_add(x.swapaxes(1, 2), y.swapaxes(1, 2), c[:, None], dim=1)
    np.testing.assert_array_equal(got, want.swapaxes(1, 2))


def test_out_along_an_axis():
    x, y = points("ball", "ball")
    out = np.empty((5, 3, 4))
    assert H.mobius_add(x.T, y.T, C, dim=0, out=out) is out
    np.testing.assert_array_equal(out, H.mobius_add(x.T, y.T, C, dim=0))
    with pytest.raises(ValueError, match="shape"):
        H.mobius_add(x.T, y.T, C, dim=0, out=np.empty((3, 5, 4)))


@pytest.mark.parametrize("lift", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_margin_by_word(lift):
    x = lift(np.array([[3.0, 4.0], [0.1, 0.2]]))
    for positional in (True, False):
        tight = H.project(x, 1.0, "tight") if positional else H.project(x, 1.0, eps="tight")
        compat = H.project(x, 1.0, "compat") if positional else H.project(x, 1.0, eps="compat")
        assert np.linalg.norm(np.asarray(tight)[0]) < 1
        assert 1 - np.linalg.norm(np.asarray(tight)[0]) < 1e-15
        np.testing.assert_allclose(np.linalg.norm(np.asarray(compat)[0]), 1 - 1e-5, rtol=1e-14)
        np.testing.assert_array_equal(np.asarray(compat)[1], np.asarray(x)[1])
    with pytest.raises(ValueError, match="tight"):
        H.project(x, 1.0, "loose")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("eps", [0.0, -1.0, 0.125])
def test_projection_is_idempotent(dtype, eps):
    draw = Draw(0, dtype, (200,), 7)
    x = draw.cast(draw.rng.standard_normal((200, 7)) * 10.0 ** draw.rng.integers(-2, 4, (200, 1)))
    for c in (1.0, 0.3, 0.0):
        once = H.project(x, c, eps)
        assert H.project(once, c, eps).tobytes() == once.tobytes()
        inside = H.dist0(once.astype(np.float64), c)  # infinite or NaN from the edge on
        assert np.isfinite(inside).all()
        if c == 0:
            assert once.tobytes() == x.tobytes()
    assert np.linalg.norm(H.project(np.full((1, 3), 1e300), 1.0)) == pytest.approx(1)


def test_projection_outside_has_the_gradient_of_its_formula():
    x = torch.randn(6, 4, dtype=torch.float64) * 3
    for eps, keep in ((0.0, 1.0), (-1.0, 1 - 1e-5), (0.25, 0.75)):
        x = x.detach().requires_grad_()
        c = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
        g = torch.randn(6, 4, dtype=torch.float64)
        got = torch.autograd.grad((H.project(x, c, eps) * g).sum(), [x, c])
        norm = x.norm(dim=-1, keepdim=True)
        y = torch.where(norm > keep / c**0.5, x / norm * keep / c**0.5, x)
        want = torch.autograd.grad((y * g).sum(), [x, c])
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


MEASURES = {
    "antipode": None,  # -x of any x
    "project": None,
    "cdist": lambda x: H.cdist(x, x, C),
    "knn": lambda x: H.knn(x, x[:1], 1, C)[0],
    "softmin_dist": lambda x: H.softmin_dist(x, x[:1], 1.0, C),
    "dist2": lambda x: H.dist2(x, 0.5 * x, C),
    "half_aperture": lambda x: H.half_aperture(x, C),
    "exterior_angle": lambda x: H.exterior_angle(0 * x + 0.1, x, C),
    "entailment_loss": lambda x: H.entailment_loss(0 * x + 0.1, x, C),
    "busemann": lambda x: H.busemann(x, 1 + 0 * x, C),
    "horo_project": lambda x: H.horo_project(x, 0 * x[0], x[:1], C),
    "tangent_project": lambda x: H.tangent_project(x, 0 * x[0], x[:1], C),
    "frechet_mean": lambda x: H.frechet_mean(x[:, None], c=C),
    "frechet_variance": lambda x: H.frechet_variance(x[:, None], c=C),
    "weighted_midpoint": lambda x: H.weighted_midpoint(x[:, None], reducedim=[1], c=C),
    "mobius_matvec": lambda x: H.mobius_matvec(x[:1].T @ x[:1], x, C),
    "mobius_sub": lambda x: H.mobius_sub(0 * x, x, C),
    "mobius_cosub": lambda x: H.mobius_cosub(0 * x, x, C),
    "inv_sproj": lambda x: H.inv_sproj(x, C),
    "geodesic": lambda x: H.geodesic(0.5, 0 * x, x, C),
    "geodesic_unit": lambda x: H.geodesic_unit(0.5, x, 1 + 0 * x, C),
    "poincare_fc": lambda x: H.poincare_fc(x, x[:1].T @ x[:1], c=C),
    "poincare_mlr": lambda x: H.poincare_mlr(x, x[:1].T @ x[:1], c=C),
}


@pytest.mark.parametrize("name", [name for name, call in MEASURES.items() if call])
@pytest.mark.parametrize("lift", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("row", [[1.2, 0.9, 0.5], [1e30, 0.0, -1e30]])
def test_what_is_made_of_points_outside(name, lift, row):
    """The operators themselves are asked in the battery."""
    x = np.array([[0.1, 0.2, -0.3], row, [0.4, 0.1, 0.0]])
    with np.errstate(all="ignore"):
        y = np.asarray(MEASURES[name](lift(x)))
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[0]).all() or name in ("cdist",)


def test_subtraction_undoes_addition():
    x, y = points("ball", "ball")
    np.testing.assert_allclose(H.mobius_add(H.mobius_sub(x, y, C), H.gyration(x, -y, y, C), C), x, atol=1e-13)
    np.testing.assert_allclose(H.mobius_cosub(H.mobius_add(x, y, C), y, C), x, atol=1e-13)
    np.testing.assert_allclose(H.mobius_sub(H.mobius_coadd(x, y, C), y, C), x, atol=1e-13)
    assert H.mobius_coadd(x, y, C).tobytes() == H.mobius_coadd(y, x, C).tobytes()
    np.testing.assert_array_equal(H.antipode(x, C), -x)


def test_geodesics():
    x, y, u = points("ball", "ball", "g")
    np.testing.assert_allclose(H.geodesic(0.0, x, y, C), x, atol=1e-15)
    np.testing.assert_allclose(H.geodesic(1.0, x, y, C), y, atol=1e-15)
    t = np.linspace(-1, 2, 4)[:, None, None]
    np.testing.assert_allclose(H.geodesic(t, x[0], y[0], C), H.expmap(x[0], t * H.logmap(x[0], y[0], C), C), atol=1e-12)
    np.testing.assert_allclose(H.dist(x, H.geodesic_unit(0.8, x, u, C), C), 0.8, rtol=1e-12)
    np.testing.assert_allclose(H.geodesic_unit(0.8, x, 0 * u, C), x, rtol=1e-15)
    far = H.geodesic(1e6, x, y, C)
    assert np.isfinite(H.dist0(far, C)).all()  # infinite or NaN from the edge on
    np.testing.assert_allclose(H.geodesic(0.5, x, x, 0.0), x, rtol=1e-15)


def test_matrices_and_functions():
    (x,) = points("ball")
    m = np.random.default_rng(1).standard_normal((6, 5))
    want = H.expmap0(H.logmap0(x, C) @ m.T, C)
    np.testing.assert_allclose(H.mobius_matvec(m, x, C), want, rtol=1e-13)
    batch = np.random.default_rng(1).standard_normal((3, 6, 5))
    got = H.mobius_matvec(batch, x, C)
    for i in range(3):
        np.testing.assert_allclose(got[:, i], H.mobius_matvec(batch[i], x[:, i], C), rtol=1e-13)
    np.testing.assert_allclose(H.mobius_matvec(m, x.swapaxes(1, 2), C, dim=1), want.swapaxes(1, 2), rtol=1e-13)
    np.testing.assert_array_equal(H.mobius_matvec(m * 0, x, C), 0)
    w = np.arange(5.0)
    np.testing.assert_allclose(
        H.mobius_pointwise_mul(w, x, C), H.mobius_matvec(np.diag(w), x, C), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(H.mobius_fn_apply(np.multiply, x, 2.0, c=C), H.mobius_scalar_mul(2.0, x, C), rtol=1e-12)
    np.testing.assert_allclose(
        H.mobiusify(np.sin)(x, c=C), H.mobius_fn_apply_chain(x, np.sin, np.asarray, c=C), rtol=1e-12
    )
    assert H.mobius_fn_apply_chain(x) is x
    assert H.mobius_matvec(m.astype(np.float16), x.astype(np.float16), C).dtype == np.float16
    with pytest.raises(TypeError, match="float32"):
        H.mobius_matvec(m.astype(np.float32), x, C)
    with pytest.raises(ValueError, match="columns"):
        H.mobius_matvec(m[:, 1:], x, C)
    with pytest.raises(ValueError, match="batch"):
        H.mobius_matvec(batch, x, C, dim=0)
    with pytest.raises(ValueError, match="two axes"):
        H.mobius_matvec(w, x, C)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_hyperboloid_and_back(dtype):
    x = points("ball")[0].astype(dtype)
    s = H.inv_sproj(x, C)
    assert s.dtype == x.dtype
    wide = s.astype(np.float64)
    np.testing.assert_allclose(
        wide[..., -1] ** 2 - (wide[..., :-1] ** 2).sum(-1), 1 / C, rtol=200 * np.finfo(dtype).eps
    )
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(H.sproj(s, C), x, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(H.inv_sproj(x.swapaxes(1, 2), C, dim=1), s.swapaxes(1, 2))
    t = torch.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(H.inv_sproj(t, C).detach().numpy(), s)


def test_hyperboloid_of_flat_space_is_infinitely_far():
    (x,) = points("ball")
    c = np.array([[0.0], [C], [1e-30], [0.0]])[:, None]
    s = H.inv_sproj(x, c)
    assert np.isinf(s[[0, 3], :, -1]).all() and np.isfinite(s[[1, 2]]).all()
    np.testing.assert_allclose(H.sproj(s, c), x, rtol=1e-14, atol=1e-15)
    x, c = torch.tensor(x, requires_grad=True), torch.tensor(c, requires_grad=True)
    dx, dc = torch.autograd.grad(H.sproj(H.inv_sproj(x, c), c).sum(), [x, c])
    torch.testing.assert_close(dx, torch.ones_like(dx))
    torch.testing.assert_close(dc, torch.zeros_like(dc), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_towards_the_antipode(dtype):
    """From the edge of the ball back through its centre: |x + u|² is all but 0, and what is left of it is no digit of a sum."""
    draw = Draw(0, dtype, (400,), 10)
    u = draw.rng.standard_normal((400, 10))
    x = H.project(draw.cast(u / np.linalg.norm(u, axis=-1, keepdims=True)), 1.0)
    for scale in (1e-11, 1e-8, 1e-3, 1.0, 1e4):
        v = draw.cast(-x * scale)
        for y in (H.expmap(x, v), H.geodesic_unit(60.0, x, v)):
            assert np.isfinite(H.dist0(y.astype(np.float64))).all()  # infinite or NaN from the edge on


def test_midpoint_against_its_formula():
    (x,) = points("ball", lead=(6, 4), d=3)
    w = np.random.default_rng(0).uniform(0, 1, (6, 4))

    def want(x, w, axis):
        factor = H.lambda_x(x, C, keepdim=True)
        v = (w[..., None] * factor * x).sum(axis) / (w[..., None] * (factor - 1)).sum(axis)
        return H.mobius_scalar_mul(0.5, v, C)

    np.testing.assert_allclose(H.weighted_midpoint(x, w, C, reducedim=[0]), want(x, w, 0), rtol=1e-12)
    np.testing.assert_allclose(H.weighted_midpoint(x, None, C), want(x, np.ones((6, 4)), (0, 1)), rtol=1e-12)
    kept = H.weighted_midpoint(x, w, C, reducedim=[-2], keepdim=True)
    assert kept.shape == (6, 1, 3)
    np.testing.assert_allclose(kept[:, 0], want(x, w, 1), rtol=1e-12)
    turned = H.weighted_midpoint(np.moveaxis(x, -1, 0), w, C, reducedim=[2], dim=0)
    np.testing.assert_allclose(turned.T, want(x, w, 1), rtol=1e-12)
    both = H.weighted_midpoint(x, w, C, reducedim=[1], lincomb=True)
    np.testing.assert_allclose(both, H.mobius_scalar_mul(w.sum(1)[:, None], want(x, w, 1), C), rtol=1e-12)
    signed = w - 0.5
    np.testing.assert_allclose(
        H.weighted_midpoint(x, signed, C, reducedim=[0], posweight=True),
        want(x * np.sign(signed)[..., None], abs(signed), 0),
        rtol=1e-11,
    )
    np.testing.assert_array_equal(H.weighted_midpoint(x, 0 * w, C), np.zeros(3))
    np.testing.assert_allclose(H.weighted_midpoint(x, w, 0.0), np.average(x.reshape(-1, 3), 0, w.ravel()), rtol=1e-13)
    pair = np.stack(points("ball", "ball", lead=(9,)))
    np.testing.assert_allclose(
        H.weighted_midpoint(pair, None, C, reducedim=[0]), H.geodesic(0.5, pair[0], pair[1], C), rtol=1e-12, atol=1e-14
    )


def test_midpoint_near_the_edge():
    """Close points far out: the midpoint is as far from each, though the plain formula has no digit left."""
    far = H.expmap0(np.array([[14.0, 0.0, 0.0]]), 1.0)
    x = H.mobius_add(far, np.random.default_rng(0).uniform(-0.2, 0.2, (2, 3)), 1.0)
    m = H.weighted_midpoint(x)
    a, b = H.dist(x, m)
    assert abs(a - b) < 1e-3 * a
    assert abs(a + b - H.dist(x[0], x[1])) < 1e-3 * a


def test_composites_have_gradients():
    x = torch.tensor(points("ball", lead=(3, 2), d=3)[0], requires_grad=True)
    w = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    m = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(C, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck
    assert check(lambda x, w, c: H.weighted_midpoint(x, w, c, reducedim=[0]), (x, w, c))
    assert check(H.mobius_matvec, (m, x, c))
    assert check(lambda x, c: H.sproj(H.inv_sproj(x, c), 0.9 * c), (x, c))
    assert check(lambda t, x, c: H.geodesic(t, x, x.flip(0), c), (t, x, c))
    assert check(lambda t, x, c: H.geodesic_unit(t, x, x.flip(0), c), (t, x, c))
    assert check(lambda t, x, c: H.mobius_scalar_mul(t, x, c), (t, x, c))
    assert check(lambda x, c: H.mobius_sub(x, x.flip(0), c, dim=1), (x, c))
    for signed in (False, True):
        for scaled in (False, True):
            args = [t.detach().requires_grad_() for t in (x, x.flip(0) * 0.3, x.flip(1) + 1, c)]
            assert check(lambda *a, s=signed, k=scaled: H.dist2plane(*a, s, k), args)


@pytest.mark.parametrize("op", [op for op in ROWS if public(op)], ids=lambda op: op.key)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_arrays_may_be_named(op, kind):
    xs, _ = op.sample(Draw(0, "float64", (4, 3), 5, 0.9, C))
    lift = np.asarray if kind == "numpy" else torch.tensor
    named = {k: lift(x) if isinstance(x, np.ndarray) else x for k, x in zip(op.inputs, xs, strict=True)}
    np.testing.assert_array_equal(public(op)(**named), public(op)(*xs))
    with pytest.raises(TypeError, match=f"{op.name}: {op.inputs[0]} must be"):
        public(op)(**named | {op.inputs[0]: [1.0]})


TWICE = [op for op in OPS.values() if isinstance(op.sample, Rows) and f"{op.key}_bwd" in OPS]


#: what goes by the root of c, and so has no slope in c at 0: rows beside directions
BY_ROOT = {"hyperbolic.busemann"}


def second(op, arrays, c):
    """The gradient of a weighted sum of the gradients of `op`, one array for each input."""
    rng = np.random.default_rng(1)
    xs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (*arrays, c)]
    if op.key in BY_ROOT:
        xs.pop()
    y = op.torch((*xs, c)[: len(arrays) + 1], {})
    first = torch.autograd.grad(y, xs, torch.tensor(rng.standard_normal(y.shape)), create_graph=True)
    weighted = sum((d * torch.tensor(rng.standard_normal(d.shape))).sum() for d in first)
    got = torch.autograd.grad(weighted, xs, allow_unused=True)
    return [np.zeros(x.shape) if d is None else d.numpy() for x, d in zip(xs, got, strict=True)]


@pytest.mark.parametrize("op", [op for op in TWICE if OPS[f"{op.key}_bwd"].options.tensors], ids=lambda op: op.key)
def test_second_derivatives_where_a_formula_would_divide_by_zero(op):
    arrays = points(*op.sample.kinds, c=0.0)
    flat = second(op, arrays, 0.0)
    for c in (1e-60, 1e-18) if op.key in BY_ROOT else (1e-30, 1e-9):
        for a, b in zip(flat, second(op, arrays, c), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    # zero rows, equal rows; a direction has some length
    kept = {"factor": lambda x: x.reshape(-1)[:4].reshape(4, 1)}
    if op.key in BY_ROOT:
        kept["g"] = lambda x: x.reshape(-1, 5)[:4]
    for same in (np.zeros((4, 5)), np.full((4, 5), 0.1)):
        rows = [kept[k](x) if k in kept else same for k, x in zip(op.sample.kinds, arrays, strict=True)]
        for c in (0.0, C):
            assert all(np.isfinite(d).all() for d in second(op, rows, c))


def test_second_derivatives_of_narrow_types_and_third_ones():
    x, y = (torch.tensor(p, requires_grad=True) for p in points("ball", "ball"))
    a, b = (t.detach().float().requires_grad_() for t in (x, y))

    def hessian(x, y):
        (dx,) = torch.autograd.grad(H.dist(x, y, C).sum(), [x], create_graph=True)
        return torch.autograd.grad((dx * dx).sum(), [x, y])

    for wide, narrow in zip(hessian(x, y), hessian(a, b), strict=True):
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-4)
    (dx,) = torch.autograd.grad(H.dist(x, y, C).sum(), [x], create_graph=True)
    (dxx,) = torch.autograd.grad(dx.sum(), [x], create_graph=True)
    (third,) = torch.autograd.grad(dxx.sum(), [x])
    step = torch.randn(x.shape, dtype=torch.float64) * 1e-5
    with torch.enable_grad():
        ends = []
        for z in (x + step, x - step):
            (dz,) = torch.autograd.grad(H.dist(z, y, C).sum(), [z], create_graph=True)
            ends.append(torch.autograd.grad(dz.sum(), [z])[0].sum())
    torch.testing.assert_close((third * step).sum() * 2, ends[0] - ends[1], rtol=1e-5, atol=1e-12)


def test_projection_has_second_derivatives_at_any_margin():
    g = torch.randn(8, 3, dtype=torch.float64)
    for eps, keep in ((0.0, 1.0), ("compat", 1 - 1e-5), (0.25, 0.75)):
        x = (torch.randn(8, 3, dtype=torch.float64) * 2).requires_grad_()
        norm = x.norm(dim=-1, keepdim=True)
        want = torch.where(norm > keep, x / norm * keep, x)
        pair = []
        for y in (H.project(x, 1.0, eps), want):
            (dx,) = torch.autograd.grad((y * g).sum(), [x], create_graph=True)
            pair.append(torch.autograd.grad((dx * g.flip(0)).sum(), [x])[0])
        torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-12)
