"""Every public function on tensors as torch's users treat them. The one rule: a transform, a trace or a sample of a batch gives
what the plain call gives."""

import importlib
import inspect
import subprocess
import sys

import apart
import pytest
import torch
from tersor import graph as G
from tersor import hyperbolic as H
from tersor import lorentz as L
from tersor import loss as O
from tersor import metrics, norm, project, prune, quant, reduce, sparse
from tersor._public import families
from torch._subclasses.fake_tensor import FakeTensorMode

generator = torch.Generator().manual_seed(0)


def some(*shape, scale=0.3):
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale


X, Y, V, W = (some(3, 4) for _ in range(4))
MATRIX = sparse.from_dense(torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], dtype=torch.float64))
RING = G.adjacency(torch.tensor([[0, 1, 2], [1, 2, 0]]), dtype=torch.float64)
MASK = torch.arange(12).reshape(3, 4) % 2 == 0
LABELS = torch.tensor([0, 1, 0, 1])
REGION = (torch.arange(32) % 3 == 0).reshape(2, 1, 4, 4)
SCALE = torch.tensor(0.05, dtype=torch.float64)
DIMS = torch.tensor([1, 3, 4])
PACKED = quant.prepack(quant.encode(some(5, 4).float(), "int8-row"))


def alignment(x, y):
    """`cka` in the type of its arguments, as the others are: its own is float64."""
    return metrics.cka(x, y).to(torch.promote_types(x.dtype, y.dtype))


