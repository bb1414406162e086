"""Schemes by hand: other bits for some layers than for the rest. The one rule: the first pattern that names a weight decides,
one that decides of nothing is an error, and what is written so is read so.
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


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def saved(path, **widths):
    save_file({f"{k.replace('__', '.')}.weight": normal(8, n, seed=i) for i, (k, n) in enumerate(widths.items())}, path)
    return path


def encoded(array, scheme):
    return quant.decode(quant.encode(array, scheme))


# files


def test_a_file_holds_several_schemes_and_says_them(tmp_path):
    # rows of 16 codes fill as many words in 2 bits as in 1: the widths are those that the file says
    source = saved(tmp_path / "in.safetensors", up=128, l0__down_proj=64, l1__down_proj=64, head=16)
    schemes = {"head": "uint8-row", "*.down_proj": "int8-g32"}
    made = quantize_safetensors(source, tmp_path / "out.safetensors", "int4-g16", schemes=schemes)
    want = {"up": "int4-g16", "l0.down_proj": "int8-g32", "l1.down_proj": "int8-g32", "head": "uint8-row"}
    assert {k: one.scheme for k, one in made.layers.items()} == {f"{k}.weight": v for k, v in want.items()}
    assert sum(one.after for one in made.layers.values()) == made.after
    codes, numbers, dense = load_encoded(tmp_path / "out.safetensors"), load(tmp_path / "out.safetensors"), load(source)
    for k, scheme in want.items():
        name = f"{k}.weight"
        assert codes[name].scheme == scheme
        np.testing.assert_array_equal(numbers[name], quant.decode(codes[name]))
        if scheme[0] != "u":  # zero points of files are those of the scale that is stored
            np.testing.assert_array_equal(numbers[name], encoded(dense[name], scheme))
        assert np.abs(numbers[name] - dense[name]).max() <= np.abs(dense[name]).max() / (7 if "4" in scheme else 127)


def test_the_first_pattern_decides(tmp_path):
    source = saved(tmp_path / "in.safetensors", a=32, b=32)
    out = tmp_path / "out.safetensors"
    quantize_safetensors(source, out, "int4-row", schemes={"a": "int8-g32", "?": "int8-row"})
    assert {k: e.scheme for k, e in load_encoded(out).items()} == {"a.weight": "int8-row", "b.weight": "int8-row"}
    quantize_safetensors(source, out, "int4-row", schemes={"a.weight": "int8-g16", "?": "int8-row"})
    assert load_encoded(out)["a.weight"].scheme == "int8-g16"


@pytest.mark.parametrize(
    ("schemes", "options", "message"),
    [
        ({"c": "int8-row"}, {}, "schemes: no weight that is quantized is called 'c'"),
        ({"?": "int8-row", "a": "int4-row"}, {}, r"called 'a'; '\?' comes before it"),
        ({"a": "int8-row"}, {"exclude": ["a"]}, r"called 'a' \(a.weight: excluded\)"),
        ({"a": "int9-row"}, {}, "schemes: scheme 'int9-row' is unknown"),
        ({"a": "int8-row-gptq"}, {}, "scheme int8-row-gptq: needs texts for calibration"),
        ({"a": "int-row-gptq"}, {"calibration": ["a"]}, "'int-row-gptq' has no width"),
        ({"a": "int8-row-gptq", "b": "int8-row-awq"}, {"calibration": ["a"]}, "in one way, not awq and gptq"),
        ({"a": "uint8-row", "b": "int8-row-gptq"}, {"calibration": ["a"]}, "zero points"),
    ],
)
def test_what_does_not_go_together_changes_nothing(tmp_path, schemes, options, message):
    source = saved(tmp_path / "in.safetensors", a=32, b=32)
    with pytest.raises(ValueError, match=message):
        quantize_safetensors(source, tmp_path / "out.safetensors", "int4-row", schemes=schemes, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["in.safetensors"]


def test_schemes_are_a_mapping(tmp_path):
    source = saved(tmp_path / "in.safetensors", a=32)
    for wrong in (["a=int8-row"], "a=int8-row", {"a": 8}):
        with pytest.raises(TypeError, match="schemes must be a mapping of shell patterns to schemes"):
            quantize_safetensors(source, None, "int4-row", schemes=wrong)
    with pytest.raises(ValueError, match="schemes of their own where widths are not chosen"):
        quantize_safetensors(
            source, None, "int-row-gptq", schemes={"a": "int8-row"}, bits="auto", budget=4, calibration=["a"]
        )


def test_metadata_that_says_no_scheme_is_malformed(tmp_path):
    source = saved(tmp_path / "in.safetensors", a=32)
    quantize_safetensors(source, tmp_path / "out.safetensors", "int4-row", schemes={"a": "int8-row"})
    tensors = load_file(tmp_path / "out.safetensors")
    for wrong in ("[]", "{", '{"a.weight": 8}', '{"a.weight": "int99-row"}'):
        save_file(tensors, tmp_path / "bad.safetensors", {"tersor.scheme": "int4-row", "tersor.schemes": wrong})
        with pytest.raises(FormatError, match=r"tersor\.schemes"):
            load(tmp_path / "bad.safetensors")


def test_other_containers_keep_the_widths(tmp_path):
    source = saved(tmp_path / "in.safetensors", a=64, b=64)
    quantize_safetensors(source, tmp_path / "out.safetensors", "int4-g32", schemes={"b": "int8-g32"})
    want = load(tmp_path / "out.safetensors")
    repack(tmp_path / "out.safetensors", tmp_path / "again.safetensors", to="ct")
    again = load(tmp_path / "again.safetensors")
    assert all(np.array_equal(again[k], v) for k, v in want.items())


def test_the_command(tmp_path):
    from test_cli import tersor

    source, out = saved(tmp_path / "in.safetensors", a=64, b=64, c=64), tmp_path / "out.safetensors"
    given = ["quantize", source, "--scheme", "int4-g32", "--scheme-for", "b=int8-row"]
    dry = tersor(*given, "--dry-run")
    assert dry.returncode == 0 and "int8-row" in dry.stdout and not out.exists()
    done = tersor(*given, "-o", out)
    assert done.returncode == 0 and "in int4-g32 and others" in done.stdout
    assert "2 weights in int4-g32, 1 weight in int8-row" in " ".join(done.stdout.split())
    assert "int4-g32 and others" in " ".join(tersor("inspect", out).stdout.split())
    for wrong, said in (
        (["b"], "PATTERN=SCHEME"),
        (["b=int4-row"], "'b' is given twice"),
        (["c=int4"], "did you mean int4-g128"),
        (["d=int4-row"], "is called 'd'"),
        (["c=int4-row-gptq"], "needs --calibration TEXTS"),
    ):
        failed = tersor(*given, "--scheme-for", *wrong, "--dry-run")
        assert failed.returncode == 2 and said in failed.stderr, (wrong, failed.stderr)


@pytest.mark.serial
@pytest.mark.parametrize("calibrated", [False, True], ids=["rounded", "gptq"])
def test_transformers_reads_what_is_written(tmp_path, calibrated):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    from test_calibrate import TEXTS, folder

    model = folder(tmp_path / "in", "llama")
    schemes = {"*.down_proj": "int8-g32", "*layers.0.*.q_proj": "int8-row"}
    options = {"calibration": TEXTS[:20]} if calibrated else {}
    scheme = "int4-g32" + "-gptq" * calibrated
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", scheme, schemes=schemes, **options)
    assert made.unread is None and not made.rounded
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    kinds = {(g["weights"]["num_bits"], g["weights"]["group_size"]) for g in said["config_groups"].values()}
    assert kinds == {(4, 32), (8, 32), (8, None)}
    codes, dense = load_encoded(tmp_path / "out"), load(tmp_path / "out")
    source = load(tmp_path / "in")
    for name, e in codes.items():
        own = "int8-g32" if "down_proj" in name else "int8-row" if "layers.0.self_attn.q_proj" in name else "int4-g32"
        assert e.scheme == own
        if own != "int4-g32":  # not calibrated: to the nearest
            np.testing.assert_array_equal(dense[name], encoded(source[name], own))
    for cls in (transformers.AutoModelForCausalLM, transformers.AutoModel):
        got = cls.from_pretrained(tmp_path / "out", local_files_only=True).eval()
        model.load_state_dict({k: torch.from_numpy(v) for k, v in dense.items()}, strict=False)
        ids = torch.arange(3, 30)[None]
        with torch.no_grad():
            own = (model if cls is transformers.AutoModelForCausalLM else model.model)(input_ids=ids)[0]
            torch.testing.assert_close(got(input_ids=ids)[0], own, rtol=1e-4, atol=1e-5)


def test_experts_that_are_put_together_are_of_one_kind(tmp_path):
    pytest.importorskip("transformers")
    from architectures import build

    build("mixtral").save_pretrained(tmp_path / "in")
    with pytest.raises(ValueError, match="cannot have int8-row: transformers puts"):
        quantize_safetensors(tmp_path / "in", None, "int4-g32", schemes={"*q_proj": "int8-row"})


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7])
@pytest.mark.parametrize("grain", ["row", "g16"])
def test_files_of_any_width(tmp_path, bits, grain):
    """Rows that fill whole words and rows that do not, and the same codes in the reader of compressed-tensors."""
    unpack = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers").unpack_from_int32
    source = saved(tmp_path / "in.safetensors", a=128, b=48, **({"c": 37} if grain == "row" else {}))
    dense = load(source)
    for scheme in (f"int{bits}-{grain}", f"uint{bits}-{grain}"):
        quantize_safetensors(source, tmp_path / "out.safetensors", scheme)
        codes, numbers = load_encoded(tmp_path / "out.safetensors"), load(tmp_path / "out.safetensors")
        tensors = load_file(tmp_path / "out.safetensors")
        for name, x in dense.items():
            assert codes[name].scheme == scheme
            np.testing.assert_array_equal(quant.decode(codes[name]), numbers[name])
            if scheme[0] == "i":
                np.testing.assert_array_equal(numbers[name], encoded(x, scheme))
            scale = tensors[f"{name}_scale"].repeat(x.shape[1] // tensors[f"{name}_scale"].shape[1], 1)
            assert (np.abs(numbers[name] - x) <= scale * (0.51 if scheme[0] == "i" else 1.01)).all()
            theirs = unpack(torch.from_numpy(tensors[f"{name}_packed"]), bits, torch.Size(x.shape)).numpy()
            middle = 0
            if scheme[0] == "u":
                words = torch.from_numpy(tensors[f"{name}_zero_point"])
                shape = torch.Size(tensors[f"{name}_scale"].shape)
                middle = unpack(words, bits, shape, packed_dim=0).numpy().astype(np.float32)
                middle = middle.repeat(x.shape[1] // shape[1], 1)
            np.testing.assert_array_equal((theirs.astype(np.float32) - middle) * scale, numbers[name])


@pytest.mark.serial
@pytest.mark.parametrize("scheme", ["int2-g32", "uint3-g32", "int5-row", "int6-g32", "int3-g32-gptq"])
def test_transformers_reads_any_width(tmp_path, scheme):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    from test_calibrate import TEXTS, folder

    model = folder(tmp_path / "in", "llama")
    options = {"calibration": TEXTS[:10]} if "gptq" in scheme else {}
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", scheme, **options)
    assert made.unread is None and not made.rounded
    got = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in load(tmp_path / "out").items()}, strict=False)
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(got(input_ids=ids)[0], model(input_ids=ids)[0], rtol=1e-4, atol=1e-5)


# calibrated modules


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 10)).eval()


def test_calibrated_layers_have_their_schemes():
    module, x = net(), torch.randn(200, 64)
    told = quant.calibrate(module, [x], "int4-g32-gptq", schemes={"2": "int3-g16-gptq", "4": "int8-row"})
    assert {k: told.encoded(k).scheme for k in told.layers} == {"0": "int4-g32", "2": "int3-g16", "4": "int8-row"}
    for k, layer in (("0", module[0]), ("2", module[2]), ("4", module[4])):
        torch.testing.assert_close(quant.decode(told.encoded(k)), layer.weight.detach(), rtol=1e-6, atol=1e-7)
    # the layer that is rounded has the nearest codes, those before it are as they are without it
    scale, _ = quant.choose_qparams(net()[4].weight.detach(), "int8", axis=0, method="mse")
    assert torch.equal(told.layers["4"].codes, quant.quantize(net()[4].weight.detach(), scale, None, "int8"))
    other = quant.calibrate(net(), [x], "int4-g32-gptq", schemes={"2": "int3-g16-gptq"})
    assert torch.equal(other.layers["2"].codes, told.layers["2"].codes)
    # most may be rounded and some calibrated
    few = quant.calibrate(net(), [x], "int4-g32", schemes={"0": "int4-g32-gptq"})
    assert torch.equal(few.layers["0"].codes, told.layers["0"].codes) and few.encoded("2").scheme == "int4-g32"


@pytest.mark.parametrize(
    ("schemes", "options", "message"),
    [
        ({"5": "int8-row"}, {}, "no weight that is quantized is called '5'"),
        ({"?": "int8-row", "2": "int4-row"}, {}, r"'2'; '\?' comes before it"),
        ({"2": "int4-g64"}, {}, "2.weight: rows of 96 do not divide into groups of 64"),
        ({"2": "int8-row-awq"}, {}, "in one way, not awq and gptq"),
        ({"2": "nf4"}, {}, "codes are calibrated that are integers"),
    ],
)
def test_calibrated_schemes_that_are_refused(schemes, options, message):
    module = net()
    with pytest.raises(ValueError, match=message):
        quant.calibrate(module, [torch.randn(9, 64)], "int4-g32-gptq", schemes=schemes, **options)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), net().parameters(), strict=True))


class Block(nn.Module):
    """A norm, and two layers that read it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.a, self.b = nn.RMSNorm(32), nn.Linear(32, 16), nn.Linear(32, 16)

    def forward(self, x):
        y = self.norm(x)
        return self.a(y) + self.b(y)


