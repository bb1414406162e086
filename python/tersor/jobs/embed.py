"""Embeddings of the nodes of an edge list in a file. The one rule: the file is read once, a block of lines at a time, and
what is kept of it are two numbers an edge and a weight."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint._atomic import AtomicFile
from tersor.checkpoint._format import Misuse, StrPath
from tersor.graph import adjacency, fastrp

Progress = Callable[[int, int], None]

#: bytes of text in a block, before its last line is completed
BLOCK = 1 << 24
#: the least and the largest size of a number
FLOAT32 = (2.0**-149, float(np.finfo(np.float32).max))
COMMENTS = (b"#", b"%", b"//")
_EMPTY, _ZERO = re.compile(rb"(?:^|,)[ \t]*,", re.MULTILINE), re.compile(b"\0")
#: what columns of edges are called, where names of nodes could be meant
HEADS = {b"source", b"src", b"from", b"tail", b"target", b"tgt", b"dst", b"dest", b"destination", b"to", b"head"}


@dataclass
class Edges:
    """Numbers of sources and targets, weights (None: 1), and the nodes that the numbers stand for, in their order."""

    source: np.ndarray
    target: np.ndarray
    weights: np.ndarray | None
    nodes: list[str] | np.ndarray


def read_edges(path: StrPath, progress: Progress | None = None, *, header: bool | None = None) -> Edges:
    """The edges of a text file, plain or gzip, or of a parquet file.

    A line is ``source target`` or ``source target weight``, apart by blanks, tabs or commas; lines that begin with #, % or //
    are comments. Nodes are integers, in ascending order, or names, in order of first occurrence: names if one of them is not
    written as its integer is (``007``, ``+7``), so that they are given back as they stand. The first line is a header if
    ``header`` says so; absent, if its third column is no number and the others no integers, if it says what columns are
    (``source``, ``target`` and their like), or if it has two names, none of which is a number, and all other lines integers.

    Raises
    ------
    OSError
        If the file cannot be read.
    FormatError
        If a line has another number of columns than the first, a weight is no number of float32, or a column of a parquet file
        is of another type or has gaps.
    """
    path = Path(path)
    blocks = _parquet(path, progress) if path.suffix == ".parquet" else _text(path, progress, header)
    ends: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for pair, weight in blocks:
        ends.append(pair)
        if weight is not None:
            weights.append(weight)
    if header is None and not weights and sum(map(len, ends)) > 1 and [e.dtype.kind for e in ends[:2]] == ["S", "i"]:
        alone = len(ends[0]) == 1 and all(e.dtype.kind == "i" for e in ends[1:])
        ends = ends[1:] if alone and not any(map(_number, ends[0][0])) else ends
    if any(e.dtype.kind == "S" for e in ends):  # a name makes names of the integers before it
        ends = [e.astype("S") for e in ends]
    whole = np.concatenate(ends, 0) if ends else np.zeros((0, 2), np.int64)
    del ends
    numbers, nodes = _numbered(whole)
    source, target = numbers.reshape(-1, 2).T
    return Edges(source, target, np.concatenate(weights) if weights else None, nodes)


def _numbered(ends: np.ndarray) -> tuple[np.ndarray, Any]:
    """Numbers of nodes from 0 on, and the nodes."""
    flat = ends.reshape(-1)
    if flat.dtype.kind == "i":
        nodes, numbers = np.unique(flat, return_inverse=True)
        return numbers.reshape(-1), nodes
    nodes, first, numbers = np.unique(flat, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place[numbers.reshape(-1)], [b.decode(errors="surrogateescape") for b in nodes[order]]


def _integers(ends: np.ndarray) -> np.ndarray | None:
    """Words as integers, if each is written as its integer is."""
    try:
        found = ends.astype(np.int64)
    except (ValueError, OverflowError):
        return None
    return found if (found.astype("S") == ends).all() else None


def _number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word  # which Python reads, and no table has


def _heads(path: Path, row: np.ndarray, header: bool | None) -> bool:
    """Whether the first line says what columns are, as far as it can tell by itself."""
    if header is not None or any(_integers(row[i : i + 1]) is not None for i in range(2)):
        return bool(header)
    if {word.lower() for word in row[:2]} <= HEADS:
        return True
    try:
        return len(row) == 3 and not len(_weights(path, row[2:]))
    except FormatError:
        return True


def _text(path: Path, progress: Progress | None, header: bool | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    size = path.stat().st_size
    columns, line, first = 0, 1, True
    with open(path, "rb") as raw:
        zipped = raw.peek(2)[:2] == b"\x1f\x8b"
        source: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
        for block in _blocks(path, source):
            if progress is not None:
                progress(raw.tell(), size)
            if first:
                block = block.removeprefix(b"\xef\xbb\xbf")  # what some editors begin a file with
            lines = block.split(b"\n")
            if any(text.lstrip().startswith(COMMENTS) for text in lines):
                lines = [b"" if text.lstrip().startswith(COMMENTS) else text for text in lines]
                block = b"\n".join(lines)
            for odd, what in ((_EMPTY, "an empty field"), (_ZERO, "a byte 0")):
                if hit := odd.search(block):
                    at = line + block.count(b"\n", 0, hit.end())
                    raise FormatError(f"{path}: line {at} has {what}")
            block = block.replace(b",", b" ")
            lines, tokens = block.split(b"\n"), block.split()
            counts = [len(text.split()) for text in lines] if len(tokens) else []
            columns = columns or next((c for c in counts if c), 0)
            bad = next((i for i, c in enumerate(counts) if c and c != columns), None)
            if bad is not None or columns not in (0, 2, 3):
                bad = bad if bad is not None else next(i for i, c in enumerate(counts) if c)
                want = columns if columns in (2, 3) else "2 or 3"
                raise FormatError(f"{path}: line {line + bad} has {counts[bad]} columns, not {want}")
            line += len(lines) - 1
            if not tokens:
                continue
            table = np.array(tokens).reshape(-1, columns)
            parts = [table]
            if first:  # which may yet be a header, by what comes after it
                parts = [table[1:]] if _heads(path, table[0], header) else [table[:1], table[1:]]
            first = False
            for part in parts:
                found = _integers(part[:, :2])
                yield part[:, :2] if found is None else found, None if columns == 2 else _weights(path, part[:, 2])


def _blocks(path: Path, source: Any) -> Iterator[bytes]:
    """Whole lines, many at a time."""
    try:
        while block := source.read(BLOCK):
            yield block + source.readline()
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise FormatError(f"{path}: {e}") from None


def _weights(path: Path, words: np.ndarray) -> np.ndarray:
    """Numbers that float32 holds, in which hops are made: one that would become 0 or infinite is no other weight."""
    if (
        words.dtype.kind == "S" and (bad := words[np.char.find(words, b"_") >= 0]).size
    ):  # which Python reads, and no table has
        raise FormatError(f"{path}: a weight is no number: {bytes(bad[0])!r}")
    try:
        found = words.astype(np.float64)
    except (ValueError, TypeError) as e:
        wrong = next((w for w in words.tolist() if not _number(w)), None) if words.dtype.kind == "S" else None
        said = str(e).rpartition(": ")[2] if wrong is None else repr(wrong)
        raise FormatError(f"{path}: a weight is no number: {said}") from None
    size = abs(found)
    if (bad := found[np.isfinite(size) & ((size > FLOAT32[1]) | ((size > 0) & (size < FLOAT32[0])))]).size:
        raise FormatError(f"{path}: a weight is {bad[0]}, which float32 does not hold ({FLOAT32[0]} .. {FLOAT32[1]})")
    return found


def _parquet(path: Path, progress: Progress | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The first two columns, and the third if there is one."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise Misuse(f"{path}: parquet files need pyarrow: pip install pyarrow") from None
    path.stat()  # what cannot be opened is no malformed file
    try:
        file = pyarrow.parquet.ParquetFile(path)
        rows, done, batches = file.metadata.num_rows, 0, file.iter_batches(1 << 20)
    except (OSError, ValueError) as e:
        raise FormatError(f"{path}: {e}") from None
    while (batch := _next(path, batches)) is not None:
        columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
        if len(columns) not in (2, 3):
            raise FormatError(f"{path}: there are {len(columns)} columns, not 2 or 3")
        done += batch.num_rows
        if progress is not None:
            progress(done, rows)
        ends = [_column(path, name, column) for name, column in zip(batch.schema.names, columns[:2], strict=False)]
        numbers = all(column.dtype.kind == "i" for column in ends)
        pairs = np.stack(ends if numbers else [column.astype("S") for column in ends], 1)
        yield pairs, None if len(columns) == 2 else _weights(path, columns[2])


def _next(path: Path, batches: Iterator[Any]) -> Any:
    """The next rows, or None."""
    try:
        return next(batches, None)
    except (OSError, ValueError) as e:
        raise FormatError(f"{path}: {e}") from None


def _column(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    """Nodes of a column: int64, or names as bytes."""
    if column.dtype.kind in "iu":
        return column.astype(np.int64) if column.max(initial=0) < 2**63 else column.astype("S")
    if bad := next((type(v).__name__ for v in column.tolist() if not isinstance(v, (str, bytes))), None):
        raise FormatError(f"{path}: nodes of column {name} must be integers or strings, without gaps, got {bad}")
    words = [v.encode() if isinstance(v, str) else v for v in column.tolist()]
    if any(b"\n" in v or b"\0" in v for v in words):  # names are lines of a file
        odd = next(v for v in words if b"\n" in v or b"\0" in v)
        raise FormatError(f"{path}: names of column {name} must be without line breaks and zeros, got {odd!r}")
    return np.array(words) if words else np.zeros(0, "S1")


def embed(
    source: StrPath,
    output: StrPath,
    dim: int = 128,
    weights: Sequence[float] | None = None,
    *,
    directed: bool = False,
    header: bool | None = None,
    nodes: StrPath | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[int, int]:
    """Writes FastRP's embedding of the nodes of an edge list as ``.npy``; how many nodes and edges there are.

    Row i belongs to node i of `read_edges`; ``nodes`` is a file for their names, a line each. Integers are the keys of their
    nodes: a node has the same random vector in every file. ``options`` are those of `tersor.graph.fastrp`.
    """
    if nodes is not None and Path(nodes).resolve() == Path(output).resolve():
        raise Misuse(f"embed: {nodes} cannot be both the embedding and the names of its nodes")
    edges = read_edges(source, progress, header=header)
    w = edges.weights
    if w is not None and (bad := w[~(np.isfinite(w) & (w >= 0))]).size:
        raise FormatError(f"{source}: weights must be finite and not negative, got {bad[0]}")
    n, m = len(edges.nodes), len(edges.source)
    pair = np.stack([edges.source, edges.target])
    a = adjacency(pair, n=n, weights=edges.weights, flow="target_to_source", undirected=not directed, dtype="float32")
    if isinstance(edges.nodes, np.ndarray) and not np.array_equal(edges.nodes, np.arange(n)):
        options.setdefault("node_keys", edges.nodes)
    del pair, edges.source, edges.target
    e = fastrp(a, dim, weights, **options)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(e))
    with ExitStack() as files:  # both are there or none is
        out = files.enter_context(AtomicFile(output))
        names = None if nodes is None else files.enter_context(AtomicFile(nodes))
        out.write(head.getvalue())
        if e.size:
            out.write(np.ascontiguousarray(e))
        if names is not None:
            names.write("".join(f"{v}\n" for v in edges.nodes).encode(errors="surrogateescape"))
    return n, m
