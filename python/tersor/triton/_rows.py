"""The walk of row kernels: inner products per row, scalar functions of them, a linear combination, as `rows.rs` does it.

The rule: a kernel is those three functions, and masks, offsets, tiles, broadcast rows, sums over rows and the ball's
edge are here once. Data of 32 bits is computed in float64, of 16 bits in float32 (in float64 by an operator that is
`wide`); float64 data is summed in twice its precision (see `_dots`). Gradients of what serves all rows are added up per
program and then by one `torch.sum`: no atomics, the same bits in every run.
"""

import math
import struct

import torch
import triton
import triton.language as tl

from tersor._arrays import dtype_name
from tersor._signature import SIGNATURES
from tersor.triton._dots import add, dot, gap, get


@triton.jit
def _load(xs, strides, row, col, mask, T: tl.constexpr):
    out = ()
    for k in tl.static_range(len(xs)):
        out = out + (tl.load(xs[k] + row[:, None] * strides[k] + col[None, :], mask, 0.0).to(T),)
    return out


@triton.jit
def _stored(y, at):
    """y as the memory behind `at` keeps it: float64 becomes bfloat16 by way of float32, as casts do everywhere."""
    if at.dtype.element_ty == tl.bfloat16:
        return y.to(tl.float32).to(tl.bfloat16)
    else:
        return y.to(at.dtype.element_ty)


