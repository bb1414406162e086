"""Checkpoints quantized, counted without being written, stopped and gone on with. The one rule: a report says what the run then
does, and what is made in two runs is what one makes, byte for byte."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file as save
from stops import Stopped, stopped_after
from tersor import convert, prune
from tersor.checkpoint import Model
from tersor.checkpoint._atomic import SUFFIX
from tersor.cli import commands
from tersor.jobs import _journal
from test_folder import contents, model

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and locks")


def some(path):
    """A file with one of everything."""
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (64, 256), "b.weight": (64, 96), "word_emb.weight": (9, 64), "conv.weight": (4, 3, 3, 3)}
    shapes |= {"e.experts.gate_up_proj": (2, 64, 64), "empty.weight": (0, 256), "norm.weight": (9,)}
    save({k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}, path)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"fallback": True, "convolutions": True, "experts": True}, {"embeddings": True}]
)
@pytest.mark.parametrize("scheme", ["int8-row", "int4-g128", "uint4-g32"])
def test_without_a_destination_all_is_counted(tmp_path, scheme, options):
    source, told = some(tmp_path / "in.safetensors"), []
    dry = convert.quantize_safetensors(source, None, scheme, progress=lambda *n: told.append(n), **options)
    assert os.listdir(tmp_path) == ["in.safetensors"] and told == [(dry.before, dry.before)]
    assert dry == convert.quantize_safetensors(source, tmp_path / "out.safetensors", scheme, **options)
    with Model(tmp_path / "out.safetensors") as got:
        sizes = {e.name: e.nbytes for _, e in got.tensors()}
    assert sum(sizes.values()) == dry.after
    for name, one in dry.layers.items():
        parts = [n for k, n in sizes.items() if k == name or k.startswith(f"{name}_")]
        assert one.after == sum(parts) and (one.scheme is None) == (len(parts) == 1) == bool(one.why), name
        assert one.before == 4 * np.prod(one.shape) and dry.choice.dense.get(name, "") == one.why
    assert dry.layers.keys() == {*dry.choice.quantized, *dry.choice.dense}


def test_what_would_be_refused_is_refused(tmp_path):
    source = some(tmp_path / "in.safetensors")
    with pytest.raises(ValueError, match="no weight to quantize"):
        convert.quantize_safetensors(source, None, "int4-g128", include=["b.*"])
    taken = {"e.experts.up": np.ones((2, 64, 64), "f"), "e.experts.up_shape": np.ones(3, "f")}
    save(taken, source)
    for out in (None, tmp_path / "out.safetensors"):
        with pytest.raises(ValueError, match=r"in.safetensors: tensor name 'e.experts.up_shape' is taken"):
            convert.quantize_safetensors(source, out, "int4-g32", experts=True)
    assert os.listdir(tmp_path) == ["in.safetensors"]


def test_a_calibrated_model_is_counted(tmp_path):
    pytest.importorskip("transformers")
    from test_calibrate import TEXTS, folder

    folder(tmp_path / "in", "bert base")
    options = {"scheme": "int-g32-gptq", "calibration": TEXTS, "bits": (4, 8), "budget": 6.0}
    dry = convert.quantize_safetensors(tmp_path / "in", None, **options)
    made = convert.quantize_safetensors(tmp_path / "in", tmp_path / "out", **options)
    assert dry.layers == made.layers and dry.widths == made.widths and dry.after == made.after
    assert {one.scheme for one in dry.layers.values()} >= {"int4-g32-gptq", None}


@pytest.mark.parametrize("change", ["nothing", "scheme", "source", "result", "journal", "method"])
def test_resume_goes_on_where_it_stopped(tmp_path, change):
    src, dst, whole = model(tmp_path / "in", 6), tmp_path / "out", tmp_path / "whole"
    files = sorted(src.glob("*.safetensors"))
    with pytest.raises(Stopped):
        convert.quantize_safetensors(src, dst, "int8-row", resume=True, progress=stopped_after(0.6))
    (half,) = tmp_path.glob(f".out.*{SUFFIX}")
    done = {f.name: (half / f.name).stat().st_mtime_ns for f in files if (half / f.name).exists()}
    assert 0 < len(done) < 6 and not dst.exists()
    how = {"scheme": "int8-g32" if change == "scheme" else "int8-row", "method": "mse" if change == "method" else None}
    if change == "source":
        (other,) = model(tmp_path / "other", value=2.0).glob("*.safetensors")
        files[0].write_bytes(other.read_bytes())
    elif change == "result":
        (half / files[0].name).write_bytes(b"of another")
    elif change == "journal":
        (half / _journal.NAME).write_bytes(b'{"job": 3, "done": [')
    want = convert.quantize_safetensors(src, whole, **how)
    with pytest.raises(Stopped):  # and stops again
        convert.quantize_safetensors(src, dst, resume=True, progress=stopped_after(0.8), **how)
    assert convert.quantize_safetensors(src, dst, resume=True, **how) == want
    assert not list(tmp_path.glob(f".out.*{SUFFIX}")) and contents(dst) == contents(whole)
    kept = [f for f, written in done.items() if (dst / f).stat().st_mtime_ns == written]
    assert kept == (list(done) if change == "nothing" else [])


def test_a_journal_of_another_job_is_none(tmp_path):
    src, dst = model(tmp_path / "in", 6), tmp_path / "out"
    with pytest.raises(Stopped):
        prune.prune_safetensors(src, dst, 0.5, resume=True, progress=stopped_after(0.85))
    convert.quantize_safetensors(src, dst, "int8-row", resume=True)
    convert.quantize_safetensors(src, tmp_path / "whole", "int8-row")
    assert contents(dst) == contents(tmp_path / "whole") and not list(tmp_path.glob(f".out.*{SUFFIX}"))


CHILD = """
import os, sys
from tersor import convert
def progress(done, total):
    if done > 0.6 * total:
        os._exit(9)
