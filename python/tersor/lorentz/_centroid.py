r"""The sum of points, brought back to the hyperboloid. The one rule: points are taken apart by what is along the longest of
them and what is across, which for a point on its ray is nothing at all, so that no digit cancels at any radius.

With any direction, :math:`R^2 = T^2 - c\|N\|^2 = (T + \sqrt cN^\parallel)(T - \sqrt cN^\parallel) - c\|N^\perp\|^2`, and
each of the factors is a sum of positive terms, :math:`\tau + \sqrt c|s^\parallel|` and
:math:`(1 + c\|s^\perp\|^2)/(\tau + \sqrt c|s^\parallel|)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import is_tensor
from tersor._reference import Array, dot, root, xp
from tersor.hyperbolic._groups import _added
from tersor.lorentz._space import root_of

#: by which Veltkamp splits a number of float64 into two halves
SPLIT = 2.0**27 + 1


class Members(NamedTuple):
    """How points become sums: `fold` adds what is of one, `spread` gives it back to its points, `longest` is the point of each
    with the largest of some numbers [..., 1]."""

    fold: Callable[[Array], Array]
    spread: Callable[[Array], Array]
    longest: Callable[[Array, Array], Array]


def _taken(x: Array, at: Array, axis: int) -> Array:
    return np.take_along_axis(x, at, axis) if isinstance(x, np.ndarray) else x.take_along_dim(at, axis)


def _longest(s: Array, size: Array) -> Array:
    return _taken(s, size.argmax(-2)[..., None], -2)[..., 0, :]


#: sums over the axis before the last
ROWS = Members(lambda v: v.sum(-2), lambda v: v[..., None, :], _longest)


def lists(n: int, group: Array) -> Members:
    """Sums of rows into `n` groups, each row into its `group`."""

    def longest(s: Array, size: Array) -> Array:
        size = size[:, 0]
        if isinstance(s, np.ndarray):
            most, at = np.full(n, -1.0), np.full(n, len(s))
            np.maximum.at(most, group, size)
            np.minimum.at(at, group, np.where(size == most[group], np.arange(len(s)), len(s)))
            return s[np.minimum(at, len(s) - 1)]
        most = size.new_full((n,), -1.0).scatter_reduce(0, group, size, "amax")
        rows = (0 * group + 1).cumsum(0) - 1
        last = rows.new_full((n,), len(s) - 1)
        return s[last.scatter_reduce(0, group, rows.where(size == most[group], last[:1]), "amin")]

    return Members(lambda v: _added(n, group, v), lambda v: v[group], longest)


def _halves(a: Array) -> tuple[Array, Array]:
    big = SPLIT * a
    high = big - (big - a)
    return high, a - high


def _lost(a: Array, b: Array, product: Array) -> Array:
    """What rounding took from a product (Dekker)."""
    (ah, al), (bh, bl) = _halves(a), _halves(b)
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl


def _across(s: Array, a: Array) -> Array:
    """What is left of s where a multiple of a is taken from it; exactly nothing for a multiple."""
    pivot = abs(a).argmax(-1)[..., None]
    p, q = _taken(a, pivot, -1), _taken(s, pivot, -1)
    one, other = s * p, q * a
    rest = one - other
    fixed = [v.detach() if is_tensor(v) else v for v in (s, p, one, q, a, other)]
    lost = _lost(*fixed[:3]) - _lost(*fixed[3:])
    return (rest + lost) / xp.where(p == 0, 1.0, p)


def centroid(s: Array, w: Array, c: Any, each: Any, members: Members, loss: float) -> Array:
    """N/R of points s with weights w [..., 1], at curvatures c of the sums and `each` of the points; 0 where all weights are.
    R² is the plain difference where no more than `loss` cancels."""
    fold, spread, longest = members
    if 0 in s.shape[-2:]:
        return fold(w * s)
    tau = root_of(s, each)
    total, time = fold(w * s), fold(w * tau)
    plain = time * time - c * dot(total, total)
    fixed, size = (v.detach() if is_tensor(v) else v for v in (s, w * w * dot(s, s)))
    a = longest(fixed, size)
    square = dot(a, a)
    # what of a flat space or of the origin there is to take apart
    close = (c * square == 0) | (plain >= time * time / loss)
    k = xp.where(close, 1.0, c + 0 * plain) ** 0.5
    way = a / xp.where(square > 0, square, 1.0) ** 0.5
    each_way, each_k = spread(way), spread(k)
    along = dot(each_way, s)
    across = _across(s, spread(a))
    across = across - dot(across, each_way) * each_way
    ahead = tau + each_k * abs(along)
    behind = (1 + each_k**2 * dot(across, across)) / ahead
    forward = along > 0
    more, less = xp.where(forward, ahead, behind), xp.where(forward, behind, ahead)
    side = fold(w * across)
    whole = root(xp.where(close, plain, fold(w * more) * fold(w * less) - k * k * dot(side, side)))
    return total / xp.where(whole == 0, 1.0, whole)
