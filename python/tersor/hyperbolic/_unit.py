"""The unit of length. The one rule: points of so flat a space that their squares leave float64 are measured in a power of two,
and the curvature in its square, which changes no digit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import axes, is_distributed, is_tensor
from tersor._reference import Array, scaled, wide
from tersor._values import at_hand

#: curvatures below which points can be longer than FAR
FLAT, FAR = 1e-100, 1e60


def unit(x: Array, c: Any) -> int:
    """The power of two to measure points by: 0 as a rule, and where numbers cannot be looked at."""
    if (
        x.dtype.itemsize < 8
        or 0 in x.shape
        or any(is_distributed(a) or (is_tensor(a) and not at_hand(a)) for a in (x, c))
    ):
        return 0
    if isinstance(c, (np.ndarray, np.generic)) or is_tensor(c):
        if 0 in c.shape or not bool((c < FLAT).all()):
            return 0
    elif not c < FLAT:
        return 0
    top = float(abs(x.detach() if is_tensor(x) else x).max())
    return math.frexp(top)[1] if FAR < top < math.inf else 0


def curvature(c: Any, e: int) -> Any:
    """c in the unit of 2^e; one that is beyond float64 has no points of that length, nor has a somewhat smaller one."""
    if not axes(c) and not is_tensor(c):
        return min(scaled(scaled(float(c), e), e), 1e300)
    k = scaled(scaled(wide(c), e), e)  # half of 2e may be beyond float64 too
    return np.minimum(k, 1e300) if isinstance(k, np.ndarray) else k.clamp(max=1e300)
