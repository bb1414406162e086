"""Codes of files as layers: what a file holds is what is multiplied."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.numpy import load_file, save_file  # noqa: E402
from tersor import FormatError, quant  # noqa: E402
from tersor import nn as tnn  # noqa: E402
from tersor.convert import load, load_encoded, quantize_safetensors  # noqa: E402
from torch import nn  # noqa: E402


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(64, 48), nn.Linear(48, 64, bias=False), nn.LayerNorm(64)

    def forward(self, x):
        return self.norm(x + self.down(self.up(x).relu()))


def written(path, model, scheme, prefix=""):
    path.mkdir()
    save_file({prefix + k: v.numpy() for k, v in model.state_dict().items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"architectures": ["Net"]}))
    quantize_safetensors(path, path.parent / "out", scheme)
    return path.parent / "out"


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g16", "int4-row", "int8-g8"])
@pytest.mark.parametrize(("prefix", "wraps"), [("", False), ("net.", False), ("", True)])
def test_layers_are_made_of_the_codes_of_a_file(tmp_path, scheme, prefix, wraps):
    torch.manual_seed(0)
    model, x = Net(), torch.randn(5, 64)
    out = written(tmp_path / "m", model, scheme, prefix)
    dense, codes = load(out), load_encoded(out)
    assert sorted(codes) == [f"{prefix}down.weight", f"{prefix}up.weight"]
    for name, e in codes.items():
        assert e.scheme == scheme
        np.testing.assert_array_equal(quant.decode(e), dense[name])
    want = Net()
    want.load_state_dict({k.removeprefix(prefix): torch.from_numpy(v) for k, v in dense.items()})
    holder = nn.ModuleDict({"inner": model}) if wraps else model
    made = tnn.convert(holder, codes)
    assert set(made.converted) == ({"inner.up", "inner.down"} if wraps else {"up", "down"})
    torch.testing.assert_close(model(x), want(x), rtol=1e-5, atol=1e-5)
    tnn.convert(holder, "dense")
    assert torch.equal(model.up.weight, want.up.weight)


def test_what_does_not_go_together_is_said():
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": Net(), "b": Net()})
    code = quant.encode(np.ones((48, 64), np.float32), "int8-row")
    table = quant.encode(np.ones((9, 64), np.float32), "int8-row")
    with pytest.raises(ValueError, match="none of the codes"):
        tnn.convert(model, {"up": code})  # of which of the two?
    made = tnn.convert(model, {"a.up.weight": code, "table": table}, include=["a.*"])
    assert made.converted == ("a.up",)
    assert made.left["table"] == "codes of no linear layer" and made.left["a.down"] == "there are no codes of it"
    assert made.left["b.up"] == "not included"
    assert torch.equal(model["a"].up.weight, torch.ones(48, 64))
    for codes, error, said in [
        ({}, ValueError, "none of the codes"),
        ({"b.up": table}, ValueError, r"codes 'b.up' are of shape \(9, 64\), the layer 'b.up' is \(48, 64\)"),
        ({"b.up": np.ones(3)}, TypeError, "an Encoded for a name, got ndarray for 'b.up'"),
        ({0: code}, TypeError, "an Encoded for a name, got Encoded for 0"),
        (None, TypeError, "scheme must be a string or a mapping"),
        ({"b.up": code, "x.b.up": code}, ValueError, "'b.up' and 'x.b.up' are both codes of the layer 'b.up'"),
    ]:
        with pytest.raises(error, match=said):
            tnn.convert(model, codes)
    assert isinstance(model["b"].up, nn.Linear)
    with pytest.raises(TypeError, match="of: weight must be an Encoded"):
        tnn.QuantLinear.of(np.ones((48, 64)), model["b"].up)
    with pytest.raises(ValueError, match=r"of: weight is \(9, 64\), the layer's \(48, 64\)"):
        tnn.QuantLinear.of(table, model["b"].up)


def test_codes_keep_their_zero_points_and_their_lowest_code(tmp_path):
    """Codes as other writers make them: −8 and an odd zero point, scales for a tensor, and of 16 bits."""
    q = np.array([[-8, 7, 0, 3] * 8, [1, -8, 2, 7] * 8], np.int8)
    words = quant.pack(q, 4, "ct_dense")
    shape = np.array([2, 32], np.int64)
    zero = np.array([[-3], [2]], np.int8)
    tensors = {
        "a.weight_packed": words,
        "a.weight_shape": shape,
        "a.weight_scale": np.array([[0.5], [0.25]], np.float16),
        "a.weight_zero_point": zero,
        "b.weight": q,
        "b.weight_scale": np.array([0.5], np.float32),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    codes, dense = load_encoded(tmp_path / "x.safetensors"), load(tmp_path / "x.safetensors")
    assert {k: e.scheme for k, e in codes.items()} == {"a.weight": "uint4-row", "b.weight": "int8-tensor"}
    for name, e in codes.items():
        np.testing.assert_array_equal(quant.decode(e), dense[name])
    layer = tnn.QuantLinear.of(codes["a.weight"], nn.Linear(32, 2).bfloat16())
    assert layer.bias.dtype == torch.bfloat16 and layer(torch.ones(1, 32).bfloat16()).dtype == torch.bfloat16
    assert torch.equal(layer.weight.float(), torch.from_numpy(dense["a.weight"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w.weight_scale": np.ones((1, 2), np.float32)}, "w.weight: scales"),
        ({"w.weight_scale": np.ones((4, 3), np.float32)}, "w.weight: scales"),
        ({"w.weight_g_idx": np.arange(8, dtype=np.int32) % 2}, "one by one"),
        ({"w.weight": np.ones((4, 8), np.uint8)}, "holds no codes"),
        ({"w.weight_zero_point": np.ones((2, 1), np.int8)}, "zero points"),
    ],
)
def test_what_no_layer_holds_is_refused(tmp_path, change, said):
    tensors = {"w.weight": np.ones((4, 8), np.int8), "w.weight_scale": np.ones((4, 2), np.float32)}
    save_file(tensors | change, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=said):
        load_encoded(tmp_path / "x.safetensors")


@pytest.mark.parametrize("read", [load, load_encoded])
@pytest.mark.parametrize("missing", ["weight_packed", "weight_scale", "weight_shape"])
def test_a_weight_whose_part_is_missing_is_not_lost(tmp_path, read, missing):
    out = written(tmp_path / "m", Net(), "int4-g16")
    tensors = load_file(out / "model.safetensors")
    del tensors[f"up.{missing}"]
    save_file(tensors, out / "model.safetensors")
    with pytest.raises(FormatError, match=rf"'up.{missing}' is missing beside 'up.weight_"):
        read(out)


def test_several_widths_beside_modules_of_sentence_transformers_are_said(tmp_path, monkeypatch):
    """Nothing is read back there: the library never makes the call that decodes."""
    from tersor.jobs import calibrate

    torch.manual_seed(0)
    written(tmp_path / "m", Net(), "int8-row")
    (tmp_path / "m" / "modules.json").write_text("[]")
    for widths, said in (({"up": 4, "down": 8}, "SentenceTransformer"), ({"up": 4, "down": 4}, None)):
        solved = calibrate.Solved(widths={f"{k}.weight": b for k, b in widths.items()})
        monkeypatch.setattr(calibrate, "solve", lambda *_, solved=solved, **__: solved)
        made = quantize_safetensors(
            tmp_path / "m", tmp_path / "out", "int-g16-gptq", calibration=["a"], bits=[4, 8], budget=6
        )
        assert said in made.unread if said else made.unread is None


@pytest.mark.parametrize("scheme", ["int8-row", "int4-row", "int4-g8", "uint4-row"])
def test_filters_of_a_file_are_layers(tmp_path, scheme):
    from tersor.convert import repack

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1)), torch.randn(2, 8, 5, 6)
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_file({k: v.numpy() for k, v in model.state_dict().items()}, path)
    with pytest.raises(ValueError, match=r"no weight to quantize \(0.weight: of 4 axes"):
        quantize_safetensors(path, out, scheme)
    done = quantize_safetensors(path, out, scheme, convolutions=True)
    assert done.choice.quantized == ("0.weight", "2.weight") and done.after < done.before / 2
    dense, codes = load(out), load_encoded(out)
    for name in done.choice.quantized:
        own = model.state_dict()[name]
        assert dense[name].shape == tuple(own.shape) and codes[name].shape == (len(own), own[0].numel())
        np.testing.assert_array_equal(quant.decode(codes[name]), dense[name].reshape(len(own), -1))
        np.testing.assert_allclose(dense[name], own, atol=0.04)
    want = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1))
    want.load_state_dict({k: torch.from_numpy(v) for k, v in dense.items()})
    assert tnn.convert(model, codes).converted == ("0", "2")
    torch.testing.assert_close(model(x), want(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(FormatError, match="is of a convolution"):
        repack(out, tmp_path / "again.safetensors", "gptq")
    with pytest.raises(ValueError, match="which is not calibrated"):
        quantize_safetensors(path, out, "int4-row-gptq", convolutions=True, calibration=["a"])


def test_what_is_no_path_no_model_and_no_mapping_is_said(tmp_path):
    from tersor.checkpoint import Model, Reader
    from tersor.convert import repack, write_gguf
    from tersor.prune import prune_safetensors

    wrong = b"in.safetensors"
    out, there = str(tmp_path / "out"), tmp_path / "x.gguf"
    for what, call in {
        "load: path": lambda: load(wrong),
        "load_encoded: path": lambda: load_encoded(None),
        "quantize_safetensors: src": lambda: quantize_safetensors(wrong, out, "int8-row"),
        "quantize_safetensors: dst": lambda: quantize_safetensors(out, 3, "int8-row"),
        "repack: src": lambda: repack(wrong, out, "ct"),
        "prune_safetensors: dst": lambda: prune_safetensors(out, wrong, 0.5),
        "Model: path": lambda: Model(wrong),
        "Reader: path": lambda: Reader(3),
        "write_gguf: path": lambda: write_gguf(wrong, {}),
        "write_gguf: tensors": lambda: write_gguf(there, [np.ones(3, np.float32)]),
        "write_gguf: metadata": lambda: write_gguf(there, {"a": np.ones(3, np.float32)}, ["general.name"]),
        "load_encoded: model": lambda: load_encoded(there, model="llama"),
        "load_encoded: strict": lambda: load_encoded(there, strict="no"),
    }.items():
        with pytest.raises(TypeError, match=f"^{what} must be"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g16", "q4_0", "gguf_mxfp4", "nf4"])
def test_codes_that_are_not_there_or_too_few_are_refused(scheme):
    from dataclasses import replace

    torch.manual_seed(0)
    layer, code = nn.Linear(64, 4), quant.encode(torch.randn(4, 64), scheme)
    assert tnn.QuantLinear.of(code, layer).weight.shape == (4, 64)
    with pytest.raises(ValueError, match=r"QuantLinear.of: data must have shape \(4, "):
        tnn.QuantLinear.of(replace(code, data=code.data[:, :-3]), layer)
    with pytest.raises(TypeError, match=r"QuantLinear\.of: data must be an array, got str"):
        tnn.QuantLinear.of(replace(code, data="codes"), layer)
    meta = replace(code, **{k: v.to("meta") for k, v in code.parts.items()})
    with pytest.raises(ValueError, match=r"QuantLinear\.of: weight is on meta"):
        tnn.QuantLinear.of(meta, layer)
    if scheme in ("int8-row", "int4-g16", "nf4"):
        assert tnn.QuantLinear.of(meta, nn.Linear(64, 4, device="meta")).data.device.type == "meta"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_all_floats_of_one_type(tmp_path, dtype):
    import ml_dtypes
    from tersor.convert import write_gguf

    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(32, 64)).astype(np.float16), rng.normal(size=32).astype(ml_dtypes.bfloat16)
    others = {"ids": np.arange(3), "on": np.array([True]), "pairs": np.array([1 + 2j], np.complex64)}
    save_file({"a.weight": w, "a.bias": b, "z.scale": np.float64([[0.1]]), **others}, tmp_path / "in.safetensors")
    quantize_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "int4-g32", include=["a.weight"])
    plain, typed = load(tmp_path / "out.safetensors"), load(tmp_path / "out.safetensors", dtype=dtype)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    assert plain["a.weight"].dtype == np.float32 and plain["a.bias"].dtype == b.dtype and plain.keys() == typed.keys()
    for name, x in plain.items():
        want = x if name in others else x.astype(kind)
        assert typed[name].dtype == want.dtype and typed[name].tobytes() == want.tobytes(), name
    blocks = {"a": quant.encode(rng.normal(size=(4, 64)).astype("f"), "q8_0"), "b": w[0]}
    write_gguf(tmp_path / "x.gguf", blocks)
    assert {x.dtype for x in load(tmp_path / "x.gguf", dtype=dtype).values()} == {kind}


def test_numbers_that_a_type_does_not_hold_are_said(tmp_path):
    path = tmp_path / "in.safetensors"
    ends = np.float32([1.0, np.inf, np.nan, -1e5])
    for x, dtype in ((ends, "float16"), (np.float64([1e300]), "float32"), (np.float64([1e300]), "bfloat16")):
        save_file({"a": x}, path)
        with pytest.raises(ValueError, match=rf"load: tensor 'a' has values beyond {dtype}"):
            load(path, dtype=dtype)
    save_file({"a": ends, "b": np.float64([1e300])}, path)
    np.testing.assert_array_equal(load(path, dtype="float64")["a"], ends)
    assert load(path, dtype="float64")["b"] == 1e300
    with pytest.raises(ValueError, match="load: dtype must be one of float64, float32, float16, bfloat16, got 'int8'"):
        load(path, dtype="int8")
    with pytest.raises(TypeError, match="load: dtype must be one of"):
        load(path, dtype=np.float16)
