"""What is found of segments on a GPU by the largest or least of them. The rule: of equals the first is taken,
NaN before all."""

import torch
import triton
import triton.language as tl

from tersor.triton._pieces import _join, _piece, _room, _step, _walk
from tersor.triton._rows import _stored


@triton.jit
def _wide(v):
    """In a type that holds it and that comparisons keep."""
    if v.dtype == tl.bfloat16 or v.dtype == tl.float16:
        return v.to(tl.float32)
    elif v.dtype.is_int():
        return v.to(tl.int64)
    else:
        return v


@triton.jit
def _ahead(x, y, LARGEST: tl.constexpr):
    if LARGEST:
        return x > y
    else:
        return x < y


@triton.jit
def _extreme(
    x,
    order,
    starts,
    none,
    best,  # [count, pieces] of x's type
    places,  # the same, int64, -1 where there is none
    count,
    inner,
    pieces,
    LARGEST: tl.constexpr,
    LISTED: tl.constexpr,
    D: tl.constexpr,
):
    s, p, start, low, high = _piece(starts, pieces)
    end = _wide(tl.load(none))
    top = end
    where = tl.full([], -1, tl.int64)
    lost = tl.full([], 0, tl.int1)
    for at in range(low, high, D):
        mask, place = _step(order, s, start, at, high, count, inner, LISTED, D)
        v = _wide(tl.load(x + place, mask, 0))
        nan = mask & (v != v)
        v = tl.where(mask & (v == v), v, end)
        m = tl.max(v, 0) if LARGEST else tl.min(v, 0)
        far = 9223372036854775807
        first = tl.min(tl.where(mask & (v == m), place, far), 0)
        first_nan = tl.min(tl.where(nan, place, far), 0)
        some_nan = first_nan < far
        better = (~lost) & (_ahead(m, top, LARGEST) | (where < 0))
        fresh_nan = (~lost) & some_nan
        top = tl.where(better, m, top)
        where = tl.where(fresh_nan, first_nan, tl.where(better, first, where))
        lost = lost | some_nan
    at = s * pieces + p
    # where NaN was met it is read again at its place
    if lost:
        tl.store(best + at, tl.load(x + where))
    else:
        tl.store(best + at, top.to(best.dtype.element_ty))
    tl.store(places + at, where)


@triton.jit
def _join_extreme(best, places, y, where, none, count, pieces, LARGEST: tl.constexpr, D: tl.constexpr):
    s = tl.program_id(0).to(tl.int64) * D + tl.arange(0, D)
    live = s < count
    end = _wide(tl.load(none))
    top = tl.zeros([D], end.dtype) + end
    at = tl.full([D], -1, tl.int64)
    lost = tl.full([D], 0, tl.int1)
    for p in range(pieces):
        v = _wide(tl.load(best + s * pieces + p, live, 0))
        place = tl.load(places + s * pieces + p, live, -1)
        nan = v != v
        better = (place >= 0) & (~lost) & (nan | _ahead(v, top, LARGEST) | (at < 0))
        top = tl.where(better, v, top)
        at = tl.where(better, place, at)
        lost = lost | (nan & (place >= 0))
    tl.store(y + s, top.to(y.dtype.element_ty), live)
    tl.store(where + s, at, live)


@triton.jit
def _exponents(
    x,
    order,
    starts,
    found,  # [2, count, pieces]: the largest, and the sum of exponentials about it
    count,
    inner,
    pieces,
    LISTED: tl.constexpr,
    D: tl.constexpr,
):
    s, p, start, low, high = _piece(starts, pieces)
    top = tl.zeros([], tl.float64) - float("inf")
    for at in range(low, high, D):
        mask, place = _step(order, s, start, at, high, count, inner, LISTED, D)
        v = tl.load(x + place, mask, 0.0).to(tl.float64)
        top = tl.maximum(top, tl.max(tl.where(mask & (v == v), v, -float("inf")), 0))
    still = tl.where(tl.abs(top) < float("inf"), top, 0)
    total = tl.zeros([D], tl.float64)
    for at in range(low, high, D):
        mask, place = _step(order, s, start, at, high, count, inner, LISTED, D)
        v = tl.load(x + place, mask, 0.0).to(tl.float64)
        total += tl.where(mask, tl.exp(v - still), 0)
    at = found + s * pieces + p
    tl.store(at, still)
    tl.store(at + count * pieces, tl.sum(total, 0))


@triton.jit
def _join_exponents(found, y, wide, count, pieces, D: tl.constexpr):
    s = tl.program_id(0).to(tl.int64) * D + tl.arange(0, D)
    live = s < count
    top = tl.zeros([D], tl.float64) - float("inf")
    for p in range(pieces):
        at = found + s * pieces + p
        # an empty sum has no largest
        there = tl.load(at + count * pieces, live, 0.0) != 0
        top = tl.maximum(top, tl.where(there, tl.load(at, live, 0.0), -float("inf")))
    still = tl.where(tl.abs(top) < float("inf"), top, 0)
    total = tl.zeros([D], tl.float64)
    for p in range(pieces):
        at = found + s * pieces + p
        e = tl.load(at + count * pieces, live, 0.0)
        total += tl.where(e != 0, e * tl.exp(tl.load(at, live, 0.0) - still), 0)
    none = total == 0
    out = tl.where(none, -float("inf"), still + tl.log(tl.where(none, 1, total)))
    tl.store(y + s, _stored(out, y), live)
    tl.store(wide + s, out, live)


def extreme(r, x, largest, y, places):
    """The largest or least of segments and the first place of it, NaN before all; infinite and -1 of none."""
    end = (torch.finfo if x.is_floating_point() else torch.iinfo)(x.dtype)
    none = -torch.inf if largest else torch.inf
    if not x.is_floating_point():
        none = end.min if largest else end.max
    none = x.new_full((1,), none)
    best, first = _room(r, x, 1, x.dtype), _room(r, x, 1, torch.int64)
    _walk(_extreme, r, (x,), (none, best, first), LARGEST=largest)
    _join(_join_extreme, r, best, first, y, places, none, LARGEST=largest)


def logsumexp(r, x, y, total):
    """The logarithms of sums of exponentials of segments, and the same in float64."""
    found = _room(r, x, 2)
    _walk(_exponents, r, (x,), (found,))
    _join(_join_exponents, r, found, y, total)
