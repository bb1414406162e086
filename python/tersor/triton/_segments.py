"""What adds up over segments on a GPU: moments, sums, counts. The rule: a sum that leaves the range on its way, but not in the
end, is found.
"""

import torch
import triton
import triton.language as tl

from tersor.triton._math import two_sum
from tersor.triton._pieces import _join, _piece, _place, _room, _step, _walk, _weight

#: more than there are numbers in any array
FAR = 2.0**64


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


def whole(r, x, kind):
    """Sums of integers, or numbers of elements."""
    found = _room(r, x, 1, torch.int64)
    _walk(_whole, r, (x,), (found,), KIND=kind)
    return found[0].sum(1)
