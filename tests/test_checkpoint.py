"""Safetensors files and model folders: what is read, what is refused and why, what is written. The one rule: whatever bytes
a file holds, reading it gives tensors or a `FormatError` that names it."""

import json
import os
import random
import stat
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tersor import FormatError
from tersor.checkpoint import Model, Reader, Writer, _atomic, load
from tersor.checkpoint._format import BITS, NUMPY

ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
ONE = {"a": ENTRY}


def raw(header, data=b"\0" * 24, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def change(**kwargs):
    return raw({"a": {**ENTRY, **kwargs}})


def two(first, second, data=48):
    entry = {"dtype": "F32", "shape": [6]}
    return raw({"a": {**entry, "data_offsets": first}, "b": {**entry, "data_offsets": second}}, b"\0" * data)


BAD = {
    "empty": (b"", "too few"),
    "seven bytes": (b"\0" * 7, "too few"),
    "no header": (b"\0" * 8, "does not begin"),
    "length beyond the file": (raw(ONE, length=2**20), "truncated"),
    "length of 2^64 - 1": (raw(ONE, length=2**64 - 1), "not a safetensors file"),
    "length over the limit": (raw(ONE, length=10**8 + 1), "not a safetensors file"),
    "pickle": (b"\x80\x02}q\0." * 9, "a pickle, as old torch.save"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "zip archive, as torch.save"),
    "not JSON": (raw(b"{nonsense"), "not JSON"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "not JSON"),
    "an array": (raw([1, 2]), "does not begin"),
    "leading space": (raw(b" " + json.dumps(ONE).encode()), "does not begin"),
    "two documents": (raw(json.dumps(ONE).encode() * 2), "not JSON"),
    "deep": (raw(b'{"a":' + b"[" * 100_000), "not JSON"),
    "digits": (raw(b'{"a":' + b"9" * 10_000 + b"}"), "not JSON|needs dtype"),
    "names twice": (raw(b'{"a":1,"a":2}'), "'a' comes twice"),
    "keys twice": (raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[6],"data_offsets":[0,24]}}'), "twice"),
    "metadata of numbers": (raw({"__metadata__": {"x": 1}, **ONE}), "__metadata__"),
    "metadata a list": (raw({"__metadata__": [], **ONE}), "__metadata__"),
    "entry a number": (raw({"a": 1}), "needs dtype"),
    "entry null": (raw({"a": None}), "needs dtype"),
    "no dtype": (raw({"a": {"shape": [6], "data_offsets": [0, 24]}}), "needs dtype"),
    "one field more": (change(extra=1), "nothing else"),
    "unknown dtype": (change(dtype="F31"), "unknown"),
    "dtype a list": (change(dtype=["F32"]), "unknown"),
    "shape a number": (change(shape=6), "shape"),
    "negative size": (change(shape=[-2, -3]), "shape"),
    "size a float": (change(shape=[2.0, 3]), "shape"),
    "size true": (change(shape=[True, 6]), "shape"),
    "size a string": (change(shape=["2", 3]), "shape"),
    "size NaN": (raw(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,24]}}'), "shape"),
    "size over 2^63": (change(shape=[2**63, 0]), "shape"),
    "product over 2^64": (change(shape=[2**32, 2**32, 2**32]), "larger than the file"),
    "product wraps to 24": (change(shape=[2**62 + 6]), "larger than the file"),
    "hostile product": (change(shape=[3] * 200_000), "larger than the file"),
    "zero after overflow": (change(shape=[2**62, 2**62, 0]), "needs 0 bits"),
    "shape too small": (change(shape=[5]), "needs 160 bits"),
    "offsets a number": (change(data_offsets=24), "pair"),
    "three offsets": (change(data_offsets=[0, 8, 24]), "pair"),
    "offsets floats": (change(data_offsets=[0.0, 24.0]), "pair"),
    "offsets reversed": (change(data_offsets=[24, 0]), "not in the"),
    "offsets negative": (change(data_offsets=[-24, 0]), "not in the"),
    "offsets beyond": (change(data_offsets=[0, 2**60]), "not in the"),
    "data missing": (raw(ONE, b"\0" * 23), "not in the"),
    "data left over": (raw(ONE, b"\0" * 25), "the file at"),
    "hole at the start": (raw({"a": {**ENTRY, "data_offsets": [8, 32]}}, b"\0" * 32), "hole"),
    "hole between": (two([0, 24], [32, 56], 56), "hole"),
    "overlap": (two([0, 24], [16, 40], 40), "overlaps"),
    "same range": (two([0, 24], [0, 24], 24), "overlaps"),
    "half a byte": (change(dtype="F4", shape=[3], data_offsets=[0, 2]), "needs 12 bits"),
    "surrogate": (raw(b'{"\\ud800":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}'), "Unicode"),
    "constant": (raw(b"{}" + b"\0" * 3), "not JSON"),
}


