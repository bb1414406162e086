"""What a safetensors file is made of. The one rule: types and limits are said here once, for reading and for writing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

StrPath = str | os.PathLike[str]

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


class Misuse(ValueError):
    """The arguments are at fault, not a file's content: a destination inside the source, a pattern without a match."""


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


def located(who: str, path: object, argument: str = "path") -> str:
    """A path as text; of bytes, a number or nothing a TypeError."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(found := os.fspath(path), str):
        raise TypeError(f"{who}: {argument} must be a str or an os.PathLike of one, got {type(path).__name__}")
    return found


def short(shape: Sequence[int]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"of {len(shape)} dimensions"
