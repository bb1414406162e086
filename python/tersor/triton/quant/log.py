"""Logarithmic codes and their levels. The rule: exponent and fraction of the quotient decide, as in `log.rs`."""

import triton
import triton.language as tl

from tersor.triton.quant._arithmetic import clamp, divide, ends, finite, scale_at, slot
from tersor.triton.quant._grain import pair, type_of, work

BLOCK = 1024


@triton.jit
def _power(e, T: tl.constexpr):
    """2^e, if that is a normal number."""
    if tl.float64 == T:
        p = ((e.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        p = ((e + 127) << 23).to(tl.float32, bitcast=True)
    return p


@triton.jit
def _place(v, HALF: tl.constexpr, T: tl.constexpr):
    """The code of a quotient before it is held, and its level."""
    v = clamp(v, tl.full([1], 0.0, T), tl.full([1], 4.0, T)) * 4294967296.0
    if tl.float64 == T:
        e = (v.to(tl.int64, bitcast=True) >> 52).to(tl.int32) - 1023
        # the first float64 above 2^1/4, 2^1/2 and 2^3/4
        quarter = tl.full([1], 1.1892071150027212, T)
        root = tl.full([1], 1.4142135623730951, T)
        most = tl.full([1], 1.6817928305074292, T)
        half = root
    else:
        e = (v.to(tl.int32, bitcast=True) >> 23) - 127
        # the first float32 above them; the nearest to the root of 2 lies below it
        quarter = tl.full([1], 1.1892071962356567, T)
        half = tl.full([1], 1.4142136573791504, T)
        most = tl.full([1], 1.6817928552627563, T)
        root = tl.full([1], 1.41421356237, T)
    f = v * _power(-e, T)
    if HALF:
        up = tl.where(f >= most, 2.0, tl.where(f >= quarter, root, 1.0))
        q = (32 - e) * 2 - (f >= quarter).to(tl.int32) - (f >= most).to(tl.int32)
    else:
        up = tl.where(f >= half, 2.0, 1.0).to(T)
        q = 32 - e - (f >= half).to(tl.int32)
    return q, up * _power(e, T) * 2.3283064365386963e-10


@triton.jit
def _level(q, HALF: tl.constexpr, T: tl.constexpr):
    """2^(-q/k), rounded once."""
    if HALF:
        e = (q + 1) >> 1
        odd = tl.where(q % 2 == 1, tl.full([1], 1.4142135623730951, T), 1.0)
    else:
        e = q
        odd = tl.full([1], 1.0, T)
    if tl.float32 == T:
        e = tl.minimum(e, 160)
    return odd * _power(-(e >> 1), T) * _power(-(e - (e >> 1)), T)


@triton.jit
def _scale(scale, at, live, width, high, wide, columns, T: tl.constexpr):
    s, _ = scale_at(scale, scale, slot(at, width, high, wide, columns), live, 0, False, False, T)
    return s


@triton.jit
def _quantize(
    x,
    scale,
    c,
    odd,
    n,
    width,
    high,
    wide,
    columns,
    BITS: tl.constexpr,
    HALF: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    at = pid * B + tl.arange(0, B)
    live = at < n
    s = _scale(scale, at, live, width, high, wide, columns, T)
    x = tl.load(x + at, live, 0).to(T)
    tl.store(odd + pid, tl.max(((finite(x) & (x >= 0)) == 0).to(tl.int32), 0).to(tl.int8))
    v = divide(x, s)
    q = tl.maximum(_place(v, HALF, T)[0], 0)
    N: tl.constexpr = 1 << BITS
    q = tl.where((q < N) & (v > 0), q, N if N < 256 else 255)
    tl.store(c + at, q.to(tl.uint8), live)


@triton.jit
def _dequantize(
    c,
    scale,
    y,
    odd,
    n,
    width,
    high,
    wide,
    columns,
    BITS: tl.constexpr,
    HALF: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    at = pid * B + tl.arange(0, B)
    live = at < n
    s = _scale(scale, at, live, width, high, wide, columns, T)
    q = tl.load(c + at, live, 0).to(tl.int32)
    N: tl.constexpr = 1 << BITS
    tl.store(odd + pid, tl.max((q > N).to(tl.int32), 0).to(tl.int8))
    v = tl.where(q < N, _level(q, HALF, T), 0.0) * s
    tl.store(y + at, ends(v, s, y.dtype.element_ty).to(y.dtype.element_ty), live)


@triton.jit
def _fake(
    x,
    scale,
    y,
    n,
    width,
    high,
    wide,
    columns,
    BITS: tl.constexpr,
    HALF: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    s = _scale(scale, at, live, width, high, wide, columns, T)
    v = divide(tl.load(x + at, live, 0).to(T), s)
    q, level = _place(v, HALF, T)
    N: tl.constexpr = 1 << BITS
    least = tl.full([1], 0.0, T)
    if BITS == 8:
        least = _level(tl.full([1], 255, tl.int32), HALF, T)
    level = tl.where(q > 0, level, 1.0)
    level = tl.where((q < N) & (v > 0), level, least)
    level = tl.where(v >= 0, level, float("nan"))
    tl.store(y + at, ends(level * s, s, y.dtype.element_ty).to(y.dtype.element_ty), live)


@triton.jit
def _straight(
    g,
    x,
    scale,
    dx,
    n,
    width,
    high,
    wide,
    columns,
    BITS: tl.constexpr,
    HALF: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    s = _scale(scale, at, live, width, high, wide, columns, T)
    v = divide(tl.load(x + at, live, 0).to(T), s)
    q = _place(v, HALF, T)[0]
    inside = (q >= 0) & (q < (1 << BITS)) & (v > 0)
    tl.store(dx + at, tl.where(inside, tl.load(g + at, live, 0), 0), live)


def _elementwise(name, kernel, arrays, scale, outs, bits, half, kind):
    if not 1 <= bits <= 8:
        raise ValueError(f"{name}: bits must lie within 1 and 8, got {bits}")
    like, n = arrays[-1], arrays[-1].numel()
    scale, _, place = pair(name, like.shape, scale.to(like.device), like.new_zeros(0))
    if n:
        kernel[(triton.cdiv(n, BLOCK),)](
            *arrays,
            scale,
            *outs,
            n,
            *place,
            BITS=bits,
            HALF=half,
            T=type_of(kind),
            B=BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )


def quantize_log(x, scale, q, bits, half, saturate):
    """GPU kernel of `quantize_log`: inputs, outputs, scalars."""
    if bool(((scale > 0) & scale.isfinite()).logical_not().any()):
        raise ValueError("quantize_log: a scale is positive and finite")
    odd = q.new_zeros(triton.cdiv(x.numel(), BLOCK))
    _elementwise("quantize_log", _quantize, (x,), scale, (q, odd), bits, half, work(x))
    if not saturate and bool(odd.any()):
        raise ValueError(
            "quantize_log: x holds negative or non-finite values (nan='zero' takes them for 0 or the scale)"
        )


def dequantize_log(q, scale, x, bits, half, dtype):
    """GPU kernel of `dequantize_log`: inputs, outputs, scalars."""
    odd = q.new_zeros(triton.cdiv(q.numel(), BLOCK))
    _elementwise("dequantize_log", _dequantize, (q,), scale, (x, odd), bits, half, work(x))
    if bool(odd.any()):
        raise ValueError(f"dequantize_log: q holds codes beyond {1 << bits}, that of 0 for {bits} bits")


def fake_quantize_log(x, scale, y, bits, half):
    """GPU kernel of `fake_quantize_log`: inputs, outputs, scalars."""
    _elementwise("fake_quantize_log", _fake, (x,), scale, (y,), bits, half, work(x))


def fake_quantize_log_bwd(g, x, scale, dx, bits, half):
    """GPU kernel of `fake_quantize_log_bwd`: inputs, outputs, scalars."""
    _elementwise("fake_quantize_log_bwd", _straight, (g, x), scale, (dx,), bits, half, work(x))
