"""The numbers that describe a projection. The one rule: what is out of its range is an error that names it and what was got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import whole

_MOST = {"d": 2**63 - 1, "k": 2**34, "seed": 2**64 - 1, "stream": 2**24 - 1}


#: first and last row, first and last column of a slice; None where an axis is whole
Window = tuple[int | None, int | None, int | None, int | None]


def integer(name: str, value: Any, least: int) -> int:
    value = whole(f"project: {name}", value)
    if not least <= value <= _MOST[name]:
        raise ValueError(f"project: {name} must be in {least}..{_MOST[name]}, got {value}")
    return value


def sparsity(s: Any) -> float:
    if isinstance(s, bool) or not isinstance(s, (int, float, np.integer, np.floating)):
        raise TypeError(f"project: s must be a number, got {type(s).__name__}")
    if not 1 <= s <= 2**31:
        raise ValueError(f"project: s must be in 1..2^31, got {s}")
    return float(s)


def checked_window(window: Sequence[int | None] | None, k: int, d: int) -> Window | None:
    """A slice with whole axes as None, so that the same slice is the same window."""
    if window is None:
        return None
    spans: list[int | None] = []
    for name, (a, b), size in (("rows", window[:2], k), ("cols", window[2:], d)):
        if a is None or b is None or (a, b) == (0, size):
            spans += [None, None]
        elif 0 <= a <= b <= size:
            spans += [a, b]
        else:
            raise ValueError(f"project: the slice has {name} {a}..{b}, the matrix {size}")
    a, b, c, e = spans
    return None if a is None and c is None else (a, b, c, e)
