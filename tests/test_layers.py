"""Every layer as torch's own are treated. The one rule: a layer that `tersor.nn` exports stands in the table, and whatever is
done to it (cast, saved, moved, copied, traced, transformed) gives what the plain call gives.
"""

import copy
import inspect
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from tersor import nn as tnn
from tersor import quant, sparse
from torch import nn

DIM = 8


def _sparse(**options):
    torch.manual_seed(3)
    linear = nn.Linear(DIM, 6, **options)
    return tnn.SparseLinear.from_dense(linear, torch.rand(6, DIM, generator=torch.Generator().manual_seed(4)) > 0.5)


def _sparse_int8(**options):
    torch.manual_seed(3)
    linear = nn.Linear(DIM, 6, **options)
    return tnn.SparseInt8Linear.from_dense(linear, torch.rand(6, DIM, generator=torch.Generator().manual_seed(4)) > 0.5)


def _sparse_conv(**options):
    torch.manual_seed(3)
    mask = torch.rand(4, DIM, generator=torch.Generator().manual_seed(4)) > 0.5
    return tnn.SparseConv1x1.from_float(nn.Conv2d(DIM, 4, 1), mask, **options)


def _quant(scheme, activations="float"):
    torch.manual_seed(3)
    return tnn.QuantLinear.from_float(nn.Linear(DIM, 6), scheme, activations)


def _conv(scheme="int8-row", activations="float", **options):
    torch.manual_seed(3)
    return tnn.QuantConv2d.from_float(nn.Conv2d(DIM, 4, 3, **options), scheme, activations)


def _curved(layer, *args, **options):
    return lambda: layer(*args, c=0.7, learnable=True, **options)


class Beside:
    """A layer that is told something of its own beside the input."""

    def forward(self, x):
        return super().forward(x, self.beside(x) if isinstance(x, torch.Tensor) else None)


class RegionNorm(Beside, tnn.RegionNorm):
    def beside(self, x):
        return torch.arange(36, device=x.device).reshape(1, 1, 6, 6).expand(len(x), 1, 6, 6) % 5 < 2


class AdaB2N(Beside, tnn.AdaB2N):
    def beside(self, x):
        return torch.arange(len(x), device=x.device) % 2


class TimeDependentNorm(Beside, tnn.TimeDependentNorm):
    def beside(self, x):
        return torch.linspace(0, 1, len(x), dtype=x.dtype, device=x.device)


class PeriNorm(Beside, tnn.PeriNorm):
    def beside(self, x):
        return 0.5 * x.flip(0)

    def forward(self, x):
        return torch.cat(super().forward(x), -1)


class CoordinateModulation(Beside, tnn.CoordinateModulation):
    def beside(self, x):
        return torch.linspace(-1, 1, 2 * len(x), dtype=x.dtype, device=x.device).reshape(-1, 2)


