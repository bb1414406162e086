"""Whole blocks and rows of checkpoints pruned. The one rule: norms are all that is held, and a block lies in one piece of a
file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tersor.checkpoint import Entry, Reader
from tersor.jobs._pruned import Pruned
from tersor.jobs.prune_rows import Chosen, cut, whole_rows
from tersor.jobs.stored import Stored
from tersor.prune.masks import global_masks
from tersor.prune.patterns import block_norms
from tersor.prune.rows import row_scores

#: rows and columns; None are whole rows, of whatever length
Block = tuple[int, int] | None


def block_of(who: str, blocks: Any) -> tuple[Block]:
    """Rows and columns of blocks, said by two numbers or by text like "4:1", or None where whole rows are meant."""
    if isinstance(blocks, str) and blocks == "rows":
        return (None,)
    given = blocks.replace("x", ":").split(":") if isinstance(blocks, str) else blocks
    some = list(given) if isinstance(given, (list, tuple)) else []
    sizes: list[Any] = [int(v) if isinstance(v, str) and v.isdecimal() else v for v in some]
    if len(sizes) != 2 or any(not isinstance(v, (int, np.integer)) or isinstance(v, bool) for v in sizes):
        raise TypeError(f"{who}: blocks must be 'rows', two numbers or text like '4:1', got {blocks!r}")
    if min(sizes) < 1:
        raise ValueError(f"{who}: blocks must have a row and a column at least, got {blocks!r}")
    return ((int(sizes[0]), int(sizes[1])),)


def in_blocks(chosen: Chosen, sparsity: Any, blocks: tuple[Block], scope: str) -> Pruned:
    """The share of blocks that are least, of all tensors together or of each."""
    (block,) = blocks
    chosen.fit(_unfit({name: layer.entry for name, layer in chosen.layers.items()}, block))
    layers, meter = chosen.layers, chosen.meter
    meter.end = sum(layer.entry.nbytes for layer in layers.values())
    meter.total = meter.end + sum(r.size for r in chosen.model.readers.values())
    found = {name: _norms(name, layer, block, meter.step) for name, layer in layers.items()}
    if any(root for _, root in found.values()):  # sums that float64 does not have: what is ranked together has roots
        again = [name for name, (_, root) in found.items() if (not root and scope == "global") or root]
        found |= {name: _norms(name, layers[name], block, meter.step, True) for name in again}
    norms = [norms for norms, _ in found.values()]
    masks = dict(zip(layers, global_masks(norms, sparsity, scope=scope), strict=True))
    meter.done, meter.end = meter.end, meter.total
    kept = dict[str, int]()

    def pieces(reader: Reader, entry: Entry) -> Iterator[np.ndarray]:
        if entry.name not in layers:
            return reader.chunks(entry)
        mask = masks[entry.name]
        kept[entry.name] = int(mask.sum()) * (layers[entry.name].size // max(mask.size, 1))
        return _cut(reader, entry, mask, block, layers[entry.name].decode)

    return chosen.made(pieces, kept, {name: layer.size for name, layer in layers.items()})


def _unfit(entries: dict[str, Entry], block: Block) -> dict[str, str]:
    """The tensors that are not made of such blocks."""
    left = {}
    for name, e in entries.items():
        if len(e.shape) < (1 if block is None else 2):
            left[name] = f"a tensor of {len(e.shape)} axes has no {'rows' if block is None else 'blocks'}"
        elif block is not None and (e.shape[-2] % block[0] or e.shape[-1] % block[1]):
            left[name] = f"blocks of {block[0]}×{block[1]} do not divide {e.shape[-2]}×{e.shape[-1]}"
    return left


def _down(e: Entry, block: Block) -> int:
    """How many blocks lie below each other."""
    return e.shape[0] if block is None else math.prod(e.shape[:-1]) // block[0]


def _across(e: Entry, block: Block) -> int:
    """How many lie beside each other."""
    return 1 if block is None else e.shape[-1] // block[1]


def _norms(
    name: str, layer: Stored, block: Block, step: Callable[[int], None], root: bool = False
) -> tuple[np.ndarray, bool]:
    """What the blocks of a tensor are ranked by, float64, and whether these are roots."""
    reader, e = layer.reader, layer.entry
    found, rooted = [np.zeros((0, _across(e, block)))], False
    for raw, values in whole_rows(reader, e, _down(e, block), layer.decode):
        if not np.isfinite(values).all():
            raise ValueError(f"{reader.path}: tensor {name!r} has non-finite values")
        if block is None:
            some, new = row_scores(values.reshape(-1, math.prod(e.shape[1:])))[:, None], False
        else:
            some, new = block_norms("prune_safetensors", values.reshape(-1, e.shape[-1]), block, root=root)
        rooted |= new
        found.append(np.asarray(some))
        step(raw.nbytes)
    return np.concatenate(found), rooted


def _cut(reader: Reader, e: Entry, mask: np.ndarray, block: Block, decode: Any) -> Iterator[np.ndarray]:
    """The bytes of a tensor without the blocks that a mask does not keep."""
    high, wide = (1, math.prod(e.shape[1:])) if block is None else block
    at = 0
    for raw, values in whole_rows(reader, e, _down(e, block), decode):
        few = values.size // (high * wide * mask.shape[1])
        some = mask[at : at + few]
        at += few
        yield cut(raw, np.repeat(np.repeat(some, high, 0), wide, 1).reshape(-1))