#: name -> function of float tensors (all differentiable), and those tensors
CASES = {
    "graph.edge_attention": (lambda q, k, v: G.edge_attention(RING, q, k, v), (X, Y, V)),
    "graph.hypergraph_propagate": (lambda x: G.hypergraph_propagate(MATRIX.T, x), (X,)),
    "graph.propagate": (lambda x: G.propagate(RING, x, 2, teleport=0.1), (X,)),
    "hyperbolic.antipode": (H.antipode, (X,)),
    "hyperbolic.busemann": (lambda x, p: H.busemann(x, p, 0.7), (X, Y)),
    "hyperbolic.cdist": (H.cdist, (X, Y)),
    "hyperbolic.delta_hyperbolicity": (lambda x: H.delta_hyperbolicity(x[:, :3]), (X,)),
    "hyperbolic.dist": (lambda x, y: H.dist(x, y, 0.7, dim=0, keepdim=True), (X, Y)),
    "hyperbolic.dist0": (H.dist0, (X,)),
    "hyperbolic.dist2": (lambda x, y: H.dist2(x, y, 0.7), (X, Y)),
    "hyperbolic.dist2plane": (H.dist2plane, (X, Y, V)),
    "hyperbolic.egrad2rgrad": (H.egrad2rgrad, (X, V)),
    "hyperbolic.entailment_loss": (lambda x, y: H.entailment_loss(x, y, 0.7), (X, Y)),
    "hyperbolic.expmap": (H.expmap, (X, V)),
    "hyperbolic.expmap0": (lambda v: H.expmap0(v, 0.7, "compat"), (V,)),
    "hyperbolic.exterior_angle": (H.exterior_angle, (X, Y)),
    "hyperbolic.frechet_mean": (lambda x, w: H.frechet_mean(x, w**2, 0.7), (X, W[:, 0])),
    "hyperbolic.frechet_variance": (H.frechet_variance, (X,)),
    "hyperbolic.geodesic": (lambda x, y: H.geodesic(0.3, x, y), (X, Y)),
    "hyperbolic.geodesic_unit": (lambda x, u: H.geodesic_unit(0.3, x, u), (X, V)),
    "hyperbolic.gyration": (H.gyration, (X, Y, V)),
    "hyperbolic.half_aperture": (H.half_aperture, (X,)),
    "hyperbolic.horo_project": (lambda x, p: H.horo_project(x, 0 * x[0], p, 0.7), (X, some(2, 4))),
    "hyperbolic.inner": (H.inner, (X, Y, V)),
    "hyperbolic.inv_sproj": (lambda x: H.inv_sproj(x, 0.7), (X,)),
    "hyperbolic.knn": (lambda x, y: H.knn(x, y, 2)[0], (X, Y)),
    "hyperbolic.lambda_x": (H.lambda_x, (X,)),
    "hyperbolic.logmap": (H.logmap, (X, Y)),
    "hyperbolic.logmap0": (H.logmap0, (X,)),
    "hyperbolic.mobius_add": (H.mobius_add, (X, Y)),
    "hyperbolic.mobius_coadd": (H.mobius_coadd, (X, Y)),
    "hyperbolic.mobius_cosub": (H.mobius_cosub, (X, Y)),
    "hyperbolic.mobius_fn_apply": (lambda x: H.mobius_fn_apply(torch.tanh, x), (X,)),
    "hyperbolic.mobius_fn_apply_chain": (lambda x: H.mobius_fn_apply_chain(x, torch.tanh, torch.sin), (X,)),
    "hyperbolic.mobius_matvec": (H.mobius_matvec, (W, X)),
    "hyperbolic.mobius_pointwise_mul": (H.mobius_pointwise_mul, (W, X)),
    "hyperbolic.mobius_scalar_mul": (lambda x: H.mobius_scalar_mul(1.5, x), (X,)),
    "hyperbolic.mobius_sub": (H.mobius_sub, (X, Y)),
    "hyperbolic.mobiusify": (lambda x: H.mobiusify(torch.tanh)(x), (X,)),
    "hyperbolic.norm": (H.norm, (X, V)),
    "hyperbolic.parallel_transport": (H.parallel_transport, (X, Y, V)),
    "hyperbolic.parallel_transport0": (H.parallel_transport0, (X, V)),
    "hyperbolic.parallel_transport0back": (H.parallel_transport0back, (X, V)),
    "hyperbolic.poincare_fc": (H.poincare_fc, (X, some(4, 2), some(2))),
    "hyperbolic.poincare_fc_tangent": (lambda v, z: H.poincare_fc_tangent(v, z, None, 0.7), (X, some(4, 2))),
    "hyperbolic.poincare_mlr": (lambda x, z, r: H.poincare_mlr(x, z, r, tangent=True), (X, some(4, 2), some(2))),
    "hyperbolic.project": (H.project, (X,)),
    "hyperbolic.segment_midpoint": (lambda x: H.segment_midpoint(MATRIX, x), (X,)),
    "hyperbolic.softmin_dist": (lambda x, y: H.softmin_dist(x, y, 2.0), (X, Y)),
    "hyperbolic.sproj": (lambda x: H.sproj(torch.cat([x, (x * x).sum(-1, keepdim=True).add(1).sqrt()], -1)), (X,)),
    "hyperbolic.tangent_project": (lambda x, m, p: H.tangent_project(x, m, p, 0.7), (X, some(4), some(2, 4))),
    "hyperbolic.weighted_midpoint": (lambda x, w: H.weighted_midpoint(x, w, 0.7, reducedim=[0]), (X, W[:, 0].exp())),
    "hyperbolic.weighted_midpoint_bmm": (H.weighted_midpoint_bmm, (X, some(2, len(X)).exp())),
    "hyperbolic.window_midpoint": (lambda x: H.window_midpoint(x, 2, padding=1), (some(4, 4, 3),)),
    "lorentz.add_time": (L.add_time, (X,)),
    "lorentz.busemann": (L.busemann, (X, Y)),
    "lorentz.cdist": (L.cdist, (X, Y)),
    "lorentz.dist": (lambda x, y: L.dist(x, y, 0.7), (X, Y)),
    "lorentz.dist0": (L.dist0, (X,)),
    "lorentz.dist2": (lambda x, y: L.dist2(x, y, 0.7), (X, Y)),
    "lorentz.drop_time": (lambda x: L.drop_time(torch.cat([(x * x).sum(-1, keepdim=True).add(1).sqrt(), x], -1)), (X,)),
    "lorentz.egrad2rgrad": (L.egrad2rgrad, (X, V)),
    "lorentz.entailment_loss": (lambda x, y: L.entailment_loss(x, y, 0.7), (X, Y)),
    "lorentz.expmap": (L.expmap, (X, V)),
    "lorentz.expmap0": (lambda v: L.expmap0(v, 0.7), (V,)),
    "lorentz.exterior_angle": (L.exterior_angle, (X, Y)),
    "lorentz.fc": (L.fc, (X, some(2, 4), some(2))),
    "lorentz.frechet_mean": (lambda x: L.frechet_mean(x, c=0.7), (X,)),
    "lorentz.frechet_variance": (lambda x: L.frechet_variance(x, c=0.7), (X,)),
    "lorentz.from_klein": (L.from_klein, (X,)),
    "lorentz.from_poincare": (L.from_poincare, (X,)),
    "lorentz.geodesic": (lambda x, y: L.geodesic(0.3, x, y), (X, Y)),
    "lorentz.gyro_add": (L.gyro_add, (X, Y)),
    "lorentz.half_aperture": (L.half_aperture, (X,)),
    "lorentz.inner": (L.inner, (X, Y, V)),
    "lorentz.klein_to_poincare": (L.klein_to_poincare, (X,)),
    "lorentz.linear": (L.linear, (X, some(2, 5))),
    "lorentz.logmap": (L.logmap, (X, Y)),
    "lorentz.logmap0": (L.logmap0, (X,)),
    "lorentz.midpoint": (L.midpoint, (X, W[:, 0].exp())),
    "lorentz.mlr": (L.mlr, (X, some(2, 4), some(2))),
    "lorentz.norm": (L.norm, (X, V)),
    "lorentz.parallel_transport": (L.parallel_transport, (X, Y, V)),
    "lorentz.parallel_transport0": (L.parallel_transport0, (X, V)),
    "lorentz.parallel_transport0back": (L.parallel_transport0back, (X, V)),
    "lorentz.poincare_to_klein": (L.poincare_to_klein, (X,)),
    "lorentz.time": (lambda x: L.time(x, 0.7), (X,)),
    "lorentz.to_klein": (L.to_klein, (X,)),
    "lorentz.to_poincare": (L.to_poincare, (X,)),
    "lorentz.segment_midpoint": (lambda x: L.segment_midpoint(MATRIX, x), (X,)),
    "lorentz.weighted_midpoint_bmm": (L.weighted_midpoint_bmm, (X, some(2, len(X)).exp())),
    "quant.choose_qparams": (lambda x: quant.choose_qparams(x)[0], (X,)),
    "quant.codebook_assign": (quant.codebook_assign, (X, Y)),
    "quant.dequantize": (lambda x: quant.dequantize(quant.quantize(x, SCALE), SCALE), (X,)),
    "quant.dequantize_log": (lambda x: quant.dequantize_log(quant.quantize_log(x.exp(), SCALE), SCALE), (X,)),
    "quant.encode": (lambda x: quant.decode(quant.encode(x, "int8-row")), (some(2, 64),)),
    "quant.fake_quantize": (lambda x: quant.fake_quantize(x, SCALE), (X,)),
    "quant.fake_quantize_log": (lambda x: quant.fake_quantize_log(x.exp(), SCALE), (X,)),
    "quant.fixed_point": (lambda x: quant.fixed_point(x, 8, 4, rounding="half_even"), (X,)),
    "quant.float_encode": (lambda x: quant.float_decode(quant.float_encode(x, "e4m3"), "e4m3", dtype=x.dtype), (X,)),
    "quant.hadamard": (quant.hadamard, (X,)),
    "quant.int_layernorm": (lambda x: quant.int_layernorm(quant.quantize(x, SCALE)), (X,)),
    "quant.kl_rows": (quant.kl_rows, (X, Y)),
    "quant.l1_normalize": (quant.l1_normalize, (X,)),
    "quant.layer_cosine": (quant.layer_cosine, (X, Y)),
    "quant.packed_linear": (lambda x: quant.packed_linear(x, PACKED), (X,)),
    "quant.pack": (lambda x: quant.unpack(quant.pack(quant.quantize(x, SCALE), 8), 8, (3, 4), dtype="int8"), (X,)),
    "quant.requantize": (lambda x: quant.requantize(quant.quantize(x, SCALE), 3 << 29, 32), (X,)),
    "quant.shift_exp": (lambda x: quant.shift_exp(quant.quantize(x, SCALE), 0.1), (X,)),
    "quant.shift_gelu": (lambda x: quant.shift_gelu(quant.quantize(x, SCALE), 0.1), (X,)),
    "quant.shiftmax": (lambda x: quant.shiftmax(quant.quantize(x, SCALE), 0.1), (X,)),
    "prune.apply_mask": (lambda x: prune.apply_mask(x, MASK), (X,)),
    "prune.interpolate_channels": (lambda x: prune.interpolate_channels(x, 3, axis=-1), (X,)),
    "prune.prefix_mask": (lambda x: prune.prefix_mask(x, DIMS), (X,)),
    "prune.threshold_rows": (lambda x: prune.threshold_rows(x, x[:, 0].abs() + 0.2), (X,)),
    "prune.topk_rows": (lambda x: prune.topk_rows(x, 2)[0], (X,)),
    "metrics.cka": (alignment, (X, Y)),
    "metrics.class_correlation": (lambda x: metrics.class_correlation(x.abs()), (X,)),
    "metrics.loss_barrier": (metrics.loss_barrier, (X,)),
    "metrics.norm_grad": (lambda a, g: metrics.norm_grad(a, g, "conv3"), (some(2, 3, 4, 5), some(2, 2, 4, 5))),
    "metrics.residual_contribution": (lambda u, r: metrics.residual_contribution(u, r)[0], (X, Y)),
    "loss.cross_entropy": (
        lambda x, w: O.cross_entropy(x, LABELS[:3], weight=w, label_smoothing=0.1, gamma=1.5),
        (X, V[0].exp()),
    ),
    "loss.info_nce": (lambda x, y: O.info_nce(x, y, temperature=0.5, symmetric=True), (X, Y)),
    "norm.rms_norm": (lambda x, w: norm.rms_norm(x, 4, w), (X, V[0])),
    "norm.add_norm": (lambda x, r, w: norm.add_norm(x, r, w)[0], (X, Y, V[0])),
    "norm.batch_norm": (lambda x, w, b: norm.batch_norm(x, None, None, w, b, True), (X, V[0], W[0])),
    "norm.crms_norm": (lambda x, w: norm.crms_norm(x, w), (X, V[0])),
    "norm.evonorm": (lambda x, w, b, v: norm.evonorm(x, "b0", w, b, v), (X, V[0], W[0], Y[0])),
    "norm.group_norm": (lambda x, w: norm.group_norm(x, 2, w), (some(3, 4, 2), V[0])),
    "norm.instance_norm": (lambda x, w: norm.instance_norm(x, w), (some(3, 4, 2), V[0])),
    "norm.layer_norm": (lambda x, w, b: norm.layer_norm(x, 4, w, b), (X, V[0], W[0])),
    "norm.region_norm": (lambda x: norm.region_norm(x, REGION), (some(2, 3, 4, 4),)),
    "norm.standardize": (lambda x, w: norm.standardize(x, w, dim=-1, labels=LABELS, num_segments=2), (X, V[0])),
    "norm.weight_standardize": (lambda w, g: norm.weight_standardize(w, g), (X, V[:, 0])),
    "reduce.segment_reduce": (lambda x: reduce.segment_reduce(x, "std", dim=-1, labels=LABELS, num_segments=2), (X,)),
    "reduce.segment_moments": (lambda x: reduce.segment_moments(x, dim=-1).var, (X,)),
    "project.fwht": (project.fwht, (X,)),
    "project.project": (lambda x: project.project(x, 5), (X,)),
    "sparse.conv1x1": (lambda x: sparse.conv1x1(MATRIX, x, act="gelu"), (some(2, 3, 2, 2),)),
    "sparse.sub_dimensions": (lambda x: sparse.sub_dimensions(x, 2, 2, shared=1).data, (X,)),
    "sparse.topk_ffn": (lambda x, w1, w2: sparse.topk_ffn(x, w1, w2, 2, act="silu"), (X, some(5, 4), some(5, 3))),
    "sparse.softmax": (lambda a, b: sparse.softmax(sparse.sddmm(MATRIX, a, b)).data, (W[:2], X)),
    "project.dual": (lambda x: project.dual(x / 4)[0], (X,)),
    "project.ntk": (lambda x: project.ntk(x / 4, 3), (X,)),
    "project.patch_kernel": (lambda x, y: project.patch_kernel(x, y, 2), (X, Y)),
    "project.singular_vote": (lambda s, y: project.singular_vote(s, y.T, 1.5), (X.square() + 0.1, Y)),
    "project.rff": (lambda x: project.rff(x, 5, 0.5), (X,)),
    "project.arccos_features": (lambda x: project.arccos_features(x, 5, 2), (X,)),
    "project.ridge_path": (lambda z, y: project.ridge_path(z, y, [0.1, 1.0])[0], (X, Y)),
    "project.tensorsketch": (lambda x: project.tensorsketch(x, 5, coef0=1.0), (X,)),
    "sparse.spmm": (lambda x: sparse.spmm(MATRIX, x), (X,)),
    "sparse.spmv": (lambda x: sparse.spmv(MATRIX, x), (some(4, 3),)),
    "sparse.linear": (lambda x: sparse.linear(MATRIX, x, act="silu"), (some(7, 3),)),
    "sparse.sddmm": (lambda a, b: sparse.sddmm(MATRIX, a, b).data, (W[:2], X)),
}
#: why no gradient is asked of them
CONSTANT = {
    "hyperbolic.knn": "its distances are for looking at",
    "quant.choose_qparams": "a choice",
    "quant.codebook_assign": "a choice",
    "quant.dequantize": "codes have no gradient",
    "quant.dequantize_log": "codes have no gradient",
    "quant.encode": "codes have no gradient",
    "quant.float_encode": "codes have no gradient",
    "quant.int_layernorm": "codes have no gradient",
    "quant.pack": "codes have no gradient",
    "quant.requantize": "codes have no gradient",
    "quant.shift_exp": "codes have no gradient",
    "quant.shift_gelu": "codes have no gradient",
    "quant.shiftmax": "codes have no gradient",
}
#: functions that one of the cases calls beside its own, and those that take no tensors or have tests of their own
ELSEWHERE = apart.APART | {
    "quant.decode",
    "quant.float_decode",
    "quant.quantize",
    "quant.quantize_log",
    "quant.unpack",
    "sparse.from_dense",
}
#: what else a case calls, which has no second derivative
SECOND = {"sparse.softmax": ("sddmm",)}
EVERY = [pytest.param(*case, id=name) for name, case in CASES.items()]
SMOOTH = [pytest.param(*case, id=name) for name, case in CASES.items() if name not in CONSTANT]


