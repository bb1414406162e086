"""Quantizers written as plainly as NumPy allows: the definitions that `tersor.quant` declares its operators with.

The rule of this file: a code is decided in the compute type, float64 for float64 data and float32 for all other, as the
kernels decide it; so these are the same bits, and what is compared with them is compared exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import dtype_name
from tersor.random import TAGS, words

Array = Any

#: the largest finite number of each type, as one of its compute type
MOST: dict[str, Any] = {
    "float64": np.finfo(np.float64).max,
    "float32": np.finfo(np.float32).max,
    "float16": np.float32(65504),
    "bfloat16": np.float32(3.3895313892515355e38),
}


def real(x: Array) -> np.ndarray:
    """`x` in its compute type."""
    x = np.asarray(x)
    return x if x.dtype in (np.float64, np.float32) else x.astype(np.float32)


def spread(s: Array, shape: tuple[int, ...]) -> np.ndarray:
    """A scale of one size per axis, each a divisor of `shape`'s, as one number per element."""
    s = np.asarray(s)
    if s.size == 1:
        return np.broadcast_to(s.reshape(()), shape)
    for axis, (n, m) in enumerate(zip(shape, s.shape, strict=True)):
        s = np.repeat(s, n // max(m, 1), axis)
    return s


def gather(v: Array, shape: tuple[int, ...]) -> np.ndarray:
    """The sum over the elements of each scale: the transpose of `spread`."""
    if math.prod(shape) == 1:
        return np.sum(v).reshape(shape)
    cut = [size for n, m in zip(v.shape, shape, strict=True) for size in (m, n // max(m, 1))]
    return v.reshape(cut).sum(tuple(range(1, 2 * v.ndim, 2)))


def zeros(zero_point: Array, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """Zero points as one number per element; those that are floats are rounded half to even."""
    if zero_point is None or np.size(zero_point) == 0:
        return np.zeros(shape, kind)
    return np.rint(spread(np.asarray(zero_point, np.float64), shape)).astype(kind)


def quotient(x: Array, scale: Array, zero_point: Array, form: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """v, z and s per element: the clamped rounding of v, plus z where `form` is not 2, is the code."""
    x = real(x)
    s = spread(np.asarray(scale).astype(np.float32 if form == 1 else x.dtype), x.shape)
    z = zeros(zero_point, x.shape, x.dtype)
    with np.errstate(all="ignore"):
        if form == 1:
            return x * (np.float32(1) / s), z, s.astype(x.dtype)
        return (x / s + z if form == 2 else x / s), z, s


def rounded(v: np.ndarray, rounding: int, seed: int) -> np.ndarray:
    """Half to even, half away, toward zero, or away from zero with the probability of the fraction."""
    if rounding == 0:
        return np.rint(v)
    r = np.trunc(v)
    over = {1: 0.5, 2: np.inf}.get(rounding)
    away = np.abs(v - r) >= over if over is not None else uniform(v.size, seed).reshape(v.shape) < np.abs(v - r)
    return np.where(away, r + np.copysign(v.dtype.type(1), v), r)


def uniform(n: int, seed: int) -> np.ndarray:
    """u = (w >> 8) 2^-24 of word i mod 2^34 of column i >> 34 (docs/bits)."""
    i = np.arange(n, dtype=np.uint64)
    w = words(seed, TAGS["rounding"], 0, i >> np.uint64(34), i & np.uint64((1 << 34) - 1))
    return (w >> np.uint32(8)) * 2.0**-24


def number(q: np.ndarray, s: np.ndarray, kind: str) -> np.ndarray:
    """q s, and where it is beyond the ends of `kind`, its end: what was finite comes back finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isfinite(s), np.clip(q * s, -MOST[kind], MOST[kind]), q * s)


def codes(
    x: Array, scale: Array, zero_point: Array, lo: int, hi: int, form: int = 0, rounding: int = 0, seed: int = 0
) -> np.ndarray:
    """q = clamp(round(x/s) + z, lo, hi) as whole floats of the compute type; NaN is 0, infinities are the ends."""
    x = real(x)
    v, z, _ = quotient(np.where(np.isnan(x), x.dtype.type(0), x), scale, zero_point, form)
    if form == 2:
        return rounded(np.clip(v, lo, hi), rounding, seed)
    return rounded(np.clip(v, lo - z, hi - z), rounding, seed) + z


def fake(
    x: Array, scale: Array, zero_point: Array, lo: int, hi: int, form: int, rounding: int = 0, seed: int = 0
) -> np.ndarray:
    v, z, s = quotient(x, scale, zero_point, form)
    if form == 2:
        return number(rounded(np.clip(v, lo, hi), rounding, seed) - z + 0, s, dtype_name(np.asarray(x).dtype))
    return number(rounded(np.clip(v, lo - z, hi - z), rounding, seed) + 0, s, dtype_name(np.asarray(x).dtype))


def fake_slopes(
    x: Array, scale: Array, zero_point: Array, lo: int, hi: int, form: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inside or not, and the derivatives in the scale and in the zero point, per element."""
    v, z, s = quotient(x, scale, zero_point, form)
    first, last = (np.full_like(z, lo), np.full_like(z, hi)) if form == 2 else (lo - z, hi - z)
    inside = (np.rint(v) >= first) & (np.rint(v) <= last)
    ends = np.clip(v, first, last) - (z if form == 2 else 0)
    with np.errstate(all="ignore"):
        return inside, np.where(inside, np.rint(v) - v, ends), np.where(inside, 0, -s)


def extents(x: Array, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest finite value of each scale's elements, 0 included."""
    x = real(x)
    x = np.where(np.isfinite(x), x, x.dtype.type(0))
    if math.prod(shape) == 1:
        return np.min(x, initial=0).reshape(shape), np.max(x, initial=0).reshape(shape)
    cut = x.reshape([size for n, m in zip(x.shape, shape, strict=True) for size in (m, n // max(m, 1))])
    axes = tuple(range(1, 2 * x.ndim, 2))
    return np.min(cut, axes, initial=0), np.max(cut, axes, initial=0)


def pack(q: Array, bits: int, words: bool) -> np.ndarray:
    """Codes side by side from the lowest bit; signed ones plus 2^(b-1); rows in whole bytes or 32-bit words."""
    q = np.asarray(q)
    u = (q.astype(np.int16) + ((1 << bits - 1) if q.dtype == np.int8 else 0)).astype(np.uint8)
    ones = (u[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    ones = ones.reshape(*q.shape[:-1], q.shape[-1] * bits)
    pad = -ones.shape[-1] % (32 if words else 8)
    ones = np.pad(ones, [(0, 0)] * (ones.ndim - 1) + [(0, pad)])
    w = np.packbits(ones, axis=-1, bitorder="little")
    return w.view("<i4") if words else w


def unpack(w: Array, bits: int, last: int, signed: bool) -> np.ndarray:
    w = np.ascontiguousarray(w)
    octets = w.view(np.uint8).reshape(*w.shape[:-1], w.shape[-1] * w.itemsize)
    ones = np.unpackbits(octets, axis=-1, bitorder="little")[..., : last * bits]
    ones = ones.reshape(*w.shape[:-1], last, bits)
    u = np.sum(ones.astype(np.int16) << np.arange(bits, dtype=np.int16), -1)
    return (u - (1 << bits - 1)).astype(np.int8) if signed else u.astype(np.uint8)
