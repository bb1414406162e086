"""Layers of sparse weights, and what decides between products. The one rule: their numbers are torch's own, which product is
taken is said."""

import copy
import math
import sys

import numpy as np
import pytest
import torch
from tersor import nn as tnn
from tersor import sparse
from torch.nn import functional as F

ACTS = {None: lambda z: z, "relu": F.relu, "relu6": F.relu6, "gelu": F.gelu, "silu": F.silu}


def test_costs_follow_a_line():
    from tersor.sparse._crossover import Costs

    cost = Costs(dense=4.0, shares=(1.0, 6.0))
    assert cost.sparse(0.05) == 1 and cost.sparse(0.3) == 6 and cost.sparse(0.0) == 0
    assert cost.sparse(1 - cost.crossover) == pytest.approx(4.0)
    assert Costs(9.0, (1e-9, 1e-9)).crossover == 0 and Costs(0.0, (1.0, 2.0)).crossover == 1
    assert 0 <= sparse.crossover((64, 64), 8, np.float32) <= 1
    for error, said, call in [
        (ValueError, "crossover: sizes must be positive", lambda: sparse.crossover((4, 0), 1)),
        (TypeError, "crossover: n must be an integer", lambda: sparse.crossover((4, 4), 1.0)),
        (TypeError, "crossover: shape must be a sequence of integers", lambda: sparse.crossover(4, 1)),
        (TypeError, "crossover: dtype", lambda: sparse.crossover((4, 4), 1, "int8")),
    ]:
        with pytest.raises(error, match=said):
            call()


def test_a_layer_says_and_keeps_its_plan(monkeypatch):
    from tersor.nn import _plan as module
    from tersor.sparse._crossover import Costs

    linear = torch.nn.Linear(256, 256)
    with pytest.raises(TypeError, match=r"SparseLinear\.empty: dtype must be a float type of torch, got torch\.int8"):
        tnn.SparseLinear.empty(2, 2, dtype=torch.int8)
    wrong = tnn.SparseLinear.from_dense(linear)
    wrong.plan = "fast"
    with pytest.raises(ValueError, match="SparseLinear: plan must be 'auto', 'sparse' or 'dense', got 'fast'"):
        wrong(torch.ones(1, 256))
    layer = tnn.SparseLinear.from_dense(linear, torch.rand(256, 256) < 0.5)
    x = torch.randn(9, 256)
    asked = []

    def costs(shape, n, dtype):
        asked.append((shape, n))
        return Costs(1.0, (0.1, 3.0 if n == 16 else 0.4))

    monkeypatch.setattr(module, "costs", costs)
    fixed = tnn.SparseLinear(layer.pattern, layer.bias, plan="sparse")
    with torch.no_grad():
        dense = F.linear(x, layer.weight, layer.bias)
        assert torch.equal(layer(x), dense) and torch.equal(layer(x), dense)
        assert torch.equal(layer(x[:7]), fixed(x[:7])) and torch.equal(layer(x[:2]), fixed(x[:2]))
        assert layer.plans == {16: "dense", 8: "sparse", 2: "sparse"} and asked == [((256, 256), n) for n in (16, 8, 2)]
        assert fixed.plans == {} and "plan='sparse'" in repr(fixed)
        torch.testing.assert_close(fixed(x), dense)
        fixed.plan = "dense"
        assert torch.equal(fixed(x), dense)
    fixed.plan = "sparse"
    assert layer(x).requires_grad and torch.equal(layer(x), fixed(x))  # where a gradient is recorded
    with pytest.raises(ValueError, match="plan must be 'auto', 'sparse' or 'dense', got 'fast'"):
        tnn.SparseLinear(layer.pattern, plan="fast")