@triton.jit
def _walk(
    xs,  # vectors, and the distance of their rows: d or 0
    x_strides,
    cs,  # row numbers, and their distance: 1 or 0
    c_strides,
    c_bits,
    ys,  # vectors out; where Y_SUM, the sum over each program's rows
    ns,  # numbers out; where N_SUM, likewise
    rows,
    d,
    edge: tl.float64,
    keep: tl.float64,
    step: tl.float64,
    bound: tl.float64,
    huge: tl.float64,
    DOTS: tl.constexpr,
    SOLVE: tl.constexpr,
    COMBINE: tl.constexpr,
    BY_VALUE: tl.constexpr,
    Y_SUM: tl.constexpr,
    N_SUM: tl.constexpr,
    INSIDE: tl.constexpr,
    TIGHT: tl.constexpr,
    WIDE: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    row = pid * R + tl.arange(0, R)
    col = tl.arange(0, D).to(tl.int64)
    live = row < rows

    mask = live[:, None] & (col < d)[None, :]
    sums = DOTS(_load(xs, x_strides, row, col, mask, T), WIDE)
    for i in range(D, d, D):
        mask = live[:, None] & (col + i < d)[None, :]
        part = DOTS(_load(xs, x_strides, row, col + i, mask, T), WIDE)
        more = ()
        for k in tl.static_range(len(part)):
            more = more + (add(sums[k], part[k]),)
        sums = more

    numbers = ()
    for k in tl.static_range(len(cs)):
        if BY_VALUE[k]:
            v = tl.full([R], c_bits[k], tl.int64).to(tl.float64, bitcast=True).to(T)
        else:
            v = tl.load(cs[k] + row * c_strides[k], live, 0.0).to(T)
        numbers = numbers + (v,)

    if INSIDE:
        solved, results, rest = SOLVE(sums, numbers)
    else:
        solved, results = SOLVE(sums, numbers)
    weights = ()
    for k in tl.static_range(len(solved)):
        weights = weights + (solved[k][:, None],)
    for k in tl.static_range(len(ns)):
        if N_SUM[k]:
            tl.store(ns[k] + pid, tl.sum(tl.where(live, results[k], 0), 0))
        else:
            tl.store(ns[k] + row, _stored(results[k], ns[k]), live)

    if len(ys) > 0:
        shrink = tl.full([R], 1.0, T)
        if INSIDE:
            # rows that rounding may have put onto the edge, or past the margin, are measured as they will be stored
            c = numbers[len(cs) - 1]
            near = live & (rest < tl.full([R], edge, T))
            most = tl.full([R], bound, T)
            limit = tl.full([R], keep, T)
            infinity = tl.full([R], float("inf"), T)
            tries = 0
            while (tries < 9) & (tl.max(near.to(tl.int32), 0) > 0):
                top = tl.zeros([R], T)
                total = (top, top)
                some = near
                for i in range(0, d, D):
                    mask = live[:, None] & (col + i < d)[None, :]
                    y = COMBINE(_load(xs, x_strides, row, col + i, mask, T), weights)[0] * shrink[:, None]
                    y = _stored(tl.where(mask, y, 0), ys[0]).to(T)
                    size = tl.abs(y)
                    near = near & (tl.min((size < float("inf")).to(tl.int32), 1) == 1)
                    size = tl.where(near[:, None], size, 0)
                    top = tl.maximum(top, tl.max(size, 1))
                    y = tl.where(size < tl.full([R, 1], huge, T), size, 0)
                    total = add(total, dot(y, y, True))
                # what is infinite, or no number, has no direction: all of its row is NaN, but in flat space
                lost = some & (near == 0) & (c != 0)
                shrink = tl.where(lost, tl.full([R], float("nan"), T), shrink)
                # squares that overflow say nothing of the length: such a row is scaled by its largest entry first
                far = near & (top >= tl.full([R], huge, T))
                norm = tl.sqrt(c * get(total))
                limit -= tl.where(far, tl.zeros([R], T), tl.full([R], step, T))
                if TIGHT:
                    outside = (gap(c, total) > most) == 0
                else:
                    outside = norm > most
                near = far | (near & outside & (norm < infinity))
                ratio = tl.where(far, 1 / tl.sqrt(tl.where(far, c, 1)), limit)
                shrink = tl.where(near, shrink * (ratio / tl.where(far, top, tl.where(near, norm, 1))), shrink)
                tries += 1
        for i in range(0, d, D):
            mask = live[:, None] & (col + i < d)[None, :]
            out = COMBINE(_load(xs, x_strides, row, col + i, mask, T), weights)
            for k in tl.static_range(len(ys)):
                y = out[k]
                if INSIDE and k == 0:
                    y = y * shrink[:, None]
                if Y_SUM[k]:
                    tl.store(ys[k] + pid * d + col + i, tl.sum(tl.where(mask, y, 0), 0), col + i < d)
                else:
                    at = ys[k] + row[:, None] * d + (col + i)[None, :]
                    tl.store(at, _stored(y, at), mask)


@triton.jit
def none(v, w):
    """The combination of an operator without vector outputs."""
    return ()


EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
#: what the plain sums of narrow data may be wrong by: 1 - c|y|^2 must exceed it
GUARD = {torch.float64: 0.0, torch.float32: 2.0**-48, torch.float16: 2.0**-19, torch.bfloat16: 2.0**-19}


#: entries from which on the sum of squares of a row may overflow
HUGE = {torch.float64: 1e150, torch.float32: 1e150, torch.float16: 1e16, torch.bfloat16: 1e16}


def launcher(family, name, dots, solve, combine=none, inside=False, wide=False, constants=None, curved=True):
    """The launcher of an operator, whose shapes are those of the Rust table.

    Parameters
    ----------
    dots : ``(vectors, WIDE) -> inner products``, as `_dots` makes them
    solve : ``(inner products, row numbers) -> (weights, numbers out)``, and with `inside` a third, 1 - c|y|^2
    combine : ``(vectors, weights) -> vectors out``; weights are columns [rows, 1]
    inside : whether output 0 is a point of the ball, kept strictly inside; the operator's last scalar is its margin
    wide : whether data of any width is computed as float64 data is, for numbers that cancel
    constants : ``(dtype, d, *scalars) -> numbers`` that follow the row numbers; without it, the operator's scalars
    curved : whether the last row number is a curvature; it is checked where it is a number of the CPU, and not on the
        GPU, which would have to be waited for (NaN comes of it)
    """
    signature = SIGNATURES[f"{family}.{name}"]
    n, v, rules = len(signature.inputs), signature.vectors, signature.rules
    vectors = [rule == "rows" or (isinstance(rule, int) and rule < v) for rule in rules]

    def launch(*args):
        xs, cs, out = args[:v], args[v:n], args[n : n + len(rules)]
        scalars = args[n + len(rules) :]
        dtype = xs[0].dtype
        rows, d = _shape(signature, xs, cs)
        by_value = tuple(c.device.type == "cpu" and c.ndim == 0 for c in cs)
        if curved and by_value[-1] and not 0 <= float(cs[-1]) < math.inf:
            raise ValueError(f"{name}: curvature must be finite and not negative, got {float(cs[-1])}")
        extra = constants(dtype, d, *scalars) if constants else () if inside else scalars
        compensated = wide or dtype == torch.float64
        work = torch.float64 if wide or dtype in (torch.float64, torch.float32) else torch.float32
        sums = any(long and y.numel() != rows * d for long, y in zip(vectors, out, strict=True))
        # what a program holds in registers: fewer elements where they are wide, or of many vectors and in two parts
        elements = (1024 if work == torch.float64 else 2048) >> (compensated and v > 2)
        tile = _tile(rows, d, elements, sums)
        programs = triton.cdiv(rows, tile[0])
        ys, ns, summed = [], [], []
        for long, y in zip(vectors, out, strict=True):
            if y.numel() != (rows * d if long else rows):
                summed.append((y, y.new_empty((programs, d) if long else (programs,), dtype=work)))
                y = summed[-1][1]
            (ys if long else ns).append(y)
        keep = 1 - (margin(name, dtype, args[-1]) if inside else 0)
        tight = keep == 1
        if programs:
            _walk[(programs,)](
                tuple(xs),
                tuple(0 if _rows(x) != rows else d for x in xs),
                # a number kept on the CPU travels as its bits: a float argument would be rounded to 32 of them
                tuple(xs[0] if value else c for c, value in zip(cs, by_value, strict=True)) + (xs[0],) * len(extra),
                tuple(0 if c.numel() != rows else 1 for c in cs) + (0,) * len(extra),
                tuple(_bits(float(c)) if value else 0 for c, value in zip(cs, by_value, strict=True))
                + tuple(_bits(float(k)) for k in extra),
                tuple(ys),
                tuple(ns),
                rows,
                d,
                1 - keep**2 + 8 * EPS[dtype],
                keep,
                EPS[dtype] / 2 if tight else 0.0,
                GUARD[dtype] if tight else keep * (1 + EPS[dtype]),
                HUGE[dtype],
                DOTS=dots,
                SOLVE=solve,
                COMBINE=combine,
                BY_VALUE=by_value + (True,) * len(extra),
                Y_SUM=tuple(any(y is s for _, s in summed) for y in ys),
                N_SUM=tuple(any(y is s for _, s in summed) for y in ns),
                INSIDE=inside,
                TIGHT=tight,
                WIDE=compensated,
                T=tl.float64 if work == torch.float64 else tl.float32,
                R=tile[0],
                D=tile[1],
                num_warps=4,
                enable_fp_fusion=False,
            )
        for y, parts in summed:
            y.copy_(parts.sum(0).reshape(y.shape))

    launch.__name__ = launch.__qualname__ = name
    launch.__doc__ = f"GPU kernel of `{name}`: inputs, outputs, scalars."
    return launch


def _rows(x):
    return math.prod(x.shape[:-1])


def _shape(signature, xs, cs):
    """Rows and their length, checked: a kernel reads where these say."""
    name, d = signature.name, xs[0].shape[-1]
    rows = 1
    for k, x in zip(signature.inputs, xs, strict=False):
        if x.dtype not in EPS or not signature.fits(k, dtype_name(x.dtype), dtype_name(xs[0].dtype)):
            raise TypeError(f"{name}: arrays of {xs[0].dtype} and {x.dtype} in one call")
        own = _rows(x)
        if x.shape[-1] != d or (own != rows and 1 not in (own, rows)):
            raise ValueError(f"{name}: shapes {tuple(xs[0].shape)} and {tuple(x.shape)} do not go together")
        rows = own if rows == 1 else rows
    for c in cs:
        if c.numel() not in (1, rows):
            raise ValueError(f"{name}: one number or one per row ({rows}), got {c.numel()}")
    return rows, d


def _tile(rows, d, elements, sums):
    """Rows and columns of a program; where sums over its rows go to memory, enough rows to make those few."""
    columns = min(triton.next_power_of_2(max(d, 1)), elements // 8 if sums else elements)
    return min(elements // columns, 64, triton.next_power_of_2(max(rows, 1))), columns


def _bits(value):
    return struct.unpack("<q", struct.pack("<d", value))[0]


def margin(name, dtype, eps):
    """How far inside results stay, from the scalar `eps`: 0 is tight, negative is compat."""
    if eps >= 1:
        raise ValueError(f"{name}: eps must be below 1, got {eps}")
    return eps if eps >= 0 else 1e-5 if dtype == torch.float64 else 4e-3