def test_no_function_is_left_out():
    for family in [family for family in families() if family != "random"]:
        module = importlib.import_module(f"tersor.{family}")
        for name in module.__all__:
            if inspect.isfunction(getattr(module, name)):
                assert f"{family}.{name}" in CASES or f"{family}.{name}" in ELSEWHERE


def gradients(f, xs):
    leaves = [x.clone().requires_grad_() for x in xs]
    return torch.autograd.grad((f(*leaves) ** 2).sum(), leaves)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("f", "xs"), SMOOTH)
def test_func(f, xs):
    """Gradients, and gradients by samples, are those of plain calls."""
    every = tuple(range(len(xs)))

    def loss(*ws):
        return (f(*ws) ** 2).sum()

    want = gradients(f, xs)
    close(torch.func.grad(loss, every)(*xs), want)
    y, back = torch.func.vjp(f, *xs)
    close(tuple(2 * d for d in back(y)), want)
    samples = [torch.stack([x, 0.7 * x]) for x in xs]
    each = torch.func.vmap(torch.func.grad(loss, every))(*samples)
    for b in range(2):
        close(tuple(d[b] for d in each), gradients(f, [x[b] for x in samples]))

    def whole(*ws):
        return (torch.func.vmap(f)(*ws) ** 2).sum()

    close(torch.func.grad(whole, every)(*samples), each)