def test_layers_that_are_rounded_go_along_with_the_scales_of_their_inputs():
    model = nn.Sequential(Block(), nn.Linear(16, 4))
    x = torch.randn(100, 32) * torch.logspace(-1, 1, 32)
    made = quant.calibrate(model, [x], "int4-g32-awq", schemes={"0.b": "int8-row", "1": "int8-row"})
    assert made.folded == {"0.a": "0.norm", "0.b": "0.norm"} and "1" not in made.unscaled
    # a layer alone that is rounded asks for no scales
    model = nn.Sequential(Block(), nn.Linear(16, 4))
    norm = model[0].norm.weight.detach().clone()
    made = quant.calibrate(model, [x], "int8-row", schemes={"1": "int4-row-awq"})
    assert not made.folded and torch.equal(model[0].norm.weight, norm)


# layers


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_layers_of_a_model_have_their_schemes(activations):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 96), nn.Linear(96, 50), nn.Conv2d(3, 4, 3))
    model.again = model[1]
    weights = [m.weight.detach().clone() for m in model[:3]]
    schemes = {"again": "int8-row", "[23]": "int3-g64"}
    made = tnn.convert(model, "int4-g32", schemes=schemes, fallback=True, activations=activations)
    assert [m.scheme for m in model[:4]] == ["int4-g32", "int8-row", "int3-g32", "int3-row"]
    assert made.smaller == {"2": "int3-g32", "3": "int3-row"} and model.again is model[1] and not made.left
    for layer, weight in zip(model[:3], weights, strict=True):
        assert torch.equal(layer.weight, encoded(weight, layer.scheme))


