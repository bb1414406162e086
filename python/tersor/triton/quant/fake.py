"""Rounding to the grid and its straight-through gradient."""

import triton
import triton.language as tl

from tersor.triton.quant._arithmetic import (
    affine,
    clamp,
    ends,
    nearest,
    quotient,
    rounded,
    roundings,
    scale_at,
    slot,
)
from tersor.triton.quant._grain import launched, pair, work

BLOCK = 1024


@triton.jit(do_not_specialize=["seed"])
def _fake(
    x,
    scale,
    zero,
    y,
    n,
    width,
    high,
    wide,
    columns,
    lo,
    hi,
    seed,
    TAG: tl.constexpr,
    ROUND: tl.constexpr,
    LIMIT: tl.constexpr,
    FORM: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    ONE_ZERO: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    s, z = scale_at(scale, zero, slot(at, width, high, wide, columns), live, FORM, HAS_ZERO, ONE_ZERO, T)
    z = nearest(z)
    pre, low, top, left = affine(s, z, lo, hi, FORM, T)
    v = quotient(tl.load(x + at, live, 0).to(T), s, pre, FORM, T)
    v = clamp(v, low, top)
    r = rounded(v, LIMIT, seed, at, TAG, ROUND, T)
    out = (r + 0.0 - left) * s
    tl.store(y + at, ends(out, s, y.dtype.element_ty).to(y.dtype.element_ty), live)


@triton.jit
def _straight(
    g,
    x,
    scale,
    zero,
    dx,
    n,
    width,
    high,
    wide,
    columns,
    lo,
    hi,
    FORM: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    ONE_ZERO: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    s, z = scale_at(scale, zero, slot(at, width, high, wide, columns), live, FORM, HAS_ZERO, ONE_ZERO, T)
    z = nearest(z)
    pre, low, top, _ = affine(s, z, lo, hi, FORM, T)
    v = quotient(tl.load(x + at, live, 0).to(T), s, pre, FORM, T)
    # one step beyond the ends is outside too, and small enough to be rounded by an addition
    r = nearest(clamp(v, low - 1, top + 1))
    tl.store(dx + at, tl.where((r >= low) & (r <= top), tl.load(g + at, live, 0), 0), live)


def limits(name, lo, hi):
    if not (lo < hi and ((-128 <= lo <= 0 and hi <= 127) or (lo >= 0 and hi <= 255))):
        raise ValueError(f"{name}: codes from {lo} to {hi} do not fit a byte")


def _elementwise(name, kernel, arrays, scale, zero, out, lo, hi, form, *seed, **options):
    limits(name, lo, hi)
    x = arrays[-1]
    kind = work(x)
    scale, zero, place = pair(name, x.shape, scale.to(x.device), zero.to(x.device))
    n = x.numel()
    if n:
        kernel[(triton.cdiv(n, BLOCK),)](
            *arrays,
            scale,
            zero,
            out,
            n,
            *place,
            lo,
            hi,
            *seed,
            FORM=form,
            **launched(kind, zero, BLOCK),
            **options,
        )


def fake_quantize(x, scale, zero_point, y, lo, hi, form, rounding, seed):
    """GPU kernel of `fake_quantize`: inputs, outputs, scalars."""
    _elementwise("fake_quantize", _fake, (x,), scale, zero_point, y, lo, hi, form, seed, **roundings(x, rounding))


def fake_quantize_bwd(g, x, scale, zero_point, dx, lo, hi, form):
    """GPU kernel of `fake_quantize_bwd`: inputs, outputs, scalars."""
    _elementwise("fake_quantize_bwd", _straight, (g, x), scale, zero_point, dx, lo, hi, form)
