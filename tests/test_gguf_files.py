"""GGUF files are read and written as GGUF's own package has them, and no header crashes a reader."""

import contextlib
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tersor import FormatError, convert, quant
from tersor.checkpoint import GGUF, GGUFWriter
from tersor.checkpoint._ggml import TYPES
from tersor.convert import load, load_encoded, write_gguf

SCHEMES = ("q4_0", "q4_1", "q5_0", "q8_0", "gguf_mxfp4")
VALUES = {
    "general.architecture": "llama",
    "llama.block_count": np.uint32(2),
    "a.flag": True,
    "a.real": 1.5,
    "a.big": 1 << 40,
    "a.names": ["x", "ä", ""],
    "a.many": np.arange(3, dtype=np.uint16),
    "a.lists": [[1, 2], [3, 4]],
}


def weights(seed=0):
    return np.random.default_rng(seed).normal(size=(6, 64)).astype(np.float32)


def made(path, **more):
    tensors = {f"blk.0.{s}.weight": quant.encode(weights(), s) for s in SCHEMES} | {
        "norm": weights()[0],
        "half": weights().astype("f2"),
    }
    write_gguf(path, tensors | more, VALUES)
    return tensors


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.gguf"
    tensors = made(path)
    dense, codes = load(path), load_encoded(path)
    assert list(dense) == list(tensors) and sorted(codes) == sorted(f"blk.0.{s}.weight" for s in SCHEMES)
    for name, e in codes.items():
        assert e.scheme == tensors[name].scheme and e.shape == (6, 64)
        np.testing.assert_array_equal(e.data, tensors[name].data)
        np.testing.assert_array_equal(dense[name], quant.decode(tensors[name]))
    np.testing.assert_array_equal(dense["norm"], weights()[0])
    assert dense["half"].dtype == np.float16
    with GGUF(path) as file:
        assert file.values["general.architecture"] == "llama" and file.values["a.names"] == ["x", "ä", ""]
        assert file.values["llama.block_count"].dtype == np.uint32 and file.values["a.flag"]
        assert file.values["a.big"] == 1 << 40 and file.values["a.real"].dtype == np.float32
        assert [list(v) for v in file.values["a.lists"]] == [[1, 2], [3, 4]]
        again = tmp_path / "y.gguf"
        write_gguf(again, codes | {"norm": dense["norm"], "half": dense["half"]}, file.values)
        with GGUF(again) as other:
            assert str(other.values) == str(file.values)


