"""Whether two orders are one. The one rule: pairs and ranks are counted in whole numbers, and divided once."""

from __future__ import annotations

from typing import Any

from tersor._arrays import FLOATS, INTEGERS, Level, dtype_name, is_tensor
from tersor._host import answer, read
from tersor.metrics._ops import _kendall, _spearman

VARIANTS = ("a", "b", "c")


def _columns(who: str, preds: Any, target: Any) -> tuple[Any, Any]:
    """Both as ``[n, outputs]``."""
    found = []
    for what, v in (("preds", preds), ("target", target)):
        x = read(who, what, v, (*FLOATS, *INTEGERS))
        if x.ndim not in (1, 2):
            raise ValueError(f"{who}: {what} must have shape [n] or [n, outputs], got {tuple(x.shape)}")
        found.append(x)
    a, b = found
    if is_tensor(preds) != is_tensor(target):
        raise TypeError(f"{who}: target must be a {type(preds).__name__} like preds, got {type(target).__name__}")
    if preds.dtype != target.dtype and "float" in dtype_name(preds.dtype) and "float" in dtype_name(target.dtype):
        raise TypeError(
            f"{who}: target is {dtype_name(target.dtype)}, preds is {dtype_name(preds.dtype)}; tersor does not convert silently"
        )
    if a.shape != b.shape:
        raise ValueError(f"{who}: target has shape {tuple(b.shape)}, preds {tuple(a.shape)}")
    return (a, b) if a.ndim == 2 else (a.reshape(-1, 1), b.reshape(-1, 1))


def _given(found: Any, preds: Any) -> Any:
    """A number of each output, or of the only one."""
    return answer(found[0] if preds.ndim == 1 else found, preds)


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
    return _given(_spearman(*_columns("spearman_corrcoef", preds, target)), preds)


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
    return _given(_kendall(*_columns(who, preds, target), VARIANTS.index(variant)), preds)
