r"""Entailment cones as one operator. The one rule: what two points are to each other is four numbers, of which none is a
difference of large ones.

On the hyperboloid x is at :math:`(\tau, n)` along its ray, y at (p, a) along and across it; the geodesic to y leaves x along
:math:`b = \tau_xp - \tau_yn` and across a. A row of the ball is at :math:`n = \lambda\|x\|`, :math:`\tau = \lambda - 1`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tersor._op import op
from tersor._reference import Array, dot, gap, like, root, xp
from tersor._sample import Draw, Rows


def _sample(*kinds: str) -> Any:
    """Rows of some length: a gradient grows as points come to the origin, and small types have no such numbers;
    of two numbers or more: the cones of a line have a kink everywhere."""
    rows = Rows(*kinds)
    return lambda draw: rows(
        Draw(draw.seed, draw.dtype, draw.lead, max(draw.d, 2), max(draw.scale, 0.1), draw.c, draw.c_rows)
    )


class _Seen(NamedTuple):
    """Two points; `r`, `ahead` and `across` are lengths of the rows themselves, `ray` and `way` vectors."""

    factors: tuple[Array, Array]
    times: tuple[Array, Array]
    ray: Array
    way: Array
    r: Array
    ahead: Array
    across: Array
    n: Array
    p: Array
    a: Array
    b: Array
    step: Array


def _seen(x: Array, y: Array, c: Any, space: bool) -> _Seen:
    xx, yy, delta = dot(x, x), dot(y, y), y - x
    r = root(xx)
    ray = x / xp.where(xx > 0, r, 1.0)
    ahead = dot(delta, ray)
    aside = delta - ahead * ray
    across = root(dot(aside, aside))
    way = aside / xp.where(across > 0, across, 1.0)
    if space:
        times = (xp.sqrt(1 + c * xx), xp.sqrt(1 + c * yy))
        factors = (1 + 0 * xx, 1 + 0 * yy)
        step, p = ahead, r + ahead
        near, far = times[0] * p, times[1] * r
        whole = xp.where(p > 0, near + far, 1.0)
        b = xp.where(p > 0, (step * (p + r) - c * xx * across**2) / xp.where(whole > 0, whole, 1.0), near - far)
    else:
        factors = (2 / gap(c, xx), 2 / gap(c, yy))
        times = (factors[0] - 1, factors[1] - 1)
        q = dot(delta, delta)
        step = factors[1] * (ahead + r * factors[0] * c * dot(delta, x + y) / 2)
        b = factors[1] * (ahead - c * q * r * factors[0] / 2)
    n, p, a = factors[0] * r, factors[1] * (r + ahead), factors[1] * across
    return _Seen(factors, times, ray, way, r, ahead, across, n, p, a, b, step)


def _lean(n: Array, c: Any, k: float) -> tuple[Array, Array]:
    """2K over the root of c n², where that is below 1 and else 0; and where it is not."""
    z = c * n * n
    below = z > 4 * k * k
    return xp.where(below, 2 * k / xp.sqrt(xp.where(below, z, 1.0)), 0.0 * z), ~below & (k > 0)


def _loss(seen: _Seen, c: Any, k: float) -> Array:
    lean, whole = _lean(seen.n, c, k)
    half = xp.where(whole, math.pi / 2, xp.arcsin(lean))
    loss = xp.arctan2(seen.a, seen.b) - half
    loss = xp.where(loss < 0, 0.0, loss)
    return xp.where(seen.r == 0, 0 * seen.times[1], loss)


@op(sample=_sample("ball", "ball"))
def _entail(
    x: Array, y: Array, c: Any = 1.0, k: float = 0.1, space: bool = False, *, dim: int = -1, keepdim: bool = False
) -> Array:
    """The exterior angle less the half aperture, where that is positive; k = 0 for the angle itself."""
    return _loss(_seen(x, y, c, space), c, k)[..., 0]


@op(sample=_sample("ball", "ball", "row"), tensors=True)
def entail_bwd(
    x: Array, y: Array, g: Array, c: Any = 1.0, k: float = 0.1, space: bool = False
) -> tuple[Array, Array, Array]:
    r"""Gradient of `entailment_loss`.

    With :math:`h = a^2 + b^2`, :math:`C = \sqrt{1 + ch}`, :math:`v = 2K/(\sqrt c\,n)`:
    :math:`\partial_n = aC/(h\tau_x) + v/(n\sqrt{1 - v^2})`, :math:`\partial_p = -aC/(h\tau_y)`,
    :math:`\partial_a = (p - n + pch/(1 + C))/(h\tau_y)`; the ray turns with x, which is
    :math:`(a\partial_p - p\partial_a)/n` across;
    :math:`dc = an(pb + a^2\tau_x)/(2\tau_x\tau_yh) + v/(2c\sqrt{1 - v^2})`. Rows of the ball: :math:`\lambda` times that, and
    with m that along x :math:`c\lambda^2mx` and :math:`\lambda^2\|x\|^2m/2`.
    """
    s = _seen(x, y, c, space)
    factors, times, ray, way, r, ahead, across, n, p, a, b, step = s
    lean, _ = _lean(n, c, k)
    loss = _loss(s, c, k)
    open_ = loss > 0
    g = xp.where(open_, g[..., None], 0 * loss)
    h = xp.where(open_, a * a + b * b, 1.0)
    n1, c1 = xp.where(n > 0, n, 1.0), xp.where(lean > 0, c + 0 * lean, 1.0)
    cosh = xp.sqrt(1 + c * h)
    turn, slope = a * cosh / h, lean / xp.sqrt(1 - lean**2)
    by_n, by_p = turn / times[0] + slope / n1, -turn / times[1]
    by_a = xp.where(across > 0, (step + p * c * h / (1 + cosh)) / (h * times[1]), 0.0)
    swing = xp.where(across > 0, (by_p * a - by_a * p) / n1, 0.0)
    dc = a * n * (p * b + a * a * times[0]) / (2 * times[0] * times[1] * h) + slope / (2 * c1)
    dx, dy = by_n * ray + swing * way, by_p * ray + by_a * way
    if not space:
        mx, my = by_n * r * factors[0] ** 2, (by_p * (r + ahead) + by_a * across) * factors[1] ** 2
        dc = dc + (mx * dot(x, x) + my * dot(y, y)) / 2
        dx, dy = factors[0] * dx + c * mx * x, factors[1] * dy + c * my * y
    return g * dx, g * dy, like(g * dc, c)
