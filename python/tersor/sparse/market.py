"""Sparse matrices of text files: Matrix Market, and the patterns of the Deep Learning Matrix Collection. The one rule: a line
that is not what its format says is refused with its number, and nothing is read past it."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from tersor._arrays import FLOATS, numpy_type
from tersor._op import FormatError
from tersor._values import float_name
from tersor.sparse._csr import CSR
from tersor.sparse._edges import from_coo

#: bytes of text that are looked at together
BLOCK = 1 << 24
_PLACE = rb"[ \t]*+\d++[ \t]++\d++"
_VALUE = rb"[ \t]++[+-]?(?:(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?\d++)?+|(?i:inf|nan))"
#: whole lines of entries, blank ones among them
_LINES = {
    fields: re.compile(rb"(?:" + line + rb"[ \t]*+\r?\n|[ \t]*+\r?\n)*+")
    for fields, line in ((2, _PLACE), (3, _PLACE + _VALUE))
}
_LIST = re.compile(rb"[ \t]*(?:\d++[ \t,]*+)*+")


@contextlib.contextmanager
def _opened(who: str, path: Any) -> Iterator[IO[bytes]]:
    """A file, unpacked if it is compressed."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{who}: path must be a string or a path, got {type(path).__name__}")
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]


def _typed(who: str, dtype: Any) -> Any:
    name = float_name(dtype)
    if name not in FLOATS:
        raise TypeError(f"{who}: dtype must be float64, float32, float16 or bfloat16, got {name}")
    return np.dtype(numpy_type(name))


class _Text:
    """A file line by line, or block by block of whole lines; errors name it and the line."""

    def __init__(self, who: str, path: Any, file: IO[bytes]) -> None:
        self.who, self.path, self.file, self.line = who, path, file, 0

    def wrong(self, what: str, line: int | None = None) -> FormatError:
        return FormatError(f"{self.who}: {os.fspath(self.path)}, line {self.line if line is None else line}: {what}")

    def next(self) -> bytes:
        self.line += 1
        return self.file.readline()

    def blocks(self) -> Iterator[bytes]:
        """The rest in whole lines; `line` is the first of the block until the next is asked for."""
        rest = b""
        self.line += 1
        while more := self.file.read(BLOCK):
            text, cut, rest = (rest + more).rpartition(b"\n")
            if cut:
                yield text + cut
                self.line += text.count(b"\n") + 1
        if rest:
            yield rest + b"\n"


def _safely(who: str, path: Any, read: Any, dtype: Any) -> CSR:
    kind = _typed(who, dtype)
    with _opened(who, path) as file:
        text = _Text(who, path, file)
        try:
            made: CSR = read(text, kind)
        except (gzip.BadGzipFile, EOFError, zlib.error) as e:
            raise text.wrong(f"the compressed file is damaged: {e}") from None
        return made


def read_mtx(path: str | os.PathLike[str], *, dtype: Any = "float64") -> CSR:
    """A sparse matrix of a Matrix Market file (``.mtx``), gzip-compressed or not.

    Parameters
    ----------
    path : str or path
    dtype : str or type of either library
        The float type of the values, each rounded once from float64.

    Returns
    -------
    CSR, of NumPy arrays
        Entries of equal place are kept, and add up. Of a symmetric or skew-symmetric file both halves are stored; the values of
        a "pattern" are 1.

    Raises
    ------
    TypeError
        If path is no path, or dtype no float type.
    tersor.FormatError
        If the file is none of these, is dense ("array") or complex, or a line is malformed, lies outside the matrix, is missing
        or too many: named with its number. It is a ValueError.
    OSError
        If the file cannot be read.

    Notes
    -----
    Blocks of 16 MiB of text, checked by one expression. The format: Boisvert, Pozo, Remington, "The Matrix Market exchange
    formats", NISTIR 5935, 1996.
    """
    return _safely("read_mtx", path, _market, dtype)


def _market(text: _Text, kind: Any) -> CSR:
    banner = text.next().lower().split()
    if len(banner) != 5 or banner[:2] != [b"%%matrixmarket", b"matrix"]:
        raise text.wrong("expected %%MatrixMarket matrix coordinate FIELD SYMMETRY")
    layout, field, symmetry = (word.decode("ascii", "replace") for word in banner[2:])
    for word, known in (
        (layout, ("coordinate",)),
        (field, ("real", "integer", "pattern")),
        (symmetry, ("general", "symmetric", "skew-symmetric")),
    ):
        if word not in known:
            raise text.wrong(f"{word!r} matrices are not read, only {', '.join(known)}")
    if field == "pattern" and symmetry == "skew-symmetric":
        raise text.wrong("a pattern has no signs to be skew-symmetric in")
    while (line := text.next()).lstrip()[:1] == b"%" or (line and not line.strip()):
        pass
    sizes = line.split()
    if len(sizes) != 3 or not all(n.isdigit() for n in sizes):
        raise text.wrong(f"expected the numbers of rows, columns and entries, got {_said(line)}")
    rows, cols, entries = map(int, sizes)
    if symmetry != "general" and rows != cols:
        raise text.wrong(f"a {symmetry} matrix of {rows}×{cols}")
    parts, found = [np.zeros((0, 3))], 0
    for block in text.blocks():
        parts.append(_entries(text, block, 2 if field == "pattern" else 3, (rows, cols)))
        _kept(text, block, parts[-1], field, symmetry)
        found += len(parts[-1])
        if found > entries:
            raise text.wrong(
                f"more than the {entries} entries announced", _line(text, block, len(parts[-1]) - found + entries)
            )
    if found < entries:
        raise text.wrong(f"the file ends after {found} of {entries} entries")
    every = np.concatenate(parts)
    row, column = (every[:, k].astype(np.int64) - 1 for k in (0, 1))
    values = every[:, 2].astype(kind)
    if symmetry != "general":
        other = np.flatnonzero(row != column)
        sign = -1 if symmetry == "skew-symmetric" else 1
        values = np.append(values, (sign * values[other]).astype(kind))
        row, column = np.append(row, column[other]), np.append(column, row[other])
    return from_coo(values, row, column, (rows, cols))


