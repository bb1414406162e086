"""Busemann functions, whose level sets are horospheres. The one rule: what lies across the way to an ideal point and what lies
along it are taken apart, since their difference has no digits far out."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, rounded, wide, xp
from tersor.hyperbolic.horo import level, unit
from tersor.lorentz._space import checked, root_of


@along("x", "p")
def busemann(x: Array, p: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Busemann function of an ideal point, :math:`B_p(s) = \frac{1}{\sqrt c}\log(\sqrt c\,t - \sqrt c\langle s, p\rangle)`:
    how much farther s is from p, at infinity, than the origin is.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points.
    p : array like x
        Ideal points, as directions of any length but 0.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives :math:`-\langle p, s\rangle`, without a gradient in c.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        0 at the origin. Differentiable.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    See `tersor.hyperbolic.busemann`. In float64, towards p as :math:`(1 + c\|s^\perp\|^2)/(\tau + \sqrt cs^\parallel)`, which
    keeps the digits of float32 data up to a radius of 28 and loses :math:`e^{2(\sqrt c\rho - 28)}` beyond where s lies on p.
    """
    s, q = wide(x), unit(wide(p))
    tau, xx, toward = root_of(s, checked(c)), dot(s, s), dot(s, q)
    across = s - toward * q
    k = xp.where(c * xx == 0, 0.0, xp.where(c * xx == 0, 1.0, c + 0 * xx) ** 0.5)
    ahead = xp.where(toward > 0, toward, -toward)
    ratio = xp.where(toward > 0, (1 + c * dot(across, across)) / (tau + k * ahead), tau + k * ahead)
    y = rounded(level(ratio, k * xx / (1 + tau) - toward, c, c * xx > 0.25), x)
    return y if keepdim else y[..., 0]
