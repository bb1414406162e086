"""Busemann functions, whose level sets are horospheres. The one rule: near an ideal point distance and direction are taken
apart, since what is left between a point and the edge has no digits in their difference."""

from __future__ import annotations

import math
from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, quiet, rounded, wide, xp
from tersor.hyperbolic.conformal import lambda_x


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


@along("x", "p")
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
    busemann(y, p)``. In float64, with :math:`\|p - \sqrt cx\|^2 = (1 - r)^2 + r\|p - \hat x\|^2`, :math:`r = \sqrt c\|x\|` and
    :math:`1 - r = (1 - r^2)/(1 + r)`.
    Ghadimi Atigh, Keller-Ressel, Mettes, "Hyperbolic Busemann Learning with Ideal Prototypes" (2021).
    """
    s, q = wide(x), unit(wide(p))
    edge = 2 / lambda_x(s, c, keepdim=True)
    xx, toward = dot(s, s), dot(s, q)
    r2 = c * xx
    far = r2 > 0.25
    r = xp.sqrt(xp.where(far, r2, 1.0))
    turn, gap = q - s / xp.sqrt(xp.where(far, xx, 1.0)), edge / (1 + r)
    k = xp.where(r2 == 0, 0.0, xp.where(r2 == 0, 1.0, c + 0 * r2) ** 0.5)
    y = rounded(level((gap * gap + r * dot(turn, turn)) / edge, 2 * (k * xx - toward) / edge, c, far), x)
    return y if keepdim else y[..., 0]
