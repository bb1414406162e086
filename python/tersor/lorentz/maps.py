"""Exponential and logarithmic maps of the hyperboloid. The one rule: a tangent is its space part, as a point is."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._reference import Array, arsinh_root, dot, root, rounded, sinh_root, wide, xp
from tersor.lorentz._space import arsinh_of, check_same, checked, reach, root_of, shortened
from tersor.lorentz.distance import dist
from tersor.lorentz.transport import to_origin


@along("v")
def expmap0(v: Array, c: Any = 1.0, *, dim: int = -1, clip: bool = False) -> Array:
    r"""Exponential map at the origin, :math:`s = \frac{\sinh(\sqrt c\,\|v\|)}{\sqrt c\,\|v\|}\,v`.

    Parameters
    ----------
    v : array or tensor [..., d]
        Tangent vectors at the origin, of the length of the way.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives v.
    {dim}
    clip : bool
        Whether vectors too long for the type are cut; else their points are infinite. Space parts then reach to
        :math:`2^{100}` in float32 and bfloat16, :math:`2^{10}` in float16 and :math:`2^{150}` in float64, which are lengths
        of 70.0, 7.6 and 104.7 at c = 1 and leave room for tangent vectors. One that is cut has no gradient along itself.

    Returns
    -------
    {points}

    Raises
    ------
    TypeError, ValueError
        If v is not a float array, or c is negative or not finite.
    """
    u = wide(v)
    if clip:
        most = reach(v)
        u = shortened(u, most * arsinh_root(checked(c) * most**2 + 0 * u[..., :1]))
    return rounded(u * sinh_root(checked(c) * dot(u, u)), v)


@along("x")
def logmap0(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Logarithm at the origin, inverse to `expmap0`: :math:`\frac{\operatorname{arsinh}(\sqrt c\|s\|)}{\sqrt c\|s\|}\,s`.

    Parameters
    ----------
    {x}
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at the origin. Differentiable.

    Raises
    ------
    {refused_rows}
    """
    s = wide(x)
    return rounded(s * arsinh_of(x, s, checked(c)), x)


@along("x", "v")
def expmap(x: Array, v: Array, c: Any = 1.0, *, dim: int = -1, clip: bool = False) -> Array:
    r"""Exponential map at a point, :math:`\cosh(\sqrt c\,n)\,x + \frac{\sinh(\sqrt c\,n)}{\sqrt c\,n}\,v`, n the length of v.

    Parameters
    ----------
    {x}
    v : array or tensor [..., d], of the type of x
        Tangent vectors at x, as their space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives x + v.
    {dim}
    clip : bool
        Whether points too far for the type are brought back along their ray, to where `expmap0` cuts.

    Returns
    -------
    {points}

    Raises
    ------
    {refused}
    """
    check_same("expmap", x, v=v)
    s, u = wide(x), wide(v)
    back = to_origin(s, u, checked(c))
    if clip:  # no two points that are left are farther apart
        most, length = reach(x), root(dot(back, back))
        farthest = 2 * most * arsinh_root(c * most**2 + 0 * s[..., :1])
        factor = xp.where(length > farthest, farthest / xp.where(length > farthest, length, 1.0), 1.0)
        u, back = u * factor, back * factor
    z = c * dot(back, back)
    half = sinh_root(z / 4)
    # cosh r = 1 + 2 sinh²(r/2)
    y = s + s * (z / 2 * half * half) + u * sinh_root(z)
    return rounded(shortened(y, reach(x)) if clip else y, x)


@along("x", "y")
def logmap(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Logarithm at a point, the inverse of `expmap`: with :math:`r = \sqrt c\,d`, :math:`\frac{r}{\sinh r}(y - \cosh(r)\,x)`.

    Parameters
    ----------
    x, y : array or tensor [..., d], of one type
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives y - x.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at x, as their space parts. Differentiable.

    Raises
    ------
    {refused}
    """
    check_same("logmap", x, y=y)
    s, r = wide(x), wide(y)
    d = dist(s, r, checked(c), keepdim=True)
    z = c * d * d
    half = sinh_root(z / 4)
    return rounded((r - s - s * (z / 2 * half * half)) / sinh_root(z), x)


@along("x", "y")
def gyro_add(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Gyrovector addition, y moved along with the origin to x: :math:`y + \left(\tau_y + \frac{c\langle x, y\rangle}{1 +
    \tau_x}\right)x`, :math:`\tau = \sqrt{1 + c\|s\|^2}`.

    Parameters
    ----------
    x, y : array or tensor [..., d], of one type
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives x + y.
    {dim}

    Returns
    -------
    {points}

    Raises
    ------
    {refused}

    Notes
    -----
    The Möbius addition of the ball's points (`tersor.hyperbolic.mobius_add`), and a Lorentz boost of y by x. Where y is next
    to -x the sum loses :math:`e^{2\sqrt c\rho}` of the digits of float64. Ungar (2008).
    """
    check_same("gyro_add", x, y=y)
    s, r = wide(x), wide(y)
    return rounded(r + s * (root_of(r, checked(c)) + c * dot(s, r) / (1 + root_of(s, c))), x)


@along("x", "y")
def geodesic(t: Any, x: Array, y: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    """The point at t on the geodesic from x (t = 0) to y (t = 1).

    Parameters
    ----------
    t : float, or array [..., 1]
        Where on the way.
    x, y : array or tensor [..., d], of one type
        Points.
    {c}
    {dim}

    Returns
    -------
    {points}

    Raises
    ------
    {refused}
    """
    check_same("geodesic", x, y=y)
    s = wide(x)
    return rounded(expmap(s, logmap(s, wide(y), c) * t, c), x)