ROWS, IMAGE, SEQUENCE = (5, DIM), (2, DIM, 6, 6), (2, 4, DIM)
#: name -> how it is made, and what goes in
LAYERS = {
    "QuantLinear int8-row": (lambda: _quant("int8-row"), ROWS),
    "QuantLinear int4-g4": (lambda: _quant("int4-g4"), ROWS),
    "QuantLinear nf4-g4": (lambda: _quant("nf4-g4"), ROWS),
    "QuantLinear nvfp4-g4": (lambda: _quant("nvfp4-g4"), ROWS),
    "QuantLinear mxfp8_e4m3-g4": (lambda: _quant("mxfp8_e4m3-g4"), ROWS),
    "QuantLinear uint4-row": (lambda: _quant("uint4-row"), ROWS),
    "QuantLinear int8-row rounded": (lambda: _quant("int8-row", "int8"), ROWS),
    "QuantConv2d": (lambda: _conv(padding=1), IMAGE),
    "QuantConv2d nf4-g9 in groups": (lambda: _conv("nf4-g9", groups=4, bias=False), IMAGE),
    "QuantConv2d int8-row rounded": (lambda: _conv(activations="int8", stride=2, padding="valid"), IMAGE),
    "QuantConv2d int4-g8 rounded": (lambda: _conv("int4-g8", "int8", padding=1, dilation=2), IMAGE),
    "SparseLinear": (_sparse, ROWS),
    "SparseLinear without bias": (lambda: _sparse(bias=False), SEQUENCE),
    "SparseInt8Linear": (_sparse_int8, ROWS),
    "SparseInt8Linear without bias": (lambda: _sparse_int8(bias=False), SEQUENCE),
    "SparseConv1x1": (_sparse_conv, IMAGE),
    "SparseConv1x1 with an activation": (lambda: _sparse_conv(act="silu"), IMAGE),
    "TopKFFN": (lambda: tnn.TopKFFN(DIM, 16, 6, 5, act="gelu"), ROWS),
    "PoincareLinear": (_curved(tnn.PoincareLinear, DIM, 6), ROWS),
    "PoincareLinear ball": (_curved(tnn.PoincareLinear, DIM, 6, ball=True), ROWS),
    "PoincareMLR": (_curved(tnn.PoincareMLR, DIM, 3), ROWS),
    "PoincareConv2d": (_curved(tnn.PoincareConv2d, DIM, 4, 3, padding=1), IMAGE),
    "PoincareBatchNorm": (_curved(tnn.PoincareBatchNorm, DIM), ROWS),
    "PoincareActivation": (_curved(tnn.PoincareActivation, torch.tanh), ROWS),
    "PoincareReLU": (_curved(tnn.PoincareReLU), ROWS),
    "PoincareAvgPool2d": (_curved(tnn.PoincareAvgPool2d, 2), IMAGE),
    "PoincareAttention": (_curved(tnn.PoincareAttention, DIM, 2), SEQUENCE),
    "LayerNorm": (lambda: tnn.LayerNorm(DIM), ROWS),
    "RMSNorm": (lambda: tnn.RMSNorm(DIM), ROWS),
    "GroupNorm": (lambda: tnn.GroupNorm(2, DIM), IMAGE),
    "BatchNorm1d": (lambda: tnn.BatchNorm1d(DIM), ROWS),
    "BatchNorm2d": (lambda: tnn.BatchNorm2d(DIM), IMAGE),
    "BatchNorm3d": (lambda: tnn.BatchNorm3d(DIM), (2, DIM, 3, 2, 2)),
    "InstanceNorm1d": (lambda: tnn.InstanceNorm1d(DIM, affine=True), (2, DIM, 6)),
    "InstanceNorm2d": (lambda: tnn.InstanceNorm2d(DIM, affine=True), IMAGE),
    "InstanceNorm3d": (lambda: tnn.InstanceNorm3d(DIM, affine=True), (2, DIM, 3, 2, 2)),
    "LorentzLinear": (_curved(tnn.LorentzLinear, DIM, 6), ROWS),
    "LorentzLinear planes": (_curved(tnn.LorentzLinear, DIM, 6, planes=True), ROWS),
    "LorentzMLR": (_curved(tnn.LorentzMLR, DIM, 3), ROWS),
    "LorentzConv2d": (_curved(tnn.LorentzConv2d, DIM, 4, 3, padding=1), IMAGE),
    "LorentzBatchNorm": (_curved(tnn.LorentzBatchNorm, DIM), ROWS),
    "LorentzAttention": (_curved(tnn.LorentzAttention, DIM, 2), SEQUENCE),
    "PowerNorm": (lambda: tnn.PowerNorm(DIM, 2), ROWS),
    "UnifiedNorm": (lambda: tnn.UnifiedNorm(DIM), SEQUENCE),
    "AlphaBatchNorm": (lambda: tnn.AlphaBatchNorm(DIM, alpha=0.5), IMAGE),
    "BatchChannelNorm": (lambda: tnn.BatchChannelNorm(DIM, 2), IMAGE),
    "BatchChannelNorm by estimates": (lambda: tnn.BatchChannelNorm(DIM, 2, estimate=True), IMAGE),
    "IBNorm": (lambda: tnn.IBNorm(DIM, 0.4), IMAGE),
    "AdaB2N": (lambda: AdaB2N(DIM, 2), IMAGE),
    "PRepBN": (lambda: tnn.PRepBN(DIM, decay_steps=4), SEQUENCE),
    "FrozenLayerNorm": (lambda: tnn.FrozenLayerNorm(DIM, positions=2), SEQUENCE),
    "CRMSNorm": (lambda: tnn.CRMSNorm(DIM), ROWS),
    "TimeDependentNorm": (lambda: TimeDependentNorm(DIM), SEQUENCE),
    "PeriNorm": (lambda: PeriNorm(DIM), ROWS),
    "PeriNorm of layer norms": (lambda: PeriNorm(DIM, kind="layer"), ROWS),
    "RegionNorm": (lambda: RegionNorm(DIM), IMAGE),
    "CoordinateModulation": (lambda: CoordinateModulation(DIM, (3, 4)), ROWS),
    "CoordinateModulation of features": (lambda: CoordinateModulation(DIM, (3, 4), shared=False), ROWS),
    "EvoNorm2d": (lambda: tnn.EvoNorm2d(DIM), IMAGE),
    "EvoNorm2d s0": (lambda: tnn.EvoNorm2d(DIM, "s0", 2), IMAGE),
    "WSConv2d": (lambda: tnn.WSConv2d(DIM, 4, 3, padding=1), IMAGE),
    "WSLinear": (lambda: tnn.WSLinear(DIM, 6, gain=True), ROWS),
    "RandomLift": (lambda: tnn.RandomLift(DIM, 20, "spinner"), SEQUENCE),
    "PoincareResidual": (lambda: tnn.PoincareResidual(tnn.PoincareLinear(DIM, DIM), c=0.7), ROWS),
}
EVERY = pytest.mark.parametrize("name", list(LAYERS))
#: layers that take indices or several points: their tests are at the end, or elsewhere
TABLES = ("QuantEmbedding", "QuantExperts", "HEmbedding", "ProductSpace", "Propagate", "UnifiedEmbedding")
#: what wraps a whole module, with tests of its own in test_subspace.py
WRAPPERS = ("Subspace",)


