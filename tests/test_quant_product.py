"""Products with packed weights. The one rule: what is claimed of them is asked of every scheme, against float64."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import tersor
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor import nn as tnn
from tersor import quant
from tersor.quant import _panels
from tersor.quant._grids import NUMBERS
from torch import nn

SCHEMES = (
    "int8-row",
    "int8-g8",
    "int4-row",
    "int4-g16",
    "uint4-g8",
    "uint8-row",
    "int3-g24",
    "uint2-row",
    "int6-row",
    "int8-tensor",
)
#: codes that are places in a table
PLACES = (
    *("nf4-g16", "nf4-row", "nf4-g16-nested", "fp4-g24", "mxfp4-g8", "nvfp4"),
    *("mxfp8_e4m3-g16", "mxfp8_e5m2-row", "mxfp6_e2m3-g8", "mxfp6_e3m2-g24"),
)
EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def weight(scheme, outs=37, inputs=48, seed=0):
    w = np.random.default_rng(seed).standard_normal((outs, inputs)).astype(np.float32)
    e = quant.encode(w, scheme)
    return e, quant.decode(e).astype(np.float64), quant.prepack(e)


def rows(n, inputs=48, dtype="float32", seed=1):
    x = np.random.default_rng(seed).standard_normal((n, inputs))
    return torch.tensor(x).to(getattr(torch, dtype))


@pytest.mark.parametrize("scheme", SCHEMES + PLACES)
def test_panels_hold_the_weights(scheme):
    e, w, packed = weight(scheme)
    sizes = packed.shape[0], packed.shape[1], packed.bits, packed.groups, packed.affine
    np.testing.assert_allclose(_panels.weights(packed.panels, packed.table, *sizes), w, rtol=1e-6)
    assert packed.nbytes <= -(-37 // 16) * 16 * (48 * packed.bits // 8 + packed.groups * 8 + 64)
    again = quant.prepack(quant.encode(torch.tensor(quant.decode(e)), scheme))
    assert isinstance(again.panels, torch.Tensor)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("scheme", SCHEMES + PLACES)
@pytest.mark.parametrize("n", [1, 3, 5, 40])
def test_float_activations_are_right_to_rounding(scheme, dtype, n):
    _, w, packed = weight(scheme)
    x, b = rows(n, dtype=dtype), rows(1, 37, dtype)[0]
    wide = x.double().numpy()
    table = None if packed.table is None else torch.tensor(packed.table)
    packed = quant.Packed(
        torch.tensor(packed.panels), table, *(getattr(packed, k) for k in ("shape", "bits", "groups", "affine"))
    )
    y = quant.packed_linear(x, packed, b)
    assert y.dtype == x.dtype
    want, size = wide @ w.T + b.double().numpy(), np.abs(wide) @ np.abs(w).T
    # the sum is float32's, the result is rounded once
    bound = 4 * 2.0**-23 * np.sqrt(48) * size + EPS[dtype] * np.abs(want)
    assert (np.abs(y.double().numpy() - want) <= bound).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n", [1, 7, 40])
def test_int8_activations_are_those_of_encode(scheme, n):
    _, w, packed = weight(scheme)
    x = rows(n).numpy()
    wide = quant.decode(quant.encode(x, "int8-row")).astype(np.float64)
    y = quant.packed_linear(x, packed, activations="int8")
    assert (np.abs(y - wide @ w.T) <= 4e-7 * (np.abs(wide) @ np.abs(w).T)).all()


@given(n=st.integers(0, 40), outs=st.integers(0, 40), inputs=st.integers(0, 200), seed=st.integers(0, 99))
def test_int8_matmul_is_exact(n, outs, inputs, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-128, 128, (n, inputs), np.int8), rng.integers(-128, 128, (outs, inputs), np.int8)
    want = a.astype(np.int64) @ b.T.astype(np.int64)
    np.testing.assert_array_equal(quant.int8_matmul(a, b), want)
    z = int(rng.integers(0, 256))
    u = a.view(np.uint8)
    np.testing.assert_array_equal(
        quant.int8_matmul(u, b, zero_point_a=z), (u.astype(np.int64) - z) @ b.T.astype(np.int64)
    )
    tensor = quant.int8_matmul(
        torch.tensor(a), torch.tensor(b), scale_a=0.5, scale_b=torch.ones(outs), bias=torch.ones(outs)
    )
    np.testing.assert_allclose(tensor.numpy(), 0.5 * want + 1, rtol=1e-6)


def test_int8_matmul_at_the_ends_of_the_range():
    for inputs in (64, 131071):
        for a, b in ((-128, -128), (127, -128), (-128, 127)):
            y = quant.int8_matmul(np.full((9, inputs), a, np.int8), np.full((2, inputs), b, np.int8))
            assert (y == a * b * inputs).all()
    with pytest.raises(ValueError, match="int8_matmul: 131072 products may not fit 32 bits: at most 131071"):
        quant.int8_matmul(np.zeros((1, 131072), np.int8), np.zeros((1, 131072), np.int8))
    with pytest.raises(ValueError, match="at most 65792"):
        quant.int8_matmul(np.zeros((1, 70000), np.int8), np.zeros((1, 70000), np.int8), zero_point_a=1)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_a_row_does_not_depend_on_the_rows_beside_it(activations):
    # of a few panels, and of so many that tasks have more than four of them; of more rows than weights are decoded for at once
    for scheme, outs, inputs in (
        ("int8-row", 50, 256),
        ("int4-g128", 50, 256),
        ("int8-row", 700, 40),
        ("int4-g8", 700, 40),
    ):
        _, _, packed = weight(scheme, outs, inputs)
        x = rows(200, inputs).numpy()
        whole = quant.packed_linear(x, packed, activations=activations)
        few = quant.packed_linear(x[:8], packed, activations=activations)
        for n in (1, 2, 3, 5, 13, 40, 96):
            # tiles of AMX, which nine rows or more are summed in, round elsewhere than chains
            want = few if n < 9 else whole
            assert np.array_equal(quant.packed_linear(x[:n], packed, activations=activations), want[:n])
        if activations == "int8" or not tersor._core.tiles():
            assert np.array_equal(few, whole[:8])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_many_rows_are_multiplied_with_the_codes(dtype):
    level = tersor._core.level()[0]
    if tersor._core.tiles() or level not in ("avx2", "avx512"):
        pytest.skip("tiles sum other rows in another way, and without vectors many rows are torch's")
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 50, dtype=dtype), torch.randn(150, 64, dtype=dtype)
    layer = tnn.QuantLinear.from_float(linear, "int8-row")
    with torch.no_grad():
        alone = torch.cat([layer(row[None]) for row in x])
        assert torch.equal(layer(x), alone)
    y = layer(x.requires_grad_())
    if dtype == torch.float16:  # which torch has no fast product of
        assert torch.equal(y, alone)
    else:  # what a gradient is recorded of is torch's own product with the weight that the codes stand for
        assert torch.equal(y, nn.functional.linear(x, layer.weight, layer.bias))


def test_what_is_not_finite_stays_in_its_row():
    _, _, packed = weight("int8-row")
    x = rows(20).numpy()
    clean = {a: quant.packed_linear(x, packed, activations=a) for a in ("float", "int8")}
    x[3, 5], x[7, 0] = np.nan, np.inf
    for a, want in clean.items():
        y = quant.packed_linear(x, packed, activations=a)
        assert np.isnan(y[3]).all() and not np.isfinite(y[7]).any()
        keep = [i for i in range(20) if i not in (3, 7)]
        assert np.array_equal(y[keep], want[keep])


def test_denormals_and_large_numbers():
    _, w, packed = weight("int4-g16")
    for scale in (1e-42, 1e-38, 1e36):
        x = rows(9).numpy() * np.float32(scale)
        want, size = x.astype(np.float64) @ w.T, np.abs(x.astype(np.float64)) @ np.abs(w).T
        y = quant.packed_linear(x, packed)
        assert (np.abs(y - want) <= 4 * 2.0**-23 * 7 * size + 48 * 2.0**-149).all()
        xq = quant.decode(quant.encode(x, "int8-row")).astype(np.float64)
        assert (np.abs(quant.packed_linear(x, packed, activations="int8") - xq @ w.T) <= 4e-7 * size + 1e-43).all()


def test_what_does_not_go_together_is_refused():
    e, _, packed = weight("int8-row")
    x = rows(2).numpy()
    for call, error, said in [
        (lambda: quant.prepack(x), TypeError, "weight must be an Encoded"),
        (lambda: quant.prepack(quant.encode(x.astype(np.float64), "int8-row")), TypeError, "scales must be float32"),
        (lambda: quant.prepack(quant.encode(x[0], "int8-row")), ValueError, r"\[out, in\]"),
        (lambda: quant.packed_linear(x[:, 1:], packed), ValueError, "last axis of x must have 48"),
        (lambda: quant.packed_linear(x, packed, x[0]), ValueError, "bias must have shape"),
        (lambda: quant.packed_linear(x, x), TypeError, "Packed"),
        (lambda: quant.packed_linear(x, packed, activations="int4"), ValueError, "activations must be one of"),
        (lambda: quant.packed_linear(x.astype(np.int32), packed), TypeError, "x must be"),
        (lambda: quant.int8_matmul(x, e.data), TypeError, "a must be"),
        (lambda: quant.int8_matmul(e.data, e.data.astype(np.int16)), TypeError, "b must be int8"),
        (
            lambda: quant.int8_matmul(e.data, e.data, zero_point_a=128),
            ValueError,
            "zero_point_a must lie within -128 and 127",
        ),
    ]:
        with pytest.raises(error, match=said):
            call()
    assert np.array_equal(quant.packed_linear(x, packed), quant.packed_linear(x, e))


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("scheme", ["int8-row", "int4-g16", "uint4-g8"])
def test_layers_multiply_with_their_codes(scheme, activations):
    torch.manual_seed(0)
    linear, x = nn.Linear(48, 37), torch.randn(5, 48)
    layer = tnn.QuantLinear.from_float(linear, scheme, activations)
    assert layer.panels is not None and "panels" not in layer.state_dict()
    given = x if activations == "float" else quant.decode(quant.encode(x, "int8-row"))
    want = torch.nn.functional.linear(given.double(), layer.weight.double(), linear.bias.double())
    torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-5)
    # elsewhere the weight is decoded: the same layer
    torch.testing.assert_close(torch.func.vmap(layer)(x[None])[0], layer(x), rtol=1e-5, atol=1e-5)
    x.requires_grad_()
    layer(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * layer(x).detach() @ layer.weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "scheme", ["nf4", "nf4-g32", "fp4-nested", "mxfp4", "nvfp4", "mxfp8_e4m3", "mxfp6_e2m3", "dynamic8"]
)
def test_layers_of_places_in_a_table(scheme):
    torch.manual_seed(0)
    linear = nn.Linear(128, 24)
    layer = tnn.QuantLinear.from_float(linear, scheme)
    assert (layer.panels is None) == (scheme == "dynamic8")  # whose numbers are of no format
    assert layer.scheme == scheme and torch.equal(
        layer.weight, quant.decode(quant.encode(linear.weight.detach(), scheme))
    )
    weight = copy.deepcopy(layer).double().weight
    for dtype, near in ((torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 0.05)):
        x = torch.randn(5, 128, dtype=dtype, requires_grad=True)
        moved = copy.deepcopy(layer).to(dtype)
        y = moved(x)
        want = nn.functional.linear(x.double(), weight, linear.bias.double())
        torch.testing.assert_close(y.double(), want, rtol=near, atol=near)
        (dx,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(dx.double(), weight.sum(0).expand(5, -1), rtol=near, atol=near)
        for name in ("scale", "outer"):
            kept, was = getattr(moved, name), getattr(layer, name)
            assert kept is was is None or torch.equal(kept, was)
    empty = tnn.QuantLinear.empty(128, 24, scheme)
    empty.load_state_dict(layer.state_dict())
    x = torch.randn(3, 128)
    assert torch.equal(empty(x), layer(x)) and set(layer.state_dict()) >= {"data", "scale", "encoding", "bias"}
    assert not {"panels", "table"} & set(layer.state_dict())
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    other = tnn.QuantLinear.empty(128, 24, "fp4-g16")
    with pytest.raises(RuntimeError, match=rf"is encoded as {scheme} 24x128, the layer as fp4-g16"):
        other.load_state_dict(layer.state_dict())
    with pytest.raises(ValueError, match="int8 activations go with integer weights"):
        tnn.QuantLinear.from_float(linear, scheme, "int8")


@pytest.mark.parametrize("small", ["e4m3", "e5m2", "e2m3", "e3m2"])
@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_every_small_float(library, small):
    """Each code, the least ones too, in rows of one number each: multiplied exactly."""
    numbers = NUMBERS[small]
    finite = np.isfinite(numbers)
    codes = np.where(finite, np.arange(len(numbers)), 0).astype(np.uint8)[:, None].repeat(32, 1)
    width = 8 if len(numbers) == 256 else 6
    scale = np.full((len(codes), 1), 128, np.uint8)
    scheme = f"mxfp{width}_{small}"
    e = quant.Encoded(library(quant.pack(codes, width)), library(scale), None, scheme, codes.shape, "float32")
    for n in (1, 5, 40):
        y = quant.packed_linear(library(np.eye(n, 32, dtype=np.float32)), quant.prepack(e))
        want = np.where(finite, 2 * numbers, 0)
        assert np.array_equal(np.asarray(y), np.eye(n, 32, dtype=np.float32).sum(1)[:, None] * want)
    if width == 8:
        codes[3, 5] = 0xFF
        bad = dataclasses.replace(e, data=library(codes))
        with pytest.raises(ValueError, match=f"prepack: weight holds codes of {small} that are no finite number"):
            quant.prepack(bad)


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_any_table(library):
    rng = np.random.default_rng(0)
    table = np.sort(rng.standard_normal(16)).astype(np.float32)
    q, scale = rng.integers(0, 16, (24, 32), np.uint8), rng.uniform(0.5, 2, (24, 4)).astype(np.float32)
    x = rng.standard_normal((5, 32)).astype(np.float32)
    want = x.astype(np.float64) @ (table[q] * np.repeat(scale, 8, 1)).astype(np.float64).T
    for scheme in ("nf4-g8", "int4-g8"):
        e = quant.Encoded(library(quant.pack(q, 4)), library(scale), None, scheme, q.shape, "float32")
        y = quant.packed_linear(library(x), quant.prepack(e, library(table)))
        np.testing.assert_allclose(np.asarray(y), want, rtol=1e-4, atol=1e-4)
    for bad, error, text in (
        (table[:15], ValueError, "16 finite numbers"),
        (np.append(table[:15], np.float32(np.inf)), ValueError, "16 finite numbers"),
        (table.astype(np.float64), TypeError, "table must be float32"),
    ):
        with pytest.raises(error, match=text):
            quant.prepack(e, library(bad))
    with pytest.raises(ValueError, match="a table goes with codes of 4 bits"):
        quant.prepack(quant.encode(library(x), "int8-row"), library(table))


@pytest.mark.parametrize(
    "scheme", ["int8-row", "uint8-g16", "int6-row", "int4-g16", "uint3-g16", "nf4-g16", "mxfp8_e4m3"]
)
def test_codes_that_are_given_up_come_back(scheme):
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 37), torch.randn(5, 96)
    kept = tnn.QuantLinear.from_float(linear, scheme)
    layer = tnn.QuantLinear.from_float(linear, scheme, release=True)
    assert layer.data.numel() == 0 and layer.panels is not None
    other = tnn.QuantLinear.from_float(nn.Linear(96, 37), scheme)

    def same(one, two):
        states = one.state_dict(), two.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(
            torch.equal(states[0][k], states[1][k]) and states[0][k].dtype == states[1][k].dtype for k in states[0]
        )
        assert torch.equal(one(x), two(x)) and torch.equal(one.weight, two.weight)
        assert torch.equal(torch.func.vmap(one)(x[None]), torch.func.vmap(two)(x[None]))

    same(layer, kept)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.to(torch.float64).to(torch.float32)):
        same(again, kept)
        assert again.data.numel() == 0
    layer.load_state_dict(other.state_dict())
    same(layer, other)
    assert layer.data.numel() == 0
    kept.load_state_dict(layer.state_dict())
    same(kept, layer)
    with pytest.raises(RuntimeError, match="is encoded as"):
        layer.load_state_dict(tnn.QuantLinear.from_float(nn.Linear(96, 37), "int5-row").state_dict())
    same(layer, other)
    if layer.scale.is_floating_point():
        layer.scale, kept.scale = 2 * layer.scale, 2 * kept.scale  # the panels follow, and the codes stay
        same(layer, kept)
    layer.data = other.data
    with pytest.raises(RuntimeError, match="its codes were given up"):
        layer(x)


def test_a_state_stands_in_for_codes_that_were_given_up():
    torch.manual_seed(0)
    linear, other, x = nn.Linear(96, 37), nn.Linear(96, 37), torch.randn(5, 96)
    layer = tnn.QuantLinear.from_float(linear, "int4-g16", release=True)
    lent = tnn.QuantLinear.from_float(other, "int4-g16", release=True)
    want = layer(x)
    for state in (lent.state_dict(), layer.state_dict()):
        got = torch.func.functional_call(layer, state, (x,))
        torch.testing.assert_close(got, (lent if torch.equal(state["bias"], lent.bias) else layer)(x))
        assert layer.data.numel() == 0 and torch.equal(layer(x), want)


@pytest.mark.parametrize("scheme", ["int4-g16", "mxfp4"])
def test_layers_without_outputs_or_inputs_keep_their_codes(scheme):
    for inputs, outs in ((64, 0), (0, 8), (0, 0)):
        layer = tnn.QuantLinear.from_float(nn.Linear(inputs, outs), scheme, release=True)
        assert layer(torch.ones(2, inputs)).shape == (2, outs)
        assert layer.state_dict()["data"].shape == copy.deepcopy(layer).encoded.data.shape == layer.data.shape
    with pytest.raises(TypeError, match=r"QuantLinear.from_float: release must be True or False, got str"):
        tnn.QuantLinear.from_float(nn.Linear(64, 8), scheme, release="no")


@pytest.mark.parametrize("scheme", ["int4-g16", "mxfp8_e4m3"])
def test_transforms_find_the_codes_that_were_given_up(scheme):
    torch.manual_seed(0)
    layer = tnn.QuantLinear.from_float(nn.Linear(64, 21), scheme, release=True)
    x, w = torch.randn(3, 64), layer.weight
    torch.testing.assert_close(torch.func.grad(lambda v: layer(v).sum())(x), w.sum(0).expand(3, 64))
    torch.testing.assert_close(torch.func.jacrev(layer)(x[0]), w)
    each = torch.func.vmap(torch.func.grad(lambda v: layer(v).sum()))(x)
    torch.testing.assert_close(each, w.sum(0).expand(3, 64))
    assert layer.data.numel() == 0


@pytest.mark.parametrize("scheme", ["int4-g16", "mxfp8_e4m3"])
def test_a_trace_decodes_what_is_not_multiplied_as_codes(scheme):
    torch.manual_seed(0)
    layer = tnn.QuantLinear.from_float(nn.Linear(64, 21, bias=False), scheme)
    x = torch.randn(3, 64, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


def test_what_is_not_given_up():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32))
    for scheme, empty in (("mxfp6_e2m3", False), ("dynamic8", False), ("int4-g32", True)):
        net = copy.deepcopy(model)
        tnn.convert(net, scheme, release=True)
        assert [layer.data.numel() == 0 for layer in net] == [empty] * 2
        tnn.convert(net, "dense")
        torch.testing.assert_close(net[0].weight, quant.decode(quant.encode(model[0].weight.detach(), scheme)))


def test_a_model_of_nf4():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 100), nn.Linear(100, 8))
    x = torch.randn(4, 128)
    want = model(x)
    done = tnn.convert(model, "nf4")
    assert done.converted == ("0", "2") and done.left["3"].startswith("groups of 64 do not divide a last axis of 100")
    y = model(x)
    assert torch.nn.functional.cosine_similarity(y, want).min() > 0.98
    tnn.convert(model, "dense")
    torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-5)
    table = tnn.QuantEmbedding.from_float(nn.Embedding(10, 64), "nvfp4")
    assert torch.equal(table(torch.tensor([[3, 7]])), table.weight[[3, 7]][None])
    with pytest.raises(ValueError, match="not nested"):
        tnn.QuantEmbedding.from_float(nn.Embedding(10, 64), "nf4-nested")
    for scheme in ("q4_0", "gguf_mxfp4"):
        with pytest.raises(ValueError, match="layout of files"):
            tnn.QuantLinear.from_float(nn.Linear(64, 8), scheme)
        with pytest.raises(ValueError, match="prepack: codes of"):
            quant.prepack(quant.encode(np.ones((2, 32), np.float32), scheme))
        with pytest.raises(ValueError, match="layout of files"):
            tnn.convert(model, scheme)


def test_codes_that_change_are_packed_anew():
    torch.manual_seed(0)
    x = torch.randn(3, 16)
    one, two = (tnn.QuantLinear.from_float(nn.Linear(16, 16), "int8-row") for _ in range(2))
    for change in (
        lambda layer: layer.load_state_dict(two.state_dict()),
        lambda layer: layer.load_state_dict(two.state_dict(), assign=True),
        lambda layer: [
            own.copy_(other)
            for own, other in zip(layer.buffers(), two.buffers(), strict=True)
            if own is not layer.panels
        ],
        lambda layer: [setattr(layer, k, getattr(two, k).clone()) for k in ("data", "scale", "encoding")],
    ):
        layer = tnn.QuantLinear.from_float(nn.Linear(16, 16), "int8-row")
        layer.bias = nn.Parameter(two.bias.detach().clone())
        layer(x)
        with torch.no_grad():
            change(layer)
        assert torch.equal(layer(x), two(x))
    assert not torch.equal(one(x), two(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 32)
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)
        self.router = nn.Linear(32, 4)
        self.again = self.up
        self.head = nn.Linear(32, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        return self.head(x + self.down(torch.relu(self.again(x)))) + self.router(x).sum()


def test_a_model_is_converted_and_brought_back():
    torch.manual_seed(0)
    model, ids = Net().eval(), torch.arange(10)
    want = model(ids)
    made = tnn.convert(model, "int8-row", activations="int8")
    assert made.converted == ("up", "down")
    assert made.left == {"router": "a router", "head": "its weight is also that of table"}
    assert model.again is model.up and isinstance(model.up, tnn.QuantLinear)
    got = model(ids)
    assert 0.9995 < torch.cosine_similarity(got, want).min() < 1
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(ids)
    torch.testing.assert_close(compiled, got)
    assert tnn.convert(model, "dense", exclude=["down"]).left == {"down": "excluded"}
    assert type(model.up) is nn.Linear and model.again is model.up
    tnn.convert(model, "dense")
    assert torch.cosine_similarity(model(ids), want).min() > 0.9995
    # what is asked for by name is converted whatever it is
    assert tnn.convert(model, "int4-g16", include=["head", "router"]).converted == ("router", "head")


def test_a_conversion_says_what_it_leaves():
    model = nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 8))
    model[1].register_forward_hook(lambda *_: None)
    made = tnn.convert(model, "int4-g16")
    assert not made.converted and "groups of 16 do not divide" in made.left["0"] and "hook" in made.left["1"]
    for call, error, said in [
        (lambda: tnn.convert(nn.Linear(2, 2), "int8-row"), TypeError, "Linear itself"),
        (lambda: tnn.convert(3, "int8-row"), TypeError, "convert: model must be"),
        (lambda: tnn.convert(model, "int9-row"), ValueError, "convert: scheme 'int9-row' is unknown"),
        (lambda: tnn.convert(model, "q4_0"), ValueError, "convert: q4_0 is a layout of files"),
        (
            lambda: tnn.convert(model, "nf4", activations="int8"),
            ValueError,
            "convert: int8 activations go with integer",
        ),
        (lambda: tnn.convert(model, "int8-row", activations="int3"), ValueError, "activations must be"),
        (lambda: tnn.convert(model, "int8-row", include=["nothing"]), ValueError, "no tensor and no module is called"),
    ]:
        with pytest.raises(error, match=said):
            call()


def test_second_derivatives():
    e = quant.encode(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), "int4-g4")
    packed = quant.prepack(e)
    x, b = rows(3, 8, "float64").requires_grad_(), rows(1, 5, "float64")[0].requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, b: quant.packed_linear(x, packed, b).square(), (x, b))
    layer = tnn.QuantLinear(e, activations="int8")
    x = rows(3, 8).requires_grad_()
    (g,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    torch.testing.assert_close(h, 2 * (layer.weight.T @ layer.weight).sum(0).expand(3, 8), rtol=1e-5, atol=1e-5)


def test_inference_mode_leaves_no_trace():
    torch.manual_seed(0)
    x = torch.randn(3, 16)
    one, two = (tnn.QuantLinear.from_float(nn.Linear(16, 16), "int8-row") for _ in range(2))
    copied = copy.deepcopy(one)
    with torch.inference_mode():
        copied(x)
        copied.data.copy_(one.data)
        copied(x)
    copied(x).sum().backward()
    with torch.inference_mode():
        made = tnn.QuantLinear.from_float(nn.Linear(16, 16), "int8-row")
        made(x)
        made.load_state_dict(two.state_dict())
        assert torch.equal(made(x), two(x))
    with torch.no_grad():
        assert torch.equal(made(x), two(x))


def test_a_layer_has_the_type_it_was_moved_to():
    x = torch.randn(2, 3, 16)
    for bias in (True, False):
        model = nn.Sequential(nn.Linear(16, 16, bias=bias)).bfloat16()
        tnn.convert(model, "int8-row")
        assert model[0].weight.dtype == torch.bfloat16
        model.float()
        assert model[0].weight.dtype == torch.float32
        model.bfloat16()
        tnn.convert(model, "dense")
        assert model[0].weight.dtype == torch.bfloat16 and model(x.bfloat16()).dtype == torch.bfloat16


def test_what_torch_reads_by_itself_is_left():
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    made = tnn.convert(model, "int8-row")
    assert not made.converted and set(made.left) == {"self_attn.out_proj", "linear1", "linear2"}
    model(torch.randn(2, 3, 16))


def test_what_is_frozen_stays_frozen():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16).requires_grad_(False))
    tnn.convert(model, "int8-row")
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    tnn.convert(model, "dense")
    assert [p.requires_grad for p in model[1].parameters()] == [False, False]


def test_codes_overwritten_behind_a_tensor_are_packed_when_asked():
    torch.manual_seed(0)
    layer, x = tnn.QuantLinear.from_float(nn.Linear(16, 16, bias=False), "int8-row"), torch.randn(3, 16)
    want = layer(x)
    layer.scale.data.mul_(2)
    layer.repack()
    assert torch.equal(layer(x), 2 * want)
    copied = pickle.loads(pickle.dumps(layer))
    copied.panels.zero_()
    assert torch.equal(pickle.loads(pickle.dumps(copied))(x), 2 * want)


def test_scales_of_int8_matmul_are_those_of_rows_and_outputs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (3, 8), np.int8), rng.integers(-9, 9, (3, 8), np.int8)
    want = a.astype(np.int64) @ b.T.astype(np.int64)
    y = quant.int8_matmul(a, b, scale_a=np.full((3, 1), 0.5), scale_b=np.ones((3, 1)), bias=np.ones(3))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, 0.5 * want + 1)
    for wrong in ({"scale_a": np.ones(3)}, {"scale_b": np.ones((1, 3))}, {"bias": np.ones((3, 1))}):
        (who,) = wrong
        with pytest.raises(ValueError, match=f"int8_matmul: {who} must have shape"):
            quant.int8_matmul(a, b, **wrong)


def test_patterns_mean_any_name_of_any_module():
    model = Net()
    assert "up" in tnn.convert(model, "int8-row", exclude=["again"]).left
    assert tnn.convert(model, "int8-row", include=["table", "up"]).left["table"] == "a Embedding is not exchanged"
    empty = quant.prepack(quant.encode(np.zeros((3, 0), np.float32), "int4-g32"))
    assert quant.packed_linear(np.zeros((2, 0), np.float32), empty).tolist() == [[0.0] * 3] * 2


AFTER = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}


@pytest.mark.parametrize("activation", AFTER)
@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_results_are_bent_before_they_are_written(activation, activations, dtype):
    torch.manual_seed(0)
    packed = quant.prepack(quant.encode(torch.randn(37, 96), "int8-row"))
    for rows in (1, 7, 40):
        x, b = 3 * torch.randn(rows, 96).to(dtype), torch.randn(37).to(dtype)
        z = quant.packed_linear(x, packed, b, activations=activations)
        y = quant.packed_linear(x, packed, b, activations=activations, activation=activation)
        slack = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype]
        torch.testing.assert_close(y, AFTER[activation](z.double()).to(dtype), rtol=slack, atol=slack)
        assert y.dtype == dtype
        if activations == "int8":  # floats of many rows are summed in another order where there is AMX
            first = quant.packed_linear(x[:1], packed, b, activations=activations, activation=activation)
            assert torch.equal(first, y[:1])
        if activation == "relu":
            assert torch.equal(y, torch.relu(z))
    numbers = np.array([[np.nan, 1.0], [1e30, -1e30]], np.float32)
    got = quant.packed_linear(
        numbers, quant.prepack(quant.encode(np.eye(2, dtype=np.float32), "int8-row")), activation=activation
    )
    assert np.isnan(got[0]).all() and got[1, 0] == np.float32(1e30) and got[1, 1] == 0


@pytest.mark.parametrize("activation", [None, *AFTER])
@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("kind", ["int8", "uint8", (-7, 100)])
def test_results_become_codes(activation, activations, kind):
    rng = np.random.default_rng(0)
    zero = 5 if kind != "uint8" else 128
    for scheme, outs in (("int8-row", 37), ("uint4-g16", 16), ("int4-g32", 80)):
        packed = quant.prepack(quant.encode(rng.standard_normal((outs, 96)).astype(np.float32), scheme))
        x, b = rng.standard_normal((19, 96)).astype(np.float32), rng.standard_normal(outs).astype(np.float32)
        options = {"activations": activations, "activation": activation}
        made = {"output_scale": 0.17, "output_zero_point": zero, "output_dtype": kind}
        q = quant.packed_linear(x, packed, b, **options, **made)
        want = quant.quantize(quant.packed_linear(x, packed, b, **options), np.float32(0.17), zero, kind)
        assert q.dtype == want.dtype and np.array_equal(q, want)
        wide = quant.packed_linear(x.astype(np.float64), packed, b.astype(np.float64), **options, **made)
        assert np.abs(wide.astype(int) - want).max() <= 1
        held = quant.Packed(
            torch.from_numpy(packed.panels), None, packed.shape, packed.bits, packed.groups, packed.affine
        )
        assert np.array_equal(
            quant.packed_linear(torch.from_numpy(x), held, torch.from_numpy(b), **options, **made).numpy(), q
        )


def test_codes_of_results_go_into_the_next_product():
    rng = np.random.default_rng(0)
    up, down = (
        quant.prepack(quant.encode(rng.standard_normal(s).astype(np.float32), "int8-row")) for s in ((64, 32), (8, 64))
    )
    x = rng.standard_normal((5, 32)).astype(np.float32)
    hidden = quant.packed_linear(x, up, activation="relu")
    s = float(hidden.max()) / 255
    q = quant.packed_linear(x, up, activation="relu", output_scale=s, output_dtype="uint8")
    want = quant.packed_linear(hidden, down)
    ones = quant.int8_matmul(q, down, scale_a=s)  # the scales of rows are the packed weight's
    rows = quant.packed_linear(q.astype(np.float32), down)
    assert np.corrcoef(rows.ravel(), want.ravel())[0, 1] > 0.9999 and ones.shape == want.shape


def test_what_results_may_not_become():
    w = quant.prepack(quant.encode(np.ones((3, 4), np.float32), "int8-row"))
    x = np.ones((2, 4), np.float32)
    for call, error, said in [
        (lambda: quant.packed_linear(x, w, activation="tanh"), ValueError, "packed_linear: activation must be one of"),
        (
            lambda: quant.packed_linear(x, w, output_scale=0.0),
            ValueError,
            "output_scale must be positive and finite, got 0",
        ),
        (lambda: quant.packed_linear(x, w, output_scale=np.inf), ValueError, "output_scale must be positive"),
        (
            lambda: quant.packed_linear(x, w, output_scale=1, output_zero_point=200),
            ValueError,
            "output_zero_point must lie",
        ),
        (lambda: quant.packed_linear(x, w, output_scale=1, output_zero_point=1.5), TypeError, "output_zero_point"),
        (
            lambda: quant.packed_linear(x, w, output_scale=1, out=np.empty((2, 3), np.int8)),
            ValueError,
            "out does not go",
        ),
        (lambda: quant.packed_linear(x * np.nan, w, output_scale=1), ValueError, "packed_linear: .*non-finite"),
        (
            lambda: tnn.QuantLinear.from_float(nn.Linear(4, 3), "int8-row", activation="tanh"),
            ValueError,
            "QuantLinear: activation",
        ),
    ]:
        with pytest.raises(error, match=said):
            call()


@pytest.mark.parametrize("activation", AFTER)
@pytest.mark.parametrize("scheme", ["int8-row", "nf4"])
def test_a_layer_bends_its_results_and_its_gradient(activation, scheme):
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 21), torch.randn(5, 64)
    plain = tnn.QuantLinear.from_float(linear, scheme)
    layer = tnn.QuantLinear.from_float(linear, scheme, activation=activation)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, want = layer(one), AFTER[activation](plain(two))
    torch.testing.assert_close(y, want)
    g = torch.randn(5, 21)
    y.backward(g), want.backward(g)
    torch.testing.assert_close(one.grad, two.grad)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), want)
        torch.testing.assert_close(layer(x.repeat(40, 1))[:5], want)
    assert f"activation={activation}" in repr(layer)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), want)
    torch.testing.assert_close(copy.deepcopy(layer).to(torch.float64)(x.double()).float(), want)
    assert layer.to("meta")(x.to("meta")).shape == (5, 21)
    assert tnn.convert(nn.Sequential(layer), "dense").left["0"].startswith("it has an activation of its own, ")
    conv = nn.Conv2d(8, 5, 3)
    image = torch.randn(1, 8, 6, 6)
    for kind in ("float", "int8")[: 1 if scheme == "nf4" else 2]:
        scheme = "nf4-g8" if scheme == "nf4" else scheme
        bent = tnn.QuantConv2d.from_float(conv, scheme, kind, activation=activation)
        torch.testing.assert_close(
            bent(image), AFTER[activation](tnn.QuantConv2d.from_float(conv, scheme, kind)(image))
        )


def test_what_is_of_codes_goes_with_a_scale() -> None:
    weight = quant.prepack(quant.encode(np.eye(8, dtype=np.float32), "int8-row"))
    for name, value in (("output_zero_point", 3), ("output_dtype", "uint8")):
        with pytest.raises(ValueError, match=f"packed_linear: {name} is of codes"):
            quant.packed_linear(np.ones((1, 8), np.float32), weight, **{name: value})
