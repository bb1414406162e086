"""Checkpoints of 8-bit floats with scales, as the dense ones they stand for. The one rule: a weight is decoded as it is read,
some rows at a time, to the type that its configuration says the model has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint import Entry, Model, Reader
from tersor.checkpoint._format import BITS, StrPath
from tersor.checkpoint._quantized import settings
from tersor.checkpoint._small import SMALL, table
from tersor.checkpoint.model import Output
from tersor.checkpoint.reader import CHUNK
from tersor.checkpoint.writer import header, write_json
from tersor.jobs import declared, restore

_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
#: what stands beside a weight and belongs to its codes, those of activations among it
_BESIDE = (*declared.BESIDE, "input_scale", "output_scale", "input_zero_point", "output_zero_point")


class _Weight(NamedTuple):
    """A matrix of bytes: where it is, and the scales of its tiles of so many rows and columns."""

    entry: Entry
    tiles: Callable[[], tuple[np.ndarray, int, int]]


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 as words of a type, to the nearest, ties to even."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return x.astype({"F16": "<f2", "F32": "<f4"}[dtype])
    bits = np.ascontiguousarray(x, "<f4").view("<u4")
    words = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype("<u2")
    return np.where(np.isnan(x), np.uint16(0x7FC0), words)


class Decoded(Reader):
    """A file in which matrices of 8-bit floats are what they stand for, and their scales are not there.

    Entries of those matrices have offsets of their own; a part of one is whole rows of it.
    """

    def __init__(self, reader: Reader, weights: Mapping[str, _Weight], dropped: set[str], dtype: str) -> None:
        self.path, self.metadata, self.inner, self._fd = reader.path, reader.metadata, reader, -1
        self.weights, self.dtype = weights, dtype
        kept = [e for e in reader.entries.values() if e.name not in dropped]
        kinds = [(e.name, dtype if e.name in weights else e.dtype, e.shape) for e in kept]
        kinds.sort(key=lambda kind: -BITS[kind[1]])
        self.head, self.size = header(kinds, self.metadata)
        self.entries = {}
        at = self.size
        for name, kind, shape in kinds:
            e = reader.entries[name]
            if name in weights:  # beyond all offsets of the file itself
                n = BITS[kind] // 8 * int(np.prod(shape, dtype=object))
                e, at = Entry(name, kind, shape, at, at + n), at + n
            self.entries[name] = e

    def close(self) -> None:
        self.inner.close()

    def chunks(self, entry: Entry, size: int = CHUNK) -> Iterator[np.ndarray]:
        """As of a `Reader`; of a decoded matrix in whole rows."""
        if entry.name not in self.weights:
            yield from self.inner.chunks(entry, size)
            return
        stored, tiles = self.weights[entry.name]
        (n, k), width = stored.shape, BITS[self.dtype] // 8
        if not n * k:
            return
        scale, high, wide = tiles()
        first = (entry.start - self.entries[entry.name].start) // (k * width)
        last = first + entry.nbytes // (k * width)
        step = max(1, size // (k * width))
        numbers = table(stored.dtype).astype(np.float32)
        for row in range(first, last, step):
            rows = min(step, last - row)
            piece = stored._replace(start=stored.start + row * k, stop=stored.start + (row + rows) * k)
            codes = next(self.inner.chunks(piece, piece.nbytes + 24)).reshape(rows, k)
            by = scale[np.arange(row, row + rows) // high].repeat(wide, 1)[:, :k]
            with np.errstate(invalid="ignore", over="ignore"):
                yield rounded(numbers[codes] * by, self.dtype).reshape(-1).view(np.uint8)

    def octets(self, entry: Entry) -> np.ndarray:
        """As of a `Reader`."""
        if entry.name not in self.weights:
            return self.inner.octets(entry)
        return np.concatenate([np.empty(0, np.uint8), *self.chunks(entry)])


class Dense(Model):
    """A model whose matrices of 8-bit floats are decoded as they are read, where config.json says that it is quantized; any
    other is what it is.

    ``decoded`` are their names.
    """

    decoded: tuple[str, ...] = ()

    def __init__(self, path: StrPath) -> None:
        super().__init__(path)
        try:
            self._decode()
        except BaseException as error:
            self.close()
            if isinstance(error, FormatError):
                raise FormatError(f"{os.fspath(path)}: {error}") from None
            raise

    def _decode(self) -> None:
        where = {e.name: reader for reader, e in self.tensors()}
        names = {e.name: e for _, e in self.tensors()}
        stems, coded, words = restore.quantized(names)
        said = settings(self) or {}
        # without a word of how, scales might be of anything: `evidence` refuses them
        if not said or stems or words or not coded or any(names[f"{s}weight"].dtype not in SMALL for s in coded):
            return
        declared.check(said, names)
        known, lengths = declared.known(said), cache(lambda: restore.file_lengths(names, coded))

        def get(name: str) -> np.ndarray:
            return where[name].array(name)

        def tiles(stem: str) -> Callable[[], tuple[np.ndarray, int, int]]:
            group = declared.of(stem.removesuffix("."), known)
            return lambda: restore.tiles(stem, names, get, names[f"{stem}weight"].shape, group, lengths)

        for stem in sorted(coded):
            zero, order = (f"{stem}weight_{part}" for part in ("zero_point", "g_idx"))
            for what, has in (
                ("zero points that are not 0", zero in names and get(zero).astype(np.float64).any()),
                ("columns in an order of their own", order in names and (get(order) >= 0).any()),
            ):
                if has:
                    raise FormatError(f"{stem}weight: has {what}; tersor.convert.load reads it as a dense weight")
        weights = {f"{stem}weight": _Weight(names[f"{stem}weight"], tiles(stem)) for stem in sorted(coded)}
        for weight in weights.values():
            weight.tiles()  # what does not fit is said before anything is read or written
        dropped = {stem + part for stem in coded for part in _BESIDE} & set(names)
        kind = super().config.get("dtype") or super().config.get("torch_dtype")
        dtype = _TYPES.get(kind if isinstance(kind, str) else "", "BF16")
        self.readers = {file: Decoded(reader, weights, dropped, dtype) for file, reader in self.readers.items()}
        self.decoded = tuple(weights)

    @property
    def config(self) -> dict[str, Any]:
        """``config.json`` of the dense model."""
        found = super().config
        if not self.decoded:
            return found
        return {k: v for k, v in found.items() if k not in ("quantization_config", "compression_config")}

    def carry(
        self, target: Output, skip: Sequence[str] = (), done: Callable[[int], None] | None = None
    ) -> tuple[str, ...]:
        """As of a `Model`, with the configuration of the dense one."""
        if not self.decoded or self.folder is None or "config.json" in skip or not self.config:
            return super().carry(target, skip, done)
        left = super().carry(target, (*skip, "config.json"), done)
        write_json(target.path / "config.json", self.config)
        return left

    def carry_index(self, target: Output) -> None:
        """Writes the index of what is in the files."""
        if not self.decoded or self.index is None or self.folder is None:
            super().carry_index(target)
            return
        names = {name: file for file, reader in self.readers.items() for name in reader.entries}
        size = sum(e.nbytes for _, e in self.tensors())
        write_json(target.path / self.index, self.index_of(names, size))