def made(name, dtype=torch.float32):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().to(dtype)
    x = 0.2 * torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return layer.eval(), x


def close(got, want, rtol=1e-6, atol=1e-7):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def test_no_layer_is_left_out():
    for name in tnn.__all__:
        found = getattr(tnn, name)
        if inspect.isclass(found) and issubclass(found, nn.Module) and found is not tnn.Curvature:
            assert name in (*TABLES, *WRAPPERS) or any(key.split()[0] == name for key in LAYERS), name


@EVERY
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_takes_what_a_layer_before_it_gives(name, low):
    layer, x = made(name)
    # functions of tangent vectors by elements and batch norms keep the type, as torch's own do
    coded = (tnn.QuantLinear, tnn.QuantConv2d, tnn.SparseLinear, tnn.SparseInt8Linear, tnn.SparseConv1x1, tnn.TopKFFN)
    kinds = (*coded, tnn.WSLinear, tnn.WSConv2d, tnn.RegionNorm)
    products = isinstance(layer, (*kinds, nn.modules.batchnorm._BatchNorm, tnn.PoincareActivation, tnn.RandomLift))
    products = products and not isinstance(layer, tnn.PRepBN)  # which is a layer norm first
    with torch.autocast("cpu", dtype=low):
        y = layer(x.to(low))
    want = layer(x.to(low).float())
    assert y.dtype == (low if products else torch.float32)
    close(y.float(), want, *((0.05, 0.05) if products else (1e-5, 1e-6)))
    x.requires_grad_()
    with torch.autocast("cpu", dtype=low):
        layer(x).float().sum().backward()
    assert x.grad.dtype == torch.float32 and x.grad.isfinite().all()


