"""Inputs and weights that share what is hard to round. The one rule: the model gives the same before it is rounded, and
loses less where its activations are int8."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tersor import nn as tnn  # noqa: E402
from tersor import quant  # noqa: E402
from torch import nn  # noqa: E402


def outliers(name):
    """A small model of transformers whose norms make a few numbers of each token far larger than the others."""
    pytest.importorskip("transformers")
    from architectures import build

    model = build(name)
    torch.manual_seed(0)
    with torch.no_grad():
        for k, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(0, 0.04)
            elif ("norm" in k or "ln_" in k) and k.endswith("weight"):
                p[[3, 9, 40]] = 12
    return model


IDS = torch.tensor(np.random.default_rng(0).integers(3, 90, (16, 24)))


def lost(name, smooth, scheme="int8-row-gptq", activations="int8"):
    model, like = outliers(name), outliers(name)
    batch = {"input_ids": IDS[:8]}
    made = quant.calibrate(model, [batch], scheme, smooth=smooth)
    tnn.convert(model, {k: made.encoded(k) for k in made.layers}, activations=activations)
    with torch.no_grad():
        want, got = like(IDS[8:])[0], model(IDS[8:])[0]
    return made, float((got - want).norm() / want.norm())


@pytest.mark.parametrize("name", ["llama", "opt", "gpt2"])
def test_int8_activations_lose_less(name):
    made, less = lost(name, 0.5)
    assert made.folded and all(name in ("gpt2", "opt") or "mlp" in k or "attn" in k for k in made.folded)
    assert set(made.folded) | set(made.unscaled) == set(made.layers)
    assert less < 0.75 * lost(name, None)[1]
    assert less < lost(name, 0.0)[1]


def test_nothing_changes_but_the_scales():
    """What is folded is what the formula says, and the model with dense weights gives what it gave."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 48)) for _ in range(2))
            self.last = nn.Linear(48, 32)

        def forward(self, x):
            return self.last(torch.relu(self.blocks[0](x) + self.blocks[1](x)))

    x = torch.randn(40, 32) * torch.logspace(-1, 1, 32)
    mask = torch.ones(40)
    mask[30:] = 0
    parts = [x[:20], x[20:]]  # the largest of both, and not of what does not count
    net, like = Net().eval(), Net().eval()
    made = quant.calibrate(
        net,
        parts,
        "int8-row-adaround",
        smooth=0.25,
        method="minmax",
        weights=lambda b: mask[len(b) :] if b is parts[1] else mask[: len(b)],
    )
    assert made.folded == {"blocks.0.1": "blocks.0.0", "blocks.1.1": "blocks.1.0"}
    assert made.unscaled == {"last": "no block around it that is run once"}
    for i in range(2):
        norm, linear = like.blocks[i]
        s = quant.smooth_scales(norm(x)[:30].abs().amax(0).detach(), linear.weight.detach().abs().amax(0), 0.25)
        torch.testing.assert_close(net.blocks[i][0].weight * s, norm.weight, rtol=1e-5, atol=0)
        torch.testing.assert_close(net.blocks[i][0].bias * s, norm.bias, rtol=1e-5, atol=0)
        scaled = linear.weight * s
        assert ((net.blocks[i][1].weight - scaled).abs() <= 1.01 * scaled.abs().amax(1, keepdim=True) / 127).all()
    with torch.no_grad():
        assert (net(x) - like(x)).norm() < 0.01 * like(x).norm()


def test_what_smooth_does_not_go_with():
    net, x = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)), torch.randn(4, 8)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    for bad in (-0.1, 1.5, float("nan"), True):
        with pytest.raises(ValueError, match=r"calibrate: smooth must be within 0 and 1"):
            quant.calibrate(net, [x], "int8-row-gptq", smooth=bad)
    half = quant.calibrate(net, [x], "int8-row-gptq", smooth=np.float32(0.5))  # a number of whatever type
    assert half.layers.keys() == {"1"}
    net.load_state_dict(state)
    with pytest.raises(ValueError, match=r"smooth does not go with scheme 'int8-row-awq': -awq scales inputs itself"):
        quant.calibrate(net, [x], "int8-row-awq", smooth=0.5)
    with pytest.raises(ValueError, match="smooth does not go with scheme 'int-row-gptq': widths"):
        quant.calibrate(net, [x], "int-row-gptq", smooth=0.5, bits=(4, 8), budget=9.0)
    with pytest.raises(ValueError, match="non-finite"):
        quant.calibrate(net, [torch.full((4, 8), float("inf"))], "int8-row-gptq", smooth=0.5)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    empty = quant.calibrate(net, [torch.ones(0, 8)], "int8-row-gptq", smooth=0.5)
    assert empty.left == {"1": "no rows"}


@pytest.mark.serial
def test_files_take_it_and_layers_read_it(tmp_path):
    pytest.importorskip("compressed_tensors")
    from tersor.cli import main
    from tersor.convert import load_encoded, quantize_safetensors
    from test_calibrate import TEXTS, folder

    transformers = pytest.importorskip("transformers")
    folder(tmp_path / "in", "llama")
    outliers("llama").save_pretrained(tmp_path / "in")
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    error = {}
    for smooth in (None, 0.5):
        out = tmp_path / f"out{smooth}"
        args = ["quantize", str(tmp_path / "in"), "-o", str(out), "--scheme", "int8-row-gptq"]
        args += ["--calibration", str(tmp_path / "texts"), *(["--smooth", ".5"] if smooth else [])]
        with pytest.raises(SystemExit) as end:
            main(args)
        assert not end.value.code
        like, model = (
            transformers.AutoModelForCausalLM.from_pretrained(tmp_path / k, dtype=torch.float32).eval()
            for k in ("in", out)
        )
        with torch.no_grad():
            want = like(IDS)[0]
            assert (model(IDS)[0] - want).norm() < 0.02 * want.norm()
            tnn.convert(model, load_encoded(out), activations="int8")
            error[smooth] = float((model(IDS)[0] - want).norm() / want.norm())
    assert error[0.5] < 0.75 * error[None]
    for scheme, options in (("int8-row", {}), ("int8-row-awq", {"calibration": TEXTS})):
        with pytest.raises(ValueError, match="smooth goes with a width"):
            quantize_safetensors(tmp_path / "in", tmp_path / "no", scheme, smooth=0.5, **options)
