"""Fréchet mean and variance on the hyperboloid. The one rule: they are those of the ball, in float64, and NaN where the ball
ends before a point does."""

from __future__ import annotations

import math
from typing import Any

from tersor import hyperbolic
from tersor._reference import Array, rounded, wide, xp
from tersor.hyperbolic.frechet import check_several
from tersor.lorentz._space import check_same, checked, root_of
from tersor.lorentz.convert import from_poincare


def _points(who: str, x: Array, weights: Array | None, c: Any) -> tuple[Array, Array | None]:
    """Points of the ball, and their weights."""
    check_several(who, x)
    if weights is not None:
        check_same(who, x, weights=weights)
        weights = wide(weights)
    s = wide(x)
    tau = root_of(s, checked(c))
    return xp.where(tau < 1e15, s / (1 + tau), math.nan), weights


def frechet_mean(
    x: Array, weights: Array | None = None, c: Any = 1.0, *, tol: float = 1e-14, max_iter: int = 100
) -> Array:
    r"""Weighted Fréchet mean, :math:`\arg\min_\mu \sum_i w_i\,d(x_i, \mu)^2`.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points.
    weights : array or tensor [..., N], or None
        Not negative, of the type of x; only their ratios count. None weighs all alike. Leading axes broadcast with those of x:
        a matrix [M, N] gives M means of the same N points, without an array of N·M·d.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives the weighted mean.
    tol : float
        Descent stops where the gradient is this small beside the root mean square of the distances.
    max_iter : int
        Steps at most.

    Returns
    -------
    array or tensor [..., d]
        Differentiable, twice too, with respect to x, weights and c.

    Raises
    ------
    TypeError
        If weights are not of the type of x.
    ValueError
        If c is negative, not finite or no single number, there are no points, or shapes do not broadcast.

    Notes
    -----
    `tersor.hyperbolic.frechet_mean` of the same points: Newton's method and an implicit gradient. The ball loses
    :math:`e^{\sqrt c\rho}` of the digits of float64, and beyond :math:`\sqrt c\rho = 35` means are NaN.
    """
    y, w = _points("frechet_mean", x, weights, c)
    return rounded(from_poincare(hyperbolic.frechet_mean(y, w, c, tol=tol, max_iter=max_iter), c), x)


def frechet_variance(x: Array, weights: Array | None = None, c: Any = 1.0) -> Array:
    r"""Weighted mean of squared distances to the `frechet_mean`, :math:`\sum_i w_i\,d(x_i, \mu)^2/\sum_i w_i`.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points.
    weights : array or tensor [..., N], or None
        Not negative, of the type of x; None weighs all alike. Leading axes broadcast with those of x, as in `frechet_mean`.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [...]
        Differentiable, twice too, with respect to x, weights and c.

    Raises
    ------
    TypeError
        If weights are not of the type of x.
    ValueError
        If c is negative, not finite or no single number, there are no points, or shapes do not broadcast.
    """
    y, w = _points("frechet_variance", x, weights, c)
    return rounded(hyperbolic.frechet_variance(y, w, c), x)