@EVERY
def test_a_state_goes_into_a_new_object(name):
    layer, x = made(name)
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(1.1)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = LAYERS[name][0]().eval()
    if isinstance(layer, tnn.SparseLinear):  # with another pattern, and another number of entries
        other = tnn.SparseLinear.empty(layer.in_features, layer.out_features, layer.bias is not None)
    assert str(other.load_state_dict(torch.load(file))) == "<All keys matched successfully>"
    assert torch.equal(other(x), layer(x))


@EVERY
def test_a_state_goes_through_safetensors(name):
    st = pytest.importorskip("safetensors.torch")
    layer, x = made(name)
    state = st.load(st.save(layer.state_dict()))
    other = LAYERS[name][0]().eval()
    other.load_state_dict(state)
    assert torch.equal(other(x), layer(x))


@EVERY
def test_copies(name):
    layer, x = made(name)
    want = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), want)
    if name not in ("PoincareActivation",):
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x), want)
    parameters = {id(p) for p in copy.deepcopy(layer).parameters()}
    assert not parameters & {id(p) for p in layer.parameters()}


@EVERY
def test_moves(name):
    layer, x = made(name)
    shape = layer(x).shape
    y = copy.deepcopy(layer).to("meta")(x.to("meta"))
    assert y.shape == shape and y.device.type == "meta"
    for dtype in (torch.float64, torch.bfloat16):
        assert copy.deepcopy(layer).to(dtype)(x.to(dtype)).dtype == dtype
    back = copy.deepcopy(layer).to(torch.float64).to(torch.float32)
    close(back(x), layer(x))
    state = layer.state_dict()
    empty = copy.deepcopy(layer).to("meta").to_empty(device="cpu")
    empty.load_state_dict(state)
    assert torch.equal(empty.eval()(x), layer(x))


@EVERY
def test_compiled_whole_and_exported(name):
    layer, x = made(name)
    want = layer(x)
    torch._dynamo.reset()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), want)
    assert not [w for w in seen if "lru_cache" in str(w.message)]
    close(torch.export.export(layer, (x,), strict=False).module()(x), want)


@EVERY
def test_gradients_by_samples(name):
    layer, x = made(name, torch.float64)
    parameters = dict(layer.named_parameters())
    buffers = dict(layer.named_buffers())

    # of a module that stands at several names (a shared curvature), functional_call leaves the numbers it was given behind
    called = copy.deepcopy(layer)

    def loss(parameters, x):
        return (torch.func.functional_call(called, (parameters, buffers), (x[None],)) ** 2).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(len(x)):
        layer.zero_grad()
        plain = (layer(x[i][None]) ** 2).sum()
        if plain.requires_grad:
            plain.backward()
        for k, p in parameters.items():
            close(each[k][i], p.grad if p.grad is not None else torch.zeros_like(p), 1e-9, 1e-11)


@EVERY
def test_gradients(name):
    layer, x = made(name, torch.float64)
    if (
        "rounded" in name
    ):  # differences see the steps of a rounding, gradients pass through: tests/test_quant_product.py
        return
    if "ReLU" in name:
        x = x.abs() + 0.01
    assert torch.autograd.gradcheck(layer, (x[:2].requires_grad_(),), fast_mode=True)


@EVERY
def test_odd_inputs(name):
    layer, x = made(name)
    want = layer(x)
    assert layer(x[:0]).shape == (0, *want.shape[1:])
    strided = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(layer(strided), want)
    for wrong in (x.int(), x.numpy(), None):
        with pytest.raises(TypeError, match=type(layer).__name__):
            layer(wrong)
    if name not in ("PoincareActivation", "PoincareReLU", "PoincareAvgPool2d", "PoincareResidual"):
        axis = 1 if x.ndim >= 4 or "InstanceNorm" in name else -1  # that of the channels
        with pytest.raises(ValueError, match=type(layer).__name__):
            layer(x.movedim(axis, 0)[1:].movedim(0, axis))


