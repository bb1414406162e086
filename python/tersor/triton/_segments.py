"""What is found of segments on a GPU, and what they send back. The rule: pieces of a segment are joined in their order, and
nothing is added by atomics, so that every run gives the same bits.
"""

import torch
import triton
import triton.language as tl

from tersor.triton._math import two_sum
from tersor.triton._rows import _stored
from tersor.triton._runs import TILE

#: more than there are numbers in any array
FAR = 2.0**64
#: what an element of a segment that knows a, b, c, m is sent: w (b + c (x - m)), b alone where c is 0; b exp(x - m);
#: b + c (x - m); a g + w (b + c (x - m)), b alone where c is 0
SLOPE, EXPONENT, STRICT, BESIDE = (tl.constexpr(k) for k in range(4))
#: segments of a program that joins pieces
JOINED = 128


@triton.jit
def _piece(starts, pieces):
    """Which run and piece of it a program takes, where the run begins, and the first and last place of the piece."""
    s, p = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    start = tl.load(starts + s)
    n = tl.load(starts + s + 1) - start
    return s, p, start, start + n * p // pieces, start + n * (p + 1) // pieces


@triton.jit
def _place(order, s, start, i, count, inner, mask, LISTED: tl.constexpr):
    """Where element i of the list is in memory."""
    if LISTED:
        return tl.load(order + i, mask, 0)
    else:
        j = i - start
        return (j // inner * count + s) * inner + j % inner


@triton.jit
def _step(order, s, start, at, high, count, inner, LISTED: tl.constexpr, D: tl.constexpr):
    """Which of the next D elements of a piece there are, and where."""
    i = at + tl.arange(0, D).to(tl.int64)
    mask = i < high
    return mask, _place(order, s, start, i, count, inner, mask, LISTED)


@triton.jit
def _weight(weight, place, mask, WEIGHTED: tl.constexpr):
    if WEIGHTED:
        return tl.load(weight + place, mask, 0.0).to(tl.float64)
    else:
        return tl.where(mask, 1.0, 0.0).to(tl.float64)


@triton.jit
def _moments(
    x,
    weight,
    order,
    starts,
    found,  # [3, count, pieces]: weight, mean, squares about it
    count,
    inner,
    pieces,
    LISTED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    D: tl.constexpr,
):
    s, p, start, low, high = _piece(starts, pieces)
    head = _place(order, s, start, low, count, inner, low < high, LISTED)
    first = tl.load(x + head, low < high, 0.0).to(tl.float64)
    first = tl.where(tl.abs(first) < float("inf"), first, 0)
    total = tl.zeros([D], tl.float64)
    mass = tl.zeros([D], tl.float64)
    for at in range(low, high, D):
        mask, place = _step(order, s, start, at, high, count, inner, LISTED, D)
        w = _weight(weight, place, mask, WEIGHTED)
        v = tl.load(x + place, mask, 0.0).to(tl.float64)
        total += tl.where(mask, w * (v - first), 0)
        mass += w
    n = tl.sum(mass, 0)
    some = n > 0
    m = first + tl.sum(total, 0) / tl.where(some, n, 1)
    squares = tl.zeros([D], tl.float64)
    rest = tl.zeros([D], tl.float64)
    for at in range(low, high, D):
        mask, place = _step(order, s, start, at, high, count, inner, LISTED, D)
        w = _weight(weight, place, mask, WEIGHTED)
        u = tl.where(mask, tl.load(x + place, mask, 0.0).to(tl.float64) - m, 0)
        squares += w * u * u
        rest += w * u
    left, off = tl.sum(squares, 0), tl.sum(rest, 0)
    # from squares that are no numbers nothing is taken
    left = tl.where(tl.abs(left) < float("inf"), left - off * off / tl.where(some, n, 1), left)
    all = count * pieces
    at = found + s * pieces + p
    tl.store(at, n)
    tl.store(at + all, m)
    tl.store(at + 2 * all, left)


@triton.jit
def _join_moments(found, out, count, pieces, D: tl.constexpr):
    """Chan, Golub and LeVeque (1979), piece after piece."""
    s = tl.program_id(0).to(tl.int64) * D + tl.arange(0, D)
    live = s < count
    all = count * pieces
    n = tl.zeros([D], tl.float64)
    m = tl.zeros([D], tl.float64)
    squares = tl.zeros([D], tl.float64)
    for p in range(pieces):
        at = found + s * pieces + p
        n_b = tl.load(at, live, 0.0)
        m_b = tl.load(at + all, live, 0.0)
        s_b = tl.load(at + 2 * all, live, 0.0)
        whole = n + n_b
        share = n_b / tl.where(whole > 0, whole, 1)
        delta = m_b - m
        step = m + delta * share
        # of infinite means the sum, of what is too far apart the parts
        step = tl.where(tl.abs(delta) < float("inf"), step, m * (1 - share) + m_b * share)
        step = tl.where(tl.abs(m) < float("inf"), step, m + m_b)
        both = squares + s_b + tl.where(delta == 0, 0, delta * delta * (n * share))
        fresh = n == 0
        m = tl.where(n_b == 0, m, tl.where(fresh, m_b, tl.where(delta == 0, m, step)))
        squares = tl.where(n_b == 0, squares, tl.where(fresh, s_b, both))
        n = whole
    some = n > 0
    nan = float("nan")
    tl.store(out + s, n, live)
    tl.store(out + count + s, tl.where(some, m, nan), live)
    # what rounding leaves below 0 is none
    v = squares / tl.where(some, n, 1)
    tl.store(out + 2 * count + s, tl.where(some, tl.where(v < 0, 0, v), nan), live)


@triton.jit
def _sums(
    x,
    other,
    means,
    weight,
    order,
    starts,
    found,  # [2 or 4, count, pieces]: sums and what they have rounded away, then those with (other - mean)
    count,
    inner,
    pieces,
    scale: tl.float64,
    LISTED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    PAIRED: tl.constexpr,
    D: tl.constexpr,
):
    s, p, start, low, high = _piece(starts, pieces)
    total = tl.zeros([D], tl.float64)
    error = tl.zeros([D], tl.float64)
    along = tl.zeros([D], tl.float64)
    mean = 0.0
    if PAIRED:
        mean = tl.load(means + s)
    for at in range(low, high, D):
        mask, place = _step(order, s, start, at, high, count, inner, LISTED, D)
        v = tl.load(x + place, mask, 0.0).to(tl.float64) * scale
        if WEIGHTED:
            v = tl.where(mask, v * tl.load(weight + place, mask, 0.0).to(tl.float64), 0)
        if WIDE:
            total, e = two_sum(total, v)
            error += tl.where(tl.abs(total) < float("inf"), e, 0)
        else:
            total += v
        if PAIRED:
            u = tl.load(other + place, mask, 0.0).to(tl.float64) - mean
            along += tl.where(mask, v * u, 0)
    all = count * pieces
    at = found + s * pieces + p
    if WIDE:
        # the leading bits of the lanes add up without error (Rump, Ogita and Oishi, 2008)
        top = 4.0 * D * tl.max(tl.abs(total), 0)
        head = (total + top) - top
        plain = tl.sum(total, 0)
        ordinary = (tl.abs(plain) < float("inf")) & (top < float("inf"))
        tl.store(at, tl.where(ordinary, tl.sum(head, 0), plain))
        tl.store(at + all, tl.where(ordinary, tl.sum((total - head) + error, 0), 0))
    else:
        tl.store(at, tl.sum(total, 0))
        tl.store(at + all, 0.0)
    if PAIRED:
        tl.store(at + 2 * all, tl.sum(along, 0))


@triton.jit
def _join_sums(found, out, count, pieces, D: tl.constexpr):
    s = tl.program_id(0).to(tl.int64) * D + tl.arange(0, D)
    live = s < count
    total = tl.zeros([D], tl.float64)
    error = tl.zeros([D], tl.float64)
    for p in range(pieces):
        at = found + s * pieces + p
        total, e = two_sum(total, tl.load(at, live, 0.0))
        error += tl.where(tl.abs(total) < float("inf"), e, 0) + tl.load(at + count * pieces, live, 0.0)
    tl.store(out + s, tl.where(tl.abs(total) < float("inf"), total + error, total), live)


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


@triton.jit
def _whole(
    x,
    order,
    starts,
    found,
    count,
    inner,
    pieces,
    KIND: tl.constexpr,
    LISTED: tl.constexpr,
    D: tl.constexpr,
):
    s, p, start, low, high = _piece(starts, pieces)
    total = tl.zeros([D], tl.int64)
    for at in range(low, high, D):
        i = at + tl.arange(0, D).to(tl.int64)
        mask = i < high
        if KIND == 1:
            total += mask.to(tl.int64)
        else:
            place = _place(order, s, start, i, count, inner, mask, LISTED)
            total += tl.load(x + place, mask, 0).to(tl.int64)
    tl.store(found + s * pieces + p, tl.sum(total, 0))


@triton.jit
def _send(
    g,
    x,
    weight,
    own,
    first,
    second,
    third,
    mean,
    y,
    n,
    count,
    inner,
    FORM: tl.constexpr,
    OWN: tl.constexpr,
    WEIGHTED: tl.constexpr,
    D: tl.constexpr,
):
    """What segments know, at their elements; 0 at those of none."""
    i = tl.program_id(0).to(tl.int64) * D + tl.arange(0, D)
    live = i < n
    s = tl.load(own + i, live, -1) if OWN else i // inner % count
    some = live & (s >= 0)
    b = tl.load(second + s, some, 0.0)
    c = tl.load(third + s, some, 0.0)
    u = tl.load(x + i, live, 0.0).to(tl.float64) - tl.load(mean + s, some, 0.0)
    if FORM == EXPONENT:
        v = tl.where(b == 0, 0, b * tl.exp(u))
    elif FORM == STRICT:
        v = b + c * u
    else:
        # what does not count may be no number
        v = b + tl.where(c == 0, 0, c * tl.where(u == u, u, 0))
    if WEIGHTED:
        v *= tl.load(weight + i, live, 0.0).to(tl.float64)
    if FORM == BESIDE:
        v += tl.load(first + s, some, 0.0) * tl.load(g + i, live, 0.0).to(tl.float64)
    at = y + i
    tl.store(at, _stored(tl.where(some, v, 0), at), live)


def _walk(kernel, r, ins, outs, *scalars, **constants):
    """A kernel over all pieces of all segments, then."""
    lists = (r.starts if r.order is None else r.order, r.starts)
    if r.count:
        kernel[(r.count, r.pieces)](
            *ins, *lists, *outs, r.count, r.inner, r.pieces, *scalars, **constants, LISTED=r.order is not None, D=r.tile,
            enable_fp_fusion=False,
        )  # fmt: skip


def _join(kernel, r, *args, **constants):
    if r.count:
        grid = (triton.cdiv(r.count, JOINED),)
        kernel[grid](*args, r.count, r.pieces, **constants, D=JOINED, enable_fp_fusion=False)


def _room(r, like, n, dtype=torch.float64):
    return like.new_empty((n, r.count, r.pieces), dtype=dtype)


def moments(r, x, weight):
    """[3, count] float64: weights, means and variances."""
    found, out = _room(r, x, 3), x.new_empty((3, r.count), dtype=torch.float64)
    _walk(_moments, r, (x, x if weight is None else weight), (found,), WEIGHTED=weight is not None)
    _join(_join_moments, r, found, out)
    return out


def sums(r, x, weight=None, other=None, mean=None):
    """Sums of wx, and with `other` those of wx (other - mean): [1 or 2, count] float64."""
    paired, wide = other is not None, x.dtype == torch.float64
    found = _room(r, x, 4 if paired else 2)
    out = x.new_empty((2 if paired else 1, r.count), dtype=torch.float64)
    ins = (x, other if paired else x, mean if paired else x, x if weight is None else weight)

    def run(scale, y):
        constants = {"WEIGHTED": weight is not None, "WIDE": wide, "PAIRED": paired}
        _walk(_sums, r, ins, (found,), scale, **constants)
        _join(_join_sums, r, found, y)

    run(1.0, out[0])
    far = ~out[0].isfinite()
    if wide and bool(far.any()):
        # numbers may leave the range on the way to a sum that lies in it: once more, far below its end
        again = torch.empty_like(out[0])
        run(1 / FAR, again)
        out[0] = torch.where(far, again * FAR, out[0])
    if paired:
        out[1] = found[2].sum(1)
    return out


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


def whole(r, x, kind):
    """Sums of integers, or numbers of elements."""
    found = _room(r, x, 1, torch.int64)
    _walk(_whole, r, (x,), (found,), KIND=kind)
    return found[0].sum(1)


def send(r, x, y, form, tables, weight=None, g=None):
    """To each element of `x` what its segment makes of it."""
    n = x.numel()
    if n:
        a, b, c, m = tables
        _send[(triton.cdiv(n, TILE),)](
            x if g is None else g, x, x if weight is None else weight, r.starts if r.own is None else r.own, a, b, c, m, y, n,
            max(r.count, 1), r.inner, FORM=form, OWN=r.own is not None, WEIGHTED=weight is not None, D=TILE,
            enable_fp_fusion=False,
        )  # fmt: skip
