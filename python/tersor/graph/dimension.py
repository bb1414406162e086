"""How many dimensions points have where they lie. The one rule: estimates are made of distances to the nearest rows alone."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tersor._arrays import Array, whole
from tersor._host import held
from tersor.graph.nearest import _found


def id_mle(
    x: Array, k: int = 20, *, divisor: int | None = None, average: Literal["inverse", "mean"] = "inverse"
) -> float:
    r"""Intrinsic dimension by maximum likelihood, of :math:`m(x) = \Big(\frac1r\sum_{j<k} \ln\frac{T_k(x)}{T_j(x)}\Big)^{-1}`.

    Parameters
    ----------
    x : array or tensor [n, d], float64, float32, float16 or bfloat16
    k : int
        Neighbours, 3 or more and fewer than n; T are their distances.
    divisor : int
        r; if absent k - 1 where inverses are averaged and k - 2 where not, which are without bias.
    average : "inverse" or "mean"
        :math:`1/\overline{1/m}` (MacKay, Ghahramani, 2005) or :math:`\overline m` (Levina, Bickel, 2004).

    Returns
    -------
    float
        NaN if no row is left.

    Raises
    ------
    TypeError
        If x is not of a float type.
    ValueError
        If x holds non-finite values, has not two axes, k or the divisor is out of range, or a word is unknown.

    Notes
    -----
    Distances are exact and float64. Rows whose nearest other is at distance 0 are left out.
    """
    if average not in ("inverse", "mean"):
        raise ValueError(f"id_mle: average must be 'inverse' or 'mean', got {average!r}")
    k = whole("id_mle: k", k)
    r = whole("id_mle: divisor", divisor) if divisor is not None else k - 1 if average == "inverse" else k - 2
    if r < 1:
        raise ValueError(f"id_mle: divisor must be positive, got {r}")
    d = _distances("id_mle", x, k, 3)
    each = np.log(d[:, -1:] / d[:, :-1]).sum(1) / r
    if not len(each):
        return math.nan
    with np.errstate(divide="ignore"):
        return float(1 / each.mean() if average == "inverse" else (1 / each).mean())


def _distances(who: str, x: Array, k: int, least: int) -> np.ndarray:
    """Distances to the k nearest others, of rows whose nearest is not at 0."""
    rows = held(who, "x", x).astype(np.float64)
    if rows.ndim != 2:
        raise ValueError(f"{who}: x must have two axes, got shape {rows.shape}")
    if not least <= k < len(rows):
        raise ValueError(f"{who}: k must be between {least} and the {len(rows) - 1} other rows, got {k}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{who}: x holds non-finite values")
    d = _found(who, rows, k, "l2").distances
    return d[d[:, 0] > 0]


def id_twonn(x: Array, *, trim: float = 0.0) -> float:
    r"""Intrinsic dimension by two neighbours: the slope of :math:`-\ln(1 - F(\mu))` on :math:`\ln\mu`, :math:`\mu = T_2/T_1`.

    Parameters
    ----------
    x : array or tensor [n, d], float64, float32, float16 or bfloat16
    trim : float in [0, 1)
        The share of the largest :math:`\mu` that is left out besides the largest; scikit-dimension has 0.1.

    Returns
    -------
    float
        NaN if fewer than two rows are left.

    Raises
    ------
    TypeError
        If x is not of a float type.
    ValueError
        If x holds non-finite values, has not two axes or fewer than 3 rows, or trim is out of range.

    Notes
    -----
    F is i/n at the i-th smallest; the line goes through 0. At n = 2000 in dimension 5 the deviation is 0.14. Facco, d'Errico,
    Rodriguez, Laio (2017).
    """
    if not 0 <= trim < 1:
        raise ValueError(f"id_twonn: trim must be at least 0 and below 1, got {trim}")
    d = _distances("id_twonn", x, 2, 2)
    mu = np.sort(d[:, 1] / d[:, 0])
    n = len(mu)
    kept = min(math.floor(n * (1 - trim)), n - 1)
    if kept < 1:
        return math.nan
    a, b = np.log(mu[:kept]), -np.log1p(-np.arange(1, kept + 1) / n)
    return float((a * b).sum() / (a * a).sum()) if a.any() else math.nan