@pytest.mark.parametrize("name", [k for k in CASES if k not in CONSTANT])
def test_who_cannot_be_differentiated_twice_says_its_own_name(name):
    f, xs = CASES[name]
    own = (name.partition(".")[2], *SECOND.get(name, ()))
    given = [x.clone().requires_grad_() for x in xs]
    found = torch.autograd.grad((f(*given) ** 2).sum(), given, create_graph=True)
    assert any(d.requires_grad for d in found)
    try:
        torch.autograd.grad(sum((d**2).sum() for d in found), given, allow_unused=True)
    except NotImplementedError as e:
        assert str(e) in {f"{who}: not differentiable twice" for who in own}
    # nor is the name that of a call that is over
    with pytest.raises(NotImplementedError, match=r"^apply_mask: not differentiable twice"):
        again(lambda x: prune.apply_mask(x, MASK), X)


def test_who_is_called_in_what_is_called_is_not_named():
    def inner(x):
        return prune.topk_rows(x, 4)[0]

    # what a function of the user calls is what the user called
    with pytest.raises(NotImplementedError, match=r"^topk_rows: not differentiable twice"):
        again(lambda x: sparse.apply_tokens(inner, x, MASK[:, 0]), X)
    with pytest.raises(NotImplementedError, match=r"^topk_ffn: not differentiable twice"):
        again(lambda x: sparse.topk_ffn(x, Y, V, 2), X)
    with pytest.raises(NotImplementedError, match=r"^sub_dimensions: not differentiable twice"):
        again(lambda x: sparse.sub_dimensions(x, 2, 3).data, X)
    with pytest.raises(NotImplementedError, match=r"^CSR\.to_dense: not differentiable twice"):
        again(lambda x: MATRIX.with_data(x).to_dense(), MATRIX.data)


