"""Sparse layers of pruned ones. The one rule: whether a sparse layer pays is measured, or known where that is not worth it."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from tersor.nn.sparse import SparseConv1x1, SparseLinear
from tersor.sparse._crossover import SURE, crossover

#: the share of zeros from which on layers are exchanged that are too small to be measured
ENOUGH = 0.7
#: weights of a layer under which that share is not measured
SMALL = 1 << 16


def fewer(module: Any, rows: int) -> tuple[SparseLinear | SparseConv1x1, float, float]:
    """The sparse layer, the share of its weight that is 0, and that from which on it pays for so many rows."""
    few = (SparseConv1x1.from_float if isinstance(module, nn.Conv2d) else SparseLinear.from_dense)(module)
    return few, 1 - few.data.numel() / max(math.prod(few._shape), 1), _enough(few, rows)


def _enough(layer: SparseLinear | SparseConv1x1, rows: int) -> float:
    """The share of zeros from which on a sparse layer pays."""
    size = math.prod(layer._shape)
    if size < SMALL or layer.data.device.type != "cpu" or layer.data.numel() <= SURE * size:
        return ENOUGH
    return crossover(layer._shape, rows, layer.data.dtype)
