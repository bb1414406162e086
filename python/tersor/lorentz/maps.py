"""Exponential and logarithmic maps of the hyperboloid. The one rule: a tangent is its space part, as a point is."""

from __future__ import annotations

from typing import Any

from tersor._reference import Array, arsinh_root, dot, rounded, sinh_root, wide
from tersor.lorentz._space import check_same, checked
from tersor.lorentz.distance import dist
from tersor.lorentz.transport import to_origin


def expmap0(v: Array, c: Any = 1.0) -> Array:
    r"""Exponential map at the origin, :math:`s = \frac{\sinh(\sqrt c\,\|v\|)}{\sqrt c\,\|v\|}\,v`.

    Parameters
    ----------
    v : array or tensor [..., d]
        Tangent vectors at the origin, of the length of the way.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives v.

    Returns
    -------
    array or tensor [..., d]
        Points. Differentiable.

    Raises
    ------
    TypeError, ValueError
        If v is not a float array, or c is negative or not finite.
    """
    u = wide(v)
    return rounded(u * sinh_root(checked(c) * dot(u, u)), v)


def logmap0(x: Array, c: Any = 1.0) -> Array:
    r"""Logarithm at the origin, inverse to `expmap0`: :math:`\frac{\operatorname{arsinh}(\sqrt c\|s\|)}{\sqrt c\|s\|}\,s`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at the origin. Differentiable.

    Raises
    ------
    TypeError, ValueError
        If x is not a float array, or c is negative or not finite.
    """
    s = wide(x)
    return rounded(s * arsinh_root(checked(c) * dot(s, s)), x)


def expmap(x: Array, v: Array, c: Any = 1.0) -> Array:
    r"""Exponential map at a point, :math:`\cosh(\sqrt c\,n)\,x + \frac{\sinh(\sqrt c\,n)}{\sqrt c\,n}\,v`, n the length of v.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    v : array or tensor [..., d], of the type of x
        Tangent vectors at x, as their space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives x + v.

    Returns
    -------
    array or tensor [..., d]
        Points. Differentiable.

    Raises
    ------
    TypeError, ValueError
        If arrays are not of one float type, c is negative or not finite, or shapes do not broadcast.
    """
    check_same("expmap", x, v=v)
    s, u = wide(x), wide(v)
    back = to_origin(s, u, checked(c))
    z = c * dot(back, back)
    half = sinh_root(z / 4)
    # cosh r = 1 + 2 sinh²(r/2)
    return rounded(s + s * (z / 2 * half * half) + u * sinh_root(z), x)


def logmap(x: Array, y: Array, c: Any = 1.0) -> Array:
    r"""Logarithm at a point, the inverse of `expmap`: with :math:`r = \sqrt c\,d`, :math:`\frac{r}{\sinh r}(y - \cosh(r)\,x)`.

    Parameters
    ----------
    x, y : array or tensor [..., d], of one type
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives y - x.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at x, as their space parts. Differentiable.

    Raises
    ------
    TypeError, ValueError
        If arrays are not of one float type, c is negative or not finite, or shapes do not broadcast.
    """
    check_same("logmap", x, y=y)
    s, r = wide(x), wide(y)
    d = dist(s, r, checked(c), keepdim=True)
    z = c * d * d
    half = sinh_root(z / 4)
    return rounded((r - s - s * (z / 2 * half * half)) / sinh_root(z), x)


def geodesic(t: Any, x: Array, y: Array, c: Any = 1.0) -> Array:
    """The point at t on the geodesic from x (t = 0) to y (t = 1).

    Parameters
    ----------
    t : float, or array [..., 1]
        Where on the way.
    x, y : array or tensor [..., d], of one type
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Points. Differentiable.

    Raises
    ------
    TypeError, ValueError
        If arrays are not of one float type, c is negative or not finite, or shapes do not broadcast.
    """
    check_same("geodesic", x, y=y)
    s = wide(x)
    return rounded(expmap(s, logmap(s, wide(y), c) * t, c), x)