def again(f, x):
    """The gradient of a gradient."""
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad((f(x) ** 2).sum(), x, create_graph=True)
    return torch.autograd.grad((g**2).sum(), x)


@pytest.mark.parametrize(("f", "xs"), EVERY)
def test_vmap(f, xs):
    samples = [torch.stack([x, 0.7 * x], 1) for x in xs]
    got = torch.func.vmap(f, in_dims=1)(*samples)
    for b in range(2):
        close(got[b], f(*[x[:, b] for x in samples]))


@pytest.mark.parametrize(("f", "xs"), EVERY)
def test_without_data(f, xs):
    """FakeTensors and meta tensors have the shapes and types of the results."""
    want = f(*xs)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        got = f(*[mode.from_tensor(x) for x in xs])
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if any(isinstance(v, torch.Tensor | sparse.CSR | quant.Packed) for v in inspect.getclosurevars(f).globals.values()):
        return  # constants of these cases lie on the CPU
    got = f(*[x.to("meta") for x in xs])
    assert (got.shape, got.dtype, got.device.type) == (want.shape, want.dtype, "meta")


@pytest.mark.parametrize(("f", "xs"), EVERY)
def test_compile(f, xs, recwarn):
    torch._dynamo.reset()
    traced = torch.compile(f, fullgraph=True, backend="aot_eager")
    close(traced(*xs), f(*xs))
    if f not in [CASES[name][0] for name in CONSTANT]:
        close(gradients(traced, xs), gradients(f, xs))
    assert not [w for w in recwarn if "lru_cache" in str(w.message)]