def test_the_package_reads_what_is_written_and_writes_what_is_read(tmp_path):
    gguf = pytest.importorskip("gguf")
    tensors = made(tmp_path / "x.gguf")
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    assert reader.fields["llama.block_count"].contents() == 2 and reader.fields["a.names"].contents() == ["x", "ä", ""]
    for t in reader.tensors:
        mine = tensors[t.name]
        np.testing.assert_array_equal(t.data, mine.data if isinstance(mine, quant.Encoded) else mine)
    writer = gguf.GGUFWriter(tmp_path / "y.gguf", "llama")
    writer.add_array("some", [1, 2, 3])
    for kind in ("Q4_0", "Q8_0", "Q5_1"):
        rows = gguf.quants.quantize(weights(), gguf.GGMLQuantizationType[kind])
        writer.add_tensor(kind, rows, raw_dtype=gguf.GGMLQuantizationType[kind])
    blocks = np.random.default_rng(0).integers(0, 256, (4, 144), np.uint8)
    blocks[:, 1] = blocks[:, 3] = 0x2C
    writer.add_tensor("Q4_K", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.add_tensor("one", weights()[0])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    dense = load(tmp_path / "y.gguf")
    assert dense["Q4_K"].shape == (4, 256)
    for kind in ("Q4_0", "Q8_0", "Q5_1", "Q4_K"):
        got = blocks if kind == "Q4_K" else gguf.quants.quantize(weights(), gguf.GGMLQuantizationType[kind])
        np.testing.assert_array_equal(dense[kind], gguf.quants.dequantize(got, gguf.GGMLQuantizationType[kind]))
    with pytest.raises(FormatError, match="'Q5_1' is Q5_1, which no scheme"):
        load_encoded(tmp_path / "y.gguf")


def test_types_are_those_of_the_package():
    gguf = pytest.importorskip("gguf")
    for kind, size in gguf.GGML_QUANT_SIZES.items():
        if kind.name in TYPES:  # later releases may have more
            assert (TYPES[kind.name].number, (TYPES[kind.name].elements, TYPES[kind.name].bytes)) == (int(kind), size)


def test_blocks_without_a_decoder_name_the_package(tmp_path, monkeypatch):
    with GGUFWriter(tmp_path / "x.gguf", [("a", "Q6_K", (2, 256))]) as out:
        out.write(np.zeros((2, 210), np.uint8))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"'a' is Q6_K.*tersor\[gguf\]"):
        load(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("tensors", "values", "error", "said"),
    [
        ({"a": quant.encode(weights(), "int4-g32")}, {}, ValueError, "'a' is int4-g32; GGUF has q4_0"),
        ({"a": np.ones((1,) * 5, np.float32)}, {}, ValueError, "1 to 4 axes"),
        ({"a": np.ones((), np.float32)}, {}, ValueError, "1 to 4 axes"),
        ({"a": np.ones(3, np.complex64)}, {}, TypeError, "complex64"),
        ({}, {"k": []}, ValueError, "empty list"),
        ({}, {"k": [1, "a"]}, ValueError, "several types"),
        ({}, {"k": None}, TypeError, "NoneType"),
        ({}, {"k": 1e300}, ValueError, "float32 does not hold"),
        ({}, {"k": [1.0, -1e300]}, ValueError, "float32 does not hold"),
        ({}, {"general.alignment": 3}, ValueError, "power of two"),
        ({"": np.ones(3, np.float32)}, {}, ValueError, "the name of a tensor must have letters and no NUL, got ''"),
        (
            {"a\0b": np.ones(3, np.float32)},
            {},
            ValueError,
            "the name of a tensor must have letters and no NUL, got 'a.+b'",
        ),
        ({}, {"": 1}, ValueError, "a key of metadata must have letters and no NUL"),
        ({}, {"a\0b": 1}, ValueError, "a key of metadata must have letters and no NUL"),
        ({"blk." + "ä" * 30: np.ones(3, np.float32)}, {}, ValueError, "'blk.ä+' has 64 bytes; readers take 63 at most"),
    ],
)
def test_what_the_format_does_not_hold_is_refused(tmp_path, tensors, values, error, said):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")
    with pytest.raises(error, match=said):
        write_gguf(path, tensors, values)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_names_as_long_as_readers_take(tmp_path):
    path, name = tmp_path / "x.gguf", "blk." + "ä" * 29 + "b"
    write_gguf(path, {name: weights()})
    with GGUF(path) as file:
        assert list(file.entries) == [name] and len(name.encode()) == 63


def test_a_file_that_no_reader_would_know_is_not_written(tmp_path):
    for name in ("x", "x.safetensors", "gguf"):
        with pytest.raises(ValueError, match=rf"write_gguf: path '.*{name}' must end in .gguf"):
            write_gguf(tmp_path / name, {"a": weights()})
    assert not list(tmp_path.iterdir())
    write_gguf(str(tmp_path / "X.GGUF"), {"a": weights()})
    assert list(convert.load(tmp_path / "X.GGUF")) == ["a"]


def test_lists_of_lists_are_read_as_deep_as_they_are(tmp_path):
    path, lists = tmp_path / "x.gguf", [[[[[1, 2], [3]], [[4]]]], [[[[5]]]]]
    write_gguf(path, {"a": weights()}, {"a.deep": lists})
    with GGUF(path) as file:
        got = file.values["a.deep"]
    as_lists = lambda v: [as_lists(x) for x in v] if isinstance(v, list) else v.tolist()  # noqa: E731
    assert as_lists(got) == lists


