"""Codes that are places in a table or small floats, and back. The one rule: a group is measured and coded by one program."""

import torch
import triton
import triton.language as tl

from tersor.quant._grids import Small
from tersor.triton.quant._arithmetic import divide, ends, finite, scale_at, slot, small
from tersor.triton.quant._grain import pair, refuse_odd, type_of, work
from tersor.triton.quant.encode import largest

BLOCK = 1024


@triton.jit
def _float_codes(
    x,
    q,
    odd,
    n,
    most,
    NAN: tl.constexpr,
    LEAST: tl.constexpr,
    MANTISSA: tl.constexpr,
    SIGN: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    at = pid * B + tl.arange(0, B)
    v = tl.load(x + at, at < n, 0).to(T)
    c = small(v, tl.full([1], most, T), LEAST, MANTISSA, SIGN)
    if NAN == 2:
        c = tl.where(v == v, c, (c & 0x80) | 0x7F)
    else:
        c = tl.where(v == v, c, 0)
    tl.store(q + at, c.to(tl.uint8), at < n)
    tl.store(odd + pid, tl.max((finite(v) == 0).to(tl.int32), 0).to(tl.int8))


@triton.jit
def _float_numbers(q, table, x, odd, n, BITS: tl.constexpr, B: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    at = pid * B + tl.arange(0, B)
    c = tl.load(q + at, at < n, 0).to(tl.int32)
    v = tl.load(table + (c & ((1 << BITS) - 1)))
    tl.store(x + at, v.to(x.dtype.element_ty), at < n)
    tl.store(odd + pid, tl.max(c >> BITS, 0).to(tl.int8))


@triton.jit
def _place(v, above, places, BITS: tl.constexpr):
    """The place of the number nearest to v: see `table.rs`."""
    c = (v > 0).to(tl.int32) * 0
    for i in tl.static_range(BITS):
        # the half that is left: a constant, which a loop cannot give a name to
        c += tl.where(v > tl.load(above + c + ((1 << (BITS - 1 - i)) - 1)), 1 << (BITS - 1 - i), 0)
    return tl.load(places + c)


@triton.jit
def _one(
    x,
    at,
    live,
    by,
    above,
    places,
    most,
    RECIP: tl.constexpr,
    LEAST: tl.constexpr,
    MANTISSA: tl.constexpr,
    BITS: tl.constexpr,
    T: tl.constexpr,
):
    v = tl.load(x + at, live, 0).to(T)
    v = tl.where(v == v, v, 0)
    v = v * by if RECIP else divide(v, by)
    if MANTISSA == 0:
        c = _place(v, above, places, BITS)
    else:
        c = small(v, tl.full([1], most, T), LEAST, MANTISSA, 3 if MANTISSA == 1 else 7)
    return tl.where(live, c, 0)


@triton.jit
def _coded(
    x,
    data,
    by,
    above,
    places,
    most,
    group,
    per_row,
    row_bytes,
    RECIP: tl.constexpr,
    LEAST: tl.constexpr,
    MANTISSA: tl.constexpr,
    BITS: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    """The codes of a group whose scale is known, one or two a byte."""
    pid = tl.program_id(0).to(tl.int64)
    base, s = x + pid * group, tl.load(by + pid + tl.arange(0, 1))
    each: tl.constexpr = 8 // BITS
    out = data + pid // per_row * row_bytes + pid % per_row * (group // each)
    for i in range(0, (group + each - 1) // each, B):
        at = i + tl.arange(0, B)
        c = _one(base, each * at, each * at < group, s, above, places, most, RECIP, LEAST, MANTISSA, BITS, T)
        if BITS == 4:
            c |= (
                _one(base, 2 * at + 1, 2 * at + 1 < group, s, above, places, most, RECIP, LEAST, MANTISSA, BITS, T) << 4
            )
        tl.store(out + at, c.to(tl.uint8), each * at < group)


@triton.jit
def _measured(x, amax, odd, group, T: tl.constexpr, B: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    top, bad = largest(x + pid * group, group, T, B)
    tl.store(amax + pid + tl.arange(0, 1), top)
    tl.store(odd + pid, bad)


@triton.jit
def _looked_up(
    data,
    scale,
    table,
    x,
    n,
    last,
    row_bytes,
    width,
    high,
    wide,
    columns,
    BITS: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live, bit = at < n, at % last * BITS
    first = at // last * row_bytes + bit // 8
    q = tl.load(data + first, live, 0).to(tl.int32)
    if 8 % BITS:
        q |= tl.load(data + first + 1, live & (bit % 8 + BITS > 8), 0).to(tl.int32) << 8
    q = (q >> (bit % 8).to(tl.int32)) & ((1 << BITS) - 1)
    s, _ = scale_at(scale, scale, slot(at, width, high, wide, columns), live, 0, False, False, T)
    out = tl.load(table + q).to(T) * s
    tl.store(x + at, ends(out, s, x.dtype.element_ty).to(x.dtype.element_ty), live)


def float_encode(x, q, exponent, mantissa, rounding, seed, nan):
    """GPU kernel of `float_encode`, half to even: inputs, outputs, scalars."""
    if rounding:
        raise NotImplementedError("float_encode: no GPU kernel for stochastic rounding; move the tensor to the CPU")
    n, kind, small_float = x.numel(), work(x), Small(exponent, mantissa)
    if not n:
        return
    programs = triton.cdiv(n, BLOCK)
    odd = x.new_zeros(programs, dtype=torch.int8)
    _float_codes[(programs,)](
        x,
        q,
        odd,
        n,
        small_float.most,
        NAN=nan,
        LEAST=1 - small_float.bias,
        MANTISSA=mantissa,
        SIGN=small_float.bits - 1,
        T=type_of(kind),
        B=BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )
    if not nan:
        refuse_odd("float_encode", odd)


def float_decode(q, x, exponent, mantissa, dtype):
    """GPU kernel of `float_decode`: inputs, outputs, scalars."""
    n, small_float = q.numel(), Small(exponent, mantissa)
    if not n:
        return
    programs = triton.cdiv(n, BLOCK)
    odd = q.new_zeros(programs, dtype=torch.int8)
    table = torch.tensor(small_float.numbers.tolist(), device=q.device)
    bits = small_float.bits
    _float_numbers[(programs,)](q, table, x, odd, n, BITS=bits, B=BLOCK, num_warps=4, enable_fp_fusion=False)
    if bits < 8 and bool(odd.any()):
        raise ValueError(
            f"float_decode: q holds codes that are not within 0 and {(1 << bits) - 1}: more than {bits} bits"
        )


def _thresholds(table, peer, kind):
    """The thresholds between the sorted numbers of a table, and where these stand in it, on the device: see `table.rs`."""
    places = torch.argsort(table, stable=True)
    v = table[places]
    middle = (v[1:].double() + v[:-1].double()) / 2
    above = ((v[1:] + v[:-1]) / 2) if peer else middle.float()
    if not peer:
        down = torch.nextafter(above, torch.full_like(above, -torch.inf))
        above = torch.where(above.double() > middle, down, above)
        # of numbers that are equal the first one
        new = torch.cat([v[:1] == v[:1], v[1:] != v[:-1]])
        places = places[torch.cummax(torch.where(new, torch.arange(len(v), device=v.device), 0), 0).values]
        if kind == torch.float64:
            above = middle
    return above.to(kind), places.to(torch.int32)


def _groups(name, x, group):
    last = x.shape[-1]
    group = group or last
    if group == 0 or last % group:
        raise ValueError(f"{name}: groups of {group} do not divide a last axis of {last}")
    return group


def _measure(x, group):
    """The largest magnitude of each group, and whether something is not finite."""
    kind, groups = work(x), x.numel() // group
    amax, odd = x.new_empty(groups, dtype=kind), x.new_zeros(groups, dtype=torch.int8)
    block = min(BLOCK, triton.next_power_of_2(group))
    _measured[(groups,)](
        x, amax, odd, group, T=type_of(kind), B=block, num_warps=1 if group <= 128 else 4, enable_fp_fusion=False
    )
    return amax, odd


def _code(name, x, data, group, by, bits, table, most, recip, least, mantissa):
    if 8 // bits * bits != 8:
        raise NotImplementedError(f"{name}: no GPU kernel for {bits} bits; move the tensors to the CPU")
    if bits == 4 and group % 2 and group != x.shape[-1]:
        raise NotImplementedError(f"{name}: no GPU kernel for groups of an odd number of 4-bit codes")
    above, places = table
    _coded[(x.numel() // group,)](
        x,
        data,
        by,
        above,
        places,
        most,
        group,
        x.shape[-1] // group,
        data.shape[-1],
        RECIP=recip,
        LEAST=least,
        MANTISSA=mantissa,
        BITS=bits,
        T=type_of(work(x)),
        B=min(BLOCK, triton.next_power_of_2(group)),
        num_warps=1 if group <= 128 else 4,
        enable_fp_fusion=False,
    )


def encode_table(x, table, data, scale, group, peer, saturate):
    """GPU kernel of `encode_table`: inputs, outputs, scalars."""
    if x.numel() == 0:
        return
    group = _groups("encode_table", x, group)
    amax, odd = _measure(x, group)
    tiny = torch.tensor(1e-38, dtype=torch.float32, device=x.device).to(amax.dtype)
    by = 1 / torch.maximum(amax, tiny) if peer else torch.where(amax > 0, amax, torch.ones_like(amax))
    bits = 4 if table.numel() == 16 else 8
    _code("encode_table", x, data, group, by, bits, _thresholds(table.to(x.device), peer, work(x)), 0.0, peer, 0, 0)
    scale.copy_(amax.reshape(scale.shape))
    if not saturate:
        refuse_odd("encode_table", odd)


def _power(amax, small_float, scaling):
    """k of the scales 2^k: see `micro.rs`."""
    wide = (amax / torch.full_like(amax, small_float.most) if scaling == 3 else amax).double()
    if scaling == 1:
        wide = (wide.view(torch.int64) + (1 << 51 - small_float.mantissa)).view(torch.float64)
    fraction, k = torch.frexp(wide)
    k = torch.where(wide > 0, k - 1, -1023)
    if scaling >= 2:
        k = k + (fraction > 0.5)
    return torch.clip(k if scaling == 3 else k - small_float.reach, -127, 127)


def encode_float(x, outer, data, scale, exponent, mantissa, group, scaling, saturate):
    """GPU kernel of `encode_float`, 4 and 8 bits: inputs, outputs, scalars."""
    if x.numel() == 0:
        return
    small_float, group, kind = Small(exponent, mantissa), _groups("encode_float", x, group), work(x)
    amax, odd = _measure(x, group)
    if outer.numel():
        over, inner = outer.to(x.device).reshape(()).float().to(kind), Small(4, 3)
        wanted = amax / torch.full_like(amax, small_float.most) / over
        bytes_ = torch.empty_like(wanted, dtype=torch.uint8)
        float_encode(wanted, bytes_, 4, 3, 0, 0, 1)
        bytes_ = torch.clip(bytes_, 1)
        by = torch.tensor(inner.numbers.tolist(), device=x.device)[bytes_.int()].to(kind) * over
    else:
        k = _power(amax, small_float, scaling)
        bytes_, by = (k + 127).to(torch.uint8), torch.ldexp(torch.ones_like(amax, dtype=torch.float64), -k).to(kind)
    none = by.new_zeros(1), x.new_zeros(1, dtype=torch.int32)
    recip, least = not outer.numel(), 1 - small_float.bias
    _code("encode_float", x, data, group, by, small_float.bits, none, small_float.most, recip, least, mantissa)
    scale.copy_(bytes_.reshape(scale.shape))
    if not saturate:
        refuse_odd("encode_float", odd)


def decode_table(data, scale, table, outer, x, bits, last, dtype):
    """GPU kernel of `decode_table`: inputs, outputs, scalars."""
    kind, n = work(x), x.numel()
    scale, table = scale.to(x.device), table.to(x.device)
    if scale.dtype == torch.uint8:
        if outer.numel():
            numbers = torch.tensor(Small(4, 3).numbers.tolist(), device=x.device)
            scale = numbers[scale.int()].to(kind) * outer.to(x.device).reshape(()).float().to(kind)
        else:
            power = torch.ldexp(torch.ones_like(scale, dtype=torch.float64), scale.int() - 127)
            scale = torch.where(scale == 255, torch.nan, power).to(kind)
    scale, _, place = pair("decode_table", x.shape, scale, x.new_zeros(0))
    if n:
        _looked_up[(triton.cdiv(n, BLOCK),)](
            data,
            scale,
            table,
            x,
            n,
            last,
            data.shape[-1],
            *place,
            BITS=bits,
            T=type_of(kind),
            B=BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
