"""What files hold besides one scheme for all matrices: groups that differ, experts side by side, scales that are searched for,
transposed layers. The one rule: what transformers reads is what tersor decodes, and what it does not read is said.
"""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.numpy import load_file, save_file  # noqa: E402
from tersor import FormatError, quant  # noqa: E402
from tersor import nn as tnn  # noqa: E402
from tersor.convert import load, load_encoded, quantize_safetensors, repack  # noqa: E402
from torch import nn  # noqa: E402


def model_of(name):
    pytest.importorskip("compressed_tensors")
    pytest.importorskip("transformers")
    from architectures import build

    return build(name)


def saved(path, **arrays):
    save_file({k.replace("__", "."): v for k, v in arrays.items()}, path)
    return path


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_groups_that_do_not_divide_are_smaller_on_request(tmp_path):
    widths = {"a": 256, "b": 192, "c": 100, "d": 80, "e": 24}
    source = saved(tmp_path / "in.safetensors", **{f"{k}__weight": normal(8, n) for k, n in widths.items()})
    out = tmp_path / "out.safetensors"
    dense = quantize_safetensors(source, out, "int4-g128").choice
    assert dense.quantized == ("a.weight",) and not dense.smaller and "of 64 they do" in dense.dense["b.weight"]
    made = quantize_safetensors(source, out, "int4-g128", fallback=True).choice
    assert made.smaller == {"b.weight": 64, "c.weight": None, "d.weight": 16, "e.weight": None} and not made.dense
    codes, numbers = load_encoded(out), load(out)
    want = {"a": "int4-g128", "b": "int4-g64", "c": "int4-row", "d": "int4-g16", "e": "int4-row"}
    for k, scheme in want.items():
        assert codes[f"{k}.weight"].scheme == scheme
        own = quant.decode(quant.encode(load(source)[f"{k}.weight"], scheme))
        np.testing.assert_array_equal(numbers[f"{k}.weight"], own)


def test_transformers_reads_groups_that_differ(tmp_path):
    import transformers

    model = model_of("llama")  # rows of 64 and of 128
    model.save_pretrained(tmp_path / "in")
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", "uint4-g128", fallback=True)
    assert "zero points" in made.unread
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", "int4-g128", fallback=True)
    assert made.unread is None
    assert set(made.choice.smaller.values()) == {64} and len(made.choice.smaller) < len(made.choice.quantized)
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert sorted(g["weights"]["group_size"] for g in said["config_groups"].values()) == [64, 128]
    numbers = load(tmp_path / "out")
    model.load_state_dict({k: torch.from_numpy(v) for k, v in numbers.items()}, strict=False)
    ids = torch.arange(12)[None]
    for cls in (transformers.AutoModelForCausalLM, transformers.AutoModel):
        got = cls.from_pretrained(tmp_path / "out", local_files_only=True).eval()
        with torch.no_grad():
            own = (model if cls is transformers.AutoModelForCausalLM else model.model)(input_ids=ids)[0]
            torch.testing.assert_close(got(input_ids=ids)[0], own, rtol=1e-4, atol=1e-5)


def test_one_kind_after_all_is_said_as_one(tmp_path):
    model_of("bert base").save_pretrained(tmp_path / "in")
    quantize_safetensors(tmp_path / "in", tmp_path / "out", "int4-g256", fallback=True, exclude=["*output.dense"])
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    (group,) = said["config_groups"].values()
    assert said["dequantize"] and group["weights"]["group_size"] == 64


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(48, 96), nn.Linear(96, 48)

    def forward(self, x):
        return self.down(self.up(x).relu())


@pytest.mark.parametrize("scheme", ["int4-g64-gptq", "int4-g64-awq"])
def test_calibrated_groups_that_do_not_divide(scheme):
    torch.manual_seed(0)
    model, x = Net(), torch.randn(64, 48)
    assert quant.calibrate(model, [x], scheme).layers.keys() == set()
    made = quant.calibrate(model, [x], scheme, fallback=True)
    assert {k: made.encoded(k).scheme for k in made.layers} == {"up": "int4-g16", "down": "int4-g32"}
    for name, layer in model.named_children():
        torch.testing.assert_close(quant.decode(made.encoded(name)), layer.weight.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("scheme", "widths"),
    [("int4-g128-gptq", {}), ("int-g128-gptq", {"bits": [4, 8], "budget": 6.5})],
    ids=["one", "several"],
)
def test_calibrated_files_of_groups_that_differ(tmp_path, scheme, widths):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    from test_calibrate import TEXTS, folder

    folder(tmp_path / "in", "llama")
    given = {"calibration": TEXTS[:20], "fallback": True, **widths}
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", scheme, **given)
    assert set(made.choice.smaller.values()) == {64} and made.unread is None and not made.rounded
    assert made.bits <= widths.get("budget", 4.6)
    codes, dense = load_encoded(tmp_path / "out"), load(tmp_path / "out")
    for name, e in codes.items():
        bits = made.widths.get(name, 4)
        assert e.scheme == f"int{bits}-row"  # of 64 or 128 numbers: one group each
        assert e.shape[1] == made.choice.smaller.get(name, 128)
        np.testing.assert_array_equal(quant.decode(e), dense[name])
    read = transformers.AutoModelForCausalLM.from_pretrained
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        got = read(tmp_path / "out", local_files_only=True)(input_ids=ids)[0]
        model = read(tmp_path / "in", local_files_only=True)
        model.load_state_dict({k: torch.from_numpy(v) for k, v in dense.items()}, strict=False)
        torch.testing.assert_close(got, model(input_ids=ids)[0], rtol=1e-4, atol=1e-5)


