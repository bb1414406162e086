"""What metrics ask of their arguments. The one rule: an error names who was called, the argument and the values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tersor._arrays import FLOATS
from tersor._host import LABELS, held


def finite(who: str, what: str, x: Any, kinds: tuple[str, ...] = FLOATS) -> np.ndarray:
    """`held`, in float64 and nothing else than numbers: what decides cannot do so by NaN or infinity."""
    wide = held(who, what, x, kinds).astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError(f"{who}: {what} holds non-finite values")
    return wide


def rows(who: str, what: str, x: np.ndarray, axes: int = 2) -> np.ndarray:
    """`x`, whose number of axes is looked at."""
    if x.ndim != axes:
        raise ValueError(f"{who}: {what} must have {axes} {'axes' if axes > 1 else 'axis'}, got shape {x.shape}")
    return x


@contextlib.contextmanager
def spoken(who: str) -> Iterator[None]:
    """What an operator refuses, said in the name of who was called."""
    try:
        yield
    except ValueError as e:
        raise ValueError(f"{who}: {str(e).partition(': ')[2]}") from None


def alike(who: str, what: str, x: Any, n: int, of: str) -> None:
    """Refuses `x` unless it has an entry for each of the n of another argument."""
    if len(x) != n:
        raise ValueError(f"{who}: {what} has {len(x)} rows, {of} {n}")


def class_labels(who: str, what: str, y: Any, n: int, of: str, k: int | None = None) -> np.ndarray:
    """Whole numbers, one for each of n rows; with `k`, classes 0 to k - 1."""
    y = rows(who, what, held(who, what, y, LABELS), 1)
    alike(who, what, y, n, of)
    y = y.astype(np.int64)
    wrong = np.zeros(0, bool) if k is None else (y < 0) | (y >= k)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"{who}: {what}[{i}] is {y[i]}; classes lie within 0 and {k - 1}")  # type: ignore[operator]
    return y
