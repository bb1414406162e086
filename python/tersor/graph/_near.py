"""The operators of nearest rows. The one rule: their references score some rows at a time, of arrays or of tensors, and of
equals the lowest column is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tersor._arrays import torch_module
from tersor._op import op
from tersor._reference import arsinh_root, gap, root, there, xp
from tersor._sample import Draw

Array = Any
Sample = tuple[list[Any], dict[str, Any]]

METRICS = ("l2", "inner", "cosine", "hyperbolic")
#: numbers that are held at a time
ROOM = 1 << 24


def _full(like: Array, shape: tuple[int, ...], value: float) -> Array:
    return np.full(shape, value, like.dtype) if isinstance(like, np.ndarray) else like.new_full(shape, value)


def _chosen(score: Array, k: int, largest: bool) -> tuple[Array, Array]:
    """The k best of each row, NaN at -1 where there are fewer. NaN is never chosen."""
    key = -score if largest else score
    if isinstance(key, np.ndarray):
        order = np.argsort(key, -1, kind="stable")[:, :k]
        best = np.take_along_axis(score, order, 1)
    else:
        order = key.argsort(dim=-1, stable=True)[:, :k]
        best = score.gather(1, order)
    d, ids = _full(best, (len(best), k), math.nan), _full(order, (len(best), k), -1)
    d[:, : best.shape[1]] = best
    ids[:, : best.shape[1]] = xp.where(xp.isnan(best), -1, order)
    return d, ids


def _parts(score: Callable[[slice], Array], x: Array, width: int, others: bool, largest: bool, k: int) -> Any:
    """What is chosen of the scores of all rows of x, each held with ``width`` numbers."""
    rows, parts = max(ROOM // max(width, 1), 1), []
    for first in range(0, max(len(x), 1), rows):
        part = score(slice(first, first + rows))
        if others:
            own = min(max(part.shape[1] - first, 0), len(part))
            at = list(range(own))
            part[at, [first + i for i in at]] = math.nan
        parts.append(_chosen(part, k, largest))
    return tuple(np.concatenate(v) if isinstance(x, np.ndarray) else xp.cat(list(v)) for v in zip(*parts, strict=True))


def _sample_nearest(draw: Draw) -> Sample:
    n, m = math.prod(draw.lead), 3 + draw.seed % 9
    x, y = (draw.cast(draw.rng.uniform(-0.5, 0.5, (rows, draw.d)) / math.sqrt(max(draw.d, 1))) for rows in (n, m))
    labels: list[Any] = [None, None]
    if draw.seed % 2:
        labels = [draw.rng.integers(0, 3, rows) for rows in (n, m)]
    # cosines of one number are all 1, of which rounding chooses
    metric = draw.seed // 2 % 4 if draw.d > 1 else 0
    return [x, y, 0.7, *labels], {"metric": metric, "k": 1 + draw.seed % 4, "others": bool(draw.seed // 3 % 2)}


@op(sample=_sample_nearest, integer=True)
def _nearest(
    x: Array,
    y: Array,
    c: Any = 1.0,
    x_labels: Array = None,
    y_labels: Array = None,
    metric: int = 0,
    k: int = 1,
    others: bool = False,
) -> tuple[Array, Array]:
    """The k nearest rows of y to each of x, of its label and not its own number where that is asked."""

    def score(rows: slice) -> Array:
        u = x[rows]
        if metric in (1, 2):
            found = u @ y.T
            if metric == 2:
                size = root((u * u).sum(-1))[:, None] * root((y * y).sum(-1))
                found = xp.where(size == 0, 0.0, found / xp.where(size == 0, 1.0, size))
        else:
            square = ((u[:, None] - y) ** 2).sum(-1)
            if metric == 3:
                square = square / (gap(c, (u * u).sum(-1))[:, None] * gap(c, (y * y).sum(-1)))
                found = 2 * root(square) * arsinh_root(c * square)
            else:
                found = root(square)
        if there(x_labels):
            found = xp.where(x_labels[rows][:, None] == y_labels, found, math.nan)
        return found

    return _parts(score, x, y.shape[0] * max(y.shape[1], 1), others, metric in (1, 2), k)


def _sample_hamming(draw: Draw) -> Sample:
    n, m = math.prod(draw.lead), 3 + draw.seed % 70
    codes = [draw.rng.integers(0, 2**64, (rows, draw.d), np.uint64) for rows in (n, m)]
    return codes, {"k": 1 + draw.seed % 4, "others": bool(draw.seed % 2)}


def _ones(x: Array) -> Array:
    """The ones of words; torch has int64 alone, whose shifts bring the sign along, and no count."""
    if isinstance(x, np.ndarray):
        return np.bitwise_count(x)
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (x * 0x0101010101010101) >> 56 & 0xFF


@op(sample=_sample_hamming, integer=True, dtypes=("uint64",), native=True)
def _hamming(x: Array, y: Array, k: int = 1, others: bool = False) -> tuple[Array, Array]:
    """The k codes of y that differ from each of x in the fewest bits."""
    a, b = (v if isinstance(v, np.ndarray) else v.view(torch_module().int64) for v in (x, y))

    def score(rows: slice) -> Array:
        count = _ones(a[rows][:, None] ^ b).sum(-1)
        return count.astype(np.float64) if isinstance(count, np.ndarray) else count.double()

    d, ids = _parts(score, x, y.shape[0] * max(y.shape[1], 1), others, False, k)
    d = xp.where(ids < 0, -1.0, d)
    return (d.astype(np.int64) if isinstance(d, np.ndarray) else d.long()), ids