@pytest.mark.parametrize("what", BAD)
def test_malformed(what, tmp_path):
    path = tmp_path / "bad.safetensors"
    data, match = BAD[what]
    path.write_bytes(data)
    fds = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    with pytest.raises(FormatError, match=match) as caught:
        Reader(path)
    assert "bad.safetensors" in str(caught.value) and len(str(caught.value)) < 400
    if fds:
        assert len(os.listdir("/proc/self/fd")) == fds


def sound(path, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "double": rng.standard_normal((3, 5)),
        "single": rng.standard_normal((7,)).astype(np.float32),
        "long": rng.integers(-9, 9, (2, 2, 2)),
        "half": rng.standard_normal((4, 3)).astype(np.float16),
        "bytes": rng.integers(0, 255, 11).astype(np.uint8),
        "truth": rng.integers(0, 2, (3, 3)).astype(bool),
        "nothing": np.zeros((0, 7), np.float32),
        "scalar": np.array(3.0),
    }
    names = {v: k for k, v in NUMPY.items()}
    order = sorted(arrays, key=lambda k: -arrays[k].itemsize)
    with Writer(path, [(k, names[arrays[k].dtype.name], arrays[k].shape) for k in order], {"format": "pt"}) as file:
        for k in order:
            file.write(arrays[k])
    return arrays