def test_layers_whose_schemes_are_refused():
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 8))
    for schemes, how, error, message in (
        ({"5": "int8-row"}, {}, ValueError, "no weight that is quantized is called '5'"),
        ({"1": "int8-row"}, {"exclude": ["1"]}, ValueError, r"'1' \(1.weight: excluded\)"),
        ({"1": "int4-g64"}, {}, ValueError, "groups of 64 do not divide"),
        ({"1": "nf4"}, {"activations": "int8"}, ValueError, "nf4 are no integers"),
        ({"1": "no"}, {}, ValueError, "scheme 'no' is unknown"),
        (["1"], {}, TypeError, "convert: schemes must be a mapping"),
    ):
        with pytest.raises(error, match=message):
            tnn.convert(model, "int4-g32", schemes=schemes, **how)
        assert all(type(m) is nn.Linear for m in model)
    for scheme in ("dense", "norm", "sparse"):
        with pytest.raises(ValueError, match="schemes by patterns go with a scheme"):
            tnn.convert(model, scheme, schemes={"1": "int8-row"})
    codes = {"0": quant.encode(model[0].weight.detach(), "int8-row")}
    with pytest.raises(ValueError, match="codes have their own"):
        tnn.convert(model, codes, schemes={"1": "int8-row"})


def test_both_weights_of_experts_have_their_schemes():
    pytest.importorskip("transformers")
    from test_experts import experts, given

    model = nn.Module()
    model.experts = experts("mixtral")
    made = tnn.convert(model, "int4-g16", schemes={"experts.down_proj": "int8-g64"}, fallback=True)
    assert {m.scheme for m in model.experts.up} == {"int4-g16"} and {m.scheme for m in model.experts.down} == {
        "int8-g32"
    }
    assert made.smaller == {"experts.down_proj": "int8-g32"}
    dense, (x, chosen, weight) = model.experts.dense(), given()
    torch.testing.assert_close(model.experts(x, chosen, weight), dense(x, chosen, weight), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="scheme must be one or two, got 3"):
        tnn.QuantExperts.from_float(dense, ["int8-row"] * 3)
