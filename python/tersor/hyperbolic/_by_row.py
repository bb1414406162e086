r"""Distances of all pairs with a curvature for each row of x. The one rule: what the ball of the largest curvature says of y is
what all others need to know, so that no array of N·M·d is made.

:math:`1 - c_i\|y_j\|^2 = (c_0 - c_i)/c_0 + (c_i/c_0)(1 - c_0\|y_j\|^2)` with the largest curvature as :math:`c_0`: positive
terms, where y lies in its ball.
"""

from __future__ import annotations

import math
from typing import Any

from tersor._arrays import is_tensor
from tersor._op import broadcast
from tersor._reference import Array, arsinh_root, dot, root, rounded, wide, xp
from tersor._values import check_curvature
from tersor.hyperbolic.conformal import lambda_x


def _gaps(y: Array, c: Array) -> Array:
    """1 - c|y|^2 of all pairs, NaN where it is negative."""
    fixed = c.detach() if is_tensor(c) else c
    top = xp.amax(fixed) if math.prod(c.shape) else fixed.sum()
    per = 1 / xp.where(top > 0, top, 1.0)
    near = lambda_x(y.detach() if is_tensor(y) else y, top, keepdim=True) > 0
    least = 2 / lambda_x(xp.where(near, y, 0.0), top, keepdim=True)
    sums = (top - c) * per + c * per * least.swapaxes(-1, -2)
    plain = 1 - c * dot(y, y).swapaxes(-1, -2)
    plain = xp.where(plain < 0, math.nan, plain)
    return xp.where((top > 0) & near.swapaxes(-1, -2), sums, plain)


def check_rows(who: str, x: Array, c: Array) -> None:
    """Raises unless c is one for each row of x."""
    rows = (*x.shape[:-1], 1)
    if broadcast((tuple(c.shape), rows)) != rows:
        raise ValueError(
            f"{who}: c must be a number or one for each row of x, {list(rows)}, got shape {tuple(c.shape)}"
        )


def distances(who: str, euclidean: Any, x: Array, y: Array, c: Array) -> Array:
    """All distances; `euclidean` makes those of c = 0."""
    check_rows(who, x, c)
    s, r, c = wide(x), wide(y), wide(check_curvature(who, c))
    way = euclidean(s, r, 0.0)
    m = way * way / 8 * lambda_x(s, c, keepdim=True) / _gaps(r, c)
    return rounded(2 * root(m) * arsinh_root(c * m), x)