def test_round_trip(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = sound(path)
    got = load(path)
    assert got.keys() == arrays.keys()
    for k, a in arrays.items():
        assert got[k].dtype == a.dtype and got[k].shape == a.shape and (got[k] == a).all()
    with Reader(path) as reader:
        assert reader.metadata == {"format": "pt"}
        for size in (24, 48, 1 << 20):
            for e in reader.entries.values():
                whole = b"".join(bytes(c) for c in reader.chunks(e, size))
                assert whole == arrays[e.name].tobytes()


def test_as_the_format_s_own_library(tmp_path):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = sound(ours)
    read = safetensors.load_file(ours)
    assert all((read[k] == a).all() and read[k].dtype == a.dtype for k, a in arrays.items())
    safetensors.save_file(arrays, theirs, {"a": "b"})
    assert all((v == arrays[k]).all() for k, v in load(theirs).items())
    with Reader(theirs) as reader:
        assert reader.metadata == {"a": "b"}


@pytest.mark.parametrize("dtype", BITS)
def test_every_dtype(dtype, tmp_path):
    path = tmp_path / "x.safetensors"
    data = np.arange(BITS[dtype], dtype=np.uint8) & 1  # 8 elements
    with Writer(path, [("a", dtype, (2, 4))]) as file:
        file.write(data)
    with Reader(path) as reader:
        assert b"".join(map(bytes, reader.chunks(reader.entries["a"]))) == data.tobytes()
        if NUMPY.get(dtype, "") not in np.sctypeDict:
            pytest.importorskip("ml_dtypes")
        array = reader.array("a")
    assert array.size == 8 or BITS[dtype] < 8
    assert array.tobytes() == (data.tobytes() if dtype != "BOOL" else (data != 0).tobytes())


def test_truncations_and_mutants(tmp_path):
    """Every truncation, and many flipped bits: tensors or a FormatError, nothing else."""
    path = tmp_path / "x.safetensors"
    sound(path)
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(FormatError):
            Reader(path)
    rng = random.Random(0)
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            data[rng.randrange(head)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            for name, array in load(path).items():
                assert isinstance(name, str) and array.nbytes <= len(whole)
        except (FormatError, ImportError):  # 8-bit floats without ml_dtypes
            pass


@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError):
        Reader(path)


def test_truncated_while_reading(tmp_path):
    path = tmp_path / "x.safetensors"
    with Writer(path, [("a", "F32", (100_000,))]) as file:
        file.write(np.zeros(100_000, np.float32))
    with Reader(path) as reader:
        os.truncate(path, 1000)
        with pytest.raises(FormatError, match="truncated while"):
            list(reader.chunks(reader.entries["a"]))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX files")
def test_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "missing"):
        with pytest.raises(OSError, match=r"folder|regular|No such"):
            Reader(path)
    for path in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(OSError, match=r"folder|regular"), Writer(path, []):
            pass
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_writer_checks(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="taken"):
        Writer(path, [("a", "F32", (1,)), ("a", "F32", (1,))])
    with pytest.raises(ValueError, match="whole bytes"):
        Writer(path, [("a", "F4", (3,))])
    with pytest.raises(ValueError, match="announces"), Writer(path, [("a", "F32", (2,))]) as file:
        file.write(np.zeros(1, np.float32))
    assert os.listdir(tmp_path) == []


# --- replacing files ---


def write(path, data=b"new"):
    with _atomic.AtomicFile(path) as file:
        file.write(data)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_modes(tmp_path):
    path = tmp_path / "x"
    old = os.umask(0o027)
    try:
        write(path)
        assert mode(path) == 0o640
        for m in (0o600, 0o644, 0o444, 0o777):
            os.chmod(path, m)
            write(path, b"newer")
            assert mode(path) == m and path.read_bytes() == b"newer"
    finally:
        os.umask(old)


def test_links(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "x", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write(link)
    assert link.is_symlink() and target.read_bytes() == b"new" and os.listdir(tmp_path / "there") == ["x"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "there" / "y")
    write(dangling)
    assert dangling.is_symlink() and (tmp_path / "there" / "y").read_bytes() == b"new"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match=r"[Ll]evels|[Ll]oop|link"):
        write(loop)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        write(tmp_path / "no" / "x")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "chmod"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, error, call, exists):
    path = tmp_path / "x"
    if exists:
        path.write_bytes(b"old")
    elif call == "chmod":
        pytest.skip("only a file that is there has a mode to keep")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        write(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["x"] if exists else [])
    assert not exists or path.read_bytes() == b"old"


