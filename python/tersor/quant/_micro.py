"""Microscaled integers. The one rule: a scale is a power of two kept as a byte, a code is 64ths of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor.quant._arguments import Array
from tersor.quant._grids import like
from tersor.quant.affine import quantize
from tersor.quant.qparams import _value_range, cast, torch_module

#: codes of a scale: the largest is just below two of it
STEPS, MOST = 64, 127
#: from which share of the next power of two on a scale is that one: floor, even, ceil, rceil
_FROM = (2.0, 1 - 2.0**-8, np.nextafter(0.5, 1), np.nextafter(MOST / STEPS / 2, 1))


def micro_integers(x: Array, steps: tuple[int, ...], group: int, scaling: int, saturate: bool) -> tuple[Array, Array]:
    """Codes from -127 to 127 and the bytes of their scales."""
    xp: Any = np if isinstance(x, np.ndarray) else torch_module()
    low, high = _value_range(x, 0 if group else (1 << x.ndim - 1) - 1, group, saturate)
    amax = cast(xp, xp.maximum(-low, high), "float64").reshape(steps)
    fraction, power = xp.frexp(amax)
    k = xp.where(amax > 0, power - 1 + (fraction >= _FROM[scaling]), -127)
    scale = cast(xp, xp.clip(k, -127, 127) + 127, "uint8")
    q = quantize(x, micro_scales(scale), None, (-MOST, MOST), nan="zero" if saturate else "raise")
    return q, scale


def micro_scales(scale: Array) -> Array:
    """What codes are multiplied with, float32: the smallest are denormal."""
    table = like("e8m0", scale)
    return (table[scale] if isinstance(scale, np.ndarray) else table[scale.long()]) / STEPS