def test_layers_take_smaller_groups_on_request():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 96), nn.Linear(96, 50), nn.Linear(50, 8), nn.Conv2d(3, 4, 3))
    assert set(tnn.convert(model, "int4-g128").left) == {"1", "2", "3"}
    tnn.convert(model, "dense")
    made = tnn.convert(model, "int4-g128", fallback=True)
    assert made.smaller == {"1": "int4-g32", "2": "int4-row", "3": "int4-row"} and not made.left
    assert [m.scheme for m in model] == ["int4-g128", "int4-g32", "int4-row", "int4-row"]
    assert "1: int4-g32" in repr(made)
    model = nn.Sequential(nn.Linear(96, 8), nn.Linear(20, 8))
    assert tnn.convert(model, "nf4-nested", fallback=True).smaller == {"0": "nf4-g32-nested", "1": "nf4-row-nested"}
    with pytest.raises(TypeError, match="convert: fallback"):
        tnn.convert(model, "nf4", fallback="yes")


@pytest.mark.parametrize("name", ["llama4", "jetmoe"])
def test_experts_in_memory_with_a_forward_of_their_own_are_said(name):
    model = model_of(name)
    made = tnn.convert(model, "int8-row")
    left = {k: why for k, why in made.left.items() if "experts in one tensor" in why}
    assert left.keys() == {k for k, m in model.named_modules() if type(m).__name__.endswith("Experts")} and left
    assert not any("experts" in k for k in tnn.convert(model, "dense").left)


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g32", "uint4-g32", "uint8-row"])
@pytest.mark.parametrize("name", ["experts__gate_up_proj", "moe__input_linear__weight"])
def test_experts_in_one_tensor_are_matrices(tmp_path, scheme, name):
    x = normal(3, 20, 64) + np.arange(3, dtype=np.float32)[:, None, None] / 4
    source = saved(tmp_path / "in.safetensors", **{name: x, "l__weight": normal(4, 64)})
    out, name = tmp_path / "out.safetensors", name.replace("__", ".")
    left = quantize_safetensors(source, out, scheme).choice
    assert left.quantized == ("l.weight",) and "experts in one tensor" in left.dense[name]
    made = quantize_safetensors(source, out, scheme, experts=True)
    assert set(made.choice.quantized) == {name, "l.weight"} and made.choice.stacked == (name,)
    assert made.after == sum(v.nbytes for v in load_file(out).values())
    e, dense = load_encoded(out)[name], load(out)
    assert e.scheme == scheme and e.shape == x.shape and dense.keys() == {name, "l.weight"}
    np.testing.assert_array_equal(quant.decode(e), dense[name])
    for i in range(len(x)):  # as if each stood alone
        alone = saved(tmp_path / "one.safetensors", l__weight=x[i])
        quantize_safetensors(alone, tmp_path / "alone.safetensors", scheme)
        np.testing.assert_array_equal(load(tmp_path / "alone.safetensors")["l.weight"], dense[name][i])
    with pytest.raises(FormatError, match="of experts"):
        repack(out, tmp_path / "r.safetensors", "ct")
    with pytest.raises(ValueError, match="quantized already"):
        quantize_safetensors(out, tmp_path / "again.safetensors", scheme)
    parts = load_file(out)
    for part in ("_scale", "_shape"):
        save_file({k: v for k, v in parts.items() if k != name + part}, out)
        with pytest.raises(FormatError, match=rf"{name}{part}' is missing"):
            load(out)
    save_file(parts | {f"{name}_shape": np.array([3, 20])}, out)
    with pytest.raises(FormatError, match="are not those of experts"):
        load_encoded(out)