def test_durable_before_it_has_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write(tmp_path / "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_short_writes(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:7])))
    write(tmp_path / "x", bytes(range(100)))
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == bytes(range(100))


def test_stale_files_go_and_live_ones_stay(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "x"
    stale = tmp_path / f".x.0123{_atomic.SUFFIX}"
    other = tmp_path / f".y.0123{_atomic.SUFFIX}"
    stale.write_bytes(b"half")
    other.write_bytes(b"half")
    with _atomic.AtomicFile(path) as live:
        live.write(b"first")
        write(path, b"second")  # another writer cleans up meanwhile
        assert len([n for n in os.listdir(tmp_path) if n.startswith(".x.")]) == 1
    assert sorted(os.listdir(tmp_path)) == [other.name, "x"]
    assert path.read_bytes() == b"first"
    long = tmp_path / ("n" * 240)
    write(long)
    assert long.read_bytes() == b"new"


# --- model folders ---


def folder(path, shards=2, config=True):
    path.mkdir()
    rng = np.random.default_rng(1)
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    if shards == 1:
        names = ["model.safetensors"]
    weights, where = {}, {}
    for i, name in enumerate(names):
        some = {f"layers.{i}.weight": rng.standard_normal((4, 6)).astype(np.float32), f"layers.{i}.bias": np.ones(4)}
        with Writer(path / name, [(k, {4: "F32", 8: "F64"}[a.itemsize], a.shape) for k, a in some.items()]) as file:
            for a in some.values():
                file.write(a)
        weights |= some
        where |= dict.fromkeys(some, name)
    if shards > 1:
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    if config:
        (path / "config.json").write_text('{"model_type": "test"}')
    (path / "sub").mkdir()
    (path / "sub" / "tokenizer.txt").write_text("words")
    return weights


@pytest.mark.parametrize("shards", [1, 3])
def test_folder(tmp_path, shards):
    path = tmp_path / "model"
    weights = folder(path, shards)
    (path / f".model.safetensors.00{_atomic.SUFFIX}").write_bytes(b"half")
    (path / "sub" / "up").symlink_to(path)
    with Model(path) as model:
        assert model.config == {"model_type": "test"}
        assert [e.name for _, e in model.tensors()] == list(weights)
        assert list(model.others()) == ["config.json", "sub/tokenizer.txt"]
        made = tmp_path / "new" / "deep"
        with model.output(made) as target:
            model.carry(target)
            model.carry_index(target)
            assert not made.exists()
        assert (made / "sub" / "tokenizer.txt").read_text() == "words"
        assert (made / "model.safetensors.index.json").exists() == (shards > 1)
        for inside in (path / "in", tmp_path):
            with pytest.raises(ValueError, match="one another"), model.output(inside):
                pass
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError), model.output(tmp_path / "file"):
            pass
    assert all((v == weights[k]).all() for k, v in load(path).items())
    if shards > 1:
        assert load(path / "model.safetensors.index.json").keys() == weights.keys()


BAD_INDEX = {
    "not JSON": ("{", "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
    "half a character": (r'{"weight_map": {"\ud800": "model-00001-of-00002.safetensors"}}', "index.json: has half"),
    "no map": ("{}", "weight_map"),
    "a list": ("[]", "weight_map"),
    "empty map": ('{"weight_map": {}}', "weight_map"),
    "numbers": ('{"weight_map": {"a": 1}}', "weight_map"),
    "outside": ('{"weight_map": {"a": "../model.safetensors"}}', "no safetensors file of the folder"),
    "absolute": ('{"weight_map": {"a": "/etc/x.safetensors"}}', "no safetensors file of the folder"),
    "other file": ('{"weight_map": {"a": "config.json"}}', "no safetensors file of the folder"),
    "not there": ('{"weight_map": {"nothing": "model-00001-of-00002.safetensors"}}', "is not in"),
}


@pytest.mark.parametrize("what", BAD_INDEX)
def test_bad_index(tmp_path, what):
    folder(tmp_path / "model")
    text, match = BAD_INDEX[what]
    (tmp_path / "model" / "model.safetensors.index.json").write_text(text)
    with pytest.raises(FormatError, match=match):
        Model(tmp_path / "model")


def test_bad_folders(tmp_path):
    folder(tmp_path / "twice")
    first, second = sorted((tmp_path / "twice").glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(FormatError, match=r"in model-00001.* too"):
        Model(tmp_path / "twice")
    folder(tmp_path / "missing")
    next((tmp_path / "missing").glob("*2.safetensors")).unlink()
    with pytest.raises(FileNotFoundError):
        Model(tmp_path / "missing")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no model here"):
        Model(tmp_path / "none")
    folder(tmp_path / "config", 1)
    (tmp_path / "config" / "config.json").write_text("[1]")
    with Model(tmp_path / "config") as model, pytest.raises(FormatError, match="not an object"):
        _ = model.config
