"""Float types under torch's autocast. The one rule: where it is on, tensors of unlike types in one call go to float32, as in
torch's distances and norms; float64 is never converted, and elsewhere nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tersor._arrays import FLOATS, dtype_name


def autocast_type(x: Tensor) -> torch.dtype | None:
    """What autocast runs products of this tensor in; None where it is off."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def to(dtype: torch.dtype, x: Any) -> Any:
    """`x` in another float type; as in torch, float64 and what is no float stay."""
    if isinstance(x, (list, tuple)):
        return type(x)(to(dtype, y) for y in x)
    if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64:
        return x.to(dtype)
    return x


def unlike(xs: Sequence[Any]) -> bool:
    """Whether tensors and sparse matrices are of several types that autocast makes one."""
    kinds = [dtype_name(x.dtype) for x in xs]
    if all(k == kinds[0] for k in kinds[1:]) or any(k == "float64" or k not in FLOATS for k in kinds):
        return False
    return any(isinstance(x, Tensor) and autocast_type(x) is not None for x in xs)


def alike(xs: Sequence[Any]) -> list[Any]:
    """Such tensors and matrices in float32; gradients come back in the type of each."""
    return [x.float() if isinstance(x, Tensor) else x.astype("float32") for x in xs]


def off(kind: str) -> torch.autocast:
    """A context in which products on such a device are not lowered."""
    return torch.autocast(kind, enabled=False)
