"""Pruning of checkpoints within rows: by patterns, and by what layers are given of texts. The one rule: which tensors are
chosen and what else a result holds is as for pruning by magnitude (`tersor.jobs.prune`)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tersor.checkpoint import Entry, Reader
from tersor.checkpoint._modules import Tree, rule_of
from tersor.checkpoint.reader import CHUNK
from tersor.jobs import compressed, running
from tersor.jobs._pruned import Pieces, Pruned, written
from tersor.jobs.floats8 import Dense
from tersor.jobs.stored import Meter, Stored
from tersor.prune.patterns import nm_mask

Progress = Callable[[int, int], None]
Decode = Callable[[np.ndarray], np.ndarray]


@dataclass
class Solved:
    """What calibration found: the new values of tensors, how many each keeps, and why others were left."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


@dataclass
class Chosen:
    """What is to be pruned of a checkpoint, and where it goes; nowhere if it is only to be counted."""

    model: Dense
    src: str | os.PathLike[str]
    dst: str | os.PathLike[str] | None
    layers: dict[str, Stored]
    known: Tree | None
    dense: dict[str, str]
    meter: Meter

    def fit(self, unfit: Mapping[str, str]) -> None:
        """Leaves what does not fit as it is; it is an error if nothing is left to prune."""
        self.dense |= unfit
        self.layers = {name: layer for name, layer in self.layers.items() if name not in unfit}
        if not self.layers:
            reasons = "; ".join(f"{k}: {v}" for k, v in list(self.dense.items())[:3])
            raise ValueError(f"{os.fspath(self.src)}: no tensor is pruned ({reasons})")

    def made(
        self, pieces: Pieces, kept: dict[str, int], sizes: dict[str, int], threshold: float | None = None
    ) -> Pruned:
        """Writes it, or counts; what each tensor keeps is known when its pieces are made."""
        untouched = () if self.dst is None else self.model.weights_of_others()
        left = written(self.model, self.dst, pieces, sizes, self.meter.step)
        total, rule = sum(sizes.values()), rule_of(self.known)
        gone = total - sum(kept.values())
        return Pruned(total, gone, threshold, kept, left, self.dense, rule, untouched, self.model.decoded, sizes)


def within(
    chosen: Chosen,
    shares: Sequence[float | None],
    nm: tuple[int, int] | None,
    method: str,
    texts: Sequence[str] | None,
    progress: Progress | None,
) -> Pruned:
    """Tensors one by one, by a pattern or by what their layers are given."""
    model, solved = chosen.model, Solved()
    if nm:
        chosen.fit(unfit({name: layer.entry for name, layer in chosen.layers.items()}, nm[1]))
    if texts is not None:
        folder = running.folder_of(model.folder, model.decoded, chosen.src, "prune it by magnitude")
        entries = {name: layer.entry for name, layer in chosen.layers.items()}
        solved = solve(folder, model.config, chosen.known, entries, texts, shares, nm, method, progress)
        chosen.fit({name: solved.left.get(name, "") for name in chosen.layers if name not in solved.values})
        chosen.dense |= solved.left
    layers, meter, kept = chosen.layers, chosen.meter, solved.kept
    meter.end = meter.total = sum(r.size for r in model.readers.values())

    def pieces(reader: Reader, entry: Entry) -> Iterator[np.ndarray]:
        name = entry.name
        if name in solved.values:
            return iter([solved.values.pop(name)])
        if name not in layers or not nm:
            return reader.chunks(entry)
        kept[name] = layers[name].size // nm[1] * nm[0]
        return pattern(reader, entry, layers[name].decode, nm)

    return chosen.made(pieces, kept, {name: layer.size for name, layer in layers.items()})


def solve(
    folder: Path,
    config: Mapping[str, Any],
    tree: Tree | None,
    entries: Mapping[str, Entry],
    texts: Sequence[str],
    shares: Sequence[float | None],
    nm: tuple[int, int] | None,
    method: str,
    progress: Progress | None,
) -> Solved:
    """The tensors pruned by what their layers are given of the texts, share after share."""
    ran = running.opened(folder, config, tree, list(entries), texts)
    from tersor.prune.calibrate import calibrate

    modules, done = list(ran.modules), 0
    for sparsity in shares:

        def step(layer: int, total: int, before: int = done) -> None:
            if progress is not None:
                progress(before + layer, total * len(shares))

        made = calibrate(ran.model, ran.batches, sparsity, method=method, nm=nm, layers=modules, progress=step)
        done += len(made.masks)
    solved = Solved(left=ran.left | {ran.modules[k]: why for k, why in made.left.items()})
    for k, mask in made.masks.items():
        name = ran.modules[k]
        solved.values[name] = running.kept(ran.model.get_parameter(f"{k}.weight"), entries[name].dtype)
        solved.kept[name] = int(mask.sum())
    return solved


def unfit(entries: Mapping[str, Entry], m: int) -> dict[str, str]:
    """The tensors whose rows do not divide into groups of m."""
    return {
        name: f"rows of {e.shape[-1] if e.shape else 1} do not divide into groups of {m}"
        for name, e in entries.items()
        if not e.shape or e.shape[-1] % m
    }


def whole_rows(reader: Reader, entry: Entry, count: int, decode: Decode) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The bytes of a tensor of ``count`` rows in pieces of whole ones, and the numbers that they are."""
    if not entry.nbytes:
        return
    unit = entry.nbytes // count
    size = max(CHUNK // unit, 1) * unit
    for at in range(entry.start, entry.stop, size):
        piece = entry._replace(start=at, stop=min(at + size, entry.stop))
        raw = next(reader.chunks(piece, piece.nbytes + 24))
        values = decode(raw)
        yield raw, compressed.widen(raw, entry.dtype) if values.dtype == np.uint16 else values


def cut(raw: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The bytes with those numbers 0 that a mask does not keep."""
    raw.view(f"u{raw.size // max(mask.size, 1)}")[...] *= mask
    return raw


def pattern(reader: Reader, entry: Entry, decode: Decode, nm: tuple[int, int]) -> Iterator[np.ndarray]:
    """The bytes of a tensor, piece by piece, with the n largest of every m numbers left."""
    n, m = nm
    for raw, values in whole_rows(reader, entry, math.prod(entry.shape[:-1]), decode):
        try:
            mask = nm_mask(values.reshape(-1, m), n, m).reshape(-1)
        except ValueError:
            if np.isfinite(values).all():
                raise
            raise ValueError(f"{reader.path}: tensor {entry.name!r} has non-finite values") from None
        yield cut(raw, mask)
