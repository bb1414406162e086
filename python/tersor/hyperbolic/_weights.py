"""Weights of which only the ratios count. The one rule: where their squares or sums would leave float64 they are divided by the
largest, and else they stay what they are, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tersor._arrays import is_distributed
from tersor._reference import Array, xp

#: sizes between which no square and no sum of squares leaves float64
LEAST, MOST = 1e-140, 1e140


def even(w: Array, over: Sequence[int]) -> Array:
    """Weights in float64, those over some axes of one size; of other types they cannot get that far."""
    if w.dtype.itemsize < 8 or is_distributed(w) or 0 in w.shape:
        return w
    if isinstance(w, np.ndarray):
        most = np.max(abs(w), axis=tuple(over), keepdims=True)
    else:  # nothing depends on what all are divided by
        most = abs(w.detach()).amax(tuple(over), keepdim=True)
    return w / _divisor(most)


def _divisor(most: Array) -> Array:
    far = ((most < LEAST) | (most > MOST)) & (most > 0) & (most < math.inf)
    return xp.where(far, most, 1.0)


def even_lists(w: Array, indptr: Array) -> Array:
    """The same of the entries of a CSR, those of a row of one size."""
    if w.dtype.itemsize < 8 or is_distributed(w) or 0 in w.shape:
        return w
    n = len(indptr) - 1
    if isinstance(w, np.ndarray):
        group, most = np.repeat(np.arange(n), np.diff(indptr)), np.zeros(n)
        np.maximum.at(most, group, abs(w))
    else:
        group = (0 * indptr[1:] + 1).cumsum(0).sub(1).repeat_interleave(indptr.diff(), output_size=w.shape[0])
        most = w.new_zeros(n).scatter_reduce(0, group.long(), abs(w.detach()), "amax")
    return w / _divisor(most)[group]