@pytest.mark.parametrize(("f", "xs"), EVERY)
def test_compile_of_any_size(f, xs):
    """One trace for all batches: extents are symbols, and so may numbers be that a function takes from a table."""
    torch._dynamo.reset()
    close(torch.compile(f, fullgraph=True, backend="aot_eager", dynamic=True)(*xs), f(*xs))


def test_a_first_call_is_traced_where_torch_came_second():
    """Operators are made known while dynamo looks on, and what it has traced stays right after plain calls."""
    code = r"""
import sys
import tersor
assert "torch" not in sys.modules
import torch
from tersor import hyperbolic, loss, norm, prune, sparse
x = torch.rand(3, 4, dtype=torch.float64) * 0.1
a = None
def product(x):
    return sparse.spmm(a, x)
calls = [
    lambda x: norm.rms_norm(x, 4), lambda x: hyperbolic.expmap0(x, 1.0), lambda x: hyperbolic.cdist(x, x),
    lambda x: hyperbolic.poincare_fc_tangent(x, x.mT), lambda x: loss.info_nce(x, x), lambda x: prune.topk_rows(x, 2)[0],
]
traced = [torch.compile(f, fullgraph=True, backend="aot_eager") for f in calls]
first = [f(x) for f in traced]
a = sparse.from_dense(torch.eye(3, dtype=torch.float64))
assert all(torch.equal(y, f(x)) for y, f in zip(first, calls))
assert all(torch.equal(y, f(x)) for y, f in zip(first, traced))
assert torch.equal(torch.compile(product, fullgraph=True, backend="aot_eager")(x), x)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("f", "xs"), EVERY)
def test_export(f, xs):
    class Module(torch.nn.Module):
        def forward(self, *xs):
            return f(*xs)

    close(torch.export.export(Module(), tuple(xs), strict=False).module()(*xs), f(*xs))


def test_freed_storage_is_refused():
    """A tensor whose storage others took away (as FSDP does between passes) is a TypeError, not the end of the process."""
    code = r"""
