"""Tensors of files as what is pruned. The one rule: a chunk is all that is held of one, and it is decoded as it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tersor._keys import Order
from tersor._op import kernel
from tersor._values import signed_word
from tersor.checkpoint import Entry, Reader
from tersor.checkpoint._patterns import Patterns
from tersor.checkpoint._small import SMALL, table
from tersor.prune._rank import Cut

Progress = Callable[[int, int], None]

#: how the bytes of a safetensors type become an array for the kernels: bfloat16 as its words
VIEWS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "uint16"}
TYPES = {**{k: k.replace("BF", "bfloat").replace("F", "float") for k in VIEWS}, **dict.fromkeys(SMALL, "float16")}


class Meter:
    """Bytes done of bytes in all; how often a tensor with protected weights is read shows only on the way."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.done = self.end = self.total = 0

    def step(self, n: int) -> None:
        self.done = min(self.done + n, self.end)
        if self.progress:
            self.progress(self.done, self.total)


class Stored:
    """A tensor of a file, as a layer of chunks."""

    def __init__(self, reader: Reader, entry: Entry, step: Callable[[int], None]) -> None:
        self.reader, self.entry, self.step = reader, entry, step
        self.size = 1
        for n in entry.shape:
            self.size *= n
        self.table = table(entry.dtype) if entry.dtype in SMALL else None

    def decode(self, raw: np.ndarray) -> np.ndarray:
        return raw.view(VIEWS[self.entry.dtype]) if self.table is None else self.table[raw]

    def chunks(self) -> Iterator[np.ndarray]:
        for raw in self.reader.chunks(self.entry):
            yield self.decode(raw)
            self.step(raw.size)

    def prune(self, raw: np.ndarray, order: Order, cut: Cut) -> tuple[int, int]:
        """Prunes a chunk in place; how many it kept above the threshold, and how many equals it has."""
        values = self.decode(raw)
        mask, tally = np.empty(values.size, bool), np.empty(2, np.int64)
        kernel("prune.magnitude_mask")(
            values, mask, tally, signed_word(cut.key), cut.keep, False, order.format, order.signed, order.nan
        )
        if self.table is None:
            kernel("prune.apply_mask")(values, mask, values)
        else:
            raw *= mask
        return int(tally[0]), int(tally[1])


def eligible(entry: Entry, patterns: Patterns) -> bool:
    wanted = bool(patterns.include) or len(entry.shape) >= 2
    return wanted and entry.dtype in TYPES and patterns.wants(entry.name)