def test_a_kept_weight_is_that_of_the_values_at_hand(monkeypatch):
    from tersor.nn import _plan as module
    from tersor.sparse._crossover import Costs

    monkeypatch.setattr(module, "costs", lambda shape, n, dtype: Costs(1.0, (2.0, 2.0)))
    x = torch.randn(3, 80)
    layer = tnn.SparseLinear.from_dense(torch.nn.Linear(80, 70), torch.rand(70, 80) < 0.4)

    def same():
        with torch.no_grad():
            want = F.linear(x.to(layer.data.dtype), layer.weight, layer.bias)
            return torch.equal(layer(x.to(layer.data.dtype)), want) and "_made" in vars(layer)

    assert same() and layer.plans == {4: "dense"}
    kept = vars(layer)["_made"][0]
    assert same() and vars(layer)["_made"][0] is kept
    with torch.no_grad():
        layer.data[5] = 9.0  # counted, though no sample
        assert same()
        layer.data.data.mul_(2)  # not counted
        assert same()
        layer.data.data = torch.randn_like(layer.data)
        assert same()
    layer(x).sum().backward()
    assert "_made" not in vars(layer)
    torch.optim.SGD(layer.parameters(), 0.1).step()
    assert same() and "_made" not in vars(layer.train())
    assert same() and "_made" not in vars(layer.eval())
    assert same() and "_made" not in vars(copy.deepcopy(layer)) and "_made" not in layer.__getstate__()
    layer.load_state_dict(tnn.SparseLinear.from_dense(torch.nn.Linear(80, 70), torch.rand(70, 80) < 0.2).state_dict())
    assert same()
    layer.bfloat16()
    assert same() and same()
    with torch.inference_mode():
        born = copy.deepcopy(layer).float()
        torch.testing.assert_close(born(x), layer(x.bfloat16()).float(), rtol=0.1, atol=0.1)
        assert "_made" not in vars(born)
    swapped = {"data": torch.zeros_like(layer.data)}
    with torch.no_grad():
        given = torch.func.functional_call(layer, swapped, x.bfloat16())
        assert torch.equal(given, layer.bias.expand(3, -1)) and same()
    layer.plan = "sparse"
    with torch.no_grad():
        layer.eval()(x.bfloat16())
    assert "_made" not in vars(layer)


def test_a_kept_weight_is_known_by_bits(monkeypatch):
    from tersor.nn import _plan as module

    layer = tnn.SparseLinear.from_dense(torch.nn.Linear(40, 50), torch.rand(50, 40) < 0.4, plan="dense").requires_grad_(
        False
    )
    assert 64 < layer.data.numel() <= 1024
    x = torch.randn(3, 40)

    def same():
        return torch.equal(layer(x), F.linear(x, layer.to_dense(), layer.bias))

    assert same()
    for i in range(0, layer.data.numel(), 13):  # one value each time, which no version tells of
        layer.data.data[i] += 1
        assert same()
    layer.data.data[3] = 0.0
    layer(x)
    layer.data.data[3] = -0.0
    layer(x)
    assert vars(layer)["_made"][0].flatten().signbit().sum() == layer.to_dense().signbit().sum()
    layer.data.data[5] = math.nan
    layer(x)
    kept = vars(layer)["_made"][0]
    layer(x)
    assert vars(layer)["_made"][0] is kept and kept.isnan().sum() == 1
    for kind in (torch.float64, torch.bfloat16, torch.float16):
        layer.to(kind)(x.to(kind))
        kept = vars(layer)["_made"][0]
        layer(x.to(kind))
        assert vars(layer)["_made"][0] is kept and kept.dtype == kind
    monkeypatch.setattr(module, "WHOLE", 0)  # as a larger layer: some values, evenly spread, and the first of them
    layer.float().eval()(x)
    assert len(vars(layer)["_made"][-1]) <= 4 * module.SEEN
    layer.data.data[0] = 5.0
    layer(x)
    assert (vars(layer)["_made"][0] == 5).any()