def _entries(text: _Text, block: bytes, fields: int, shape: tuple[int, int]) -> np.ndarray:
    """Row, column and value of each line."""
    match = _LINES[fields].match(block)
    end = match.end() if match else 0
    if end < len(block):
        line = block[end:].split(b"\n", 1)[0]
        want = "a row, a column and a value" if fields == 3 else "a row and a column"
        raise text.wrong(f"expected {want}, got {_said(line)}", text.line + block.count(b"\n", 0, end))
    found = np.fromstring(block, sep=" ").reshape(-1, fields) if block.strip() else np.zeros((0, fields))
    for k, (name, n) in enumerate(zip(("row", "column"), shape, strict=True)):
        bad = np.flatnonzero((found[:, k] < 1) | (found[:, k] > n))
        if bad.size:
            raise text.wrong(f"{name} {found[bad[0], k]:.0f} is outside 1..{n}", _line(text, block, int(bad[0])))
    return found if fields == 3 else np.column_stack([found, np.ones(len(found))])


def _kept(text: _Text, block: bytes, found: np.ndarray, field: str, symmetry: str) -> None:
    """Refuses entries that are not what the first line says."""
    row, column, value = found.T
    for wrong, what in (
        ((value != np.trunc(value)) & (field == "integer"), "no integer"),
        ((row == column) & (value != 0) & (symmetry == "skew-symmetric"), "on the diagonal of a skew-symmetric matrix"),
    ):
        bad = np.flatnonzero(wrong)
        if bad.size:
            raise text.wrong(f"the value {value[bad[0]]:g} is {what}", _line(text, block, int(bad[0])))


def _line(text: _Text, block: bytes, entry: int) -> int:
    """The number of the line of an entry of a block."""
    return text.line + [k for k, line in enumerate(block.split(b"\n")) if line.strip()][entry]


def _said(line: bytes) -> str:
    return repr(line.decode("utf-8", "replace").strip()[:60])


def read_smtx(path: str | os.PathLike[str], *, dtype: Any = "float32") -> CSR:
    """The pattern of a file of the Deep Learning Matrix Collection (``.smtx``), gzip-compressed or not.

    Parameters
    ----------
    path : str or path
    dtype : str or type of either library
        The float type of the values.

    Returns
    -------
    CSR, of NumPy arrays
        The values, which these files do not have, are 1.

    Raises
    ------
    TypeError
        If path is no path, or dtype no float type.
    tersor.FormatError
        If a line is malformed, of another length than the first one says, or its columns or offsets are none of such a matrix:
        named with its number. It is a ValueError.
    OSError
        If the file cannot be read.

    Notes
    -----
    Three lines: rows, columns and entries; where the rows begin; the columns. (Gale, Zaharia, Young, Elsen, "Sparse GPU kernels
    for deep learning", 2020.)
    """
    return _safely("read_smtx", path, _pattern, dtype)


def _pattern(text: _Text, kind: Any) -> CSR:
    line = text.next()
    sizes = line.replace(b",", b" ").split()
    if len(sizes) != 3 or not all(n.isdigit() for n in sizes):
        raise text.wrong(f"expected the numbers of rows, columns and entries, got {_said(line)}")
    rows, cols, entries = map(int, sizes)
    lists = []
    for name, n in (("offsets", rows + 1), ("columns", entries)):
        line = text.next().rstrip()
        if not _LIST.fullmatch(line):
            raise text.wrong(f"expected {n} {name}, got {_said(line)}")
        found = (
            np.array(line.replace(b",", b" ").split(), dtype="S20").astype(np.int64) if line else np.zeros(0, np.int64)
        )
        if len(found) != n:
            raise text.wrong(f"expected {n} {name}, got {len(found)}")
        lists.append(found)
    offsets, columns = lists
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != entries:
        raise text.wrong(f"offsets must rise from 0 to {entries}", 2)
    bad = np.flatnonzero(columns >= cols)
    if bad.size:
        raise text.wrong(f"column {columns[bad[0]]} is outside 0..{cols - 1}", 3)
    if text.file.read().strip():
        raise text.wrong("more than three lines", 4)
    return CSR(np.ones(entries, kind), columns, offsets, (rows, cols))
