"""Rows whose squares leave float64, brought near 1 by powers of two. The one rule: ordinary rows are left alone, and a power of
two costs no digit."""

from __future__ import annotations

import math
from typing import Any

from tersor._arrays import is_tensor
from tersor._reference import scaled, xp
from tersor._values import at_hand

Array = Any

#: sizes of numbers whose squares, and sums of them, stay in float64
LEAST, MOST = 1e-140, 1e140


def _sizes(x: Array) -> Array:
    """The largest finite number of each row."""
    return xp.amax(xp.where(xp.isfinite(x), abs(x), 0.0), 1)


def _power(most: float) -> int:
    return 0 if most == 0 or LEAST < most < MOST else math.frexp(most)[1]


def near_one(metric: str, q: Array, x: Array) -> tuple[Array, Array, int]:
    """Queries and rows whose scores are in order, and the power of two that makes distances of these the true ones."""
    if x.dtype.itemsize < 8 or 0 in x.shape or 0 in q.shape or metric == "hyperbolic":
        return q, x, 0
    if is_tensor(x) and not at_hand(x):
        return q, x, 0
    sizes = _sizes(q), _sizes(x)
    if metric == "cosine":  # which has no size
        odd = [(most > 0) & ((most < LEAST) | (most > MOST)) for most in sizes]
        made = [xp.where(far, -xp.frexp(most)[1], 0)[:, None] for far, most in zip(odd, sizes, strict=True)]
        q, x = (scaled(v, power) if bool(far.any()) else v for v, power, far in zip((q, x), made, odd, strict=True))
        return q, x, 0
    a, b = (float(most.max()) for most in sizes)
    if metric == "l2":
        a = b = max(a, b)
    a, b = _power(a), _power(b)
    return scaled(q, -a), scaled(x, -b), a if metric == "l2" else a + b
