"""Safetensors files and model folders, as streams. The one rule: a file is not believed until its header was checked whole,
and memory is bounded by a chunk, whatever the file holds.

Files are read with ``pread`` into memory of our own: a mapped file that somebody truncates kills the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from tersor._atomic import AtomicFile, copy, is_temporary, sync_folder
from tersor._op import FormatError

__all__ = ["Entry", "FormatError", "Model", "Reader", "Writer", "chosen", "load"]

StrPath = str | os.PathLike[str]

#: bytes in memory at a time
CHUNK = 4 << 20
#: the longest header that readers of the format accept
MAX_HEADER = 100_000_000
#: bits of an element
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
#: NumPy's name, or that of ml_dtypes
NUMPY = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "C64": "complex64",
    "BOOL": "bool",
    **{f"{kind}{n}": f"{name}{n}" for kind, name in (("I", "int"), ("U", "uint")) for n in (8, 16, 32, 64)},
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
INDEX = ".safetensors.index.json"


class Entry(NamedTuple):
    """A tensor of a file: ``start`` and ``stop`` are offsets into the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


class Reader:
    """A safetensors file whose header is sound.

    Parameters
    ----------
    path : path of the file

    Attributes
    ----------
    entries : the tensors by name, in the order of their data
    metadata : the strings of ``__metadata__``, or None
    head : the bytes before the data

    Raises
    ------
    FormatError
        If the header is not as the format says (its length, JSON, names twice, dtypes, shapes) or its ranges overlap,
        leave holes or end anywhere but at the end of the file.
    OSError
        If the file cannot be opened.

    Notes
    -----
    The format: a little-endian 64-bit length, that many bytes of JSON, the data.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = os.fspath(path)
        # not O_NONBLOCK's business, but a pipe under this name must not hang us
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        self._fd = os.open(self.path, flags)
        try:
            info = os.fstat(self._fd)
            if stat.S_ISDIR(info.st_mode):
                raise IsADirectoryError(21, "is a folder", self.path)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(22, "is not a regular file", self.path)
            self.size = info.st_size
            self.head = b""
            self.metadata: dict[str, str] | None = None
            self.entries: dict[str, Entry] = {}
            self._parse()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _bad(self, reason: str) -> FormatError:
        return FormatError(f"{self.path}: {reason}")

    def _read(self, view: memoryview, at: int) -> None:
        """Fills ``view`` from the file."""
        while view:
            if hasattr(os, "preadv"):
                n = os.preadv(self._fd, [view], at)
            else:
                data = os.pread(self._fd, len(view), at)
                n = len(data)
                view[:n] = data
            if n == 0:
                raise self._bad(f"ends at byte {at}, before its data does: truncated while it was read")
            at += n
            view = view[n:]

    def _parse(self) -> None:
        if self.size < 8:
            raise self._bad(f"{self.size} bytes are too few for a safetensors file")
        word = bytearray(8)
        self._read(memoryview(word), 0)
        length = int.from_bytes(word, "little")
        if length > MAX_HEADER:
            raise self._bad(f"header of {length} bytes, more than {MAX_HEADER}: not a safetensors file")
        if length > self.size - 8:
            raise self._bad(f"header of {length} bytes in a file of {self.size}: truncated")
        text = bytearray(length)
        self._read(memoryview(text), 8)
        self.head = bytes(word + text)
        header = self._json(text)
        metadata = header.pop("__metadata__", None)
        if metadata is not None:
            if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
                raise self._bad("__metadata__ is not an object of strings")
            self.metadata = metadata
        entries = sorted((self._entry(name, value) for name, value in header.items()), key=lambda e: e[3:])
        at = len(self.head)
        for e in entries:
            if e.start != at:
                what = "overlaps the tensor before it" if e.start < at else "leaves a hole before it"
                raise self._bad(f"tensor {e.name!r} {what}, at byte {e.start - len(self.head)} of the data")
            at = e.stop
        if at != self.size:
            raise self._bad(f"tensors end at byte {at}, the file at {self.size}")
        self.entries = {e.name: e for e in entries}

    def _json(self, text: bytearray) -> dict[str, Any]:
        if text[:1] != b"{":
            raise self._bad("header does not begin with '{'")

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(pairs)
            if len(found) != len(pairs):
                names: set[str] = set()
                twice = next(k for k, _ in pairs if k in names or names.add(k))  # type: ignore[func-returns-value]
                raise self._bad(f"name {twice!r} comes twice in the header")
            return found

        try:
            header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
        except FormatError:
            raise
        except (ValueError, RecursionError) as error:  # wrong UTF-8, wrong JSON, numbers of thousands of digits
            raise self._bad(f"header is not JSON: {error}") from None
        return header  # it began with a brace

    def _entry(self, name: str, value: Any) -> Entry:
        def bad(reason: str) -> FormatError:
            return self._bad(f"tensor {name!r}: {reason}")

        try:
            name.encode()
        except UnicodeEncodeError:
            raise bad("name is not Unicode") from None
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            raise bad("needs dtype, shape and data_offsets, and nothing else")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in BITS:
            raise bad(f"dtype {dtype!r:.40} is unknown")
        whole = 1 << 63
        if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < whole for n in shape):
            raise bad("shape is not a list of sizes")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
            raise bad("data_offsets is not a pair of numbers")
        start, stop = offsets
        if not 0 <= start <= stop <= self.size - len(self.head):
            raise bad(f"data_offsets {start}, {stop} are not in the {self.size - len(self.head)} bytes of data")
        bits = 0 if 0 in shape else BITS[dtype]
        for n in shape if bits else ():
            bits *= n
            if bits > 8 * self.size:  # said here, before the product of a hostile shape grows long
                raise bad(f"shape {_short(shape)} of {dtype} is larger than the file")
        if bits != 8 * (stop - start):
            raise bad(f"shape {_short(shape)} of {dtype} needs {bits} bits, data_offsets give {8 * (stop - start)}")
        head = len(self.head)
        return Entry(name, dtype, tuple(shape), head + start, head + stop)

    def chunks(self, entry: Entry, size: int = CHUNK) -> Iterator[np.ndarray]:
        """The bytes of a tensor in pieces of whole elements; a piece is overwritten by the next one.

        Raises
        ------
        FormatError
            If the file has become shorter.
        """
        size -= size % 24  # whole elements of every width, also of 6 bits
        buffer = np.empty(min(size, entry.nbytes), np.uint8)
        for at in range(entry.start, entry.stop, max(size, 1)):
            piece = buffer[: min(size, entry.stop - at)]
            self._read(memoryview(piece), at)
            yield piece

    def array(self, name: str) -> np.ndarray:
        """A whole tensor; bfloat16 and 8-bit floats need the package ml_dtypes, floats of 6 and 4 bits come as bytes."""
        e = self.entries[name]
        raw = np.empty(e.nbytes, np.uint8)
        self._read(memoryview(raw), e.start)
        kind = NUMPY.get(e.dtype)
        if kind is None:
            return raw
        dtype = np.dtype(kind) if kind in np.sctypeDict else np.dtype(_extended(kind, e))
        if e.dtype == "BOOL":
            return (raw != 0).reshape(e.shape)
        return raw.view(dtype).reshape(e.shape)


def _short(shape: Sequence[int]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"of {len(shape)} dimensions"


def _extended(kind: str, e: Entry) -> Any:
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"tensor {e.name!r} is {e.dtype}, which NumPy does not know: install ml_dtypes") from None
    return getattr(ml_dtypes, kind)


class Writer:
    """A safetensors file that replaces what was under its name when the block ends without an error.

    Parameters
    ----------
    path : path of the file
    entries : name, safetensors dtype and shape of each tensor, in the order in which their data will be written
    metadata : strings for ``__metadata__``
    head : instead of both, the bytes before the data of a file that is laid out the same (``Reader.head``)

    Examples
    --------
    >>> with Writer("x.safetensors", [("a", "F32", (2, 3))]) as file:  # doctest: +SKIP
    ...     file.write(np.zeros((2, 3), np.float32))

    Notes
    -----
    Readers map files and want aligned numbers: give the widest dtypes first.
    """

    def __init__(
        self,
        path: StrPath,
        entries: Iterable[tuple[str, str, Sequence[int]]] = (),
        metadata: Mapping[str, str] | None = None,
        *,
        head: bytes | None = None,
        size: int | None = None,
    ) -> None:
        self._file = AtomicFile(path)
        self._head, self._size = (head, size) if head is not None else _header(entries, metadata)

    def __enter__(self) -> Writer:
        self._file.__enter__()
        try:
            self.write(self._head)
        except BaseException as error:
            self._file.__exit__(type(error), error, None)
            raise
        return self

    def write(self, data: Any) -> None:
        """Appends bytes, or the memory of a contiguous array."""
        if isinstance(data, np.ndarray):
            data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._file.write(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._size is not None and self._file.size != self._size:
            wrong = ValueError(
                f"{self._file.path}: {self._file.size} bytes were written, the header announces {self._size}"
            )
            self._file.__exit__(ValueError, wrong, None)
            raise wrong
        self._file.__exit__(kind, error, trace)


def _header(entries: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None) -> tuple[bytes, int]:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, dtype, shape in entries:
        if name in header or name == "__metadata__":
            raise ValueError(f"tensor name {name!r} is taken")
        bits = BITS[dtype]
        for n in shape:
            bits *= int(n)
        if bits % 8:
            raise ValueError(f"tensor {name!r}: shape {_short(shape)} of {dtype} does not fill whole bytes")
        header[name] = {"dtype": dtype, "shape": [int(n) for n in shape], "data_offsets": [at, at + bits // 8]}
        at += bits // 8
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"header of {len(text)} bytes, more than {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + at


class Model:
    """A safetensors file, or a model folder: weights in one file or several (``*.safetensors.index.json``), other files.

    Parameters
    ----------
    path : a ``.safetensors`` file, a folder, or the index of a sharded one

    Attributes
    ----------
    folder : the folder, or None for a single file
    readers : file name -> `Reader`, in the order of the names, which is the order of their tensors for ties
    index : the file name of the index, or None

    Raises
    ------
    FormatError
        If a file is malformed, the index names files outside the folder or tensors that are not there, or a tensor is in two
        files.
    OSError
        If a file cannot be opened, or a folder has no weights.
    """

    def __init__(self, path: StrPath) -> None:
        path = Path(path)
        self.readers: dict[str, Reader] = {}
        self.index: str | None = None
        self.folder: Path | None = None
        self.map: dict[str, str] = {}
        if path.name.endswith(INDEX) and path.is_file():
            self.folder, self.index = path.parent, path.name
        elif path.is_dir():
            self.folder = path
        try:
            for name in self._names(path):
                self.readers[name] = Reader(path if self.folder is None else self.folder / name)
            self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        for reader in self.readers.values():
            reader.close()

    def _names(self, path: Path) -> list[str]:
        if self.folder is None:
            return [path.name]
        if self.index is None:
            names = sorted(f.name for f in self.folder.iterdir() if not f.name.startswith("."))
            indices = [n for n in names if n.endswith(INDEX)]
            files = [n for n in names if n.endswith(".safetensors")]
            one = f"model{INDEX}" if f"model{INDEX}" in indices else indices[0] if len(indices) == 1 else None
            if "model.safetensors" in files and one != f"model{INDEX}":
                return ["model.safetensors"]
            if one is None:
                if len(files) == 1:
                    return files
                found = f"several safetensors files and no {INDEX[1:]}" if files else "no safetensors file"
                raise FileNotFoundError(2, f"no model here: {found}", str(self.folder))
            self.index = one
        self.map = self._read_index(self.folder / self.index)
        return sorted(set(self.map.values()))

    @staticmethod
    def _read_index(path: Path) -> dict[str, str]:
        if path.stat().st_size > MAX_HEADER:
            raise FormatError(f"{path}: more than {MAX_HEADER} bytes")
        try:
            index = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON: {error}") from None
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict) or not names or not all(isinstance(v, str) for v in names.values()):
            raise FormatError(f"{path}: weight_map is not an object of file names")
        for file in names.values():
            if file != os.path.basename(file) or not file.endswith(".safetensors") or "\0" in file or "\\" in file:
                raise FormatError(f"{path}: weight_map names {file!r:.80}, which is no safetensors file of the folder")
        return names

    def _check(self) -> None:
        where: dict[str, str] = {}
        for file, reader in self.readers.items():
            for name in reader.entries:
                if name in where:
                    raise FormatError(f"{reader.path}: tensor {name!r} is in {where[name]} too")
                where[name] = file
        for name, file in self.map.items():
            if where.get(name) != file:
                raise FormatError(f"{self.folder}/{self.index}: tensor {name!r} is not in {file}")

    def tensors(self) -> Iterator[tuple[Reader, Entry]]:
        """Every tensor with its file, by file name, then by data offset."""
        for reader in self.readers.values():
            for entry in reader.entries.values():
                yield reader, entry

    @property
    def config(self) -> dict[str, Any]:
        """``config.json`` of the folder; empty if there is none."""
        path = self.folder / "config.json" if self.folder else None
        if path is None or not path.is_file():
            return {}
        try:
            config = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON: {error}") from None
        if not isinstance(config, dict):
            raise FormatError(f"{path}: not an object")
        return config

    def target(self, path: StrPath) -> Path:
        """Where to write: a folder for a folder (made if need be), a file for a file.

        Raises
        ------
        OSError
            If the other kind is there.
        ValueError
            If one folder lies in the other.
        """
        path = Path(path)
        if self.folder is None:
            return path
        here, there = self.folder.resolve(), path.resolve()
        if here != there and (here in there.parents or there in here.parents):
            raise ValueError(f"{path} and {self.folder} lie in one another")
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(20, "is a file, and a model folder gives a folder", str(path))
        path.mkdir(parents=True, exist_ok=True)
        return path

    def others(self) -> Iterator[str]:
        """Relative paths of the folder's other files; links count as what they point to."""
        if self.folder is None:
            return
        seen = set()
        for where, folders, files in os.walk(self.folder, followlinks=True):
            info = os.stat(where)
            if (info.st_dev, info.st_ino) in seen:
                folders.clear()  # a link that leads back up
                continue
            seen.add((info.st_dev, info.st_ino))
            folders.sort()
            for file in sorted(files):
                name = os.path.relpath(os.path.join(where, file), self.folder)
                if name not in self.readers and name != self.index and not is_temporary(file):
                    with contextlib.suppress(FileNotFoundError):
                        if stat.S_ISREG(os.stat(os.path.join(where, file)).st_mode):
                            yield name

    def carry(self, target: Path, skip: Sequence[str] = (), done: Callable[[int], None] | None = None) -> None:
        """Copies the folder's other files into the folder ``target``."""
        if self.folder is None or self.folder.resolve() == target.resolve():
            return
        for name in self.others():
            if name not in skip:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                copy(str(self.folder / name), str(target / name), done=done)

    def carry_index(self, target: Path) -> None:
        """Copies the index, which makes a sharded folder whole: call it last."""
        if self.folder is not None and self.index is not None and self.folder.resolve() != target.resolve():
            copy(str(self.folder / self.index), str(target / self.index))
            sync_folder(str(target))


def chosen(name: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> bool:
    """Whether a name matches some shell pattern of ``include`` (all do if there is none) and none of ``exclude``."""
    return (not include or any(fnmatchcase(name, p) for p in include)) and not any(
        fnmatchcase(name, p) for p in exclude
    )


def load(path: StrPath) -> dict[str, np.ndarray]:
    """All tensors of a file or model folder.

    Parameters
    ----------
    path : a ``.safetensors`` file, a folder, or the index of a sharded one

    Raises
    ------
    FormatError
        If a file is malformed.
    ImportError
        If there are bfloat16 or 8-bit floats and the package ml_dtypes is not installed.
    """
    with Model(path) as model:
        return {entry.name: reader.array(entry.name) for reader, entry in model.tensors()}
