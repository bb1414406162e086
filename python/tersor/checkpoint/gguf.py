"""GGUF files, one tensor at a time. The one rule: as of safetensors, a file is not believed until its header was checked whole.

A header, values by name, the tensors' names, axes (the last first), types and offsets; then their data, aligned.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from tersor._arrays import whole
from tersor.checkpoint._atomic import AtomicFile
from tersor.checkpoint._format import MAX_HEADER, Entry, StrPath, short
from tersor.checkpoint._ggml import (
    ALIGNMENT,
    ARRAY,
    AXES,
    MAGIC,
    NAME,
    NUMBERED,
    NUMBERS,
    STRING,
    TYPES,
    U32,
    U64,
    VALUES,
    VERSIONS,
    aligned,
)
from tersor.checkpoint.reader import CHUNK, Reader

#: arrays in one another, which the format does not bound and a reader's stack does
_DEPTH = 64
#: what float32 rounds to infinity
_BEYOND = (2 - 2.0**-24) * 2.0**127


def is_gguf(path: StrPath) -> bool:
    """Whether a path is that of a GGUF file, by its name."""
    return os.fspath(path).lower().endswith(".gguf") and os.path.isfile(path)


class GGUF(Reader):
    """A GGUF file whose header is sound.

    Parameters
    ----------
    path : path of the file

    Attributes
    ----------
    entries : the tensors by name, in the order of their data, with ggml's names of types and their axes as NumPy has them
    values : the metadata; numbers are NumPy's, of the types that the file has

    Raises
    ------
    FormatError
        If the header is not as the format says, a type is unknown, or ranges overlap or leave the file.
    OSError
        If the file cannot be opened.
    """

    def _parse(self) -> None:
        self.values: dict[str, Any] = {}
        self._at, self._buffer, self._start = 0, b"", 0
        if self._take(4) != MAGIC:
            raise self._bad("is no GGUF file")
        version = self._int(U32)
        if version not in VERSIONS:
            big = version & 0xFFFF == 0 and version
            raise self._bad(
                "is a big-endian GGUF file, which is not read" if big else f"GGUF {version} is not read (2, 3)"
            )
        tensors, values = self._int(U64), self._int(U64)
        for _ in range(values):
            key = self._string()
            if key in self.values:
                raise self._bad(f"value {key!r:.80} comes twice")
            self.values[key] = self._value(self._int(U32))
        alignment = self.values.get("general.alignment", np.uint32(ALIGNMENT))
        if not isinstance(alignment, np.integer) or alignment < 1 or alignment & (alignment - 1):
            raise self._bad(f"general.alignment {alignment!r:.40} is no power of two")
        found = [self._tensor() for _ in range(tensors)]
        data = aligned(self._at, int(alignment))
        for entry in sorted((e._replace(start=data + e.start, stop=data + e.stop) for e in found), key=lambda e: e[3:]):
            if entry.start % int(alignment):
                raise self._bad(f"tensor {entry.name!r} is not aligned to {alignment}")
            if entry.name in self.entries:
                raise self._bad(f"name {entry.name!r} comes twice in the header")
            if self.entries and entry.start < (last := next(reversed(self.entries.values()))).stop:
                raise self._bad(f"tensor {entry.name!r} overlaps {last.name!r}")
            if entry.stop > self.size:
                raise self._bad(f"tensor {entry.name!r} ends at byte {entry.stop}, the file at {self.size}: truncated")
            self.entries[entry.name] = entry
        self._buffer = b""

    def _take(self, n: int) -> bytes:
        """The next bytes of the header."""
        at = self._at - self._start
        if at + n > len(self._buffer):
            if self._at + n > min(self.size, MAX_HEADER):
                what = f"more than {MAX_HEADER} bytes" if self.size > MAX_HEADER else "truncated"
                raise self._bad(f"header is {what}")
            more = bytearray(min(max(n, 1 << 16), self.size - self._at))
            self._read(memoryview(more), self._at)
            self._buffer, self._start, at = bytes(more), self._at, 0
        self._at += n
        return self._buffer[at : at + n]

    def _int(self, how: Any) -> int:
        return int(how.unpack(self._take(how.size))[0])

    def _string(self) -> str:
        return self._take(self._int(U64)).decode("utf-8", "surrogateescape")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY and depth == _DEPTH:
            raise self._bad(f"lists are nested more than {_DEPTH} deep")
        if kind == ARRAY:
            inner, n = self._int(U32), self._int(U64)
            if inner in VALUES:
                dtype = np.dtype(VALUES[inner])
                return np.frombuffer(self._take(n * dtype.itemsize), dtype)
            return [self._value(inner, depth + 1) for _ in range(n)]
        if kind not in VALUES:
            raise self._bad(f"a value of type {kind} is not known")
        dtype = np.dtype(VALUES[kind])
        return np.frombuffer(self._take(dtype.itemsize), dtype)[0]

    def _tensor(self) -> Entry:
        name = self._string()
        if any("\ud800" <= c <= "\udfff" for c in name):
            raise self._bad(f"name {name!a:.80} is not Unicode")
        axes = self._int(U32)
        if axes > AXES:
            raise self._bad(f"tensor {name!r:.80} has {axes} axes, more than {AXES}")
        shape = tuple(self._int(U64) for _ in range(axes))[::-1]
        number, offset = self._int(U32), self._int(U64)
        if number not in NUMBERED:
            raise self._bad(f"tensor {name!r}: type {number} of ggml is not known")
        kind = TYPES[NUMBERED[number]]
        if shape and shape[-1] % kind.elements:
            raise self._bad(f"tensor {name!r}: rows of {shape[-1]} are no whole blocks of {kind.elements}")
        return Entry(name, NUMBERED[number], shape, offset, offset + math.prod(shape) // kind.elements * kind.bytes)

    def tensors(self) -> Iterator[tuple[Reader, Entry]]:
        """Every tensor with its file, as of a `Model`."""
        return ((self, e) for e in self.entries.values())

    def array(self, name: str) -> np.ndarray:
        """A whole tensor; of a type in blocks their bytes, ``[..., bytes of a row]``."""
        e = self.entries[name]
        if e.dtype in NUMBERS:
            return super().array(name)
        kind = TYPES[e.dtype]
        return self.octets(e).reshape(*e.shape[:-1], e.shape[-1] // kind.elements * kind.bytes)


def _called(what: str, name: Any, errors: str = "strict") -> bytes:
    """A name, which readers end at a NUL and do not find if it has no letters."""
    octets = _text(what, name, errors)
    if not name or "\0" in name:
        raise ValueError(f"write_gguf: {what} must have letters and no NUL, got {name!r}")
    return octets


def _text(what: str, text: Any, errors: str = "strict") -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"write_gguf: {what} must be a string, got {type(text).__name__}")
    try:
        octets = text.encode("utf-8", errors)
    except UnicodeEncodeError:
        raise ValueError(f"write_gguf: {what} {text!a:.80} is not Unicode") from None
    return U64.pack(len(octets)) + octets


def _wide(key: str, *values: int) -> Any:
    """The type that plain integers need beside each other."""
    for value in values:
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"write_gguf: metadata {key!r} has {value}, which int64 does not hold")
    return np.int32 if all(-(1 << 31) <= value < 1 << 31 for value in values) else np.int64


def _typed(key: str, value: Any) -> tuple[int, bytes]:
    """The number of a value's type, and its bytes."""
    if isinstance(value, str):
        return STRING, _text(f"metadata {key!r}", value, "surrogateescape")  # as values are read
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"write_gguf: metadata {key!r} is an empty list, whose type is not said")
        if all(type(v) is int for v in value):
            value = list(map(_wide(key, *value), value))
        many = [_typed(key, v) for v in value]
        if len({kind for kind, _ in many}) > 1:
            raise ValueError(f"write_gguf: metadata {key!r} is a list of several types")
        return ARRAY, U32.pack(many[0][0]) + U64.pack(len(many)) + b"".join(octets for _, octets in many)
    if type(value) is int:
        value = _wide(key, value)(value)
    if type(value) is float and math.isfinite(value) and abs(value) >= _BEYOND:
        raise ValueError(
            f"write_gguf: metadata {key!r} has {value}, which float32 does not hold; np.float64 makes it one"
        )
    x = np.asarray(value, np.float32 if type(value) is float else None)
    kinds = {np.dtype(v): k for k, v in VALUES.items()}
    if x.dtype not in kinds or x.ndim > 1:
        raise TypeError(f"write_gguf: metadata {key!r} is {type(value).__name__}, which GGUF has no type for")
    kind, octets = kinds[x.dtype], np.ascontiguousarray(x).tobytes()
    return (kind, octets) if x.ndim == 0 else (ARRAY, U32.pack(kind) + U64.pack(x.size) + octets)


