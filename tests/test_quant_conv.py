"""Convolutions of quantized weights. The one rule: what comes out is torch's convolution with the decoded weight, of images as
they are or with each patch rounded.
"""

import copy
import itertools

import numpy as np
import pytest
import torch
from tersor import nn as tnn
from tersor import quant
from torch import nn
from torch.nn import functional as F

SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
    {"kernel_size": (2, 3), "padding": "same", "dilation": 2},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "stride": 2},
    {"kernel_size": 5, "padding": "valid"},
]


def conv(channels=8, outs=5, **options):
    torch.manual_seed(0)
    return nn.Conv2d(channels, outs, **options)


def image(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(layer, own):
    """torch's convolution with the weight that the codes stand for."""
    made = copy.deepcopy(own)
    with torch.no_grad():
        made.weight.copy_(layer.weight)
    return made


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", ["int8-row", "int4-tensor", "uint4-row", "nf4-g8", "dynamic8-row"])
def test_floats_are_convolved_as_torch_does(options, scheme):
    own = conv(16, **options)
    layer = tnn.QuantConv2d.from_float(own, scheme)
    for size in (6, 19):  # few pixels are multiplied with the codes, many are torch's
        x = image(1, 16, size, size + 1)
        want = dense(layer, own)(x)
        torch.testing.assert_close(layer(x), want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer(x[0]), want[0], rtol=1e-5, atol=1e-5)
    assert layer.weight.shape == own.weight.shape
    assert torch.equal(layer.weight.flatten(1), quant.decode(quant.encode(own.weight.detach().flatten(1), scheme)))


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", ["int8-row", "int4-row", "uint8-row", "int4-g8"])
def test_patches_are_rounded_one_by_one(options, scheme):
    own = conv(8, **options)
    layer, x = tnn.QuantConv2d.from_float(own, scheme, "int8"), image(2, 8, 9, 7)
    y = layer(x)
    # by torch's own unfolding, each patch a row
    left, right, top, bottom = layer._pads
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, (left, right, top, bottom), mode) if any(layer._pads) else x
    rows = F.unfold(padded, own.kernel_size, own.dilation, 0, own.stride).transpose(1, 2)
    want = quant.packed_linear(rows.contiguous(), layer.encoded, own.bias, activations="int8")
    torch.testing.assert_close(y, want.transpose(1, 2).reshape(y.shape), rtol=1e-6, atol=1e-6)
    assert 0.999 < torch.cosine_similarity(y.flatten(), dense(layer, own)(x).flatten(), 0) < 1


def test_depthwise_filters_and_groups_are_torchs():
    for groups, outs in ((8, 8), (4, 12)):
        own = conv(8, outs, kernel_size=3, padding=1, groups=groups)
        layer, x = tnn.QuantConv2d.from_float(own, "int8-row"), image(2, 8, 5, 5)
        assert torch.equal(layer(x), dense(layer, own)(x))
        with pytest.raises(ValueError, match=f"QuantConv2d: int8 activations go with groups = 1, got {groups}"):
            tnn.QuantConv2d.from_float(own, "int8-row", "int8")


def test_images_stay_as_they_lie_and_parts_are_the_whole(monkeypatch):
    layer = tnn.QuantConv2d.from_float(conv(kernel_size=3, padding=1), "int8-row", "int8")
    x = image(5, 8, 6, 6)
    y = layer(x)
    beside = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous() and beside.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, beside)
    from tersor.nn import quant_conv

    for together in (1, 2 * 36 * 72):
        monkeypatch.setattr(quant_conv, "TOGETHER", together)
        assert torch.equal(layer(x), y)


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_threads(threads):
    layer = tnn.QuantConv2d.from_float(conv(16, 24, kernel_size=3), "int4-row", "int8")
    x = image(3, 16, 20, 20)
    want, before = layer(x), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(layer(x), want)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_gradients_are_those_of_the_decoded_weight(activations):
    own = conv(kernel_size=3, stride=2, padding=1)
    layer = tnn.QuantConv2d.from_float(own, "int8-row", activations)
    x, other = image(2, 8, 7, 7).requires_grad_(), image(2, 8, 7, 7).requires_grad_()
    y = layer(x)
    g = image(*y.shape, seed=3)
    y.backward(g)
    held = dense(layer, own)
    held.weight.requires_grad_(False)
    held(other).backward(g)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias.grad, held.bias.grad)
    assert not tnn.QuantConv2d.from_float(own.requires_grad_(False), "int8-row").bias.requires_grad


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding="same", groups=16, bias=False)
        self.point = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = torch.relu(self.point(torch.relu(self.depth(torch.relu(self.stem(x))))))
        return self.head(x.mean((2, 3)))


