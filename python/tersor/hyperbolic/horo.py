"""Busemann functions, whose level sets are horospheres. The one rule: near an ideal point distance and direction are taken
apart, since what is left between a point and the edge has no digits in their difference."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tersor._op import op
from tersor._reference import NEAR, Array, dot, gap, like, quiet, xp
from tersor._sample import Rows


def unit(p: Array) -> Array:
    """Directions of length 1; NaN where there is none."""
    if p.shape[-1]:  # by their largest element where squares are beyond float64
        with quiet(p):
            square, most = dot(p, p), xp.amax(abs(p), -1)[..., None]
        p = p / xp.where(((square < 1e-280) | (square > 1e300)) & (most > 0) & (most < math.inf), most, 1.0)
    return p / xp.sqrt(dot(p, p))


def level(ratio: Array, less: Array, c: Any, far: Array) -> Array:
    r"""What a Busemann function is: :math:`\log(\text{ratio})/\sqrt c`; not far out the ratio is
    :math:`1 + \sqrt c\,\text{less}`, and at c = 0 that is `less`."""
    each = c + 0 * less
    flat = each == 0
    k = xp.where(flat, 1.0, each) ** 0.5
    grown = xp.log1p(xp.where(far, 0.0, k * less))
    return xp.where(flat, less, xp.where(far, xp.log(xp.where(far, ratio, 1.0)), grown) / k)


class _Seen(NamedTuple):
    r"""x as an ideal point sees it: :math:`k = \sqrt c`, :math:`n = 2(k\|x\|^2 - t)`, :math:`t = \langle x, \hat p\rangle`,
    and the ratio :math:`\|\hat p - kx\|^2/\alpha = 1 + kn/\alpha`; how it is made where `far` is, loses nothing near p."""

    unit: Array
    k: Array
    alpha: Array
    t: Array
    less: Array
    ratio: Array
    far: Array


def _seen(x: Array, p: Array, c: Any) -> _Seen:
    q = unit(p)
    xx, t = dot(x, x), dot(x, q)
    alpha, r2 = gap(c, xx), c * xx
    far = r2 > 0.25
    r = xp.sqrt(xp.where(far, r2, 1.0))
    turn, side = q - x / xp.sqrt(xp.where(far, xx, 1.0)), alpha / (1 + r)
    each = c + 0 * xx
    k = xp.where(each == 0, 0.0, xp.where(each == 0, 1.0, each) ** 0.5)
    less = 2 * (k * xx - t) / alpha
    ratio = xp.where(far, (side * side + r * dot(turn, turn)) / alpha, 1 + k * less)
    return _Seen(q, k, alpha, t, less, ratio, far)


@op(sample=Rows("ball", "g"))
def busemann(x: Array, p: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Busemann function of an ideal point, :math:`B_p(x) = \frac{1}{\sqrt c}\log\frac{\|p - \sqrt cx\|^2}{1 - c\|x\|^2}`:
    how much farther x is from p, at infinity, than the origin is.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball.
    p : array like x
        Ideal points, as directions of any length but 0.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`-2\langle p, x\rangle`, without a
        gradient in c.
    dim : int
        The axis of the rows.
    keepdim : bool
        Whether the result keeps that axis, with size 1.

    Returns
    -------
    array or tensor [...]
        0 at the origin, NaN outside the ball. Differentiable.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    The level sets are the horospheres at p, and the signed distance of x from the one through y is ``busemann(x, p) -
    busemann(y, p)``. With :math:`\|p - \sqrt cx\|^2 = (1 - r)^2 + r\|p - \hat x\|^2`, :math:`r = \sqrt c\|x\|` and
    :math:`1 - r = (1 - r^2)/(1 + r)`, near p. float64 points within 1e-8 of it are told from p coordinate by coordinate,
    each difference in twice the precision, so that values and gradients keep their digits; on a GPU points next to p within
    1e-14 of the edge keep 6. About 6 operations per element, any sizes of rows.
    Ghadimi Atigh, Keller-Ressel, Mettes, "Hyperbolic Busemann Learning with Ideal Prototypes" (2021).
    """
    s = _seen(x, p, c)
    return level(s.ratio, s.less, c, s.far)[..., 0]


def _bend(u: Array, ratio: Array) -> Array:
    r""":math:`(\log(1 + u) - u/(1 + u))/u^2`, which is 1/2 at 0."""
    near = abs(u) < NEAR
    s, total = xp.where(near, u, 0.0), 0 * u
    for j in reversed(range(17)):
        total = total * -s + (j + 1) / (j + 2)
    v = xp.where(near, 2.0, ratio)
    return xp.where(near, total, (xp.log(v) - 1 + 1 / v) / xp.where(near, 1.0, u) ** 2)


@op(sample=Rows("ball", "g", "row"), tensors=True)
def busemann_bwd(x: Array, p: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `busemann`, with :math:`v = \alpha(1 + u)`, :math:`u = kn/\alpha`:
    :math:`dx = 2g(k(1/v + 1/\alpha)x - \hat p/v)`, :math:`dp = -\frac{2g}{v\|p\|}(x - t\hat p)`;
    :math:`dc = \frac gk(\|x\|^2/\alpha - \frac{n^2}{2\alpha^2}h(u))` per row, :math:`h(u) = (\log(1 + u) - u/(1 + u))/u^2`.
    """
    s, g = _seen(x, p, c), g[..., None]
    f = 2 * g / (s.alpha * s.ratio)
    dx = s.k * (f + 2 * g / s.alpha) * x - f * s.unit
    dp = f / dot(p, s.unit) * (s.t * s.unit - x)
    dc = g * (dot(x, x) / s.alpha - s.less**2 * _bend(s.k * s.less, s.ratio) / 2)
    return dx, dp, like(xp.where(s.k > 0, dc / xp.where(s.k > 0, s.k, 1.0), 0 * dc), c)