def test_no_header_crashes_the_reader(tmp_path):
    path = tmp_path / "x.gguf"
    made(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    with GGUF(path) as file:
        header = min(e.start for e in file.entries.values())
    for cut in [0, 3, 4, 8, 23, *rng.integers(24, len(whole) - 1, 60)]:
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError):
            GGUF(path)
    for _ in range(300):
        octets = bytearray(whole)
        octets[rng.integers(0, header)] = rng.integers(0, 256)
        path.write_bytes(octets)
        with contextlib.suppress(FormatError, ImportError):
            load(path)
    deep = b"GGUF" + struct.pack("<IQQQ1s", 3, 0, 1, 1, b"k")
    for text, said in [
        (deep + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 99, "nested more than 64 deep"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF 1 is not read"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 63), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 0, 1 << 62), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sIQQIQ", 3, 1, 0, 1, b"t", 2, 1 << 62, 1 << 62, 0, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 4, 99, 0), "type 99"),
    ]:
        path.write_bytes(text)
        with pytest.raises(FormatError, match=said):
            GGUF(path)


def tersor(*arguments):
    return subprocess.run([sys.executable, "-m", "tersor", *map(str, arguments)], capture_output=True, text=True)


def test_the_command_line_inspects_them(tmp_path):
    pytest.importorskip("click")
    made(tmp_path / "x.gguf")
    done = tersor("inspect", tmp_path / "x.gguf")
    assert done.returncode == 0 and "Q5_0" in done.stdout and "6×64" in done.stdout
    assert "quantized: gguf, MXFP4, Q4_0, Q4_1, Q5_0, Q8_0; 5 weights of 1.9 k numbers in codes" in done.stdout
    (tmp_path / "x.gguf").write_bytes(b"{}" + bytes(60))
    done = tersor("inspect", tmp_path / "x.gguf")
    assert done.returncode == 1 and "x.gguf: is no GGUF file" in " ".join(done.stderr.split())


def test_what_is_written_is_what_was_given(tmp_path):
    path = tmp_path / "x.gguf"
    x = weights()
    for given in (x.astype(">f4"), np.ma.array(x, mask=x > 0)):
        with pytest.raises(TypeError, match=r"write_gguf: .*tensor 'w'.*(byte order|masked)"):
            write_gguf(path, {"w": given})
    for name, error in ((3, TypeError), ("\udc80", ValueError)):
        with pytest.raises(error, match="write_gguf: the name of a tensor"):
            write_gguf(path, {name: x})
    for value, error in ({"a": 1 << 63}, ValueError), ({3: 1}, TypeError), ({"a": "\ud800"}, ValueError):
        with pytest.raises(error, match="write_gguf: "):
            write_gguf(path, {"w": x}, value)
    for alignment, error in (("x", TypeError), (32.5, TypeError), (1 << 33, ValueError)):
        with pytest.raises(error, match=r"write_gguf: general\.alignment"):
            write_gguf(path, {"w": x}, {"general.alignment": alignment})
    assert not path.exists()
    write_gguf(path, {"w": x}, {"a": [1, 1 << 40, -(1 << 31), 1 << 31], "b": [1, 2]})
    with GGUF(path) as file:
        assert list(file.values["a"]) == [1, 1 << 40, -(1 << 31), 1 << 31] and file.values["b"].dtype == np.int32


def test_tensors_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(weights()).requires_grad_()
    write_gguf(tmp_path / "x.gguf", {"w": x, "half": x.bfloat16()})
    made = load(tmp_path / "x.gguf")
    np.testing.assert_array_equal(made["w"], weights())
    np.testing.assert_array_equal(made["half"].astype(np.float32), x.detach().bfloat16().float())
    codes = quant.encode(x.detach(), "q8_0")
    write_gguf(tmp_path / "x.gguf", {"w": codes})
    np.testing.assert_array_equal(load_encoded(tmp_path / "x.gguf")["w"].data, codes.data)
    for odd, error in (
        (x.to("meta"), ValueError),
        (replace(codes, data=codes.data.to("meta")), ValueError),
        (x.to(torch.float8_e4m3fn), TypeError),
        (x.to(torch.complex64).conj(), TypeError),
    ):
        with pytest.raises(error, match="write_gguf: tensor 'w' is"):
            write_gguf(tmp_path / "x.gguf", {"w": odd})