convert.quantize_safetensors(*sys.argv[1:], resume=True, progress=progress)
"""


def test_what_a_killed_run_has_done_is_taken_over(tmp_path):
    src, dst = model(tmp_path / "in", 6), tmp_path / "out"
    run = [sys.executable, "-c", CHILD, str(src), str(dst), "int4-g32"]
    assert subprocess.run(run, check=False).returncode == 9
    (half,) = tmp_path.glob(f".out.*{SUFFIX}")
    done = json.loads((half / _journal.NAME).read_bytes())["done"]
    assert 0 < len(done) < 6 and not dst.exists()
    before = {f: (half / f).stat().st_ino for f in done}
    convert.quantize_safetensors(src, dst, "int4-g32", resume=True)
    assert {f: (dst / f).stat().st_ino for f in done} == before
    convert.quantize_safetensors(src, tmp_path / "whole", "int4-g32")
    assert contents(dst) == contents(tmp_path / "whole")


def test_types_of_what_is_decoded_are_those_of_the_same_job(tmp_path):
    """A file of 8-bit floats is decoded to the type of config.json, whose change no file of weights shows."""
    src = tmp_path / "in"
    src.mkdir()
    for i in range(4):
        import ml_dtypes

        w = np.random.default_rng(i).normal(size=(64, 64)).astype(ml_dtypes.float8_e4m3fn)
        octets = {f"l{i}.weight": w, f"l{i}.weight_scale": np.full((64, 1), 0.37, np.float32)}
        save(octets, src / f"model-{i}.safetensors")
    where = {f"l{i}.{part}": f"model-{i}.safetensors" for i in range(4) for part in ("weight", "weight_scale")}
    (src / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    said = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}
    for make in (
        lambda dst, **more: convert.quantize_safetensors(src, dst, "int8-row", **more),
        lambda dst, **more: prune.prune_safetensors(src, dst, 0.5, **more),
    ):
        (src / "config.json").write_text(json.dumps({"dtype": "bfloat16", "quantization_config": said}))
        with pytest.raises(Stopped):
            make(tmp_path / "out", resume=True, progress=stopped_after(0.85))
        (src / "config.json").write_text(json.dumps({"dtype": "float32", "quantization_config": said}))
        make(tmp_path / "out", resume=True)
        make(tmp_path / "whole")
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--scheme", "int8-row"], "-o is needed"),
        (["--scheme", "int8-row", "--dry-run", "-o", "x"], "-o or --dry-run"),
        (["--scheme", "int8-row", "--dry-run", "--resume"], "--resume does not go with --dry-run"),
        (
            ["-o", "x", "--scheme", "int8-row-awq", "--calibration", "TEXTS", "--resume"],
            "--resume does not go with --scheme int8-row-awq: calibration begins anew",
        ),
    ],
)
def test_usage(tmp_path, args, said):
    (tmp_path / "texts").write_text("a\n")
    args = [str(tmp_path / "texts") if a == "TEXTS" else a for a in args]
    done = CliRunner().invoke(commands, ["quantize", str(some(tmp_path / "in.safetensors")), *args])
    assert done.exit_code == 2 and said in " ".join(done.output.split()), done.output


def test_resuming_what_cannot_be_is_refused_by_name(tmp_path):
    source = some(tmp_path / "in.safetensors")
    with pytest.raises(ValueError, match="int4-g32-awq: calibration begins anew, which cannot be resumed"):
        convert.quantize_safetensors(source, tmp_path / "x", "int4-g32-awq", calibration=["a"], resume=True)
    with pytest.raises(ValueError, match="without a destination cannot be resumed"):
        convert.quantize_safetensors(source, None, "int4-g32", resume=True)
    with pytest.raises(TypeError, match="resume"):
        convert.quantize_safetensors(source, tmp_path / "x", "int4-g32", resume="yes")


def test_the_command_line_counts_and_resumes(tmp_path):
    source = some(tmp_path / "in.safetensors")
    run = CliRunner().invoke(commands, ["quantize", str(source), "--scheme", "int4-g128", "--fallback", "--dry-run"])
    lines = run.output.splitlines()
    assert run.exit_code == 0 and os.listdir(tmp_path) == ["in.safetensors"], run.output
    for name, has in (
        ("a.weight", ["64×256", "int4-g128", "65536", "8720"]),
        ("b.weight", ["64×96", "int4-g32"]),
        ("word_emb.weight", ["9×64", "an embedding table", "2304"]),
        ("conv.weight", ["4×3×3×3", "of 4 axes", "432"]),
        ("all others", ["36"]),
    ):
        (line,) = (line for line in lines if line.strip("│ ").startswith(name))
        assert all(f" {x} " in line.replace("│", " ") for x in has), line
    assert "2 weights would be in int4-g128" in run.output
    with pytest.raises(Stopped):
        folder = model(tmp_path / "model", 6)
        convert.quantize_safetensors(folder, tmp_path / "out", "int4-g32", resume=True, progress=stopped_after(0.6))
    (half,) = tmp_path.glob(f".out.*{SUFFIX}")
    done = {f.name: f.stat().st_ino for f in half.glob("*.safetensors")}
    args = ["quantize", str(folder), "-o", str(tmp_path / "out"), "--scheme", "int4-g32", "--resume"]
    run = CliRunner().invoke(commands, args)
    assert run.exit_code == 0 and {f: (tmp_path / "out" / f).stat().st_ino for f in done} == done, run.output
