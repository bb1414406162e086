"""Reading a safetensors file. The one rule: it is not believed until its header was checked whole."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint._foreign import recognised
from tersor.checkpoint._format import BITS, MAX_HEADER, NUMPY, Entry, StrPath, located, short

#: bytes in memory at a time
CHUNK = 4 << 20


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
        self.path = located(type(self).__name__, path)
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

    def __enter__(self) -> Self:
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
            try:
                if hasattr(os, "preadv"):
                    n = os.preadv(self._fd, [view], at)
                else:
                    data = os.pread(self._fd, len(view), at)
                    n = len(data)
                    view[:n] = data
            except OSError as error:  # it names no file by itself, and would be taken for one of what is written
                error.filename = self.path
                raise
            if n == 0:
                raise self._bad(f"ends at byte {at}, before its data does: truncated while it was read")
            at += n
            view = view[n:]

    def _parse(self) -> None:
        start = bytearray(min(self.size, 64))
        self._read(memoryview(start), 0)
        if start[8:9] != b"{" and (what := recognised(bytes(start))):
            raise self._bad(f"is {what}")
        if self.size < 8:
            raise self._bad(f"{self.size} bytes are too few for a safetensors file")
        word = start[:8]
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
                raise bad(f"shape {short(shape)} of {dtype} is larger than the file")
        if bits != 8 * (stop - start):
            raise bad(f"shape {short(shape)} of {dtype} needs {bits} bits, data_offsets give {8 * (stop - start)}")
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

    def octets(self, entry: Entry) -> np.ndarray:
        """The bytes of a tensor."""
        raw = np.empty(entry.nbytes, np.uint8)
        self._read(memoryview(raw), entry.start)
        return raw

    def array(self, name: str) -> np.ndarray:
        """A whole tensor; bfloat16 and 8-bit floats need the package ml_dtypes, floats of 6 and 4 bits come as bytes."""
        e = self.entries[name]
        raw = self.octets(e)
        kind = NUMPY.get(e.dtype)
        if kind is None:
            return raw
        dtype = np.dtype(kind) if kind in np.sctypeDict else np.dtype(_extended(kind, e))
        if e.dtype == "BOOL":
            return (raw != 0).reshape(e.shape)
        return raw.view(dtype).reshape(e.shape)


def _extended(kind: str, e: Entry) -> Any:
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"tensor {e.name!r} is {e.dtype}, which NumPy does not know: install ml_dtypes") from None
    return getattr(ml_dtypes, kind)
