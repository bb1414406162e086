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
    row, the mean less that row, and the sum of squares about the mean."""
    far = x - x[:1]
    if w is not None:
        w = w.reshape(-1, *(1,) * (x.ndim - 1))
    total = len(x) if w is None else w.sum()
    mean = (far if w is None else w * far).sum(0) / total
    far -= mean
    rest = (far if w is None else w * far).sum(0)  # what rounding the mean has left
    square = (far * far if w is None else w * far * far).sum(0) - rest * rest / total
    return total, x[0], mean, np.maximum(square, 0)


def chan(na: Any, mean_a: np.ndarray, nb: Any, mean_b: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """The joint mean of two parts, the step between their means, and the weight of its square: n_a n_b / n."""
    step, n = mean_b - mean_a, na + nb
    return mean_a + step * (nb / n), step, na * (nb / n)
