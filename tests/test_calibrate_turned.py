"""Transposed layers (Conv1D of GPT-2) calibrated. The one rule: they are the linear layers of the same weight."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from architectures import build  # noqa: E402
from tersor import convert, quant  # noqa: E402
from tersor import nn as tnn  # noqa: E402
from test_calibrate import TEXTS, folder, read, seen  # noqa: E402
from torch import nn  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402


class Net(nn.Module):
    """A block after a norm; a list of one more block after it."""

    def __init__(self, turned):
        super().__init__()
        torch.manual_seed(0)
        dense = [nn.Linear(64, 96), nn.Linear(96, 64), nn.Linear(64, 32), nn.Linear(32, 64)]
        self.norms = nn.ModuleList(nn.RMSNorm(64) for _ in range(2))
        with torch.no_grad():
            for norm in self.norms:
                norm.weight.copy_(torch.rand(64) * 4 + 0.2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                self.norms[i], self.made(dense[2 * i], turned), nn.ReLU(), self.made(dense[2 * i + 1], turned)
            )
            for i in range(2)
        )

    @staticmethod
    def made(linear, turned):
        if not turned:
            return linear
        layer = Conv1D(linear.out_features, linear.in_features)
        with torch.no_grad():
            layer.weight.copy_(linear.weight.t())
            layer.bias.copy_(linear.bias)
        return layer

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("int4-g32-gptq", {}),
        ("uint4-g32-gptq", {"act_order": False}),
        ("int3-row-awq", {}),
        ("int4-row-adaround", {}),
        ("int-g32-gptq", {"bits": "auto", "budget": 5.0}),
    ],
)
def test_they_are_linear_layers(scheme, options):
    x, made, nets = seen(150), [], [Net(turned).eval() for turned in (False, True)]
    with torch.no_grad():
        want = nets[0](x)
        torch.testing.assert_close(nets[1](x), want)
    for net in nets:
        made.append(quant.calibrate(net, [x[:80], x[80:]], scheme, **options))
    plain, turned = made
    assert list(turned.layers) == list(plain.layers) and len(plain.layers) == 4 and not turned.left
    assert turned.widths == plain.widths and turned.folded == plain.folded
    assert bool(plain.folded) == scheme.endswith("awq")
    for name in plain.layers:
        a, b = (m.layers[name] for m in made)
        assert a.codes.shape == b.codes.shape and (a.codes != b.codes).float().mean() < 0.01  # sums in another order
        weight = nets[1].get_submodule(name).weight
        assert torch.equal(weight.t(), quant.dequantize(b.codes, b.scale, b.zero_point))
    with torch.no_grad():
        got = nets[1](x)
        assert (got - nets[0](x)).norm() < 0.02 * want.norm()
    done = tnn.convert(nets[1], {k: turned.encoded(k) for k in turned.layers})
    assert done.converted == tuple(turned.layers)
    with torch.no_grad():
        torch.testing.assert_close(nets[1](x), got, rtol=1e-4, atol=1e-4)


def test_their_names_can_be_given_and_rows_are_inputs():
    net = Net(True).eval()
    made = quant.calibrate(net, [seen(50)], "int4-g64-gptq", layers=["blocks.0.1", "blocks.1.3"])
    assert list(made.layers) == ["blocks.0.1"]
    assert made.left == {"blocks.1.3": "rows of 32 do not divide into groups of 64"}
    with pytest.raises(TypeError, match=r"'norms.0' is no torch.nn.Linear or Conv1D of the module"):
        quant.calibrate(net, [seen(50)], layers=["norms.0"])


@pytest.mark.parametrize("rotate", [False, True])
def test_gpt2_in_memory(rotate):
    model, like = build("gpt2"), build("gpt2")
    ids = torch.tensor(np.random.default_rng(0).integers(3, 90, (8, 12)))
    made = quant.calibrate(model, [{"input_ids": ids}], "int4-g32-gptq", rotate=rotate)
    assert len([k for k in made.layers if "h." in k]) == 8
    # its norms take the mean off; queries, keys and values are one layer, whose heads may all be turned alike
    if rotate:
        assert made.rotated == {f"transformer.h.{i}.attn.c_proj": "heads of 16" for i in range(2)}
        assert set(made.unrotated) == set(made.layers) - set(made.rotated)
        assert "no norm without a mean and a bias" in made.unrotated["transformer.h.0.attn.c_attn"]
    with torch.no_grad():
        want, got = like(ids).logits, model(ids).logits
    assert 0 < (got - want).norm() < 0.2 * want.norm()


@pytest.mark.serial
def test_files_have_their_codes_along_outputs(tmp_path):
    pytest.importorskip("compressed_tensors")
    pytest.importorskip("tokenizers")
    folder(tmp_path / "source", "gpt2")
    call = {"calibration": TEXTS}
    made = convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int4-g32-gptq", **call)
    convert.quantize_safetensors(tmp_path / "source", tmp_path / "nearest", "int4-g32", method="mse")
    assert made.choice.transposed and not made.rounded
    sizes = [(tmp_path / k / "model.safetensors").stat().st_size for k in ("out", "nearest")]
    assert abs(sizes[0] - sizes[1]) < 100
    ids = torch.tensor(np.random.default_rng(99).integers(3, 93, (20, 12)))
    with torch.no_grad():
        want, got, nearest = (read(tmp_path / k)(ids)[0] for k in ("source", "out", "nearest"))
    assert (got - want).norm() < 0.9 * (nearest - want).norm()
    plain = read(tmp_path / "source")
    tree = dict(plain.named_parameters())
    with torch.no_grad():
        for k, v in convert.load(tmp_path / "out").items():
            if k.removeprefix("transformer.") in tree:
                tree[k.removeprefix("transformer.")].copy_(torch.from_numpy(np.array(v, np.float32)))
        torch.testing.assert_close(plain(ids)[0], got, rtol=1e-4, atol=1e-4)
    made = convert.quantize_safetensors(tmp_path / "source", tmp_path / "awq", "int4-g32-awq", **call)
    assert set(made.rounded) == set(made.choice.transposed)
    assert set(made.rounded.values()) == {"a transposed layer (Conv1D), whose scales go along its outputs"}
    widths = {"bits": (3, 4), "budget": 4.5}
    made = convert.quantize_safetensors(tmp_path / "source", tmp_path / "auto", "int-g32-gptq", **call, **widths)
    assert set(made.widths.values()) == {3, 4} and made.bits <= 4.5 and "is transposed" in made.unread