class GGUFWriter:
    """A GGUF file (version 3) that replaces what was under its name when the block ends without an error.

    Parameters
    ----------
    path : path of the file
    entries : name, ggml type and shape (as NumPy has it) of each tensor, in the order in which their data will be written
    values : metadata: strings, numbers, lists of them, one-dimensional arrays; plain integers are int32, or int64 where that is
        too small, plain floats float32, NumPy's what they are
    """

    def __init__(
        self, path: StrPath, entries: Iterable[tuple[str, str, Sequence[int]]], values: Mapping[str, Any] | None = None
    ) -> None:
        self._file = AtomicFile(path)
        values = dict(values or {})
        alignment = whole("write_gguf: general.alignment", values.get("general.alignment", ALIGNMENT))
        if not 1 <= alignment < 1 << 32 or alignment & (alignment - 1):
            raise ValueError(f"write_gguf: general.alignment must be a power of two of 32 bits, got {alignment}")
        values |= {"general.alignment": np.uint32(alignment)} if "general.alignment" in values else {}
        parts, at, self._sizes = [], 0, []
        names = set()
        for name, dtype, shape in entries:
            kind = TYPES[dtype]
            if name in names:
                raise ValueError(f"write_gguf: tensor name {name!r} is taken")
            octets = _called("the name of a tensor", name)
            if len(octets) > U64.size + NAME:
                raise ValueError(
                    f"write_gguf: the name of tensor {name!r} has {len(octets) - U64.size} bytes; readers take {NAME} at most"
                )
            if not 1 <= len(shape) <= AXES or shape[-1] % kind.elements:
                what = (
                    f"rows of {kind.elements} elements" if shape and shape[-1] % kind.elements else f"1 to {AXES} axes"
                )
                raise ValueError(f"write_gguf: tensor {name!r}: {dtype} has {what}, got shape {short(shape)}")
            axes = b"".join(U64.pack(int(n)) for n in reversed(shape))
            parts.append(octets + U32.pack(len(shape)) + axes + U32.pack(kind.number) + U64.pack(at))
            names.add(name)
            self._sizes.append(math.prod(shape) // kind.elements * kind.bytes)
            at += aligned(self._sizes[-1], alignment)
        head = [MAGIC, U32.pack(VERSIONS[-1]), U64.pack(len(parts)), U64.pack(len(values))]
        for key, value in values.items():
            number, octets = _typed(key, value)
            head += [_called("a key of metadata", key, "surrogateescape"), U32.pack(number), octets]
        self._head = b"".join(head + parts)
        self._alignment, self._written = alignment, 0

    def __enter__(self) -> GGUFWriter:
        self._file.__enter__()
        try:
            self._file.write(self._head)
            self._pad()
        except BaseException as error:
            self._file.__exit__(type(error), error, None)
            raise
        return self

    def _pad(self) -> None:
        self._file.write(bytes(aligned(self._file.size, self._alignment) - self._file.size))

    def write(self, data: np.ndarray) -> None:
        """Appends the next tensor, whole."""
        octets = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        if self._written >= len(self._sizes) or octets.size != self._sizes[self._written]:
            raise ValueError(f"write_gguf: {octets.size} bytes are not those of tensor {self._written} of the header")
        for at in range(0, octets.size, CHUNK):
            self._file.write(octets[at : at + CHUNK])
        self._pad()
        self._written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._written != len(self._sizes):
            error = ValueError(f"{self._file.path}: {self._written} of {len(self._sizes)} tensors were written")
            self._file.__exit__(ValueError, error, None)
            raise error
        self._file.__exit__(kind, error, trace)
