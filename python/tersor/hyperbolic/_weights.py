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
    far = ((most < LEAST) | (most > MOST)) & (most > 0) & (most < math.inf)
    return w / xp.where(far, most, 1.0)