import torch
from tersor import hyperbolic, lorentz, project, prune, quant, sparse
def freed(bytes_=0, shape=(4, 8), kind=torch.float32, view=None):
    t = torch.rand(shape).to(kind)
    v = t if view is None else view(t)
    t.untyped_storage().resize_(bytes_)
    return v
good = torch.rand(4, 8) * 0.1
a = sparse.from_dense(torch.eye(4))
calls = [
    lambda t: hyperbolic.expmap0(t, 1.0), lambda t: hyperbolic.dist(t, t, 1.0), lambda t: hyperbolic.dist(good, t, 1.0),
    lambda t: hyperbolic.cdist(t, t), lambda t: lorentz.dist(t, t), lambda t: quant.encode(t, "int8-row"),
    lambda t: quant.choose_qparams(t), lambda t: quant.fake_quantize(t, 1.0), lambda t: prune.topk_rows(t, 2),
    lambda t: prune.global_masks([t], 0.5), lambda t: prune.apply_mask(t, torch.ones(4, 8, dtype=torch.bool)),
    lambda t: a @ t, lambda t: sparse.from_dense(t), lambda t: project.project(t, 4), lambda t: project.fwht(t),
    lambda t: hyperbolic.expmap0(good, 1.0, out=t), lambda t: hyperbolic.expmap0(t, 1.0, out=torch.empty(4, 8)),
]
for i, call in enumerate(calls):
    for t in (freed(), freed(20), freed(view=torch.t, shape=(8, 4)), freed(64, view=lambda t: t[:, ::1])):
        try:
            call(t)
        except TypeError:
            continue
        except RuntimeError as e:  # torch's own words, where it is asked first
            if "storage" not in str(e) and "memory" not in str(e):
                raise
            continue
        raise SystemExit(f"call {i} took a tensor without its storage")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


