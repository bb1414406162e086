"""Products of plain tensors without a question asked. The one rule: who calls has asked; for a few rows, asking is the call."""

from __future__ import annotations

from torch import Tensor

from tersor import _torch
from tersor.sparse._pattern import Pattern
from tersor.sparse.lanes import FEW, LONGEST


def straight(data: Tensor, pattern: Pattern, x: Tensor, rows: int, bias: Tensor | None) -> Tensor:
    """x Aᵀ + bias for so many rows x, of tensors on the CPU that no gradient is recorded of and that nothing traces."""
    nothing = _torch._ABSENT
    bias = nothing if bias is None else bias
    if rows * max(x.itemsize, 4) <= FEW and max(pattern.shape[1], data.shape[0]) <= LONGEST:
        y: Tensor = _torch.WHOLE["sparse.spmv"]((data, *pattern.lanes(), pattern.indptr, x, bias, 0))
        return y
    y = _torch.WHOLE["sparse.linear"]((data, pattern.indices, pattern.indptr, x, bias, nothing, nothing, nothing, 0))
    return y
