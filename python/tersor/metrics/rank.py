"""Whether two orders are one. The one rule: pairs and ranks are counted in whole numbers, and divided once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, INTEGERS, Level, dtype_name, is_tensor
from tersor._host import answer, held

VARIANTS = ("a", "b", "c")
#: how many numbers are compared each with each
_LEAF = 64


def _columns(who: str, preds: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as ``[outputs, n]``: numbers that have an order."""
    found = []
    for what, v in (("preds", preds), ("target", target)):
        x = held(who, what, v, (*FLOATS, *INTEGERS))
        if x.ndim not in (1, 2):
            raise ValueError(f"{who}: {what} must have shape [n] or [n, outputs], got {x.shape}")
        if np.isnan(x).any():
            raise ValueError(f"{who}: {what} holds NaN, which has no rank")
        found.append(x)
    a, b = found
    if is_tensor(preds) != is_tensor(target):
        raise TypeError(f"{who}: target must be a {type(preds).__name__} like preds, got {type(target).__name__}")
    if preds.dtype != target.dtype and "float" in dtype_name(preds.dtype) and "float" in dtype_name(target.dtype):
        raise TypeError(
            f"{who}: target is {dtype_name(target.dtype)}, preds is {dtype_name(preds.dtype)}; tersor does not convert silently"
        )
    if a.shape != b.shape:
        raise ValueError(f"{who}: target has shape {b.shape}, preds {a.shape}")
    return np.atleast_2d(a.T), np.atleast_2d(b.T)


def _each(who: str, preds: Any, target: Any, one: Callable[[np.ndarray, np.ndarray], float]) -> Any:
    a, b = _columns(who, preds, target)
    found = [one(x, y) if len(x) > 1 else math.nan for x, y in zip(a, b, strict=True)]
    return answer(found[0] if preds.ndim == 1 else np.array(found), preds)


def _dense(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each value among the different ones in order, and how often each occurs; -0 is 0."""
    _, at, counts = np.unique(x, return_inverse=True, return_counts=True)
    return at, counts


def _centred(x: np.ndarray) -> np.ndarray:
    """Twice the average rank, less its mean n + 1: whole numbers that add up to 0."""
    at, counts = _dense(x)
    end = np.cumsum(counts)
    return (2 * end - counts - len(x))[at]


def _dot(a: np.ndarray, b: np.ndarray) -> int:
    """The exact inner product of whole numbers below their length n."""
    n = len(a)
    parts = np.add.reduceat(a * b, np.arange(0, n, max((1 << 62) // (n * n), 1)))
    return sum(map(int, parts))


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    a, b = _centred(x), _centred(y)
    size = _dot(a, a) * _dot(b, b)
    return _dot(a, b) / math.sqrt(size) if size else math.nan


def spearman_corrcoef(preds: Level, target: Level) -> Any:
    r"""Spearman's rank correlation: Pearson's of average ranks.

    .. math:: \rho = \frac{\sum_i a_i b_i}{\sqrt{\sum_i a_i^2 \sum_i b_i^2}},\quad a_i = r_i - \tfrac{n+1}{2}

    Parameters
    ----------
    preds, target : array or tensor of numbers ``[n]`` or ``[n, outputs]``
        Infinities are values.

    Returns
    -------
    float, or float64 ``[outputs]``
        In torch a float64 tensor. NaN where all are equal, or there are fewer than two.

    Raises
    ------
    TypeError
        If they are no numbers, or floats of two types.
    ValueError
        If shapes differ or there is a NaN.

    Notes
    -----
    O(n log n); twice a rank is a whole number, so the sums are exact. No gradient. Spearman (1904).

    Examples
    --------
    >>> import numpy as np
    >>> spearman_corrcoef(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    return _each("spearman_corrcoef", preds, target, _spearman)


def _inversions(v: np.ndarray) -> int:
    """Pairs i < j with v_i > v_j of whole numbers below their length n: within blocks by comparing, then by merging blocks.

    A number of the right half of a merge moves left by as many places as there are larger ones in the left half.
    """
    n = len(v)
    leaves: np.ndarray = (
        np.append(v, np.full(-n % _LEAF, n)).astype(np.int32 if n < 1 << 31 else np.int64).reshape(-1, _LEAF)
    )
    found = sum(int((leaves[:, :-s] > leaves[:, s:]).sum()) for s in range(1, _LEAF))
    leaves.sort(1)
    ordered, place, size = leaves.ravel().astype(np.int64), np.arange(leaves.size), _LEAF
    while size < n:
        order = np.argsort(place // (2 * size) * (n + 1) + ordered, kind="stable")
        to = np.flatnonzero(order // size & 1)
        found += int((order[to] - to).sum())
        ordered, size = ordered[order], 2 * size
    return found


def _pairs(counts: np.ndarray) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _kendall(x: np.ndarray, y: np.ndarray, variant: str) -> float:
    n = len(x)
    (a, in_x), (b, in_y) = _dense(x), _dense(y)
    if len(in_x) == 1 or len(in_y) == 1:
        return 0.0 if variant == "a" else math.nan
    both = np.sort(a * len(in_y) + b)
    ends = np.flatnonzero(np.append(both[1:] != both[:-1], True))
    all_, tied_x, tied_y = n * (n - 1) // 2, _pairs(in_x), _pairs(in_y)
    tied = _pairs(np.diff(ends, prepend=-1))
    excess = all_ - tied_x - tied_y + tied - 2 * _inversions(both % len(in_y))
    if variant == "a":
        return excess / all_
    if variant == "b":
        return max(-1.0, min(1.0, excess / math.sqrt((all_ - tied_x) * (all_ - tied_y))))
    m = min(len(in_x), len(in_y))
    return 2 * excess * m / (n * n * (m - 1))


def kendall_rank_corrcoef(preds: Level, target: Level, variant: str = "b") -> Any:
    r"""Kendall's rank correlation of P pairs in one order and Q in opposite ones, of :math:`n_0 = n(n-1)/2`.

    .. math:: \tau_a = \frac{P - Q}{n_0},\quad \tau_b = \frac{P - Q}{\sqrt{(n_0 - n_1)(n_0 - n_2)}},\quad
        \tau_c = \frac{2 (P - Q)}{n^2 (m-1)/m}

    with :math:`n_1, n_2` the pairs that are tied in one of them, and m the smaller number of different values.

    Parameters
    ----------
    preds, target : array or tensor of numbers ``[n]`` or ``[n, outputs]``
        Infinities are values.
    variant : "a", "b" or "c"

    Returns
    -------
    float, or float64 ``[outputs]``
        In torch a float64 tensor. NaN where there are fewer than two numbers, or all are equal (0 in variant a).

    Raises
    ------
    TypeError
        If they are no numbers, or floats of two types.
    ValueError
        If shapes differ or there is a NaN; or the variant is none of those.

    Notes
    -----
    O(n log n) by counting inversions in a merge sort; counts are exact. No gradient. Knight, "A Computer Method for
    Calculating Kendall's Tau with Ungrouped Data" (1966).

    Examples
    --------
    >>> import numpy as np
    >>> round(kendall_rank_corrcoef(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 4.0])), 4)
    0.3333
    """
    who = "kendall_rank_corrcoef"
    if variant not in VARIANTS:
        raise ValueError(f"{who}: variant must be one of {', '.join(map(repr, VARIANTS))}, got {variant!r}")
    return _each(who, preds, target, lambda x, y: _kendall(x, y, variant))
