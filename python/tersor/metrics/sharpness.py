"""How steeply labels change between samples. The one rule: products find the pairs that may be steepest, differences decide."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, INTEGERS, Array, Level
from tersor._host import answer
from tersor.metrics._arguments import alike, finite, rows

#: rows that meet all others at a time
_TILE = 256


def label_sharpness(x: Array, y: Level) -> Any:
    r"""The largest slope between two samples, :math:`\max_{i<j} |y_i - y_j| / \|x_i - x_j\|`.

    Parameters
    ----------
    x : array or tensor of floats ``[n, d]``
    y : array or tensor of numbers ``[n]``

    Returns
    -------
    float
        In torch a float64 tensor. Infinite if equal rows have unequal labels; 0 if nothing differs.

    Raises
    ------
    TypeError
        If x is no float array or y no numbers.
    ValueError
        If shapes do not go together, a number is not finite, or there are fewer than two rows.

    Notes
    -----
    O(n² d) by products of tiles, and no array of all pairs; a pair whose slope may be the largest, for all that rounding can
    hide, is measured again by its difference. No gradient. Konz and Mazurowski, "The Effect of Intrinsic Dataset Properties on
    Generalization" (2024).

    Examples
    --------
    >>> import numpy as np
    >>> label_sharpness(np.array([[0.0], [2.0], [3.0]]), np.array([0, 1, 5]))
    4.0
    """
    who = "label_sharpness"
    a = rows(who, "x", finite(who, "x", x))
    b = rows(who, "y", finite(who, "y", y, (*FLOATS, *INTEGERS)), 1)
    alike(who, "y", b, len(a), "x")
    if len(a) < 2:
        raise ValueError(f"{who}: x has {len(a)} rows, a slope takes 2 or more")
    return answer(_steepest(a, b), x)


def _steepest(a: np.ndarray, b: np.ndarray) -> float:
    given, a = a, a - a[0]
    size = np.abs(a).max(initial=0.0) or 1.0
    a = a / size
    length = (a * a).sum(1)
    # what rounding may do to a square of a distance
    slack = (a.shape[1] + 16) * 2 * np.finfo(float).eps
    best = 0.0  # a square
    for start in range(0, len(a), _TILE):
        rows_, labels = a[start : start + _TILE], b[start : start + _TILE]
        both = length[start : start + _TILE, None] + length[start:]
        least = both - 2 * rows_ @ a[start:].T - slack * both
        rise = (labels[:, None] - b[start:]) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            most = np.where(rise > 0, np.where(least > 0, rise / least, np.inf), 0.0)
        i, j = (np.array([v]) for v in np.unravel_index(int(most.argmax()), most.shape))
        while len(i):
            for part in range(0, len(i), 4096):
                p, q = i[part : part + 4096], j[part : part + 4096]
                far = (given[start:][p] - given[start:][q]) / size
                with np.errstate(divide="ignore", invalid="ignore"):
                    best = max(best, float(np.nanmax(rise[p, q] / (far * far).sum(1), initial=0.0)))
            most[i, j] = 0.0
            if best == math.inf:
                return best
            i, j = np.nonzero(most > best)
    return math.sqrt(best) / size