def test_a_model_of_convolutions_is_converted_and_brought_back():
    torch.manual_seed(0)
    model, x = Net().eval(), image(2, 3, 16, 16)
    want, state = model(x), {k: v.shape for k, v in model.state_dict().items()}
    made = tnn.convert(model, "int8-row", activations="int8")
    assert made.converted == ("stem", "point", "head") and set(made.left) == {"depth"}
    assert torch.cosine_similarity(model(x), want).min() > 0.999
    assert tnn.convert(model, "int8-row").converted == ("depth",)
    got = model(x)
    assert torch.cosine_similarity(got, want).min() > 0.999
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), got)
    assert tnn.convert(model, "dense").converted == ("stem", "depth", "point", "head")
    assert type(model.depth) is nn.Conv2d and model.depth.padding == "same"
    assert {k: v.shape for k, v in model.state_dict().items()} == state
    assert torch.cosine_similarity(model(x), want).min() > 0.999
    # groups of scales that do not divide a filter are said
    assert tnn.convert(model, "int4-g16").left == {
        "stem": "groups of 16 do not divide a last axis of 27",
        "depth": "groups of 16 do not divide a last axis of 9",
        "head": "groups of 16 do not divide a last axis of 24",
    }
    # and codes that are given go in by name
    codes = {"net.stem.weight": quant.encode(Net().stem.weight.detach().flatten(1).numpy(), "int8-row")}
    assert tnn.convert(model, codes).converted == ("stem",)
    assert np.array_equal(model.stem.data.numpy(), codes["net.stem.weight"].data)


def test_what_is_refused():
    layer = tnn.QuantConv2d.from_float(conv(kernel_size=3), "int8-row")
    e = quant.encode(torch.ones(4, 18), "int8-row")
    for call, error, said in [
        (lambda: layer(image(1, 7, 5, 5)), ValueError, r"\[B, 8, H, W\]"),
        (lambda: layer(image(8, 5)), ValueError, "images"),
        (lambda: layer(image(1, 8, 2, 5)), ValueError, r"kernels \(3, 3\) do not fit images of \(2, 5\)"),
        (lambda: layer(image(1, 8, 5, 5).double()), TypeError, "QuantConv2d: the input is float64"),
        (
            lambda: tnn.QuantConv2d.from_float(nn.Linear(2, 2), "int8-row"),
            TypeError,
            "conv must be a torch.nn.Conv2d, got Linear",
        ),
        (lambda: tnn.QuantConv2d.from_float(nn.Conv1d(2, 2, 1), "int8-row"), TypeError, "got Conv1d"),
        (lambda: tnn.QuantConv2d.of(e, conv(kernel_size=3)), ValueError, r"weight is \(4, 18\)"),
        (lambda: tnn.QuantConv2d(e, None, 4), ValueError, "not of kernels"),
        (lambda: tnn.QuantConv2d(e, None, (3, 3, 3)), ValueError, "kernel_size must be 1 or more, or a pair"),
        (lambda: tnn.QuantConv2d(e, None, 3, 0), ValueError, "stride must be 1 or more"),
        (lambda: tnn.QuantConv2d(e, None, 3, 1.5), TypeError, "QuantConv2d: stride"),
        (lambda: tnn.QuantConv2d(e, None, 3, 2, "same"), ValueError, "'same' at 1"),
        (lambda: tnn.QuantConv2d(e, None, 3, padding_mode="none"), ValueError, "padding_mode"),
        (lambda: tnn.convert(conv(kernel_size=1), "int8-row"), TypeError, r"use QuantConv2d\.from_float"),
    ]:
        with pytest.raises(error, match=said):
            call()
    # the same number of columns, of another kernel
    other = tnn.QuantConv2d.from_float(conv(channels=24, kernel_size=(3, 1)), "int8-row")
    with pytest.raises(RuntimeError, match="int8-row 5x24x3x1"):
        other.load_state_dict(layer.state_dict())


def test_every_width_lies_right():
    for bits, batch in itertools.product(range(2, 9), (1, 2)):
        own = conv(9, 7, kernel_size=(2, 3))
        layer = tnn.QuantConv2d.from_float(own, f"int{bits}-row")
        x = image(batch, 9, 4, 5)
        torch.testing.assert_close(layer(x), dense(layer, own)(x), rtol=1e-5, atol=1e-5)


def test_an_image_smaller_than_its_mirror_is_refused() -> None:
    layer = tnn.QuantConv2d.from_float(torch.nn.Conv2d(8, 6, 3, padding=4, padding_mode="reflect"), "int8-row")
    with pytest.raises(ValueError, match=r"QuantConv2d: images of \(3, 3\) are too small for reflect padding"):
        layer(torch.ones(1, 8, 3, 3))
