"""Parallel transport on the hyperboloid. The one rule: lengths stay what they are."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, rounded, sinh_root, wide
from tersor.lorentz._space import check_same, checked, root_of
from tersor.lorentz.distance import dist


def to_origin(s: Array, v: Array, c: Any) -> Array:
    tau = root_of(s, c)
    return v - s * (c * dot(s, v) / (tau * (1 + tau)))


@along("x", "y", "v")
def parallel_transport(x: Array, y: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Parallel transport of v from x to y, :math:`v + \frac{c\langle Y, V\rangle}{1 - c\langle X, Y\rangle}(x + y)`.

    Parameters
    ----------
    x, y : array or tensor [..., d]
        Points.
    v : array or tensor [..., d], of the type of x
        Tangent vectors at x, as their space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives v.
    dim : int
        The axis of the rows.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at y, of the same length. Differentiable.

    Raises
    ------
    TypeError, ValueError
        If arrays are not of one float type, c is negative or not finite, or shapes do not broadcast.
    """
    check_same("parallel_transport", x, y=y, v=v)
    s, r, u = wide(x), wide(y), wide(v)
    tx, ty = root_of(s, checked(c)), root_of(r, c)
    # <Y, V> = <r - s, v> - (t_y - t_x)/t_x <s, v>, since <X, V> = 0
    rise = c * dot(r - s, r + s) / ((tx + ty) * tx)
    along = dot(r - s, u) - rise * dot(s, u)
    z = c * dist(s, r, c, keepdim=True) ** 2
    half = sinh_root(z / 4)
    return rounded(u + (s + r) * (c * along / (2 + z / 2 * half * half)), x)


@along("y", "v")
def parallel_transport0(y: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    """Parallel transport of v from the origin to y.

    Parameters
    ----------
    y : array or tensor [..., d]
        Points.
    v : array or tensor [..., d], of the type of y
        Tangent vectors at the origin.
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at y, as their space parts. Differentiable.

    Raises
    ------
    {refused}
    """
    check_same("parallel_transport0", y, v=v)
    s, u = wide(y), wide(v)
    return rounded(u + s * (checked(c) * dot(s, u) / (1 + root_of(s, c))), y)


@along("x", "v")
def parallel_transport0back(x: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    """Parallel transport of v from x to the origin.

    Parameters
    ----------
    {x}
    v : array or tensor [..., d], of the type of x
        Tangent vectors at x, as their space parts.
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at the origin. Differentiable.

    Raises
    ------
    {refused}
    """
    check_same("parallel_transport0back", x, v=v)
    return rounded(to_origin(wide(x), wide(v), checked(c)), x)
