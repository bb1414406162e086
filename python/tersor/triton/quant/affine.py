"""Codes of numbers and numbers of codes. The one rule: what is refused on the CPU is refused here, in the same words."""

import torch
import triton
import triton.language as tl

from tersor.triton.quant._arithmetic import (
    affine,
    clamp,
    ends,
    finite,
    nearest,
    quotient,
    rounded,
    roundings,
    scale_at,
    slot,
)
from tersor.triton.quant._grain import launched, pair, refuse_odd, work
from tersor.triton.quant.fake import limits

BLOCK = 1024
#: the largest zero point, as in `scales.rs`
ZERO_MAX = 2097152


@triton.jit(do_not_specialize=["seed"])
def _quantize(
    x,
    scale,
    zero,
    q,
    odd,
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
    pid = tl.program_id(0).to(tl.int64)
    at = pid * B + tl.arange(0, B)
    live = at < n
    s, z = scale_at(scale, zero, slot(at, width, high, wide, columns), live, FORM, HAS_ZERO, ONE_ZERO, T)
    z = nearest(z)
    pre, low, top, left = affine(s, z, lo, hi, FORM, T)
    v = tl.load(x + at, live, 0).to(T)
    tl.store(odd + pid, tl.max((finite(v) == 0).to(tl.int32), 0).to(tl.int8))
    v = clamp(quotient(tl.where(v == v, v, 0), s, pre, FORM, T), low, top)
    r = rounded(v, LIMIT, seed, at, TAG, ROUND, T)
    tl.store(q + at, (r + (z - left)).to(tl.int32).to(q.dtype.element_ty), live)


@triton.jit
def _dequantize(
    q,
    scale,
    zero,
    x,
    n,
    width,
    high,
    wide,
    columns,
    HAS_ZERO: tl.constexpr,
    ONE_ZERO: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    s, z = scale_at(scale, zero, slot(at, width, high, wide, columns), live, 0, HAS_ZERO, ONE_ZERO, T)
    out = (tl.load(q + at, live, 0).to(tl.int32).to(T) - nearest(z)) * s
    tl.store(x + at, ends(out, s, x.dtype.element_ty).to(x.dtype.element_ty), live)


def _given(name, x, scale, zero, kind):
    """Scales and zero points on the device, and the place of an element's."""
    zero = zero.to(x.device, torch.float64).round()  # a byte would take the bound modulo 256
    if zero.numel() and not bool((zero.abs() <= ZERO_MAX).all()):
        bad = zero[~(zero.abs() <= ZERO_MAX)].reshape(-1)[0].item()
        raise ValueError(f"{name}: a zero point lies within {-ZERO_MAX} and {ZERO_MAX}, got {bad:g}")
    return pair(name, x.shape, scale.to(x.device, kind), zero)


def quantize(x, scale, zero_point, q, lo, hi, form, rounding, seed, saturate):
    """GPU kernel of `quantize`: inputs, outputs, scalars."""
    limits("quantize", lo, hi)
    n, kind = x.numel(), work(x)
    # 1/s is that of float32
    scale, zero, place = _given("quantize", x, scale, zero_point, torch.float32 if form == 1 else kind)
    fine = (scale > 0) & scale.isfinite()
    if not bool(fine.all()):
        raise ValueError(f"quantize: a scale is positive and finite, got {scale[~fine].reshape(-1)[0].item():g}")
    if not n:
        return
    blocks = triton.cdiv(n, BLOCK)
    odd = x.new_zeros(blocks, dtype=torch.int8)
    _quantize[(blocks,)](
        x,
        scale,
        zero,
        q,
        odd,
        n,
        *place,
        lo,
        hi,
        seed,
        FORM=form,
        **launched(kind, zero, BLOCK),
        **roundings(x, rounding),
    )
    if not saturate:
        refuse_odd("quantize", odd)


def dequantize(q, scale, zero_point, x, dtype):
    """GPU kernel of `dequantize`: inputs, outputs, scalars."""
    n, kind = x.numel(), work(x)
    scale, zero, place = _given("dequantize", q, scale, zero_point, kind)
    if n:
        _dequantize[(triton.cdiv(n, BLOCK),)](
            q,
            scale,
            zero,
            x,
            n,
            *place,
            **launched(kind, zero, BLOCK),
        )
