"""Inner products of a tile's rows, and arithmetic on them. The rule: mathematics is written once, and the data's type
decides whether an inner product is one number or two.

An inner product is a tuple, (v,) or, where sums are kept in twice their precision, (hi, lo) of the value hi + lo: the
counterpart of `Num` in `dd.rs`. `get` rounds it to one number.
"""

import triton
import triton.language as tl

from tersor.triton._math import two_prod, two_sum


@triton.jit
def _normal(h, l):
    """h + l with h its rounded value, for h no smaller than l (Dekker)."""
    t = h + l
    return t, l - (t - h)


@triton.jit
def _reduce(p, e, WIDE: tl.constexpr):
    """Sums over the columns of p + e: the leading bits of p add up without error, whatever the order.

    Rump, Ogita, Oishi (2008), "Accurate floating-point summation I", one step of their ExtractVector.
    """
    if WIDE:
        top = 4.0 * p.shape[1] * tl.max(tl.abs(p), 1)[:, None]
        h = (p + top) - top
        return two_sum(tl.sum(h, 1), tl.sum((p - h) + e, 1))
    else:
        return (tl.sum(p, 1),)


@triton.jit
def dot(a, b, WIDE: tl.constexpr):
    """<a, b>"""
    if WIDE:
        p, e = two_prod(a, b)
        return _reduce(p, e, WIDE)
    else:
        return _reduce(a * b, a, WIDE)


@triton.jit
def dot_sum(a, x, y, WIDE: tl.constexpr):
    """<a, x + y>"""
    if WIDE:
        s, r = two_sum(x, y)
        p, e = two_prod(a, s)
        return _reduce(p, e + a * r, WIDE)
    else:
        return _reduce(a * (x + y), a, WIDE)


@triton.jit
def square_sum(x, y, WIDE: tl.constexpr):
    """|x + y|^2"""
    if WIDE:
        s, r = two_sum(x, y)
        p, e = two_prod(s, s)
        return _reduce(p, e + 2 * s * r, WIDE)
    else:
        return _reduce((x + y) * (x + y), x, WIDE)


@triton.jit
def get(p):
    """As one number."""
    if len(p) == 1:
        return p[0]
    else:
        return p[0] + p[1]


@triton.jit
def add(p, q):
    if len(p) == 1:
        return (p[0] + q[0],)
    else:
        h, r = two_sum(p[0], q[0])
        return _normal(h, r + (p[1] + q[1]))


@triton.jit
def sub(p, q):
    if len(p) == 1:
        return (p[0] - q[0],)
    else:
        h, r = two_sum(p[0], -q[0])
        return _normal(h, r + (p[1] - q[1]))


@triton.jit
def mul(p, q):
    if len(p) == 1:
        return (p[0] * q[0],)
    else:
        h, r = two_prod(p[0], q[0])
        return _normal(h, r + (p[0] * q[1] + p[1] * q[0]))


@triton.jit
def scale(k, p):
    """k p for a number k."""
    if len(p) == 1:
        return (k * p[0],)
    else:
        h, r = two_prod(k, p[0])
        return _normal(h, r + k * p[1])


@triton.jit
def _inside(rest):
    return tl.where(rest < 0, float("nan"), rest)


@triton.jit
def wide_gap(c, p):
    """As `gap`, for sums in which it may cancel."""
    if len(p) == 1:
        return (_inside(1 - c * p[0]),)
    else:
        t, e = two_prod(c, p[0])
        h, r = two_sum(tl.full(t.shape, 1, t.dtype), -t)
        h, r = _normal(h, r - (e + c * p[1]))
        return _inside(h), r


@triton.jit
def gap(c, p):
    """1 - c p with all the digits that p has; NaN where it is negative: such a row is no point of the ball."""
    t, e = two_prod(c, p[0])
    if len(p) == 1:
        return _inside((1 - t) - e)
    else:
        return _inside((1 - t) - (e + c * p[1]))
