"""Writing a safetensors file. The one rule: under its name there is the old file or the whole new one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from tersor.checkpoint._atomic import AtomicFile
from tersor.checkpoint._format import BITS, MAX_HEADER, StrPath, short


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
        self._head, self._size = (head, size) if head is not None else header(entries, metadata)

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


def write_json(path: StrPath, value: Any) -> None:
    """Replaces a file by a value in JSON."""
    with AtomicFile(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def header(entries: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None) -> tuple[bytes, int]:
    """The bytes before the data of a file, and its size in all."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, dtype, shape in entries:
        if name in header or name == "__metadata__":
            raise ValueError(f"tensor name {name!r} is taken")
        bits = BITS[dtype]
        for n in shape:
            bits *= int(n)
        if bits % 8:
            raise ValueError(f"tensor {name!r}: shape {short(shape)} of {dtype} does not fill whole bytes")
        header[name] = {"dtype": dtype, "shape": [int(n) for n in shape], "data_offsets": [at, at + bits // 8]}
        at += bits // 8
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"header of {len(text)} bytes, more than {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + at
