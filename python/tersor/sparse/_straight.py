"""Products of plain tensors without a question asked. The one rule: who calls has asked; for a few rows, asking is the call."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tersor import _torch
from tersor._matrix import SparseMatrix
from tersor._op import AXES
from tersor.sparse._pattern import Pattern

# names of torch, found once: a look-up costs as much as what is asked here
_transforms, _modes = torch._C._are_functorch_transforms_active, torch._C._len_torch_dispatch_stack
_wrapped, _STRIDED = torch._C._functorch.is_functorch_wrapped_tensor, torch.strided
_PLAIN = (Tensor, torch.nn.Parameter)


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


def straight_panels(a: SparseMatrix, x: Tensor, bias: Tensor | None, lo: float, hi: float) -> Tensor | None:
    """clamp(A x + bias) of tensors on the CPU, if nothing is to be refused and nobody records or traces it; else None.

    One look at each tensor, where whoever says what is wrong takes several: for one token asking would be half of the call.
    """
    if seen_by_others() or torch._C._is_tracing():
        return None
    data, p = a.beside("spmm", "x", x)
    recorded, kind = torch.is_grad_enabled(), x.dtype
    for t in (data, x) if bias is None else (data, x, bias):
        if type(t) not in _PLAIN or t.dtype is not kind or not t.is_cpu or t.layout is not _STRIDED or t.is_nested:
            return None
        if (recorded and t.requires_grad) or _wrapped(t):
            return None
    vector = x.ndim == 1
    if vector:
        x = x[:, None]
    rows, cols = p.shape
    if not 2 <= x.ndim <= AXES or x.shape[-2] != cols or (bias is not None and bias.shape != (rows,)):
        return None
    nothing = _torch._ABSENT
    bias = nothing if bias is None else bias
    y: Tensor = _torch.WHOLE["sparse.spmm"]((data, p.indices, p.indptr, x, bias, nothing, nothing, nothing, lo, hi))
    return y[:, 0] if vector else y


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
