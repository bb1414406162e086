"""Pruning of checkpoints within rows: by patterns, and by what layers are given of texts. The one rule: which tensors are
chosen and what else a result holds is as for pruning by magnitude (`tersor.jobs.prune`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tersor.checkpoint import Entry, Reader
from tersor.checkpoint._modules import Tree
from tersor.checkpoint.reader import CHUNK
from tersor.jobs import compressed, running
from tersor.prune.patterns import nm_mask

Progress = Callable[[int, int], None]


@dataclass
class Solved:
    """What calibration found: the new values of tensors, how many each keeps, and why others were left."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def solve(
    folder: Path,
    config: Mapping[str, Any],
    tree: Tree | None,
    entries: Mapping[str, Entry],
    texts: Sequence[str],
    sparsity: float | None,
    nm: tuple[int, int] | None,
    method: str,
    progress: Progress | None,
) -> Solved:
    """The tensors pruned by what their layers are given of the texts."""
    ran = running.opened(folder, config, tree, list(entries), texts)
    from tersor.prune.calibrate import calibrate

    made = calibrate(
        ran.model, ran.batches, sparsity, method=method, nm=nm, layers=list(ran.modules), progress=progress
    )
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


def pattern(
    reader: Reader, entry: Entry, decode: Callable[[np.ndarray], np.ndarray], nm: tuple[int, int]
) -> Iterator[np.ndarray]:
    """The bytes of a tensor, piece by piece, with the n largest of every m numbers left."""
    n, m = nm
    if not entry.nbytes:
        return
    unit = entry.nbytes // int(np.prod(entry.shape[:-1], dtype=object))  # whole rows
    size = max(CHUNK // unit, 1) * unit
    for at in range(entry.start, entry.stop, size):
        piece = entry._replace(start=at, stop=min(at + size, entry.stop))
        raw = next(reader.chunks(piece, piece.nbytes + 24))
        values = decode(raw)
        if values.dtype == np.uint16:
            values = compressed.widen(raw, entry.dtype)
        try:
            mask = nm_mask(values.reshape(-1, m), n, m).reshape(-1)
        except ValueError:
            if np.isfinite(values).all():
                raise
            raise ValueError(f"{reader.path}: tensor {entry.name!r} has non-finite values") from None
        raw.view(f"u{raw.size // max(mask.size, 1)}")[...] *= mask
        yield raw