def test_what_is_of_another_scheme_is_refused():
    state = _quant("int4-g4").state_dict()
    for other in ("int8-row", "int4-row", "uint4-row"):
        with pytest.raises(RuntimeError, match="int4-g4"):
            _quant(other).load_state_dict(state)


def test_a_broken_pattern_is_refused():
    layer = _sparse()
    state = layer.state_dict()
    before = {k: v.clone() for k, v in state.items()}
    for key, value in (("indices", 99), ("indptr", -1)):
        broken = {k: v.clone() for k, v in before.items()}
        broken[key][-1] = value
        with pytest.raises(RuntimeError, match="SparseLinear"):
            layer.load_state_dict(broken)
    with pytest.raises(RuntimeError, match="without their pattern"):
        layer.load_state_dict({"data": before["data"], "bias": before["bias"]})
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_the_pattern_has_the_values_at_hand():
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    a = tnn.SparseLinear.from_dense(linear, torch.tensor([[True, False], [False, True]]))
    b = tnn.SparseLinear.from_dense(linear, torch.tensor([[False, True], [True, False]]))
    b.load_state_dict(a.state_dict())
    assert b(torch.tensor([[1.0, 10.0]])).tolist() == [[1.0, 40.0]]
    a.data.data.mul_(10)
    assert a.pattern.to_dense().tolist() == a.weight.tolist() == [[10.0, 0.0], [0.0, 40.0]]


def test_a_matrix_on_a_graph_makes_a_layer_of_its_own():
    dense = nn.Linear(3, 3)
    layer = tnn.SparseLinear(sparse.from_dense(dense.weight))
    assert torch.equal(copy.deepcopy(layer).weight, dense.weight)


@pytest.mark.parametrize("wrong", [nn.Conv2d(3, 3, 1), nn.Embedding(3, 3), nn.Bilinear(2, 2, 2), 3, np.ones((2, 2))])
def test_only_linear_layers_are_converted(wrong):
    for convert in (lambda: tnn.QuantLinear.from_float(wrong, "int8-row"), lambda: tnn.SparseLinear.from_dense(wrong)):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            convert()


def test_a_transposed_layer_is_a_linear_one():
    def forward(self, x):
        return x @ self.weight + self.bias

    # as transformers has it, which is slow to import
    kind = type("Conv1D", (nn.Module,), {"__module__": "transformers.pytorch_utils", "forward": forward})
    torch.manual_seed(0)
    layer, x = kind(), torch.randn(3, 16)
    layer.weight, layer.bias = nn.Parameter(torch.randn(16, 24)), nn.Parameter(torch.randn(24))
    want, model = layer(x), nn.Sequential(layer)
    got = tnn.QuantLinear.from_float(layer, "int8-row")
    assert got.shape == (24, 16) and torch.cosine_similarity(got(x), want).min() > 0.9999
    codes = got.encoded
    assert tnn.convert(model, "int8-row", activations="int8").converted == ("0",)
    assert torch.cosine_similarity(model(x), want).min() > 0.999
    assert tnn.convert(model, "dense").converted == ("0",) and type(model[0]) is nn.Linear
    model = nn.Sequential(layer)
    assert tnn.convert(model, {"0.weight": codes}).converted == ("0",)
    assert torch.equal(model(x), got(x))


CONVERTED = {
    "quant": lambda layer: tnn.QuantLinear.from_float(layer, "int8-row"),
    "sparse": lambda layer: tnn.SparseLinear.from_dense(layer),
}


