"""Checkpoints of 8-bit floats are pruned and quantized as the dense models they stand for."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tersor.convert import load, quantize_safetensors
from tersor.prune import prune_safetensors

torch = pytest.importorskip("torch")
pytest.importorskip("ml_dtypes")
from safetensors.torch import load_file, save_file  # noqa: E402

DEEPSEEK = {"quant_method": "fp8", "weight_block_size": [32, 16], "activation_scheme": "dynamic"}
CT = {"quant_method": "compressed-tensors", "format": "float-quantized"}


def written(path, said, shards=1):
    """The same model in 8-bit floats and decoded by hand to bfloat16."""
    torch.manual_seed(0)
    wide = {"blocks": (3, 4), "row": (80, 1), "tensor": (1,)}
    tensors, dense = {}, {"norm.weight": torch.ones(64, dtype=torch.bfloat16)}
    for name, shape in wide.items():
        if said is not DEEPSEEK and name == "blocks":
            continue
        w = torch.randn(80, 64).clamp(-3, 3).to(torch.float8_e4m3fn)
        scale = torch.rand(shape) + 0.5
        each = scale.reshape(shape if len(shape) == 2 else (1, 1))
        each = each.repeat_interleave(32 if name == "blocks" else 80 // each.shape[0], 0)[:80]
        each = each.repeat_interleave(64 // each.shape[1], 1)
        inverse = "_inv" if said is DEEPSEEK and name == "blocks" else ""
        tensors |= {f"{name}.weight": w, f"{name}.weight_scale{inverse}": scale, f"{name}.input_scale": torch.ones(1)}
        dense[f"{name}.weight"] = (w.float() * each).bfloat16()
    tensors["norm.weight"] = dense["norm.weight"]
    for folder, some, config in (("fp8", tensors, {"quantization_config": said}), ("dense", dense, {})):
        (path / folder).mkdir(parents=True)
        names = {}
        for i in range(shards):
            file = f"model-{i + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
            stems = sorted({n.partition(".")[0] for n in some})[i::shards]
            part = {n: t for n, t in some.items() if n.partition(".")[0] in stems}
            save_file(part, path / folder / file, {"format": "pt"})
            names |= dict.fromkeys(part, file)
        if shards > 1:
            index = {"metadata": {"total_size": 0}, "weight_map": names}
            (path / folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (path / folder / "config.json").write_text(json.dumps({"dtype": "bfloat16", **config}))
    return path / "fp8", path / "dense"


def everything(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


@pytest.mark.parametrize("said", [DEEPSEEK, CT], ids=["blocks", "rows"])
@pytest.mark.parametrize("shards", [1, 2])
def test_quantized_as_the_dense_model(tmp_path, said, shards):
    fp8, dense = written(tmp_path, said, shards)
    made = quantize_safetensors(fp8, tmp_path / "a", "int4-g16")
    quantize_safetensors(dense, tmp_path / "b", "int4-g16")
    assert len(made.decoded) == len(made.choice.quantized) == (3 if said is DEEPSEEK else 2)
    one, other = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert sorted(one) == sorted(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert json.loads((tmp_path / "a/config.json").read_text()) == json.loads((tmp_path / "b/config.json").read_text())


@pytest.mark.parametrize("said", [DEEPSEEK, CT], ids=["blocks", "rows"])
@pytest.mark.parametrize("shards", [1, 2])
def test_pruned_as_the_dense_model(tmp_path, said, shards):
    fp8, dense = written(tmp_path, said, shards)
    made = prune_safetensors(fp8, tmp_path / "a", 0.5)
    prune_safetensors(dense, tmp_path / "b", 0.5)
    assert len(made.decoded) == (3 if said is DEEPSEEK else 2)
    one, other = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert sorted(one) == sorted(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert json.loads((tmp_path / "a/config.json").read_text()) == {"dtype": "bfloat16"}
    if shards > 1:
        index = json.loads((tmp_path / "a/model.safetensors.index.json").read_text())
        assert sorted(index["weight_map"]) == sorted(one)
    assert sorted(load(tmp_path / "a")) == sorted(one)


def test_in_place(tmp_path):
    fp8, dense = written(tmp_path, DEEPSEEK)
    prune_safetensors(fp8, fp8, 0.25)
    prune_safetensors(dense, dense, 0.25)
    for name, w in everything(dense).items():
        assert torch.equal(everything(fp8)[name], w)
    assert "quantization_config" not in (fp8 / "config.json").read_text()


def test_rows_are_decoded_some_at_a_time(tmp_path, monkeypatch):
    fp8, dense = written(tmp_path, DEEPSEEK)
    monkeypatch.setattr("tersor.jobs._quantized.CHUNK", 64 * 2 * 7)
    quantize_safetensors(fp8, tmp_path / "a", "int8-row")
    quantize_safetensors(dense, tmp_path / "b", "int8-row")
    for name, w in everything(tmp_path / "b").items():
        assert torch.equal(everything(tmp_path / "a")[name], w)


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path):
    fp8, _ = written(tmp_path, DEEPSEEK)
    config = {"quantization_config": DEEPSEEK | {"weight_block_size": [128, 48]}}
    (fp8 / "config.json").write_text(json.dumps(config))
    for job in (
        lambda: quantize_safetensors(fp8, tmp_path / "a", "int8-row"),
        lambda: prune_safetensors(fp8, tmp_path / "a", 0.5),
    ):
        with pytest.raises(ValueError, match=r"fp8: blocks.weight: a scale of shape \(3, 4\) does not fit"):
            job()
    assert not (tmp_path / "a").exists()
    tensors = load_file(fp8 / "model.safetensors")
    (fp8 / "config.json").write_text(json.dumps({"quantization_config": DEEPSEEK}))
    for part, bad, good, text in (
        ("zero_point", torch.full((1,), 3, dtype=torch.int8), torch.zeros(1, dtype=torch.int8), "zero points that"),
        ("g_idx", torch.arange(64).flip(0), torch.full((64,), -1), "columns in an order"),
    ):
        save_file(tensors | {f"tensor.weight_{part}": bad}, fp8 / "model.safetensors")
        with pytest.raises(ValueError, match=f"fp8: tensor.weight: has {text}"):
            prune_safetensors(fp8, tmp_path / "a", 0.5)
        save_file(tensors | {f"tensor.weight_{part}": good}, fp8 / "model.safetensors")
        prune_safetensors(fp8, tmp_path / "good", 0.5)
    tensors["tensor.weight"][0, 0] = float("nan")
    save_file(tensors, fp8 / "model.safetensors")
    (fp8 / "config.json").write_text(json.dumps({"quantization_config": DEEPSEEK}))
    with pytest.raises(ValueError, match=r"'tensor.weight' has non-finite"):
        quantize_safetensors(fp8, tmp_path / "a", "int8-row")


def test_the_command_line_says_so(tmp_path):
    pytest.importorskip("click")
    fp8, _ = written(tmp_path, DEEPSEEK)
    command = [sys.executable, "-m", "tersor", "quantize", str(fp8), "-o", str(tmp_path / "a"), "--scheme", "int8-row"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "decoded, 8-bit floats with scales: 3 (blocks.weight, row.weight" in done.stdout
    assert np.isfinite(load(tmp_path / "a")["blocks.weight"]).all()
