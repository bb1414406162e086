"""A quantized checkpoint in another format is the same numbers, bit for bit, or is refused by name."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tersor import FormatError, quant
from tersor.checkpoint._format import Misuse
from tersor.convert import load, load_encoded, quantize_safetensors, repack, write_gguf

SETTINGS = {"model_type": "llama", "hidden_size": 64}


def half(n=32, k=64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, k)).astype(np.float16)


def source(path, scheme="int4-g32", **more):
    """A folder in compressed-tensors, of 16 bits: its scales are ones that every format holds."""
    path.mkdir()
    dense = {
        "model.layers.0.q_proj.weight": half(),
        "model.layers.0.up.weight": half(64, 96, 1),
        "lm_head.bias": half()[0],
    }
    save_file(dense | more, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(SETTINGS))
    (path / "tokenizer.json").write_text("{}")
    out = path.parent / f"{path.name}-{scheme}"
    quantize_safetensors(path, out, scheme)
    return out


def affine(path, bits=4, group=32, low=0):
    """The same with zero points, as compressed-tensors packs them."""
    path.mkdir()
    rng = np.random.default_rng(3)
    q, z = rng.integers(0, 1 << bits, (32, 64)), rng.integers(low, 1 << bits, (32, 64 // group))
    tensors = {
        "a.weight_packed": quant.pack(q.astype("u1"), bits, "ct_dense"),
        "a.weight_zero_point": quant.pack(z.astype("u1"), bits, "ct_dense", axis=0),
        "a.weight_scale": rng.uniform(0.01, 0.02, z.shape).astype(np.float16),
        "a.weight_shape": np.array([32, 64]),
        "norm.weight": half()[0],
    }
    save_file(tensors, path / "model.safetensors")
    weights = {"num_bits": bits, "type": "int", "symmetric": False, "strategy": "group", "group_size": group}
    said = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"g": {"targets": ["Linear"], "weights": weights}},
    }
    (path / "config.json").write_text(json.dumps(SETTINGS | {"quantization_config": said}))
    return path


def same(a, b, atol=0):
    x, y = load(a), load(b)
    assert sorted(x) == sorted(y)
    for name in x:
        np.testing.assert_array_equal(x[name], y[name])


@pytest.mark.parametrize("scheme", ["int4-g32", "int8-g32", "int4-row", "int8-row"])
@pytest.mark.parametrize("to", ["gptq", "gptq_v2", "awq", "ct", "gguf"])
def test_every_format_holds_the_same_numbers(tmp_path, scheme, to):
    src = source(tmp_path / "m", scheme)
    out = tmp_path / ("x.gguf" if to == "gguf" else "out")
    if to == "awq" and "int8" in scheme:
        with pytest.raises(FormatError, match=r"q_proj.weight: 32 by 64 codes of 8 bits; AWQ has 4 bits"):
            repack(src, out, to)
        assert not out.exists()
        return
    done = []
    made = repack(src, out, to, progress=lambda a, b: done.append((a, b)))
    assert set(made.weights.values()) == {int(scheme[3])} and done[-1] == (4, 4)
    same(src, out)
    if to == "gguf":
        return
    assert (out / "tokenizer.json").exists()
    said = json.loads((out / "config.json").read_text())
    assert said["hidden_size"] == 64 and said["quantization_config"]["quant_method"].startswith(
        to.replace("ct", "compressed")[:4]
    )
    again = tmp_path / "again"
    repack(out, again, "ct")
    same(src, again)
    one, other = load_file(src / "model.safetensors"), load_file(again / "model.safetensors")
    assert sorted(one) == sorted(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    a, b = (load_encoded(path) for path in (src, out))
    assert {k: e.scheme for k, e in a.items()} == {k: e.scheme for k, e in b.items()}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("to", ["gptq", "gptq_v2", "awq"])
def test_zero_points_go_along(tmp_path, bits, to):
    src = affine(tmp_path / "m", bits, low=1)
    if to == "awq" and bits != 4:
        with pytest.raises(FormatError, match="AWQ has 4 bits"):
            repack(src, tmp_path / "out", to)
        return
    repack(src, tmp_path / "out", to)
    same(src, tmp_path / "out")
    repack(tmp_path / "out", tmp_path / "back", "ct")
    same(src, tmp_path / "back")
    one, other = load_file(src / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_what_a_format_has_no_place_for(tmp_path):
    src = affine(tmp_path / "z", low=0)
    for to, said in [
        ("gptq", "a.weight: a zero point is 0.*gptq_v2"),
        ("gguf", "a.weight: codes of 4 bits with zero points"),
    ]:
        with pytest.raises(FormatError, match=said):
            repack(src, tmp_path / "out.gguf", to)
    repack(src, tmp_path / "v2", "gptq_v2")
    same(src, tmp_path / "v2")
    src = source(tmp_path / "f", "int4-g16")
    with pytest.raises(FormatError, match="groups of 16 are no whole blocks of 32"):
        repack(src, tmp_path / "out.gguf", "gguf")
    (tmp_path / "long").mkdir()
    save_file({"a" * 57 + ".weight": half()}, tmp_path / "long" / "model.safetensors")
    (tmp_path / "long" / "config.json").write_text("{}")
    quantize_safetensors(tmp_path / "long", tmp_path / "longq", "int4-g32")
    with pytest.raises(FormatError, match=r"a+\.weight: is a name of 64 bytes, readers of GGUF take 63 at most"):
        repack(tmp_path / "longq", tmp_path / "out.gguf", "gguf")
    wide = tmp_path / "w"
    wide.mkdir()
    save_file({"a.weight": half().astype(np.float32) / 3}, wide / "model.safetensors")
    (wide / "config.json").write_text("{}")
    quantize_safetensors(wide, tmp_path / "wide", "int4-g32")
    for to in ("gptq", "awq", "gguf"):
        with pytest.raises(FormatError, match=r"a.weight: its scales are no numbers of float16"):
            repack(tmp_path / "wide", tmp_path / "out.gguf", to)
    with pytest.raises(FormatError, match="no weight in it is quantized"):
        repack(wide, tmp_path / "out", "ct")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.gguf").exists()
    with pytest.raises(Misuse, match="must be one of ct, gptq, gptq_v2, awq, gguf, got 'hqq'"):
        repack(src, tmp_path / "out", "hqq")
    with pytest.raises(Misuse, match="this one is both"):
        repack(src, src, "gptq")
    with pytest.raises(Misuse, match="one file"):
        repack(src, tmp_path / "out", "gguf")
    with pytest.raises(Misuse, match="give its folder"):
        repack(src / "model.safetensors", tmp_path / "x.safetensors", "awq")


def test_several_widths_have_one_name_in_compressed_tensors_only(tmp_path):
    src = tmp_path / "m"
    src.mkdir()
    tensors = {}
    for name, bits in (("a", 4), ("b", 8)):
        e = quant.encode(half().astype(np.float32), f"int{bits}-g32")
        codes = e.data if bits == 8 else quant.unpack(e.data, 4, e.shape).astype(np.int16) - 8
        tensors[f"{name}.weight_packed"] = quant.pack(codes.astype(np.int8), bits, "ct_dense")
        tensors[f"{name}.weight_scale"], tensors[f"{name}.weight_shape"] = e.scale.astype("f2"), np.array(e.shape)
    save_file(tensors, src / "model.safetensors")
    groups = {
        str(b): {"targets": [m], "weights": {"num_bits": b, "group_size": 32, "strategy": "group"}}
        for m, b in (("a", 4), ("b", 8))
    }
    said = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    (src / "config.json").write_text(json.dumps({"quantization_config": said}))
    with pytest.raises(FormatError, match=r"GPTQ has one width.*4 bits by 32, 8 bits by 32"):
        repack(src, tmp_path / "out", "gptq")
    repack(src, tmp_path / "out", "ct")
    same(src, tmp_path / "out")
    said = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert [g["targets"] for g in said["config_groups"].values()] == [["a"], ["b"]]


def test_from_gguf(tmp_path):
    made = {f"{s}.weight": quant.encode(half(seed=i).astype("f4"), s) for i, s in enumerate(("q4_0", "q5_0", "q8_0"))}
    write_gguf(tmp_path / "x.gguf", made | {"norm.weight": half()[0]}, {"general.architecture": "llama"})
    repack(tmp_path / "x.gguf", tmp_path / "x.safetensors", "ct")
    same(tmp_path / "x.gguf", tmp_path / "x.safetensors")
    repack(tmp_path / "x.safetensors", tmp_path / "y.gguf", "gguf")
    one, other = (load_encoded(tmp_path / f"{n}.gguf") for n in "xy")
    for name in one:
        np.testing.assert_array_equal(one[name].data, other[name].data)
    with pytest.raises(Misuse, match="--to ct"):
        repack(tmp_path / "x.gguf", tmp_path / "out", "awq")
    with pytest.raises(Misuse, match=r"name it with \.safetensors at its end"):
        repack(tmp_path / "x.gguf", tmp_path / "x.gguf", "ct")
    write_gguf(tmp_path / "z.gguf", {"a.weight": quant.encode(half().astype("f4"), "q4_1")})
    with pytest.raises(FormatError, match=r"a.weight: q4_1"):
        repack(tmp_path / "z.gguf", tmp_path / "z.safetensors", "ct")


def test_shards_and_dense_layers(tmp_path):
    src = tmp_path / "m"
    src.mkdir()
    parts = [{"a.weight": half()}, {"b.weight": half(seed=1), "odd.weight": half(3, 7), "wte.weight": half(5, 32)}]
    names = {}
    for i, tensors in enumerate(parts):
        file = f"model-{i + 1:05}-of-00002.safetensors"
        save_file(tensors, src / file)
        names |= dict.fromkeys(tensors, file)
    (src / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    (src / "config.json").write_text("{}")
    quantize_safetensors(src, tmp_path / "q", "int4-g32")
    for to in ("gptq", "awq"):
        repack(tmp_path / "q", tmp_path / to, to)
        same(tmp_path / "q", tmp_path / to)
        said = json.loads((tmp_path / to / "config.json").read_text())["quantization_config"]
        assert said.get("modules_to_not_convert", list(said.get("dynamic", {}))) == (
            ["lm_head", "odd"] if to == "awq" else ["-:^lm_head$", "-:^odd$"]
        )
        index = json.loads((tmp_path / to / "model.safetensors.index.json").read_text())
        assert index["weight_map"]["b.qweight"] == "model-00002-of-00002.safetensors"


def tersor(*arguments):
    return subprocess.run([sys.executable, "-m", "tersor", *map(str, arguments)], capture_output=True, text=True)


def test_the_command_line(tmp_path):
    src = source(tmp_path / "m")
    done = tersor("repack", src, "-o", tmp_path / "out", "--to", "gptq")
    assert done.returncode == 0 and "2 weights of 4 bits in gptq, unchanged" in done.stdout
    same(src, tmp_path / "out")
    done = tersor("repack", src, "-o", tmp_path / "out", "--to", "exl2")
    assert done.returncode == 2 and "exl2" in done.stderr
    done = tersor("repack", src, "-o", src, "--to", "awq")
    assert done.returncode == 2 and "both" in done.stderr
    done = tersor("repack", tmp_path / "m", "-o", tmp_path / "out", "--to", "awq")
    assert done.returncode == 1 and "no weight in it is quantized" in done.stderr
    same(src, tmp_path / "out")