def test_what_compressed_tensors_packs_of_experts_is_what_we_write(tmp_path):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    source = saved(tmp_path / "in.safetensors", experts__up__weight=normal(2, 6, 32))
    quantize_safetensors(source, tmp_path / "out.safetensors", "int4-g16", experts=True)
    parts = load_file(tmp_path / "out.safetensors")
    words = torch.from_numpy(parts["experts.up.weight_packed"])
    codes = helpers.unpack_from_int32(words, 4, torch.Size(parts["experts.up.weight_shape"].tolist()))
    numbers = codes.reshape(2, 6, 2, 16) * torch.from_numpy(parts["experts.up.weight_scale"])[..., None]
    want = load(tmp_path / "out.safetensors")["experts.up.weight"]
    np.testing.assert_array_equal(numbers.reshape(2, 6, 32).numpy(), want)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("jetmoe", "int8-row"), ("jetmoe", "int4-g32"), ("jetmoe", "uint4-g32"), ("granite-moe", "int8-row")],
)
def test_transformers_reads_experts_that_are_called_weight(tmp_path, name, scheme):
    import transformers

    model = model_of(name)
    model.save_pretrained(tmp_path / "in")
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", scheme, experts=True)
    assert len(made.choice.stacked) >= 4
    if name == "granite-moe":  # renamed on the way in, to what has no such name
        assert "holds experts" in made.unread
        return
    assert made.unread is None
    read = transformers.AutoModelForCausalLM.from_pretrained
    got = read(tmp_path / "out", local_files_only=True).state_dict()
    # the same numbers, dense
    numbers = {k: np.array(v, order="C") for k, v in load(tmp_path / "out").items()}
    save_file(numbers, tmp_path / "in" / "model.safetensors", {"format": "pt"})
    want = read(tmp_path / "in", local_files_only=True).state_dict()
    assert got.keys() == want.keys()
    for k, v in want.items():
        torch.testing.assert_close(got[k], v, rtol=1e-6, atol=1e-7)


def test_experts_that_transformers_does_not_read_are_said(tmp_path):
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / "model.safetensors", e__experts__gate_up_proj=normal(2, 8, 32), l__weight=normal(8, 32))
    (tmp_path / "in" / "config.json").write_text("{}")
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", "int8-row", experts=True)
    assert made.unread.startswith("e.experts.gate_up_proj holds experts")
    assert load_encoded(tmp_path / "out").keys() == {"e.experts.gate_up_proj", "l.weight"}


@pytest.mark.parametrize("scheme", ["int4-g32", "int4-row", "uint4-g32", "int8-row"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scales_are_searched_for(tmp_path, scheme, dtype):
    x = normal(16, 64).astype(dtype)
    source, numbers = saved(tmp_path / "in.safetensors", l__weight=x), {}
    for how in ("minmax", "mse"):
        made = quantize_safetensors(source, tmp_path / "out.safetensors", scheme, method=how)
        assert made.choice.quantized == ("l.weight",)
        numbers[how] = load(tmp_path / "out.safetensors")["l.weight"]
    e = load_encoded(tmp_path / "out.safetensors")["l.weight"]
    if dtype == "float32":
        want = quant.encode(x, scheme, method="mse")
        np.testing.assert_array_equal(e.data, want.data)
        np.testing.assert_array_equal(e.scale, want.scale)
    lost = {how: float(((numbers[how] - x.astype(np.float32)) ** 2).mean()) for how in numbers}
    assert lost["mse"] < (1.001 if "8" in scheme else 0.97) * lost["minmax"]


def test_a_method_that_is_none_is_refused(tmp_path):
    source = saved(tmp_path / "in.safetensors", l__weight=normal(4, 32))
    with pytest.raises(ValueError, match="quantize_safetensors: method must be"):
        quantize_safetensors(source, tmp_path / "out.safetensors", "int8-row", method="entropy")


def test_options_of_other_types_are_refused(tmp_path):
    for flag in ("embeddings", "convolutions", "experts", "fallback", "rotate"):
        with pytest.raises(TypeError, match=f"quantize_safetensors: {flag} must be True or False, got str"):
            quantize_safetensors(tmp_path / "in", tmp_path / "out", "int8-row", **{flag: "no"})
    with pytest.raises(TypeError, match="scheme must be a string, got NoneType"):
        quantize_safetensors(tmp_path / "in", tmp_path / "out", None)


def test_transposed_layers_are_decoded_and_no_codes_of_layers(tmp_path):
    model_of("gpt2").save_pretrained(tmp_path / "in")
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", "int8-row")
    assert made.choice.transposed and set(made.choice.transposed) <= set(made.choice.quantized)
    with pytest.raises(FormatError, match="is transposed"):
        load_encoded(tmp_path / "out")
    assert load_encoded(tmp_path / "out", strict=False).keys() == set(made.choice.quantized) - set(
        made.choice.transposed
    )
    with pytest.raises(FormatError, match="is transposed"):
        repack(tmp_path / "out", tmp_path / "r", "gptq")
    source, got = load(tmp_path / "in"), load(tmp_path / "out")
    for name in made.choice.transposed:
        assert np.abs(source[name] - got[name]).max() <= np.abs(source[name]).max() / 253
