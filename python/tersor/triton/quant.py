"""GPU kernels of the quantizers: the forms of `ops/quant`, under the operators' names.

The rule: a code is decided in float64 for float64 data and in float32 for all other, by a division that is rounded once,
so the results are the bits of the CPU. What a GPU would have to be waited for is waited for only where it is an error.
"""

import math

import torch
import triton
import triton.language as tl

BLOCK = 1024
#: elements of a scale's run that one program measures
SPAN = 8192


@triton.jit
def _divide(x, s):
    # a plain division of float32 is not rounded to nearest; of float64 it is
    if x.dtype == tl.float64:
        q = x / s
    else:
        q = tl.div_rn(x, s)
    return q


@triton.jit
def _clamp(v, lo, hi):
    """NaN stays NaN."""
    v = tl.where(lo > v, lo, v)
    return tl.where(hi < v, hi, v)


@triton.jit
def _round(v):
    """Half to even, of |v| < 2^22, by the addition of 1.5 * 2^23 (float64: 2^52)."""
    if v.dtype == tl.float64:
        return (v + 6755399441055744.0) - 6755399441055744.0
    return (v + 12582912.0) - 12582912.0


@triton.jit
def _tiny(v):
    """The smallest normal number."""
    if v.dtype == tl.float64:
        least = tl.full([1], 2.2250738585072014e-308, tl.float64)
    else:
        least = tl.full([1], 1.1754943508222875e-38, tl.float32)
    return least


@triton.jit
def _place(at, width, high, wide, columns):
    """The position of an element's scale: rows of `width`, `high` rows and `wide` columns to a scale."""
    return at // width // high * columns + at % width // wide


@triton.jit
def _affine(s, z, lo, hi, FORM: tl.constexpr, T: tl.constexpr):
    """What is added to the quotient, its bounds, and what is taken off the rounded: see `affine.rs`."""
    low, high = tl.full([1], lo, T), tl.full([1], hi, T)
    if FORM == 2:
        return z, low + z * 0, high + z * 0, z
    return z * 0, low - z, high - z, z * 0


@triton.jit
def _quotient(x, s, pre, FORM: tl.constexpr, T: tl.constexpr):
    if FORM == 1:
        one = tl.div_rn(tl.full([1], 1.0, tl.float32), s.to(tl.float32))
        return x * one.to(T)
    return _divide(x, s) + pre


@triton.jit
def _scale(
    scale, zero, index, live, FORM: tl.constexpr, HAS_ZERO: tl.constexpr, ONE_ZERO: tl.constexpr, T: tl.constexpr
):
    s = tl.load(scale + index, live, 1.0)
    if FORM == 1:
        s = s.to(tl.float32)
    s = s.to(T)
    z = s * 0
    if HAS_ZERO:
        z = tl.load(zero + (index * 0 if ONE_ZERO else index), live, 0).to(T)
    return s, z


@triton.jit
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
    FORM: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    ONE_ZERO: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    s, z = _scale(scale, zero, _place(at, width, high, wide, columns), live, FORM, HAS_ZERO, ONE_ZERO, T)
    z = _round(z)
    pre, low, top, left = _affine(s, z, lo, hi, FORM, T)
    v = _quotient(tl.load(x + at, live, 0).to(T), s, pre, FORM, T)
    out = (_round(_clamp(v, low, top)) - left) * s
    tl.store(y + at, out.to(y.dtype.element_ty), live)


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
    s, z = _scale(scale, zero, _place(at, width, high, wide, columns), live, FORM, HAS_ZERO, ONE_ZERO, T)
    z = _round(z)
    pre, low, top, _ = _affine(s, z, lo, hi, FORM, T)
    v = _quotient(tl.load(x + at, live, 0).to(T), s, pre, FORM, T)
    # one step beyond the ends is outside too, and small enough to be rounded by an addition
    r = _round(_clamp(v, low - 1, top + 1))
    tl.store(dx + at, tl.where((r >= low) & (r <= top), tl.load(g + at, live, 0), 0), live)


@triton.jit
def _finite(v):
    return tl.abs(v) < float("inf")


@triton.jit
def _extent(
    x, low, high, odd, run, spans, SATURATE: tl.constexpr, T: tl.constexpr, SPAN: tl.constexpr, B: tl.constexpr
):
    """The extremes of a span of one scale's run, and whether something in it is not finite."""
    pid = tl.program_id(0).to(tl.int64)
    first = pid % spans * SPAN
    base = x + pid // spans * run
    least, most, bad = tl.zeros([B], T), tl.zeros([B], T), tl.zeros([B], tl.int32)
    for i in range(0, SPAN, B):
        at = first + i + tl.arange(0, B)
        v = tl.load(base + at, at < run, 0).to(T)
        if not SATURATE:
            bad |= (_finite(v) == 0).to(tl.int32)
        v = tl.where(_finite(v), v, 0)
        least, most = tl.minimum(least, v), tl.maximum(most, v)
    tl.store(low + pid, tl.min(least, 0))
    tl.store(high + pid, tl.max(most, 0))
    tl.store(odd + pid, tl.max(bad, 0).to(tl.int8))


