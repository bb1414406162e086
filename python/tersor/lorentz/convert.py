"""The hyperboloid, the Poincaré ball and the Klein ball. The one rule: each pair is inverse to the last digits."""

from __future__ import annotations

import math
from typing import Any

from tersor import hyperbolic
from tersor._along import along
from tersor._reference import Array, rounded, wide, xp
from tersor.hyperbolic import lambda_x
from tersor.lorentz._space import checked, time, times


@along("x")
def to_poincare(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""The points of the Poincaré ball, :math:`s/(1 + \sqrt c\,t)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the hyperboloid.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. At c = 0 the ball's coordinates are half as long: its metric there is 2.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Strictly inside the ball after rounding. Differentiable.

    Raises
    ------
    {refused_rows}
    """
    s = wide(x)
    return hyperbolic.project(rounded(s / (1 + times(x, s, checked(c))), x), c)


@along("x")
def from_poincare(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""The points of the hyperboloid, :math:`s = \lambda_xx`; the inverse of `to_poincare`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Poincaré ball.
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Points of the hyperboloid. Differentiable.

    Raises
    ------
    {refused_rows}
    """
    y = wide(x)
    return rounded(y * lambda_x(y, c, keepdim=True), x)


@along("x")
def to_klein(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""The points of the Klein ball, :math:`s/(\sqrt c\,t)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the hyperboloid.
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Strictly inside the ball of radius :math:`1/\sqrt c` after rounding. Differentiable.

    Raises
    ------
    {refused_rows}
    """
    s = wide(x)
    return hyperbolic.project(rounded(s / times(x, s, checked(c)), x), c)


@along("x")
def from_klein(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""The points of the hyperboloid, :math:`s = k/\sqrt{1 - c\|k\|^2}`; the inverse of `to_klein`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Klein ball.
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Points of the hyperboloid. Differentiable.

    Raises
    ------
    {refused_rows}
    """
    y = wide(x)
    return rounded(y * (lambda_x(y, c, keepdim=True) / 2) ** 0.5, x)


@along("x")
def poincare_to_klein(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""From the Poincaré to the Klein ball, :math:`2x/(1 + c\|x\|^2)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Poincaré ball.
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Points of the Klein ball, strictly inside after rounding. Differentiable.

    Raises
    ------
    {refused_rows}
    """
    y = wide(x)
    return hyperbolic.project(rounded(y / (1 - 1 / lambda_x(y, checked(c), keepdim=True)), x), c)


@along("x")
def klein_to_poincare(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""From the Klein to the Poincaré ball, :math:`k/(1 + \sqrt{1 - c\|k\|^2})`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Klein ball.
    {c}
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Points of the Poincaré ball, strictly inside after rounding. Differentiable.

    Raises
    ------
    {refused_rows}
    """
    y = wide(x)
    return hyperbolic.project(rounded(y / (1 + (2 / lambda_x(y, c, keepdim=True)) ** 0.5), x), c)


@along("x")
def add_time(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Whole points, the time first, :math:`(\sqrt{1/c + \|s\|^2}, s)`: what geoopt, HyperCore and HyperbolicCV keep.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points, as their space parts: what MERU keeps, whose ``curv`` is c.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c, 1/k of geoopt's and HyperCore's k; at 0 the time is infinite.
    {dim}

    Returns
    -------
    array or tensor [..., d + 1]
        Differentiable.

    Raises
    ------
    {refused_rows}
    """
    whole = [time(x, c), x]
    return xp.concatenate(whole, -1)


@along("x")
def drop_time(x: Array, *, dim: int = -1) -> Array:
    """The space parts of whole points, the inverse of `add_time`.

    Parameters
    ----------
    x : array or tensor [..., d + 1]
        Points, the time first. What the time says beside its sign follows from the rest, and is not looked at.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        NaN where the time is not positive: on the other sheet, or on none. Differentiable.

    Raises
    ------
    TypeError, ValueError
        If x is not a float array with a last axis of 1 or more.
    """
    if x.shape[-1] == 0:
        raise ValueError(f"drop_time: points have a time, got shape {tuple(x.shape)}")
    return rounded(xp.where(x[..., :1] > 0, x[..., 1:], math.nan), x)
