"""Counts, means and sums of squares about the mean, and how two of them become one (Chan). The one rule: sums are taken about
the first row, so that numbers that are all equal have that mean, and a variance of 0, exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Moments(NamedTuple):
    """How many there were (or their weight), their mean, and their variance, of the population."""

    count: Any
    mean: Any
    var: Any


def moments(x: np.ndarray, w: np.ndarray | None = None) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Along the first axis of ``[n, ...]`` numbers in float64, n > 0, of weights ``[n]`` > 0: the count or weight, the first
    row, with 0 for what is not finite, the mean less that row, and the sum of squares about the mean."""
    first = np.where(np.isfinite(x[0]), x[0], 0.0)  # of others less infinity nothing is left
    if w is not None:
        w = w.reshape(-1, *(1,) * (x.ndim - 1))
    total = len(x) if w is None else w.sum()
    with np.errstate(invalid="ignore"):  # what is infinite has a mean, and no variance
        far = x - first
        mean = (far if w is None else w * far).sum(0) / total
        far -= mean
        rest = (far if w is None else w * far).sum(0)  # what rounding the mean has left
        square = (far * far if w is None else w * far * far).sum(0) - rest * rest / total
    return total, first, mean, np.maximum(square, 0)


def chan(na: Any, mean_a: np.ndarray, nb: Any, mean_b: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """The joint mean of two parts, the step between their means, and the weight of its square: n_a n_b / n."""
    n = na + nb
    with np.errstate(invalid="ignore"):
        step = mean_b - mean_a
        # from what is infinite no step leads on
        mean = np.where(np.isfinite(mean_a), mean_a + step * (nb / n), mean_a + mean_b)
    return mean, step, na * (nb / n)