def test_small_layers_are_dense_and_what_changes_is_asked_again():
    mask = torch.rand(6, 8) < 0.5
    layer, other = (tnn.SparseLinear.from_dense(torch.nn.Linear(8, 6), mask) for _ in range(2))
    x = torch.randn(2, 3, 8)
    with torch.no_grad():

        def same(y):
            return torch.equal(layer(y), F.linear(y, layer.to_dense(), layer.bias))

        for _ in range(2):
            assert same(x) and same(x[0]) and same(x[0, 0]) and same(x[:0])
        assert layer.plans == {8: "dense", 4: "dense", 1: "dense"} and "_ready" in vars(layer)
        layer.indices.copy_(layer.indices.flip(0).sort().values)  # in place
        layer.bias = other.bias
        assert same(x)
        layer.data = other.data
        layer.indices = other.indices
        layer.indptr = other.indptr
        assert same(x) and torch.equal(layer(x), other(x))
        given = torch.func.functional_call(layer, {"bias": torch.zeros(6)}, x)
        torch.testing.assert_close(given, F.linear(x, layer.to_dense()))
        layer.bias = None
        assert torch.equal(layer(x), F.linear(x, layer.to_dense()))
        layer.plan = "sparse"
        x[0, 0, 0] = math.nan
        assert layer(x).isnan().sum() == (layer.to_dense()[:, 0] != 0).sum()
        for wrong in (x.double(), x[..., :5], x.to_sparse(), torch.ones(8, dtype=torch.int32), torch.tensor(1.0)):
            with pytest.raises((TypeError, ValueError), match="SparseLinear"):
                layer(wrong)
        layer.plan = "dense"
        with torch.autocast("cpu"):
            assert layer(x).dtype == torch.bfloat16
    assert "_ready" not in vars(copy.deepcopy(layer)) and "_ready" not in layer.__getstate__()
    assert layer(x).requires_grad and not layer.requires_grad_(False)(x).requires_grad
    assert layer(x.requires_grad_()).requires_grad
    del layer.data
    with pytest.raises(AttributeError, match="data"):
        layer(x)


def test_a_kept_weight_follows_fused_optimizers():
    layer = tnn.SparseLinear.from_dense(torch.nn.Linear(80, 70), torch.rand(70, 80) < 0.4, plan="dense")
    x = torch.randn(4, 80)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, fused=True)
    layer(x).sum().backward()
    layer.data.grad.zero_()[1] = 5.0  # a value that no sample holds, whose write has no version
    with torch.no_grad():
        for _ in range(2):
            layer(x)
            optimizer.step()
            torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.to_dense(), layer.bias))
        kept = vars(layer)["_made"][0]
        layer(x)
        assert vars(layer)["_made"][0] is kept  # as long as nothing is written


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_kept_weight_follows_compiled_graphs_that_are_trained(seen_before):
    layer = tnn.SparseLinear.from_dense(torch.nn.Linear(80, 70), torch.rand(70, 80) < 0.4, plan="dense")
    optimizer, x = torch.optim.SGD([layer.data], 0.1, fused=True), torch.randn(4, 80)
    graph = torch.compile(layer, fullgraph=True, backend="aot_eager")
    row = int(torch.searchsorted(layer.indptr, torch.ones_like(layer.indptr[:1]), right=True)) - 1
    one = torch.nn.functional.one_hot(layer.indices[1:2].long(), 80).float()  # what meets a value that no sample holds
    with torch.no_grad():
        if seen_before:
            layer(x)
        for _ in range(3):
            with torch.enable_grad():
                graph(one)[0, row].backward()
            assert layer.data.grad.count_nonzero() == 1
            optimizer.step()
            optimizer.zero_grad()
            torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.to_dense(), layer.bias))


def test_a_dense_product_is_one_of_inference_tensors_too():
    with torch.inference_mode():
        layer = tnn.SparseLinear.from_dense(torch.nn.Linear(8, 6), torch.eye(6, 8, dtype=torch.bool), plan="dense")
    x = torch.ones(2, 8)
    x[0, 0] = math.nan
    with torch.no_grad():
        assert layer(x)[0].isnan().all()  # the sparse product has one


def test_convert_asks_what_pays(monkeypatch):
    module = sys.modules["tersor.nn._few"]
    monkeypatch.setattr(module, "crossover", lambda shape, n, dtype: 0.4 if n == 64 else 0.9)
    model = torch.nn.Sequential(torch.nn.Linear(256, 256))
    with torch.no_grad():
        model[0].weight *= torch.rand(256, 256) < 0.5
    assert tnn.convert(model, "sparse").left["0"].endswith("a sparse layer pays from 90% on")
    assert tnn.convert(model, "sparse", rows=64).converted == ("0",)
    with pytest.raises(ValueError, match="rows must be a positive integer, got 0"):
        tnn.convert(model, "sparse", rows=0)


