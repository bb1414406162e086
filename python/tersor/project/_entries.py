"""The entries of random matrices, as the reference makes them. The one rule: the bits are those of the kernels (see
`tersor.random`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor.random import TAGS, words

#: the kinds whose entries know nothing of each other
KINDS = ("gaussian", "rademacher", "sparse")


def _f32(*values: float) -> list[np.float32]:
    return [np.float32(v) for v in values]


_LN = _f32(0.06915147, -0.11789696, 0.118730165, -0.1238437, 0.14218655, -0.1666925, 0.20002227, -0.24999987, 0.3333331)
_LN2_HI, _LN2_LO, _TAU, _TAU_LO = _f32(0.69314575, 1.4286068e-6, 2 * math.pi, -1.7484556e-7)
_SIN = _f32(41.487576, -76.69838, 81.60521, -41.3417)
_COS = _f32(59.245964, -85.44374, 64.93932, -19.739208)


def _polynomial(coefficients: list[np.float32], x: np.ndarray) -> np.ndarray:
    p = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        p = p * x + c
    return p


def _normals(w: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Box and Muller in float32, step by step as the kernels do it, so that the bits are the same."""
    bits = ((w >> 8) + 1).astype(np.float32).view(np.int32) - np.int32(0x3F3504F3)
    e = ((bits >> 23) - 24).astype(np.float32)
    f = ((bits & 0x007FFFFF) + np.int32(0x3F3504F3)).view(np.float32) - np.float32(1)
    f2 = f * f
    small = (f2 * f) * _polynomial(_LN, f) + e * _LN2_LO - np.float32(0.5) * f2
    r = np.sqrt(np.float32(0) - np.float32(2) * (e * _LN2_HI + (f + small)))
    n = (v >> 8).astype(np.int32)
    q = (n + (1 << 21)) >> 22
    t = (n - (q << 22)).astype(np.float32) * np.float32(2.0**-24)
    z = t * t
    sin = t * _TAU + t * (_TAU_LO + z * _polynomial(_SIN, z))
    cos = np.float32(1) + z * _polynomial(_COS, z)
    odd = q & 1 == 1
    x = np.where((q + 1) >> 1 & 1 == 1, -1, 1).astype(np.float32) * np.where(odd, sin, cos)
    y = np.where(q >> 1 & 1 == 1, -1, 1).astype(np.float32) * np.where(odd, cos, sin)
    return r * x, r * y


def entries(
    kind: int,
    seed: int,
    stream: int,
    threshold: int,
    row: int,
    rows: int,
    col: int,
    cols: int,
    *,
    tag: int | None = None,
) -> np.ndarray:
    """The matrix without its scale, float64; of another tag than that of its kind where numbers of others are made so."""
    a = np.uint64(col) + np.arange(cols, dtype=np.uint64)
    b = np.uint64(row) + np.arange(rows, dtype=np.uint64)[:, None]

    def word(b: np.ndarray) -> np.ndarray:
        return words(seed, kind if tag is None else tag, stream, a, b)

    if kind == TAGS["rademacher"]:
        bit = word(b >> np.uint64(5)) >> (b & np.uint64(31)).astype(np.uint32) & 1
        return 1.0 - 2.0 * bit
    if kind == TAGS["sparse"]:
        w = word(b)
        return np.where((w & 0x7FFFFFFF) < threshold, np.where(w >> 31 == 1, -1.0, 1.0), 0.0)
    even = b & ~np.uint64(1)
    cos, sin = _normals(word(even), word(even + np.uint64(1)))
    return np.where(b & np.uint64(1) == 0, cos, sin).astype(np.float64)


def extents(name: str, x: Any) -> tuple[int, ...]:
    shape = getattr(x, "shape", None)
    if shape is None:
        raise TypeError(f"{name}: x must be a NumPy array or a torch tensor, got {type(x).__name__}")
    return tuple(shape)
