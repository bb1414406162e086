"""Hyperbolic layers against their definition in mpmath and in float64, at any radius and curvature."""

import io
import math

import mpmath as mp
import numpy as np
import pytest
import tersor.hyperbolic as h

torch = pytest.importorskip("torch")

from tersor import nn as tnn  # noqa: E402
from tersor.hyperbolic import _chunks  # noqa: E402

CURVATURES = (0.0, 1e-9, 0.3, 1.0, 7.0)


def norm(x):
    return mp.sqrt(mp.fsum(a * a for a in x))


def exact_logits(x, z, r, c):
    """p and 2n/√c arsinh p of points x of the ball; z by columns."""
    root = mp.sqrt(c)
    factor = 2 / (1 - c * mp.fsum(a * a for a in x))
    out = []
    for k in range(len(z[0])):
        column = [row[k] for row in z]
        n, beta = norm(column), 2 * root * r[k]
        inner = mp.fsum(a * b for a, b in zip(x, column, strict=True)) / n
        p = root * factor * inner * mp.cosh(beta) - (factor - 1) * mp.sinh(beta)
        out.append(2 * n / root * mp.asinh(p))
    return out


def exact_fc(x, z, r, c):
    root = mp.sqrt(c)
    w = [mp.sinh(root * y) / root for y in exact_logits(x, z, r, c)]
    return [a / (1 + mp.sqrt(1 + c * norm(w) ** 2)) for a in w]


def exact_exp0(v, c):
    s = mp.sqrt(c) * norm(v)
    return [a * mp.tanh(s) / s for a in v]


def exact_log0(x, c):
    s = mp.sqrt(c) * norm(x)
    return [a * mp.atanh(s) / s for a in x]


def lift(x):
    return [lift(a) for a in x] if isinstance(x, (list, np.ndarray)) else mp.mpf(float(x))


def case(dtype, radius, c, i=5, o=7, seed=0):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((6, i))
    v *= radius / max(math.sqrt(c), 1e-3) / np.linalg.norm(v, axis=-1, keepdims=True)
    z = rng.standard_normal((i, o)) * 0.3
    r = rng.standard_normal(o) * 0.2
    return [x.astype(dtype) for x in (v, z, r)]


