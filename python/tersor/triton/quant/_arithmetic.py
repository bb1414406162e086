"""Codes of numbers in registers. The one rule: a quotient is rounded once, in float64 for float64 data and in float32 for all
other, as on the CPU.
"""

import torch
import triton
import triton.language as tl

from tersor.random import TAGS


@triton.jit
def divide(x, s):
    # a plain division of float32 is not rounded to nearest; of float64 it is
    if x.dtype == tl.float64:
        q = x / s
    else:
        q = tl.div_rn(x, s)
    return q


@triton.jit
def clamp(v, lo, hi):
    """NaN stays NaN."""
    v = tl.where(lo > v, lo, v)
    return tl.where(hi < v, hi, v)


@triton.jit
def nearest(v):
    """Half to even, of |v| < 2^22, by the addition of 1.5 * 2^23 (float64: 2^52)."""
    if v.dtype == tl.float64:
        return (v + 6755399441055744.0) - 6755399441055744.0
    return (v + 12582912.0) - 12582912.0


@triton.jit
def uniform(seed, at, TAG: tl.constexpr, T: tl.constexpr):
    """What stochastic rounding is decided by: of word i mod 2^34 of column i >> 34."""
    block = ((at & 0x3FFFFFFFF) >> 2).to(tl.uint32)
    none = tl.zeros_like(block)
    w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), block, (at >> 34).to(tl.uint32), none, none + TAG)
    word = at & 3
    w = tl.where(word == 0, w0, tl.where(word == 1, w1, tl.where(word == 2, w2, w3)))
    return (w >> 8).to(tl.int32).to(T) * 5.9604644775390625e-08


@triton.jit
def over(v, t):
    """The integer towards zero, or the next away from it where the fraction is over t, of |v| < 2^22."""
    a = tl.abs(v)
    r = nearest(a)
    r = tl.where(r > a, r - 1, r)
    r = tl.where(t < a - r, r + 1, r)
    return tl.where(v < 0, -r, r)


@triton.jit
def rounded(v, limit, seed, at, TAG: tl.constexpr, ROUND: tl.constexpr, T: tl.constexpr):
    """Half to even; or away from zero where the fraction is over the limit, or over what is drawn (3)."""
    if ROUND == 0:
        r = nearest(v)
    elif ROUND == 3:
        r = over(v, uniform(seed, at, TAG, T))
    else:
        # just under 1/2 is half away, 1 toward zero
        r = over(v, tl.full([1], limit, T))
    return r


def roundings(x, rounding):
    """What `rounded` asks of a launcher."""
    below = 0.5 - 2.0**-54 if x.dtype == torch.float64 else 0.5 - 2.0**-25
    return {"TAG": TAGS["rounding"], "ROUND": rounding, "LIMIT": below if rounding == 1 else 1.0}


@triton.jit
def least(s, extent, n):
    """A scale that reaches over `extent` in n steps, also among denormals; of zeros the smallest normal number."""
    if s.dtype == tl.float64:
        tiny = tl.full([1], 2.2250738585072014e-308, tl.float64)
        smallest = tl.full([1], 5e-324, tl.float64)
    else:
        tiny = tl.full([1], 1.1754943508222875e-38, tl.float32)
        smallest = tl.full([1], 1.401298464324817e-45, tl.float32)
    low = tl.maximum(s, smallest)
    low = tl.where(low * n < extent, low + smallest, low)
    return tl.where(s > tiny, s, tl.where(extent == 0, tiny, low))


@triton.jit
def finite(v):
    return tl.abs(v) < float("inf")


@triton.jit
def ends(v, s, to: tl.constexpr):
    """A product with a scale, and where it is beyond the ends of the type it is stored in, its end: what was finite comes
    back finite."""
    if to == tl.float64:
        most = tl.full([1], 1.7976931348623157e308, tl.float64)
    elif to == tl.float16:
        most = tl.full([1], 65504.0, tl.float32)
    elif to == tl.bfloat16:
        most = tl.full([1], 3.3895313892515355e38, tl.float32)
    else:
        most = tl.full([1], 3.4028234663852886e38, tl.float32)
    return tl.where(finite(s), clamp(v, -most, most), v)


@triton.jit
def slot(at, width, high, wide, columns):
    """The position of an element's scale: rows of `width`, `high` rows and `wide` columns to a scale."""
    return at // width // high * columns + at % width // wide


@triton.jit
def affine(s, z, lo, hi, FORM: tl.constexpr, T: tl.constexpr):
    """What is added to the quotient, its bounds, and what is taken off the rounded: see `affine.rs`."""
    low, high = tl.full([1], lo, T), tl.full([1], hi, T)
    if FORM == 2:
        return z, low + z * 0, high + z * 0, z
    return z * 0, low - z, high - z, z * 0


@triton.jit
def quotient(x, s, pre, FORM: tl.constexpr, T: tl.constexpr):
    if FORM == 1:
        one = tl.div_rn(tl.full([1], 1.0, tl.float32), s.to(tl.float32))
        return x * one.to(T)
    return divide(x, s) + pre


@triton.jit
def scale_at(
    scale, zero, index, live, FORM: tl.constexpr, HAS_ZERO: tl.constexpr, ONE_ZERO: tl.constexpr, T: tl.constexpr
):
    s = tl.load(scale + index, live, 1.0)
    if FORM == 1:
        s = s.to(tl.float32)
    s = s.to(T)
    z = tl.zeros_like(s)  # not s times 0, which an infinite scale would spoil
    if HAS_ZERO:
        z = tl.load(zero + (index * 0 if ONE_ZERO else index), live, 0).to(T)
    return s, z


@triton.jit
def small(v, most, LEAST: tl.constexpr, MANTISSA: tl.constexpr, SIGN: tl.constexpr):
    """The code of the nearest small float, half to even, with the sign at bit SIGN: see `mini.rs`; of NaN the largest."""
    a = tl.abs(v)
    a = tl.where(a < most, a, most)
    if v.dtype == tl.float64:
        b = v.to(tl.int64, bitcast=True)
        low = tl.full([1], (1023 + LEAST) << 52, tl.int64)
        p = tl.maximum(a.to(tl.int64, bitcast=True) >> 52 << 52, low)
        r = nearest(a * ((2046 << 52) - p).to(tl.float64, bitcast=True) * (1 << MANTISSA))
        up = (p - low) >> (52 - MANTISSA)
    else:
        b = v.to(tl.int32, bitcast=True)
        low = tl.full([1], (127 + LEAST) << 23, tl.int32)
        p = tl.maximum(a.to(tl.int32, bitcast=True) >> 23 << 23, low)
        r = nearest(a * ((254 << 23) - p).to(tl.float32, bitcast=True) * (1 << MANTISSA))
        up = (p - low) >> (23 - MANTISSA)
    return r.to(tl.int32) + up.to(tl.int32) + ((b < 0).to(tl.int32) << SIGN)