#: arguments that may be of 16 bits where those after them are float32
WIDER = {
    (f"norm.{name}", 0)
    for name in (
        "batch_norm",
        "crms_norm",
        "evonorm",
        "group_norm",
        "instance_norm",
        "layer_norm",
        "rms_norm",
        "standardize",
    )
} | {("norm.weight_standardize", 0), ("loss.cross_entropy", 0)}
#: functions of several float tensors or matrices
MIXED = {name: case for name, case in CASES.items() if len(case[1]) > 1} | {
    "hyperbolic.segment_midpoint": (lambda w, x: H.segment_midpoint(MATRIX.with_data(w), x), (MATRIX.data, X)),
    "hyperbolic.frechet_mean": (lambda x, w: H.frechet_mean(x, w, 0.7), (X, W[:, 0] ** 2)),
    "hyperbolic.weighted_midpoint": (H.weighted_midpoint, (X, W[:, 0].exp())),
    "lorentz.midpoint": (L.midpoint, (X, W[:, 0].exp())),
    "sparse.spmm": (lambda w, x: sparse.spmm(MATRIX.with_data(w), x), (MATRIX.data, X)),
    "CSR @ x": (lambda w, x: MATRIX.with_data(w) @ x, (MATRIX.data, X)),
    "x @ CSR": (lambda w, x: x @ MATRIX.with_data(w), (MATRIX.data, X[:, :2])),
    "sparse.spmm, bias": (lambda x, b: sparse.spmm(MATRIX.to(torch.float32), x, bias=b), (X, X[0, :2])),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_makes_unlike_types_one(name, low):
    f, xs = MIXED[name]
    for at in range(len(xs)):
        given = [x.to(low if i == at else torch.float32).requires_grad_() for i, x in enumerate(xs)]
        if (name, at) not in WIDER:
            with pytest.raises(TypeError):
                f(*given)
        wide = [x.detach().float().requires_grad_() for x in given]
        want = f(*wide)
        with torch.autocast("cpu", low):
            got = f(*given)
        kind = torch.float32 if want.is_floating_point() else want.dtype
        assert got.dtype == kind and torch.equal(got, want)
        if name in CONSTANT:
            continue
        grads = torch.autograd.grad((got**2).sum(), given)
        for g, x, right in zip(grads, given, torch.autograd.grad((want**2).sum(), wide), strict=True):
            assert g.dtype == x.dtype and torch.equal(g, right.to(x.dtype))
        with torch.autocast("cpu", low), pytest.raises(TypeError):
            f(*[x.double() if i == at else x for i, x in enumerate(wide)])


@pytest.mark.parametrize("name", ["hyperbolic.dist", "lorentz.cdist", "lorentz.linear", "sparse.spmm"])
def test_unlike_types_in_a_trace(name):
    f, xs = MIXED[name]
    given = [x.to(torch.float32 if i else torch.bfloat16) for i, x in enumerate(xs)]
    traced = torch.compile(f, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        got, want = traced(*given), f(*given)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_functions_are_compiled_each_by_itself():
    """Of one code, torch would compile eight and refuse the others: of operators and of functions of them."""
    torch.compiler.reset()
    ops = [H.dist0, H.expmap0, H.logmap0, H.lambda_x, H.project, L.expmap0, L.logmap0, L.to_poincare, L.from_poincare]
    composed = [
        H.antipode,
        H.half_aperture,
        H.inv_sproj,
        L.time,
        L.add_time,
        L.half_aperture,
        L.dist0,
        L.to_klein,
        quant.hadamard,
    ]
    for f in ops + composed:
        torch.compile(f, fullgraph=True, backend="eager")(X / 4)
    assert len({id(f.__code__) for f in ops + composed}) == len(ops + composed)
    assert H.dist0.__code__.co_name == "dist0"
