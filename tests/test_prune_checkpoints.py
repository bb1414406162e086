"""Files pruned as a stream. The one rule: what stands in the file is what pruning in memory gives, also where a run was
stopped."""

import json

import ml_dtypes
import numpy as np
import pytest
from ranked import DTYPES, KINDS, fill, oracle
from stops import Stopped, stopped_after
from tersor.checkpoint import Model, Reader, Writer, load
from tersor.checkpoint._atomic import SUFFIX
from tersor.jobs import _journal
from tersor.prune import global_prune, global_threshold, prune_safetensors

SAFE = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def save(path, arrays, metadata=None):
    with Writer(path, [(k, SAFE.get(a.dtype.name, "I64"), a.shape) for k, a in arrays.items()], metadata) as file:
        for a in arrays.values():
            file.write(a)


def in_memory(arrays, k, names, **options):
    pruned = dict(zip(names, global_prune([arrays[n] for n in names], k=k, mixed=True, **options), strict=True))
    return {n: pruned.get(n, a) for n, a in arrays.items()}


@pytest.mark.parametrize("chunk", [24, 240, 1 << 22])
@pytest.mark.parametrize(
    "dtypes", [["float32"], ["bfloat16"], ["float16", "bfloat16"], ["float32", "bfloat16", "float64"]]
)
@pytest.mark.parametrize("min_keep", [0, 50])
def test_the_file_is_pruned_as_the_memory(tmp_path, monkeypatch, chunk, dtypes, min_keep):
    monkeypatch.setattr(Reader.chunks, "__defaults__", (chunk,))
    rng = np.random.default_rng(5)
    arrays = {f"w{i}": (fill(rng, kind, (9, 13), DTYPES[dtypes[i % len(dtypes)]])) for i, kind in enumerate(KINDS[:7])}
    arrays["bias"] = rng.standard_normal(9).astype(np.float32)
    arrays["ids"] = np.arange(8).reshape(2, 4)
    names = [n for n in arrays if n.startswith("w")]
    src, dst, want = tmp_path / "in.safetensors", tmp_path / "out.safetensors", tmp_path / "want.safetensors"
    save(src, arrays, {"made": "here"})
    n = sum(arrays[name].size for name in names)
    for k in (0, 1, n // 2, n - 50 * len(names)):
        steps = []
        report = prune_safetensors(src, dst, k=k, min_keep=min_keep, progress=lambda *at, steps=steps: steps.append(at))
        save(want, in_memory(arrays, k, names, min_keep=min_keep), {"made": "here"})
        assert dst.read_bytes() == want.read_bytes()
        assert report.total == n and report.pruned == k == n - sum(report.kept.values())
        assert report.kept == dict(
            zip(
                names,
                global_threshold([arrays[m] for m in names], k=k, mixed=True, min_keep=min_keep).kept,
                strict=True,
            )
        )
        assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]
    prune_safetensors(src, src, k=n // 2, min_keep=min_keep)  # onto itself
    prune_safetensors(src, src, k=n // 2, min_keep=min_keep)
    save(want, in_memory(arrays, n // 2, names, min_keep=min_keep), {"made": "here"})
    assert src.read_bytes() == want.read_bytes()


def test_which_tensors(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {n: rng.standard_normal(s) for n, s in [("a.weight", (3, 4)), ("b.weight", (5, 5)), ("b.bias", (5,))]}
    src, dst = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save(src, arrays)
    for options, names in [
        ({}, ["a.weight", "b.weight"]),
        ({"include": ["b.*"]}, ["b.weight", "b.bias"]),
        ({"exclude": ["a*"]}, ["b.weight"]),
        ({"exclude": ["a"]}, ["b.weight"]),
        ({"include": ["*"], "exclude": ["*.bias"]}, ["a.weight", "b.weight"]),
    ]:
        assert list(prune_safetensors(src, dst, 0.5, **options).kept) == names
    with pytest.raises(ValueError, match="include: no tensor and no module is called 'c'"):
        prune_safetensors(src, dst, 0.5, include=["c"])
    with pytest.raises(TypeError, match="sequence of shell patterns"):
        prune_safetensors(src, dst, 0.5, include="b.*")
    with pytest.raises(ValueError, match="cannot prune"):
        prune_safetensors(src, dst, k=30, min_keep=10)
    with pytest.raises(ValueError, match="exactly one"):
        prune_safetensors(src, dst)
    arrays["b.weight"][2, 2] = np.nan
    save(src, arrays)
    dst.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"in\.safetensors: tensor 'b\.weight' has non-finite"):
        prune_safetensors(src, dst, 0.5)
    assert dst.read_bytes() == b"old"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_8_bit_floats_are_ranked_by_value(tmp_path, dtype):
    kind = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}.get(dtype, "float8_" + dtype[3:].lower())
    words = np.arange(256, dtype=np.uint8)
    values = words.view(getattr(ml_dtypes, kind)).astype(np.float64)
    words, values = words[np.isfinite(values)], values[np.isfinite(values)]
    src, dst = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    with Writer(src, [("w", dtype, (1, words.size))]) as file:
        file.write(words)
    report = prune_safetensors(src, dst, 0.5)
    (mask,) = oracle([values], report.pruned)
    with Reader(dst) as reader:
        got = b"".join(map(bytes, reader.chunks(reader.entries["w"])))
    assert got == (words * mask).tobytes()
    assert report.threshold == np.sort(np.abs(values))[report.pruned - 1]


def sharded(src, shards):
    """A model folder of so many files of two tensors with many equals: file name -> arrays."""
    rng = np.random.default_rng(0)
    src.mkdir()
    files = {
        f"model-{i:05d}-of-{shards:05d}.safetensors": {
            f"l{i}.{j}": np.round(rng.standard_normal((6, 7)) * 2) for j in range(2)
        }
        for i in range(1, shards + 1)
    }
    for file, arrays in files.items():
        save(src / file, arrays)
    where = {n: f for f, arrays in files.items() for n in arrays}
    (src / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (src / "config.json").write_text("{}")
    return files


@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_folder(tmp_path, in_place):
    src = tmp_path / "model"
    files = sharded(src, 2)
    dst = src if in_place else tmp_path / "out"
    report = prune_safetensors(src / "model.safetensors.index.json" if in_place else src, dst, 0.6)
    arrays = {n: a for some in files.values() for n, a in some.items()}
    want = in_memory(arrays, report.pruned, list(arrays))
    got = load(dst)
    assert got.keys() == want.keys() and all(got[n].tobytes() == want[n].tobytes() for n in want)
    assert sorted(p.name for p in dst.iterdir()) == sorted([*files, "config.json", "model.safetensors.index.json"])
    with Model(dst) as model:
        assert list(model.readers) == sorted(files)


@pytest.mark.parametrize("name", ["l.weight_scale", "l.weight_scale_inv", "l.qweight", "l.weight_packed"])
def test_what_is_quantized_is_not_pruned(tmp_path, name):
    save(tmp_path / "in.safetensors", {"l.weight": np.ones((4, 4)), name: np.ones((4, 1))})
    with pytest.raises(ValueError, match=f"quantized already: it has '{name}'"):
        prune_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.5)


@pytest.mark.parametrize("min_keep", [0, 15])
@pytest.mark.parametrize("change", ["nothing", "share", "source", "result", "journal"])
def test_resume_goes_on_where_it_stopped(tmp_path, change, min_keep):
    src, dst, whole = tmp_path / "model", tmp_path / "out", tmp_path / "whole"
    files = sorted(sharded(src, 6))
    with pytest.raises(Stopped):
        prune_safetensors(src, dst, 0.5, min_keep=min_keep, resume=True, progress=stopped_after(0.85))
    (half,) = tmp_path.glob(f".out.*{SUFFIX}")  # what is done waits beside the destination
    done = {f: (half / f).stat().st_mtime_ns for f in files if (half / f).exists()}
    assert 0 < len(done) < 6 and not dst.exists()
    share = 0.4 if change == "share" else 0.5
    if change == "source":
        save(src / files[0], {"l1.0": np.full((6, 7), 9.0), "l1.1": np.full((6, 7), 9.0)})
    elif change == "result":
        (half / files[0]).write_bytes(b"of another")
    elif change == "journal":
        (half / _journal.NAME).write_bytes(b'{"job": 3, "cuts": [')
    want = prune_safetensors(src, whole, share, min_keep=min_keep)
    with pytest.raises(Stopped):  # and stops again
        prune_safetensors(src, dst, share, min_keep=min_keep, resume=True, progress=stopped_after(0.95))
    assert prune_safetensors(src, dst, share, min_keep=min_keep, resume=True) == want
    assert not list(tmp_path.glob(f".out.*{SUFFIX}"))
    assert {p.name: p.read_bytes() for p in dst.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}
    kept = [f for f, written in done.items() if (dst / f).stat().st_mtime_ns == written]
    assert kept == (list(done) if change == "nothing" else [])


@pytest.mark.parametrize("min_keep", [0, 15])
def test_in_place_a_second_run_finishes_what_the_first_began(tmp_path, min_keep):
    src, whole = tmp_path / "model", tmp_path / "whole"
    files = sharded(src, 6)
    want = prune_safetensors(src, whole, 0.5, min_keep=min_keep)
    with pytest.raises(Stopped):
        prune_safetensors(src, src, 0.5, min_keep=min_keep, resume=True, progress=stopped_after(0.85))
    assert prune_safetensors(src, src, 0.5, min_keep=min_keep, resume=True) == want
    assert all((src / f).read_bytes() == (whole / f).read_bytes() for f in files)


def test_memory_is_a_chunk(tmp_path):
    import subprocess
    import sys

    src = tmp_path / "in.safetensors"
    with Writer(src, [("w", "F32", (24, 1 << 20))]) as file:
        for i in range(24):
            file.write(np.random.default_rng(i).standard_normal(1 << 20, np.float32))
    code = """
import resource, sys
from tersor.prune import prune_safetensors
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
prune_safetensors(sys.argv[1], sys.argv[2], 0.5)
print((peak() - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(src), str(tmp_path / "out.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 32  # of 96 MB
