"""Standard deviations of segments. The one rule: one that float64 holds is right, also where its square is not held."""

from __future__ import annotations

import math

import numpy as np

from tersor._arrays import Array, dtype_name, is_tensor
from tersor._reference import scaled, xp
from tersor._segments import Segments, ids, take
from tersor._values import at_hand
from tersor.reduce._ops import _segment_extreme, _segment_moments


def freed(count: Array, var: Array, correction: float) -> Array:
    """The variance with so many numbers less to divide by; NaN where nothing is left."""
    free = count - correction
    return var * count / xp.where(free > 0, free, free * float("nan")) if correction else var


def _rooted(var: Array) -> Array:
    none = var == 0  # of slope 0 there
    return xp.where(none, 0.0, xp.sqrt(xp.where(none, 1.0, var)))


def roots(x: Array, seg: Segments, count: Array, var: Array, correction: float) -> Array:
    """Deviations; those whose squares leave float64, of numbers that are nearer to 1 by a power of two for each segment. Where
    numbers cannot be looked at, only those within."""
    free, tensor = freed(count, var, correction), is_tensor(x)
    if dtype_name(x.dtype) != "float64" or (tensor and not at_hand(x)):
        return _rooted(free)
    squares = var.detach() if tensor else var
    odd = ((squares < 2.0**-960) | (squares == math.inf)) & (count > 0)
    if not bool(odd.any()):
        return _rooted(free)
    at, groups = (seg.kept, seg.groups), ids(x, seg.labels, seg.kept, seg.groups)[0]
    plain = x.detach() if tensor else x
    ends: list[Array] = [_segment_extreme(plain, seg.labels, *at, top) for top in (True, False)]
    spread = (ends[0] / 2 - ends[1] / 2).reshape(var.shape)
    odd = odd & (spread > 0) & (spread < math.inf)
    if not bool(odd.any()):  # numbers that are all equal
        return _rooted(free)
    power = xp.frexp(xp.where(odd, spread, 0.0))[1]  # 0 of the others
    own = take(power, groups)
    near = scaled(x, -(own.long() if tensor else own.astype(np.int64)))
    _, _, own = _segment_moments(near, seg.labels, seg.weight, *at)
    far = scaled(_rooted(freed(count, own, correction)), power.long() if tensor else power.astype(np.int64))
    return xp.where(odd, far, _rooted(xp.where(odd, 1.0, free)))