def test_convert_takes_convolutions_of_one_pixel():
    torch.manual_seed(0)
    first, wide, many = torch.nn.Conv2d(8, 16, 1), torch.nn.Conv2d(16, 16, 3), torch.nn.Conv2d(16, 6, 1, bias=False)
    model = torch.nn.Sequential(first, torch.nn.ReLU(), wide, many, torch.nn.Conv2d(6, 6, 1, stride=2))
    with torch.no_grad():
        for conv in (first, wide, model[4]):
            conv.weight *= torch.rand(conv.weight.shape) < 0.1
    x = torch.randn(2, 8, 9, 7)
    want, weights = model(x), first.weight.clone()
    done = tnn.convert(model, "sparse")
    assert done.converted == ("0",) and isinstance(model[0], tnn.SparseConv1x1)
    assert {k: v.partition(":")[2].strip() or v for k, v in done.left.items()} == {
        "2": "kernel_size of conv must be (1, 1), got (3, 3)",
        "3": "0% of its weight are 0, a sparse layer pays from 70% on",
        "4": "stride of conv must be (1, 1), got (2, 2)",
    }
    torch.testing.assert_close(model(x), want)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(last), want)
    assert tnn.convert(model, "dense").converted == ("0",)
    assert torch.equal(model[0].weight, weights) and torch.equal(model(x), want)
    assert tnn.convert(model, "sparse", include=["3"]).converted == ("3",) and model[3].bias is None
    torch.testing.assert_close(model(x), want)
    model[3].act = "relu"
    assert "it has an activation of its own, relu" in tnn.convert(model, "dense").left["3"]
    for layer in (torch.nn.Conv2d(2, 2, 1), tnn.SparseConv1x1.from_float(torch.nn.Conv2d(2, 2, 1))):
        with pytest.raises(TypeError, match=r"itself; use SparseConv1x1.from_float"):
            tnn.convert(layer, "sparse")


