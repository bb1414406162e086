"""Products of plain tensors without a question asked. The one rule: who calls has asked; for a few rows, asking is the call."""

from __future__ import annotations

from torch import Tensor

from tersor import _torch
from tersor.sparse._pattern import Pattern
from tersor.sparse.lanes import LONGEST, few


def _brief(pattern: Pattern, x: Tensor) -> bool:
    """Whether lanes are taken."""
    return few(x) and max(pattern.shape[1], pattern.indices.shape[0]) <= LONGEST


def straight(data: Tensor, pattern: Pattern, x: Tensor, bias: Tensor | None) -> Tensor:
    """x Aᵀ + bias for rows x, of tensors on the CPU that no gradient is recorded of and that nothing traces."""
    nothing = _torch._ABSENT
    bias = nothing if bias is None else bias
    y: Tensor
    if _brief(pattern, x):
        y = _torch.WHOLE["sparse.spmv"]((data, *pattern.lanes(), pattern.indptr, x, bias, 0))
    else:
        y = _torch.WHOLE["sparse.linear"](
            (data, pattern.indices, pattern.indptr, x, bias, nothing, nothing, nothing, 0)
        )
    return y


def straight_coded(codes: Tensor, scale: Tensor, pattern: Pattern, x: Tensor, bias: Tensor | None) -> Tensor:
    """x (diag(scale) Q)ᵀ + bias, of such tensors."""
    nothing = _torch._ABSENT
    bias = nothing if bias is None else bias
    lanes = pattern.lanes() if _brief(pattern, x) else (nothing, nothing)
    y: Tensor = _torch.WHOLE["sparse.linear8"](
        (x, codes, scale, pattern.indices, pattern.indptr, *lanes, bias, nothing, nothing, nothing)
    )
    return y