def _pruned(layer):
    torch.nn.utils.prune.random_unstructured(layer, "weight", amount=4)
    torch.nn.utils.prune.l1_unstructured(layer, "weight", amount=4)  # a container of both
    torch.nn.utils.prune.random_unstructured(layer, "bias", amount=2)
    return layer


def _parametrized(layer):
    torch.nn.utils.parametrizations.weight_norm(layer)
    return layer


#: what makes a weight before or in a forward pass
MADE = {
    "prune": _pruned,
    "weight_norm": torch.nn.utils.weight_norm,
    "spectral_norm": torch.nn.utils.spectral_norm,
    "parametrized": _parametrized,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("training", [True, False])
def test_weights_are_those_that_a_forward_pass_would_use(how, training):
    torch.manual_seed(0)
    layer = MADE[how](nn.Linear(16, 6)).train(training)
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(3).add_(0.01)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    stale = layer.weight.detach().clone()
    quantized, sparse = CONVERTED["quant"](layer), CONVERTED["sparse"](layer)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    x = torch.randn(5, 16)
    want = layer.eval()(x)
    assert how == "parametrized" or not torch.allclose(stale, layer.weight)
    torch.testing.assert_close(sparse(x), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quantized(x), want, rtol=0.05, atol=0.3)
    if how == "prune":
        assert sparse.data.numel() == int((layer.weight != 0).sum()) <= 16 * 6 - 8


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def _hooked(register):
    layer = nn.Linear(16, 6)
    getattr(layer, register)(lambda *args: None)
    return layer


def _replaced():
    layer = nn.Linear(16, 6)
    layer.forward = lambda x: x
    return layer


@pytest.mark.parametrize("convert", CONVERTED)
def test_what_a_layer_does_besides_is_not_lost(convert):
    for layer, said in (
        (Doubled(16, 6), "linear is a Doubled with a forward of its own"),
        (_replaced(), r"the forward of linear \(Linear\) has been replaced"),
        (_hooked("register_forward_pre_hook"), "linear has a forward pre-hook"),
        (_hooked("register_forward_hook"), "linear has a forward hook"),
        (_hooked("register_full_backward_pre_hook"), "linear has a backward pre-hook"),
        (_hooked("register_full_backward_hook"), "linear has a backward hook"),
        (nn.LazyLinear(6), "no weight yet"),
    ):
        with pytest.raises(TypeError, match=said):
            CONVERTED[convert](layer)
    own = nn.modules.linear.NonDynamicallyQuantizableLinear(16, 6)
    assert CONVERTED[convert](own).out_features == 6


def test_a_parameter_given_as_curvature_is_kept():
    c = nn.Parameter(torch.tensor(0.5))
    layer = tnn.PoincareLinear(DIM, 4, c=c)
    assert any(p is c for p in layer.parameters())
    layer(torch.ones(2, DIM)).sum().backward()
    assert c.grad is not None


def test_attributes_that_tools_count_by():
    for layer in (_quant("int8-row"), _sparse()):
        assert (layer.in_features, layer.out_features, tuple(layer.weight.shape)) == (DIM, 6, (6, DIM))
    assert torch.equal(_quant("int8-row").weight, quant.decode(_quant("int8-row").encoded))


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g4", "uint4-row"])
def test_a_table_of_codes(scheme):
    torch.manual_seed(0)
    table, x = nn.Embedding(9, DIM, padding_idx=0), torch.tensor([[0, 3], [8, 8], [1, 0]])
    layer = tnn.QuantEmbedding.from_float(table, scheme)
    want = layer(x)
    assert torch.equal(want, nn.functional.embedding(x, layer.weight)) and want.shape == (3, 2, DIM)
    assert torch.equal(layer(x.int()), want) and layer(x[:0]).shape == (0, 2, DIM)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = tnn.QuantEmbedding.from_float(nn.Embedding(9, DIM), scheme)
    other.load_state_dict(torch.load(file))
    for same in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(x), want)
    assert copy.deepcopy(layer).to(torch.bfloat16)(x).dtype == torch.bfloat16
    torch._dynamo.reset()
    close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), want)
    close(torch.export.export(layer, (x,), strict=False).module()(x), want)
    empty = copy.deepcopy(layer).to("meta")
    assert empty(x.to("meta")).shape == want.shape
    empty = empty.to_empty(device="cpu")
    empty.load_state_dict(layer.state_dict())
    assert torch.equal(empty(x), want)
    with pytest.raises(RuntimeError, match=scheme):
        tnn.QuantEmbedding.from_float(nn.Embedding(9, DIM), "int8-g2").load_state_dict(layer.state_dict())