@pytest.mark.parametrize("act", ACTS)
def test_a_convolution_in_either_layout(act):
    conv = torch.nn.Conv2d(12, 10, 1)
    mask = torch.rand(10, 12, 1, 1) < 0.4
    layer = tnn.SparseConv1x1.from_float(conv, mask, act=act)
    with torch.no_grad():
        conv.weight *= mask
        x = torch.randn(3, 12, 5, 7)
        want, got = ACTS[act](conv(x)), layer(x)
        torch.testing.assert_close(got, want)
        last = layer(x.to(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last, got, rtol=0 if act in (None, "relu", "relu6") else 1e-6, atol=1e-7)
        torch.testing.assert_close(layer(x[0]), want[0])
    for wrong, said in [
        (torch.nn.Conv2d(4, 4, 3), r"kernel_size of conv must be \(1, 1\), got \(3, 3\)"),
        (torch.nn.Conv2d(4, 4, 1, stride=2), "stride"),
        (torch.nn.Conv2d(4, 4, 1, groups=2), "groups"),
        (torch.nn.Conv2d(4, 4, 1, padding=1), "padding"),
    ]:
        with pytest.raises(ValueError, match=said):
            tnn.SparseConv1x1.from_float(wrong)
    with pytest.raises(TypeError, match=r"conv must be a torch.nn.Conv2d, got Linear"):
        tnn.SparseConv1x1.from_float(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_a_block_of_few_activations(act):
    up, down = torch.nn.Linear(6, 20).double(), torch.nn.Linear(20, 5).double()
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    block = tnn.TopKFFN.from_dense(up, down, 4, act=act)
    h = ACTS[act](up(x))
    kept = torch.zeros_like(h).scatter(-1, h.topk(4).indices, 1.0)
    torch.testing.assert_close(block(x), down(h * kept))
    torch.testing.assert_close(tnn.TopKFFN.from_dense(up, down, 20, act=act)(x), down(h))
    g = torch.randn_like(block(x))
    got = torch.autograd.grad(block(x), [block.up.weight, block.down, block.bias], g)
    want = torch.autograd.grad(down(h * kept), [up.weight, down.weight, down.bias], g)
    for a, b in zip(got, (want[0], want[1].T, want[2]), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="TopKFFN: k must be an integer between 0 and 20, got 21"):
        tnn.TopKFFN.from_dense(up, down, 21)
    with pytest.raises(ValueError, match="up has 20 outputs, down takes 6"):
        tnn.TopKFFN.from_dense(up, torch.nn.Linear(6, 6).double(), 2)
    with pytest.raises(ValueError, match="TopKFFN: out_features must be an integer that is not negative, got -5"):
        tnn.TopKFFN(6, 20, -5, 2)


@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_places_that_are_written_to_in_place(layer):
    """Gradients follow the places that a product has read, and not those that a transpose was once made of."""
    dense, mask = torch.randn(3, 3), torch.eye(3, dtype=torch.bool)
    weight = sparse.from_dense(dense, mask)
    s = tnn.SparseLinear(weight) if layer == "linear" else tnn.SparseConv1x1(weight)
    x = torch.randn((2, 3) if layer == "linear" else (2, 3, 4, 4), requires_grad=True)
    s(x).sum().backward()
    for buffer, values in (("indices", [1, 2, 0]), ("indices", [0, 1, 2]), ("indptr", [0, 0, 3, 3])):
        x.grad = None
        getattr(s, buffer).copy_(torch.tensor(values))
        s(x).sum().backward()
        w = s.to_dense().detach()
        want = w.sum(0).reshape(1, 3, *[1] * (x.ndim - 2)).expand(x.shape)
        assert torch.equal(w, s.pattern.to_dense()) and torch.allclose(x.grad, want)
    assert torch.equal(w.nonzero(), torch.tensor([[1, 0], [1, 1], [1, 2]]))
    with torch.inference_mode():  # whose tensors do not count what is written into them
        made, rows = tnn.SparseLinear(weight), torch.randn(2, 3)
        for plan in ("auto", "sparse", "dense"):
            for values in ([0, 1, 2], [1, 2, 0], [0, 1, 2]):
                made.indices.copy_(torch.tensor(values))
                made.plan, want = plan, torch.zeros(3, 3)
                want[[0, 1, 2], values] = made.data
                assert torch.allclose(made(rows), rows @ want.T) and torch.equal(made.to_dense(), want)
        kept = copy.deepcopy(made).state_dict(), made.to("cpu")
        made.load_state_dict(kept[0], assign=True)
        made.indices.fill_(2)
        assert torch.allclose(made(rows), rows[:, 2:] @ made.data[None])


@pytest.mark.parametrize("layer", [tnn.SparseLinear, tnn.SparseConv1x1, tnn.SparseInt8Linear], ids=lambda c: c.__name__)
@pytest.mark.parametrize("rows", [1, 20, 300])
def test_values_elsewhere_or_too_few_are_refused_by_the_layer(layer, rows):
    linear = torch.nn.Linear(80, 64) if layer is not tnn.SparseConv1x1 else torch.nn.Conv2d(80, 64, 1)
    mask, x = torch.rand(64, 80) > 0.9, torch.randn(rows, 80)
    x = x[..., None, None] if layer is tnn.SparseConv1x1 else x
    make = layer.from_float if layer is tnn.SparseConv1x1 else layer.from_dense
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            made = make(linear, mask)
            with pytest.raises(ValueError, match=f"^{layer.__name__}: the input is on meta, the weight on "):
                made(x.to("meta"))
            made(x)
            made.data.data = made.data.data[:-1]
            with pytest.raises(ValueError, match=f"^{layer.__name__}: data has shape"):
                made(x)
            made = make(linear, mask)
            made(x)
            made.bias.data = made.bias.data[:-1]
            with pytest.raises(ValueError, match=f"^{layer.__name__}: bias must have shape"):
                made(x)
            with pytest.raises(ValueError, match=f"^{layer.__name__}: the input is on cpu, the weight on "):
                make(linear, mask).to("meta")(x)


def test_places_that_somebody_wrote_nonsense_into_are_refused_by_who_was_called():
    """Also where a derived structure meets them first: a transpose is none of the user's."""
    linear = torch.nn.Linear(8, 4)
    for change in ("indices", "indptr"):
        for wrong in (-5, 10**6):
            layer = tnn.SparseLinear.from_dense(linear)
            dict(layer.named_buffers())[change][3] = wrong
            for x in (torch.ones(1, 8), torch.ones(300, 8), torch.ones(3, 8, requires_grad=True)):
                with pytest.raises(ValueError, match=r"^(linear|CSR): "):
                    layer(x)
    a = sparse.from_dense(torch.eye(4))
    a._pattern.indices[1] = 77
    with pytest.raises(ValueError, match=r"^CSR: indices\[1\] = 77 is outside 0\.\.4"):
        _ = a.T
