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


#: the parameter that a kind has of its own, and what it is where none is given; that of "sparse" follows from d
OWN: dict[str, tuple[str, Any]] = {
    "sparse": ("s", None),
    "osnap": ("c", 4),
    "spinner": ("blocks", 3),
    "fastfood": ("g", "gaussian"),
}


def own(kind: str, value: Any, k: int) -> Any:
    """The parameter of its own that a kind is given, checked."""
    if kind == "sparse":
        return sparsity(value)
    if kind == "fastfood":
        if not isinstance(value, str):
            raise TypeError(f"project: g must be a string, got {type(value).__name__}")
        if value not in ("gaussian", "rademacher"):
            raise ValueError(f"project: g must be 'gaussian' or 'rademacher', got {value!r}")
        return str(value)
    name = OWN[kind][0]
    value = whole(f"project: {name}", value)
    if kind == "spinner" and not 1 <= value <= 3:
        raise ValueError(f"project: blocks must be in 1..3, got {value}")
    if kind == "osnap" and (value < 1 or k % value):
        raise ValueError(f"project: c must divide k, got c={value} and k={k}")
    return value


def check_sizes(kind: str, d: int, k: int) -> None:
    """Refuses sizes that a kind cannot have."""
    most = {"countsketch": (d, 2**31 - 1), "osnap": (d, 2**31 - 1), "spinner": (2**31, k)}.get(kind, (2**31, 2**31))
    for name, value, limit in (("d", d, most[0]), ("k", k, most[1])):
        if value > limit:
            raise ValueError(f"project: {name} of kind {kind!r} must be at most {limit}, got {value}")
    if kind == "srht" and k > 1 << (d - 1).bit_length():
        raise ValueError(
            f"project: k of kind 'srht' must be at most {1 << (d - 1).bit_length()}, the power of two from d={d} on, got {k}"
        )


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
