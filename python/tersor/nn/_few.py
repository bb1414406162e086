"""Sparse layers of pruned ones. The one rule: whether a sparse layer pays is measured, or known where that is not worth it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from tersor.nn.sparse import SparseConv1x1, SparseLinear
from tersor.nn.sparse_int8 import SparseInt8Linear
from tersor.sparse._crossover import SURE, crossover

#: what makes layers of few weights, and those whose weights are codes too
SPARSE, SPARSE_CODED = "sparse", "sparse-int8"
FEWER = (SPARSE, SPARSE_CODED)
#: the share of zeros from which on layers are exchanged that are too small to be measured
ENOUGH = 0.7
#: weights of a layer under which that share is not measured
SMALL = 1 << 16

Few = SparseLinear | SparseConv1x1 | SparseInt8Linear


def fewer(module: Any, scheme: str, rows: int) -> tuple[Few, float, float]:
    """The sparse layer, the share of its weight that is 0, and that from which on it pays for so many rows."""
    few = _made(module, scheme)
    return few, 1 - few.data.numel() / max(math.prod(few._shape), 1), _enough(few, rows)


def _made(module: nn.Module, scheme: str) -> Few:
    if scheme == SPARSE:
        return SparseConv1x1.from_float(module) if isinstance(module, nn.Conv2d) else SparseLinear.from_dense(module)
    if isinstance(module, nn.Conv2d):
        raise TypeError("there is no sparse convolution of codes")
    return SparseInt8Linear.from_dense(module)


def _enough(layer: Few, rows: int) -> float:
    """The share of zeros from which on a sparse layer pays; codes are taken to cost what float32 does."""
    size = math.prod(layer._shape)
    if size < SMALL or layer.data.device.type != "cpu" or layer.data.numel() <= SURE * size:
        return ENOUGH
    return crossover(layer._shape, rows, layer.data.dtype if layer.data.is_floating_point() else torch.float32)
