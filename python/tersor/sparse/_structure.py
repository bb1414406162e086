"""Structures made of lists of places. The one rule: they are made on the CPU, in NumPy; values follow by one gather or one sum,
through which their gradients go."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor._values import called
from tersor.sparse._operators import csr_dense, csr_sort, csr_transpose
from tersor.sparse._pattern import Pattern

Array = Any

#: the largest size that int32 indices serve
LONGEST = 2**31 - 1


def index_type(*sizes: int) -> type[np.signedinteger[Any]]:
    """The smaller type of indices that serves all these sizes."""
    return np.int64 if max(sizes) > LONGEST else np.int32


def beside(data: Array, pattern: Pattern) -> Pattern:
    """A pattern in the library and on the device of values."""
    return pattern.tensors().to(data.device) if is_tensor(data) else pattern


def taken(data: Array, perm: Array) -> Array:
    """``data[perm]`` of places that are known to be inside. Differentiable.

    Brackets make indices of eight bytes of those of four first, and ask of each whether it is negative.
    """
    return data.index_select(0, perm) if is_tensor(data) else np.asarray(data).take(perm, 0, mode="clip")


def owned(data: Array, columns: np.ndarray, offsets: np.ndarray, shape: tuple[int, int], perm: Array = None) -> Any:
    """Values as they were given, and their pattern: in its order, the values copied unless a gradient goes to them."""
    if perm is not None and bool((perm[1:] > perm[:-1]).all()):
        perm = None
    pattern = beside(data, Pattern(columns, offsets, shape, perm))
    if is_tensor(data):
        if pattern.perm is not None:
            data = taken(data, pattern.perm)
        elif not data.requires_grad:
            data = data.clone()
        return data.contiguous(), pattern
    return np.array(data, order="C") if perm is None else taken(data, perm), pattern


def placed(who: str, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Columns, offsets and the order of entries that are given by row and column, both known to be inside."""
    kind = index_type(*shape, len(rows) + 1)
    # entries as rows of one element each: their transpose lists them by row, stably
    _, offsets, order = called(
        who, csr_transpose, rows.astype(kind, copy=False), np.arange(len(rows) + 1, dtype=kind), shape[0]
    )
    columns = cols.astype(kind, copy=False)[order]
    columns, offsets, perm = called(who, csr_sort, columns, offsets, shape[1], kind is np.int64)
    return columns, offsets, order[perm]


def counted(lengths: np.ndarray, kind: Any) -> np.ndarray:
    """Where rows of these lengths begin."""
    offsets = np.zeros(len(lengths) + 1, kind)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def runs(starts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The places start, start + 1, … of rows that begin at ``offsets`` in a list of them all."""
    shift = np.repeat(starts - offsets[:-1], np.diff(offsets))
    return shift + np.arange(len(shift), dtype=shift.dtype)


def summed(data: Array, starts: Array) -> Array:
    """The sums of runs of values that begin at ``starts``, of which the last one is their number."""
    n = len(starts) - 1
    if is_tensor(data):
        import torch

        starts = torch.as_tensor(starts, device=data.device)
        if data.device.type not in ("cpu", "meta"):
            lengths = starts.diff().long()
            run = torch.repeat_interleave(torch.arange(n, device=data.device), lengths, output_size=len(data))
            return put_at(data, (n,), (run,))
        zero = starts.new_zeros(len(data))
    else:
        zero = np.zeros(len(data), starts.dtype)
    return called("CSR", csr_dense, data, zero, starts, 1).reshape(n)


def widened(x: Array) -> Array:
    """16-bit values in float32."""
    if dtype_name(x.dtype) not in ("float16", "bfloat16"):
        return x
    return x.float() if is_tensor(x) else x.astype(np.float32)


def as_type(x: Array, dtype: Any) -> Array:
    """Values in another type, themselves if it is theirs."""
    return x.to(dtype) if is_tensor(x) else x.astype(dtype, copy=False)


def put_at(data: Any, shape: tuple[int, ...], places: tuple[Any, ...]) -> Any:
    """A tensor of zeros with values added at places, where no kernel of ours does it: 16 bits in float32, rounded once."""
    wide = widened(data)
    return wide.new_zeros(shape).index_put(places, wide, accumulate=True).to(data.dtype)
