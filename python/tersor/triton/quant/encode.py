"""Ranges, packed codes, and back. The one rule: a GPU is waited for only where what it would say is an error."""

import torch
import triton
import triton.language as tl

from tersor.quant.qparams import least as reaching
from tersor.triton.quant._arithmetic import clamp, divide, ends, finite, least, nearest, scale_at, slot
from tersor.triton.quant._grain import launched, pair, refuse_odd, type_of, work
from tersor.triton.quant.affine import dequantize, quantize
from tersor.triton.quant.packing import pack, unpack

BLOCK = 1024
#: elements of a scale's run that one program measures
SPAN = 8192


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
            bad |= (finite(v) == 0).to(tl.int32)
        v = tl.where(finite(v), v, 0)
        least, most = tl.minimum(least, v), tl.maximum(most, v)
    tl.store(low + pid, tl.min(least, 0))
    tl.store(high + pid, tl.max(most, 0))
    tl.store(odd + pid, tl.max(bad, 0).to(tl.int8))


@triton.jit
def largest(x, group, T: tl.constexpr, B: tl.constexpr):
    """The largest finite magnitude of a group, and whether something in it is not finite."""
    top, bad = tl.zeros([B], T), tl.zeros([B], tl.int32)
    for i in range(0, group, B):
        at = i + tl.arange(0, B)
        v = tl.load(x + at, at < group, 0).to(T)
        bad |= (finite(v) == 0).to(tl.int32)
        top = tl.maximum(top, tl.abs(tl.where(finite(v), v, 0)))
    return tl.zeros([1], T) + tl.max(top, 0), tl.max(bad, 0).to(tl.int8)


@triton.jit
def _codes(x, at, live, s, most, SATURATE: tl.constexpr, T: tl.constexpr):
    v = tl.load(x + at, live, 0).to(T)
    if SATURATE:
        v = tl.where(v == v, v, 0)
    bound = tl.full([1], most, T)
    return nearest(clamp(divide(v, s), -bound, bound)).to(tl.int32)


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
    amax, bad = largest(base, group, T, B)
    s = least(divide(amax, tl.full([1], most, T)), amax, tl.full([1], most, T))
    tl.store(scale + pid + tl.arange(0, 1), s)
    tl.store(odd + pid, bad)
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
    s, z = scale_at(scale, zero, slot(at, width, high, wide, columns), live, 0, HAS_ZERO, ONE_ZERO, T)
    out = (q.to(T) - (z + tl.full([1], offset, T))) * s
    tl.store(x + at, ends(out, s, x.dtype.element_ty).to(x.dtype.element_ty), live)


def value_range(x, low, high, axes, group, saturate):
    """GPU kernel of `value_range`: inputs, outputs, scalars."""
    kind, total = work(x), low.numel()
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
        T=type_of(kind),
        SPAN=SPAN,
        B=BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )
    if not saturate:
        refuse_odd("value_range", parts[2])
    low.copy_(parts[0].amin(1).reshape(low.shape))
    high.copy_(parts[1].amax(1).reshape(high.shape))


def ranges(name, x, shape, group, saturate):
    """The least and the largest number of each scale's elements, of what is finite where ``saturate`` says so."""
    if not saturate:
        refuse_odd(name, ~x.isfinite())
    low, high = (x.new_empty(shape, dtype=work(x)) for _ in range(2))
    value_range(x, low, high, 0, group, True)
    return low, high


def encode_symmetric(x, data, scale, bits, group, saturate):
    """GPU kernel of `encode_symmetric`: inputs, outputs, scalars. Codes that straddle bytes are packed by torch's shifts."""
    if x.numel() == 0:
        return
    last, most = x.shape[-1], (1 << bits - 1) - 1
    if group and last % group:
        raise ValueError(f"encode_symmetric: groups of {group} do not divide a last axis of {last}")
    if bits not in (4, 8) or (bits == 4 and group % 2):
        low, high = ranges("encode_symmetric", x, scale.shape, group, saturate)
        amax = torch.maximum(-low, high)
        scale.copy_(reaching(torch, amax / torch.full_like(amax, most), amax, most))
        q = torch.empty_like(x, dtype=torch.int8)
        quantize(x, scale, scale.new_empty(0), q, -most, most, 0, 0, 0, True)
        return pack(q, data, bits, False)
    group = group or last
    kind, groups = work(x), x.numel() // group
    odd = x.new_zeros(groups, dtype=torch.int8)
    _symmetric[(groups,)](
        x,
        data,
        scale,
        odd,
        group,
        last // group,
        data.shape[-1],
        most,
        BITS=bits,
        SATURATE=saturate,
        T=type_of(kind),
        B=min(BLOCK, triton.next_power_of_2(group)),
        num_warps=4,
        enable_fp_fusion=False,
    )
    if not saturate:
        refuse_odd("encode_symmetric", odd)


def decode(data, scale, zero_point, x, bits, last, dtype):
    """GPU kernel of `decode`: inputs, outputs, scalars. Codes that straddle bytes are unpacked by torch's shifts."""
    if bits not in (4, 8):
        q = torch.empty_like(x, dtype=torch.uint8)
        unpack(data, q, bits, last, False)
        zero = zero_point if zero_point.numel() else scale.new_full((1,), 1 << bits - 1)
        return dequantize(q, scale, zero, x, dtype)
    kind, n = work(x), x.numel()
    scale, zero, place = pair("decode", x.shape, scale.to(x.device), zero_point.to(x.device))
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
            **launched(kind, zero, BLOCK),
        )
