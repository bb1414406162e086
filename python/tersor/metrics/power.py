"""Straight lines between logarithms. The one rule: the fit is centred, and says how sure it is."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, INTEGERS, Level
from tersor._host import answer
from tersor.metrics._arguments import alike, finite, rows


class PowerLaw(NamedTuple):
    r"""The law :math:`y = c\,x^{-\alpha}`, the standard errors of its numbers, and the share of variance that it explains."""

    alpha: Any
    log_c: Any
    alpha_stderr: Any
    log_c_stderr: Any
    r2: Any


def fit_power_law(x: Level, y: Level, *, weight: Level | None = None) -> PowerLaw:
    r"""The line :math:`\log y = \log c - \alpha \log x` of least squares.

    Parameters
    ----------
    x, y : array or tensor of numbers ``[n]``
        Positive.
    weight : array or tensor of numbers ``[n]``, optional
        Of squares, positive.

    Returns
    -------
    alpha, log_c, alpha_stderr, log_c_stderr, r2 : float
        In torch float64 tensors. Errors with n - 2 degrees of freedom, NaN at n = 2; r2 is NaN where y does not vary.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If lengths differ, a number is not positive and finite, or all x are equal.

    Notes
    -----
    O(n). No gradient. For the exponent of a spectrum x is 1 to r and y its eigenvalues. Kaplan et al., "Scaling Laws for Neural
    Language Models" (2020) fit such lines.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.0, 2.0, 4.0, 8.0])
    >>> round(fit_power_law(x, 3 / x**2).alpha, 12)
    2.0
    """
    who = "fit_power_law"
    given: list[np.ndarray] = []
    for what, v in (("x", x), ("y", y), ("weight", weight)):
        if v is None:
            continue
        a = rows(who, what, finite(who, what, v, (*FLOATS, *INTEGERS)), 1)
        if given:
            alike(who, what, a, len(given[0]), "x")
        if len(a) and a.min() <= 0:
            raise ValueError(f"{who}: {what} must be positive, got {a.min():g}")
        given.append(a)
    u, v = np.log(given[0]), np.log(given[1])
    w = given[2] / given[2].max() if weight is not None and len(u) else np.ones(len(u))
    if len(u) < 2 or given[0].min() == given[0].max():
        raise ValueError(f"{who}: x must have two different values, got {len(set(given[0].tolist()))}")
    total = w.sum()
    mid_u, mid_v = (w * u).sum() / total, (w * v).sum() / total
    u, v = u - mid_u, v - mid_v
    xx, yy = (w * u * u).sum(), (w * v * v).sum()
    slope = (w * u * v).sum() / xx
    rest = (w * (v - slope * u) ** 2).sum()
    noise = rest / (len(u) - 2) if len(u) > 2 else math.nan
    found = (
        -slope,
        mid_v - slope * mid_u,
        np.sqrt(noise / xx),
        np.sqrt(noise * (1 / total + mid_u**2 / xx)),
        1 - rest / yy if yy else math.nan,
    )
    return PowerLaw(*(answer(float(f), x) for f in found))
