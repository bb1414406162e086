"""Products of plain tensors without a question asked. The one rule: who calls has asked; for a few rows, asking is the call."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tersor import _torch
from tersor.sparse._pattern import Pattern

# names of torch, found once: a look-up costs as much as what is asked here
_transforms, _modes = torch._C._are_functorch_transforms_active, torch._C._len_torch_dispatch_stack


def seen_by_others() -> bool:
    """Whether a product is seen by more than who calls."""
    return bool(forward_ad._current_level >= 0 or _transforms() or _modes())


def straight(data: Tensor, pattern: Pattern, x: Tensor, bias: Tensor | None, lanes: bool) -> Tensor:
    """x Aᵀ + bias for rows x, of tensors on the CPU that no gradient is recorded of and that nothing traces."""
    nothing = _torch._ABSENT
    bias = nothing if bias is None else bias
    y: Tensor
    if lanes:
        y = _torch.WHOLE["sparse.spmv"]((data, *pattern.lanes(), pattern.indptr, x, bias, 0))
    else:
        y = _torch.WHOLE["sparse.linear"](
            (data, pattern.indices, pattern.indptr, x, bias, nothing, nothing, nothing, 0)
        )
    return y


def straight_panels(data: Tensor, pattern: Pattern, x: Tensor, bias: Tensor | None, lo: float, hi: float) -> Tensor:
    """clamp(A x + bias), of such tensors."""
    nothing = _torch._ABSENT
    bias = nothing if bias is None else bias
    y: Tensor = _torch.WHOLE["sparse.spmm"](
        (data, pattern.indices, pattern.indptr, x, bias, nothing, nothing, nothing, lo, hi)
    )
    return y


def straight_coded(
    codes: Tensor, scale: Tensor, pattern: Pattern, x: Tensor, bias: Tensor | None, lanes: bool
) -> Tensor:
    """x (diag(scale) Q)ᵀ + bias, of such tensors."""
    nothing = _torch._ABSENT
    bias = nothing if bias is None else bias
    places = pattern.lanes() if lanes else (nothing, nothing)
    y: Tensor = _torch.WHOLE["sparse.linear8"](
        (x, codes, scale, pattern.indices, pattern.indptr, *places, bias, nothing, nothing, nothing)
    )
    return y