def test_what_a_table_of_codes_does_not_take():
    layer = tnn.QuantEmbedding.from_float(nn.Embedding(9, DIM), "int8-row")
    for wrong in (torch.ones(3), np.ones(3, int), None):
        with pytest.raises(TypeError, match="QuantEmbedding: the input must be a tensor of int64 or int32"):
            layer(wrong)
    with pytest.raises(IndexError):
        layer(torch.tensor([9]))
    for wrong in (nn.Linear(2, 2), nn.Embedding(3, 4, max_norm=1.0)):
        with pytest.raises(TypeError, match=r"QuantEmbedding\.from_float"):
            tnn.QuantEmbedding.from_float(wrong, "int8-row")
    with pytest.raises(ValueError, match="by rows or groups"):
        tnn.QuantEmbedding.from_float(nn.Embedding(3, 4), "int8-tensor")


@pytest.mark.parametrize("bad", [0, -1, 2.5, "a", None])
def test_sizes_that_no_layer_of_points_has(bad):
    sizes = [
        (tnn.PoincareLinear, (bad, 4), "in_features"),
        (tnn.PoincareLinear, (4, bad), "out_features"),
        (tnn.PoincareMLR, (bad, 4), "in_features"),
        (tnn.PoincareMLR, (4, bad), "out_features"),
        (tnn.PoincareConv2d, (bad, 4, 3), "in_channels"),
        (tnn.PoincareConv2d, (4, bad, 3), "out_channels"),
        (tnn.PoincareConv2d, (4, 4, bad), "kernel_size"),
        (tnn.PoincareBatchNorm, (bad,), "num_features"),
        (tnn.PoincareAttention, (bad, 2), "embed_dim"),
        (tnn.PoincareAttention, (4, bad), "num_heads"),
        (tnn.LorentzLinear, (bad, 4), "in_features"),
        (tnn.LorentzLinear, (4, bad), "out_features"),
        (tnn.LorentzMLR, (4, bad), "out_features"),
        (tnn.LorentzConv2d, (bad, 4, 3), "in_channels"),
        (tnn.LorentzConv2d, (4, 4, bad), "kernel_size"),
        (tnn.LorentzBatchNorm, (bad,), "num_features"),
        (tnn.LorentzAttention, (bad, 2), "embed_dim"),
        (tnn.LorentzAttention, (4, bad), "num_heads"),
        (tnn.HEmbedding, (bad, 4), "num_embeddings"),
        (tnn.HEmbedding, (4, bad), "embedding_dim"),
    ]
    for layer, args, name in sizes:
        with pytest.raises(
            ValueError if isinstance(bad, int) else TypeError, match=f"^{layer.__name__}: {name} must be"
        ):
            layer(*args)


def test_layers_that_another_library_packed_are_left_and_said():
    """compressed-tensors takes the weight of a layer until the model is called, and replaces its forward."""
    model = nn.Sequential(nn.Linear(48, 8))
    codes = {"0": quant.encode(model[0].weight.detach(), "int8-row")}
    model[0].forward = lambda x: x
    del model[0].weight
    for scheme, options in ((codes, {}), ("int8-row", {}), ("int4-g32", {"fallback": True})):
        done = tnn.convert(model, scheme, **options)
        assert not done.converted and "has been replaced" in done.left["0"]
