"""How packed weights lie, written plainly: the definitions that `_products` declares its operators with.

A panel holds sixteen outputs. Group after group of inputs it has sixteen scales (float32), with zero points of their own
sixteen zero points (int32), then the codes, without sign: for every four inputs (eight, at 4 bits) four bytes of each output.
The rule of this file: the same bytes as `rust/drivers/src/packed/layout.rs` makes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._reference import there

Array = Any

LANES = 16
STEP = 8


def _filled(x: np.ndarray, outs: int, group: int, value: np.ndarray) -> np.ndarray:
    """`x` [out, groups, group] with outputs up to whole panels and inputs up to whole steps, those of `value` [out, groups]."""
    wide = np.repeat(value[:, :, None], -(-group // STEP) * STEP, 2)
    wide[:outs, :, :group] = x
    return wide


def laid(q: np.ndarray, scale: np.ndarray, zero: Any, bits: int, affine: bool) -> np.ndarray:
    """Panels of codes [out, in] without sign, scales and zero points [out, groups]."""
    outs, inputs = q.shape
    groups = scale.shape[1]
    panels = -(-outs // LANES)
    if not inputs:
        return np.zeros((panels, 0), np.uint8)

    def whole(v: Any, kind: Any, rest: int) -> np.ndarray:
        full = np.full((panels * LANES, groups), rest, kind)
        full[:outs] = v
        return full

    middle = 1 << bits - 1
    zeros = whole(zero if affine else middle, np.int32, 0 if affine else middle)
    u = _filled(q.reshape(outs, groups, -1), outs, inputs // groups, zeros.astype(np.uint8))
    u = u.reshape(panels, LANES, groups, -1, 2 if bits == 4 else 1, 4)
    u = u[..., 0, :] | u[..., 1, :] << 4 if bits == 4 else u[..., 0, :]
    codes = np.ascontiguousarray(u.transpose(0, 2, 3, 1, 4)).reshape(panels, groups, -1)

    def head(v: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(v.reshape(panels, LANES, groups).transpose(0, 2, 1)).view(np.uint8)

    parts = [head(whole(scale, np.float32, 0)), *([head(zeros)] if affine else []), codes]
    return np.concatenate(parts, -1).reshape(panels, -1)


def codes(w: Array, inputs: int, bits: int, groups: int, affine: bool) -> np.ndarray:
    """The codes without sign that panels hold, [panel, lane, group, input]."""
    part = np.asarray(w).reshape(len(w), groups, -1)
    at = 4 * LANES * (2 if affine else 1)
    codes = part[..., at:].reshape(len(w), groups, -1, LANES, 4)
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], 3)
    else:
        codes = codes[:, :, :, None]
    # [panel, group, step, half, lane, byte] -> [panel, lane, group, input]
    return codes.transpose(0, 4, 1, 2, 3, 5).reshape(len(w), LANES, groups, -1)[..., : inputs // groups]


def weights(w: Array, table: Array, outs: int, inputs: int, bits: int, groups: int, affine: bool) -> np.ndarray:
    """The weights [out, in] that panels stand for, in float64."""
    if not inputs:
        return np.zeros((outs, 0))
    part = np.asarray(w).reshape(len(w), groups, -1)

    def head(i: int, kind: Any) -> np.ndarray:
        v = np.ascontiguousarray(part[..., 4 * LANES * i :][..., : 4 * LANES]).view(kind)
        return v.transpose(0, 2, 1)[..., None].astype(np.float64)

    u = codes(w, inputs, bits, groups, affine)
    if there(table):
        v = np.asarray(table, np.float64)[u]
    else:
        v = u - (head(1, np.int32) if affine else float(1 << bits - 1))
    return (v * head(0, np.float32)).reshape(-1, inputs)[:outs]