@pytest.mark.parametrize("c", [1e-9, 0.3, 1.0, 7.0])
@pytest.mark.parametrize("radius", [1e-3, 0.5, 3.0, 10.0, 20.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tangent_layer_is_log_after_fc_after_exp(dtype, radius, c):
    v, z, r = case(dtype, radius, c)
    got = h.poincare_fc_tangent(v, z, r, c)
    with mp.workdps(120):
        for row, y in zip(lift(v), got, strict=True):
            want = exact_log0(exact_fc(exact_exp0(row, mp.mpf(c)), lift(z), lift(r), mp.mpf(c)), mp.mpf(c))
            error = norm([a - float(b) for a, b in zip(want, y, strict=True)]) / norm(want)
            # the last digit of |v| alone moves one column against another by sigma times the difference of their norms
            sigma = float(2 * mp.sqrt(c) * norm(row))
            assert error < 12 * (1 + np.ptp(np.linalg.norm(z, axis=0)) * sigma) * np.finfo(dtype).eps


@pytest.mark.parametrize("c", [1e-9, 0.3, 1.0, 7.0])
@pytest.mark.parametrize("radius", [1e-3, 0.5, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_layer_and_the_logits_on_points(dtype, radius, c):
    v, z, r = case(dtype, radius, c)
    x = h.expmap0(v, c)
    got, logits, by_tangent = (
        h.poincare_fc(x, z, r, c),
        h.poincare_mlr(x, z, r, c),
        h.poincare_mlr(v, z, r, c, tangent=True),
    )
    with mp.workdps(120):
        for i, row in enumerate(lift(x)):
            zs, rs, cs = lift(z), lift(r), mp.mpf(c)
            for y, want in ((got[i], exact_fc(row, zs, rs, cs)), (logits[i], exact_logits(row, zs, rs, cs))):
                error = norm([a - float(b) for a, b in zip(want, y, strict=True)]) / norm(want)
                assert error < 12 * np.finfo(dtype).eps
            want = exact_logits(exact_exp0(lift(v[i]), cs), zs, rs, cs)
            error = norm([a - float(b) for a, b in zip(want, by_tangent[i], strict=True)]) / norm(want)
            assert error < 12 * np.finfo(dtype).eps


@pytest.mark.parametrize("shape", [(5, 5), (5, 8), (8, 5), (40, 1)])
@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("ball", [False, True])
def test_identity_at_first(shape, c, ball):
    layer = tnn.PoincareLinear(*shape, c=c, ball=ball, dtype=torch.float64)
    x = torch.randn(11, shape[0], dtype=torch.float64) * 0.05
    same = min(shape)
    y = layer(x)
    narrow = torch.cat([x[:, :same], torch.zeros(11, shape[1] - same, dtype=torch.float64)], 1)
    if shape[0] <= shape[1] or not c:
        assert torch.allclose(y, narrow, rtol=1e-13, atol=1e-15)
    # what is left of a vector, seen from the hyperplanes, keeps its direction
    cosine = torch.nn.functional.cosine_similarity(y, narrow, dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine)) or shape[0] > shape[1]


@pytest.mark.parametrize("ball", [False, True])
def test_flat_space_is_the_euclidean_layer(ball):
    v, z, r = (torch.from_numpy(x) for x in case("float64", 1e-3, 0.0))
    y = (h.poincare_fc if ball else h.poincare_fc_tangent)(v, z, r, 0.0)
    want = 2 * (v @ z - r * z.norm(dim=0))
    assert torch.allclose(y, want, rtol=1e-13)
    assert torch.allclose(h.poincare_mlr(v, z, r, 0.0, tangent=not ball), 2 * want, rtol=1e-13)


@pytest.mark.parametrize("c", [0.0, 1e-9, 0.05, 1.0, 5.0])
@pytest.mark.parametrize("layer", ["fc_tangent", "fc", "mlr", "mlr_tangent"])
def test_gradients_to_everything(layer, c):
    functions = {
        "fc_tangent": h.poincare_fc_tangent,
        "fc": h.poincare_fc,
        "mlr": h.poincare_mlr,
        "mlr_tangent": lambda *a: h.poincare_mlr(*a, tangent=True),
    }
    v, z, r = (torch.from_numpy(x).requires_grad_() for x in case("float64", 0.2 if c > 1e-3 else 2e-4, c, 3, 4))
    # at 0 the difference quotient in c is one-sided: a step to either side of a curvature above the step
    curved = torch.tensor(max(c, 2e-6), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(functions[layer], (v, z, r, curved))


@pytest.mark.parametrize("layer", ["fc_tangent", "mlr_tangent"])
def test_the_gradient_in_c_at_zero_is_a_limit(layer):
    v, z, r = (torch.from_numpy(x) for x in case("float64", 1e-3, 0.0))
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-4)):
        slopes = []
        for c in (0.0, 1e-30, 1e-8):
            curved = torch.tensor(c, dtype=torch.float64, requires_grad=True)
            a = (v.to(dtype), z.to(dtype), r.to(dtype), curved)
            y = h.poincare_fc_tangent(*a) if layer == "fc_tangent" else h.poincare_mlr(*a, tangent=True)
            slopes.append(torch.autograd.grad(y.square().sum(), curved)[0])
        assert slopes[0] != 0
        for other in slopes[1:]:
            assert torch.allclose(other, slopes[0], rtol=tolerance)


def test_one_node_that_saves_the_inputs_and_t():
    layer = tnn.PoincareLinear(32, 48)
    x = torch.randn(100, 32, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = layer(x)
    assert y.grad_fn.name() == "_TangentBackward"
    own = {t.untyped_storage().data_ptr(): t.numel() for t in saved}
    assert sum(own.values()) <= x.numel() + y.numel() + layer.weight.numel() + 100 + 2 * 48 + 1


def test_an_unused_column_is_trained():
    layer = tnn.PoincareLinear(3, 5)
    layer(torch.randn(20, 3)).square().sum().backward()
    assert torch.isfinite(layer.weight.grad).all()
    y = layer(torch.randn(20, 3))
    (y * torch.randn(20, 5)).sum().backward()
    assert (layer.weight.grad[3:].abs().sum(1) > 0).all()


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_chunks_do_not_matter(rows, monkeypatch):
    from tersor.hyperbolic import _node

    v, z = torch.randn(rows, 7, dtype=torch.float64, requires_grad=True), torch.randn(7, 9, dtype=torch.float64)
    z.requires_grad_()
    r, c = torch.randn(9, dtype=torch.float64) * 0.1, torch.tensor(0.7, dtype=torch.float64)
    results = []
    for size in (1 << 18, 1000):
        monkeypatch.setattr(_node, "CHUNK", size)
        y = h.poincare_fc_tangent(v, z, r, c)
        results.append([y, *torch.autograd.grad(y.square().sum(), (v, z))])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    "make", [lambda: tnn.PoincareLinear(4, 6, learnable=True), lambda: tnn.PoincareMLR(4, 6, c=0.5)]
)
def test_saved_moved_and_shown(make):
    layer = make()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    x = torch.randn(3, 4)
    want = layer(x)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    again = make()
    again.load_state_dict(torch.load(file))
    assert torch.equal(again(x), want)
    assert "4, 6" in repr(layer)
    wide = again.double()
    assert wide(x.double()).dtype == torch.float64
    assert wide.curvature().dtype == torch.float64
    assert torch.allclose(wide(x.double()).float(), want, atol=1e-5)


def test_several_curvatures_keep_their_digits():
    for given in ([0.1, 1.7], (0.1, 1.7), np.array([0.1, 1.7])):
        assert tnn.Curvature(given)().tolist() == [0.1, 1.7]
    for bad in (["a"], [[0.5], [1.0, 2.0]]):
        with pytest.raises(TypeError, match="Curvature: c must be numbers, got"):
            tnn.Curvature(bad)


@pytest.mark.parametrize("options", [{}, {"bounds": (1, 2)}])
def test_curvatures_are_made_on_meta_in_its_context(options):
    with torch.device("meta"):
        curvature, table = tnn.Curvature(1.5, True, **options), tnn.HEmbedding(3, 2, learnable=True)
    assert all(p.is_meta for p in (*curvature.parameters(), *table.parameters()))
    curvature = curvature.to_empty(device="cpu")
    curvature.reset_parameters()
    assert abs(curvature().item() - 1.5) < 1e-15


def test_the_curvature_is_positive_and_shared():
    for c in (1e-6, 1.0, 50.0):
        assert tnn.Curvature(c, learnable=True)().item() == pytest.approx(c, rel=1e-5)
    shared = tnn.Curvature(0.3)
    a, b = tnn.PoincareLinear(2, 2, c=shared), tnn.PoincareLinear(2, 2, c=shared)
    assert a.curvature is b.curvature
    assert shared.to(torch.bfloat16)().item() == 0.3
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="Curvature"):
            tnn.Curvature(bad)
    with pytest.raises(ValueError, match="learned"):
        tnn.Curvature(0.0, learnable=True)


@pytest.mark.parametrize("chunk", [1, 1 << 17])
@pytest.mark.parametrize("c", [0.3, 1.0])
def test_float32_on_points_has_its_digits(c, chunk, monkeypatch):
    """Far out a rounding of what is between moves gradients by much more than one of the arguments; in one chunk or several."""
    monkeypatch.setattr(_chunks, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    z, r = (
        torch.from_numpy(rng.standard_normal((16, 8)) / 4).float(),
        torch.from_numpy(rng.standard_normal(8) / 9).float(),
    )
    for radius in (0.1, 1, 3, 5, 7):
        u = rng.standard_normal((150, 16))
        u *= radius / 2 / np.sqrt(c) / np.linalg.norm(u, axis=-1, keepdims=True)
        x, g = h.expmap0(torch.from_numpy(u), c).float(), torch.from_numpy(rng.standard_normal((150, 8))).float()

        def of(f, dtype, x=x, g=g):
            leaves = [a.to(dtype, copy=True).requires_grad_() for a in (x, z, r)]
            y = f(*leaves)
            return [
                y.detach(),
                *(d for d in torch.autograd.grad(y, leaves, g.to(dtype), allow_unused=True) if d is not None),
            ]

        for f in (lambda x, z, r: h.poincare_fc(x, z, r, c), lambda x, z, r: h.mobius_matvec(z.T, x, c)):
            for got, want in zip(of(f, torch.float32), of(f, torch.float64), strict=True):
                error = (got.double() - want).norm(dim=-1) / want.norm(dim=-1)
                assert error.max() <= 1.2e-7  # a rounding of a row


LAYERS = {
    "fc": lambda x, z, r, c: h.poincare_fc(x, z, r, c),
    "fc, no bias, compat": lambda x, z, r, c: h.poincare_fc(x, z, None, c, "compat"),
    "matvec": lambda x, z, r, c: h.mobius_matvec(z.T, x, c),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_chunks_of_rows_are_the_whole(layer, dtype, monkeypatch):
    """Values, gradients to all, those of gradients, and NumPy's way."""
    f, g = LAYERS[layer], torch.Generator().manual_seed(0)
    x = (0.2 * torch.randn(3, 50, 5, generator=g)).to(getattr(torch, dtype))
    x[2, 3] = 0
    z, r = (v.to(x.dtype) for v in (torch.randn(5, 4, generator=g) / 2, torch.randn(4, generator=g) / 9))
    z[:, 2] = 0
    found = []
    for chunk in (1 << 17, 1):
        monkeypatch.setattr(_chunks, "CHUNK", chunk)
        c = torch.tensor(0.8, dtype=torch.float64)
        leaves = [v.clone().requires_grad_() for v in (x, z, r, c)]
        y = f(*leaves)
        w = torch.ones_like(y).cumsum(1) / 50
        first = torch.autograd.grad((y * w).sum(), leaves, allow_unused=True)
        again = torch.autograd.grad((f(*leaves)[0] * w[0]).sum(), leaves[0], create_graph=True)[0]
        second = torch.autograd.grad((again[0].float() ** 2).sum(), leaves, allow_unused=True)
        if dtype != "bfloat16":
            np.testing.assert_allclose(
                f(*[v.numpy() for v in (x, z, r)], 0.8), y.detach(), rtol=2 * torch.finfo(x.dtype).eps, atol=1e-7
            )
        found.append([y.detach(), *first, *second])
        out = f(torch.full_like(x, 0.9), z, r, 0.8)
        assert out.isnan().all()
    eps = 4 * torch.finfo(x.dtype).eps
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            torch.testing.assert_close(b, a, rtol=eps, atol=eps * float(a.abs().max()))


def test_wrong_arguments():
    v, z, r = (torch.from_numpy(x) for x in case("float32", 1.0, 1.0))
    for f in (h.poincare_fc_tangent, h.poincare_fc, h.poincare_mlr):
        with pytest.raises(TypeError, match="float64"):
            f(v, z.double(), r)
        with pytest.raises(ValueError, match="z of shape"):
            f(v, z.t(), r)
        with pytest.raises(ValueError, match="r must"):
            f(v, z, r[:-1])
        with pytest.raises(ValueError, match="curvature"):
            f(v, z, r, -1.0)


@pytest.mark.parametrize("curvature", [0.0, 0.7])
@pytest.mark.parametrize("layer", [h.poincare_fc_tangent, h.poincare_fc, h.poincare_mlr], ids=lambda f: f.__name__)
def test_second_derivatives(layer, curvature):
    torch.manual_seed(0)
    v, z, r = (
        0.4 * torch.randn(3, 4, dtype=torch.float64),
        torch.randn(4, 2, dtype=torch.float64),
        torch.randn(2).double(),
    )
    c = torch.tensor(curvature, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (v, z, r)] + ([c.requires_grad_()] if curvature else [])
    assert torch.autograd.gradgradcheck(lambda *x: layer(*x, *([] if curvature else [c])), leaves)
    # the gradients that have a graph are those that have none
    y = layer(v, z, r, c)
    plain = torch.autograd.grad(y.square().sum(), [v, z, r], retain_graph=True)
    for a, b in zip(torch.autograd.grad(y.square().sum(), [v, z, r], create_graph=True), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_second_derivatives_of_images():
    torch.manual_seed(0)
    layer = tnn.PoincareConv2d(2, 3, 2, padding=1, c=0.7, learnable=True, dtype=torch.float64)
    x = 0.3 * torch.randn(2, 2, 3, 3, dtype=torch.float64)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    penalty = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x, create_graph=True)[0].square().sum()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(penalty, parameters))
    assert torch.autograd.gradgradcheck(layer, [x])
