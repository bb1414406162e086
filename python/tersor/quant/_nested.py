"""Scales that are coded themselves. The one rule: less their mean, by dynamic8, with one scale for 256 of them in a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, Array, cast, torch_module
from tersor.quant._blocks import _decode_table, _encode_table
from tersor.quant._encoded import SCALES
from tersor.quant._grids import like


def _runs(v: Array) -> Array:
    """Scales in a row as runs of `SCALES`, the last filled up with 0."""
    xp: Any = np if isinstance(v, np.ndarray) else torch_module()
    n = math.prod(v.shape)
    v = xp.concatenate([v.reshape(-1), xp.zeros_like(v.reshape(-1)[:1]).repeat(-n % SCALES)])
    return v.reshape(-(-n // SCALES), SCALES)


def nest(scale: Array, peer: bool) -> tuple[Array, Array]:
    """Codes of scales, and their mean with the scales of those codes."""
    xp: Any = np if isinstance(scale, np.ndarray) else torch_module()
    n = math.prod(scale.shape)
    flat = cast(xp, xp.clip(scale, None, float(np.finfo(np.float32).max)), "float32").reshape(-1)
    mean = cast(xp, cast(xp, flat, "float64").sum() / max(n, 1), "float32").reshape(1)
    codes, over = _encode_table(_runs(flat - mean), like("dynamic8", scale), SCALES, peer, False)
    return codes.reshape(-1)[:n].reshape(scale.shape), xp.concatenate([mean, over.reshape(-1)])


def unnested(codes: Array, outer: Array) -> Array:
    """Scales of their codes, float32."""
    kind = FLOATS.index("float32")
    runs = _decode_table(_runs(codes), outer[1:].reshape(-1, 1), like("dynamic8", codes), None, 8, SCALES, kind)
    scales = runs.reshape(-1)[: math.prod(codes.shape)].reshape(codes.shape) + outer[0]
    # far below the mean a scale is coded as less than nothing: the signs of its numbers would turn
    return np.maximum(scales, 0) if isinstance(scales, np.ndarray) else scales.clamp(min=0)