@triton.jit
def _codes(x, at, live, s, most, SATURATE: tl.constexpr, T: tl.constexpr):
    v = tl.load(x + at, live, 0).to(T)
    if SATURATE:
        v = tl.where(v == v, v, 0)
    bound = tl.full([1], most, T)
    return _round(_clamp(_divide(v, s), -bound, bound)).to(tl.int32)


@triton.jit
def _symmetric(
    x,
    data,
    scale,
    odd,
    group,
    per_row,
    row_bytes,
    most,
    BITS: tl.constexpr,
    SATURATE: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    """A group: its largest magnitude, then its codes, four of eight bits or two of four side by side."""
    pid = tl.program_id(0).to(tl.int64)
    base = x + pid * group
    top = tl.zeros([B], T)
    bad = tl.zeros([B], tl.int32)
    for i in range(0, group, B):
        at = i + tl.arange(0, B)
        v = tl.load(base + at, at < group, 0).to(T)
        bad |= (_finite(v) == 0).to(tl.int32)
        top = tl.maximum(top, tl.abs(tl.where(_finite(v), v, 0)))
    amax = tl.zeros([1], T) + tl.max(top, 0)
    s = tl.maximum(_divide(amax, tl.full([1], most, T)), _tiny(amax))
    tl.store(scale + pid + tl.arange(0, 1), s)
    tl.store(odd + pid, tl.max(bad, 0).to(tl.int8))
    if BITS == 8:
        for i in range(0, group, B):
            at = i + tl.arange(0, B)
            q = _codes(base, at, at < group, s, most, SATURATE, T)
            tl.store(data + pid * group + at, q.to(tl.int8), at < group)
    else:
        out = data + pid // per_row * row_bytes + pid % per_row * (group // 2)
        for i in range(0, (group + 1) // 2, B):
            at = i + tl.arange(0, B)
            low = _codes(base, 2 * at, 2 * at < group, s, most, SATURATE, T) + 8
            high = _codes(base, 2 * at + 1, 2 * at + 1 < group, s, most, SATURATE, T) + 8
            high = tl.where(2 * at + 1 < group, high, 0)
            tl.store(out + at, (low | (high << 4)).to(tl.uint8), 2 * at < group)


@triton.jit
def _decode(
    data,
    scale,
    zero,
    x,
    n,
    last,
    row_bytes,
    width,
    high,
    wide,
    columns,
    offset,
    BITS: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    ONE_ZERO: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    column = at % last
    q = tl.load(data + at // last * row_bytes + column * BITS // 8, live, 0).to(tl.int32)
    if BITS == 4:
        q = (q >> (column % 2 * 4).to(tl.int32)) & 15
    s, z = _scale(scale, zero, _place(at, width, high, wide, columns), live, 0, HAS_ZERO, ONE_ZERO, T)
    out = (q.to(T) - (z + tl.full([1], offset, T))) * s
    tl.store(x + at, out.to(x.dtype.element_ty), live)


def _work(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _type(kind):
    return tl.float64 if kind == torch.float64 else tl.float32


def _fold(name, shape, scale):
    """The scale as (scale, width, high, wide, columns) of `_place`: at most two axes after folding, else spread out."""
    shape, own = tuple(shape), tuple(scale.shape)
    if math.prod(own) == 1 and all(m == 1 for m in own):
        own = (1,) * len(shape)
    if len(own) != len(shape) or any((m == 0 and n) or n % max(m, 1) for n, m in zip(shape, own, strict=True)):
        raise ValueError(f"{name}: a scale of shape {own} does not divide an array of shape {shape}")
    axes = [(1, 1)]
    for n, m in zip(shape, own, strict=True):
        last = axes[-1]
        if last[0] == last[1] or m == 1:
            axes[-1] = (last[0] * n, last[1] * m)
        else:
            axes.append((n, m))
    if len(axes) > 2:
        scale = scale.reshape(own)
        for axis, (n, m) in enumerate(zip(shape, own, strict=True)):
            scale = scale.repeat_interleave(n // m, axis)
        axes = [(scale.numel(), scale.numel())]
    (n1, m1), (n2, m2) = axes if len(axes) == 2 else [(1, 1), axes[0]]
    return scale.contiguous(), (max(n2, 1), max(n1 // max(m1, 1), 1), max(n2 // max(m2, 1), 1), m2)


def _pair(name, shape, scale, zero):
    """Scales and zero points on the device and in the same places."""
    scale, place = (scale.reshape(1), None) if scale.numel() == 1 else _fold(name, shape, scale)
    if zero.numel() > 1:
        zero, _ = _fold(name, shape, zero)
        if zero.numel() != scale.numel():
            raise ValueError(f"{name}: {zero.numel()} zero points for {scale.numel()} scales")
    return scale, zero.reshape(-1), place or _fold(name, shape, scale)[1]


def _limits(name, lo, hi):
    if not (lo < hi and ((-128 <= lo <= 0 and hi <= 127) or (lo >= 0 and hi <= 255))):
        raise ValueError(f"{name}: codes from {lo} to {hi} do not fit a byte")


def _elementwise(name, kernel, arrays, scale, zero, out, lo, hi, form):
    _limits(name, lo, hi)
    x = arrays[-1]
    kind = _work(x)
    scale, zero, place = _pair(name, x.shape, scale.to(x.device), zero.to(x.device))
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
            FORM=form,
            HAS_ZERO=zero.numel() > 0,
            ONE_ZERO=zero.numel() == 1,
            T=_type(kind),
            B=BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )


def fake_quantize(x, scale, zero_point, y, lo, hi, form):
    """GPU kernel of `fake_quantize`: inputs, outputs, scalars."""
    _elementwise("fake_quantize", _fake, (x,), scale, zero_point, y, lo, hi, form)


def fake_quantize_bwd(g, x, scale, zero_point, dx, lo, hi, form):
    """GPU kernel of `fake_quantize_bwd`: inputs, outputs, scalars."""
    _elementwise("fake_quantize_bwd", _straight, (g, x), scale, zero_point, dx, lo, hi, form)


def _refuse_odd(name, odd):
    if bool(odd.any()):
        raise ValueError(f"{name}: x holds non-finite values (nan='zero' takes NaN for 0 and infinities for the ends)")


def value_range(x, low, high, axes, group, saturate):
    """GPU kernel of `value_range`: inputs, outputs, scalars."""
    kind, total = _work(x), low.numel()
    if x.numel() == 0:
        low.zero_(), high.zero_()
        return
    own = tuple(low.shape) if low.ndim else (1,) * x.ndim
    # the elements of a scale side by side: as they lie for rows and groups, copied for columns
    cut = [size for n, m in zip(x.shape, own, strict=True) for size in (m, n // m)]
    order = [*range(0, len(cut), 2), *range(1, len(cut), 2)]
    runs = x.reshape(cut).permute(order).reshape(total, -1).contiguous()
    spans = triton.cdiv(runs.shape[1], SPAN)
    parts = [x.new_zeros((total, spans), dtype=d) for d in (kind, kind, torch.int8)]
    _extent[(total * spans,)](
        runs,
        *parts,
        runs.shape[1],
        spans,
        SATURATE=saturate,
        T=_type(kind),
        SPAN=SPAN,
        B=BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )
    if not saturate:
        _refuse_odd("value_range", parts[2])
    low.copy_(parts[0].amin(1).reshape(low.shape))
    high.copy_(parts[1].amax(1).reshape(high.shape))


def encode_symmetric(x, data, scale, bits, group, saturate):
    """GPU kernel of `encode_symmetric`, 4 and 8 bits: inputs, outputs, scalars."""
    if bits not in (4, 8):
        raise NotImplementedError(f"encode_symmetric: no GPU kernel for {bits} bits; move the tensors to the CPU")
    if x.numel() == 0:
        return
    last = x.shape[-1]
    group = group or last
    if last % group:
        raise ValueError(f"encode_symmetric: groups of {group} do not divide a last axis of {last}")
    if bits == 4 and group % 2 and group != last:
        raise NotImplementedError("encode_symmetric: no GPU kernel for groups of an odd number of 4-bit codes")
    kind, groups = _work(x), x.numel() // group
    odd = x.new_zeros(groups, dtype=torch.int8)
    _symmetric[(groups,)](
        x,
        data,
        scale,
        odd,
        group,
        last // group,
        data.shape[-1],
        (1 << bits - 1) - 1,
        BITS=bits,
        SATURATE=saturate,
        T=_type(kind),
        B=min(BLOCK, triton.next_power_of_2(group)),
        num_warps=4,
        enable_fp_fusion=False,
    )
    if not saturate:
        _refuse_odd("encode_symmetric", odd)


def decode(data, scale, zero_point, x, bits, last, dtype):
    """GPU kernel of `decode`, 4 and 8 bits: inputs, outputs, scalars."""
    if bits not in (4, 8):
        raise NotImplementedError(f"decode: no GPU kernel for {bits} bits; move the tensors to the CPU")
    kind, n = _work(x), x.numel()
    scale, zero, place = _pair("decode", x.shape, scale.to(x.device), zero_point.to(x.device))
    offset = 0 if data.dtype == torch.int8 or zero.numel() else 1 << bits - 1
    if n:
        _decode[(triton.cdiv(n, BLOCK),)](
            data,
            scale,
            zero,
            x,
            n,
            last,
            -(-last * bits // 8),
            *place,
            offset,
            BITS=bits,
            HAS_ZERO=zero.numel() > 0,
            ONE_ZERO=zero.numel() == 1,
            T=_type(kind),
            B=BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
