"""The ball and the sphere. The one rule: plain array code that NumPy and torch read alike, by the root of the curvature."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._along import along
from tersor._arrays import an_axis, move
from tersor._reference import Array, dot, rounded, wide, xp
from tersor._values import check_curvature
from tersor.hyperbolic.conformal import lambda_x, project


def _root(c: Any, s: Array) -> tuple[Array, Array]:
    """Which rows of `s` are in flat space, and √c of the others."""
    each = c + xp.zeros_like(s[..., :1])
    return each == 0, xp.where(each == 0, 1.0, each) ** 0.5


@along("x")
def antipode(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    """The point opposite to x: -x, for every curvature that is not positive.

    Parameters
    ----------
    x : array or tensor
        Points of the ball.
    c : float, or array of 0 axes or [..., 1]
        Finite, not negative. Taken for the sake of one signature with other spaces; the result does not depend on it.
    dim : int
        As c.

    Returns
    -------
    array or tensor like x
        The negatives.

    Raises
    ------
    TypeError, ValueError
        If x is not a float array with a last axis, or c is negative or not finite.
    """
    check_curvature("antipode", c)
    return -x


def sproj(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Stereographic projection of the hyperboloid to the ball, :math:`x_{1..d}/(1 + \sqrt c\,x_{d+1})`.

    Parameters
    ----------
    x : array or tensor [..., d + 1]
        Points of the hyperboloid :math:`x_{d+1}^2 - \|x_{1..d}\|^2 = 1/c`, the time coordinate last.
    c : float, or array of 0 axes or [..., 1]
        The curvature of both is -c.
    {dim}

    Returns
    -------
    {inside}

    Raises
    ------
    TypeError, ValueError
        As `expmap0`.

    Notes
    -----
    The inverse of `inv_sproj`. At c = 0 the hyperboloid is infinitely far, :math:`\sqrt c\,x_{d+1}` is 1, and the result is
    half the other coordinates.
    """
    an_axis("sproj", dim, x.ndim)
    s = wide(move(x, x.ndim, dim, -1))
    s, time = s[..., :-1], s[..., -1:]
    flat, root = _root(c, s)
    # in flat space from the other coordinates, whose curvature is that of the result
    height = xp.where(flat, (1 + c * dot(s, s)) ** 0.5, root * xp.where(flat, 1.0, time))
    return move(project(rounded(s / (1 + height), x), c), x.ndim, -1, dim)


def inv_sproj(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Inverse stereographic projection, from the ball to the hyperboloid, :math:`(\lambda_xx, (\lambda_x - 1)/\sqrt c)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the ball.
    c : float, or array of 0 axes or [..., 1]
        The curvature of both is -c; at 0 the time coordinate is infinite, and passes no gradient on.
    {dim}

    Returns
    -------
    array or tensor [..., d + 1]
        Points of the hyperboloid, the time coordinate last.

    Raises
    ------
    TypeError, ValueError
        As `expmap0`.

    Notes
    -----
    The inverse of `sproj`.
    """
    an_axis("inv_sproj", dim, x.ndim)
    s = wide(move(x, x.ndim, dim, -1))
    factor = lambda_x(s, c, keepdim=True)
    flat, root = _root(c, s)
    time = xp.where(flat, np.inf, (factor - 1) / root)
    y = xp.concatenate([factor * s, time], -1)
    return move(rounded(y, x), x.ndim, -1, dim)
