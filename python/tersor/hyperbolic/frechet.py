"""Fréchet mean and variance: the point with the least mean squared distance, and that mean.

The rule of this file: the mean is found without a graph; its gradient is that of the equation it solves, and never of the way
there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import axes, is_distributed
from tersor._op import broadcast
from tersor._reference import Array, arsinh_root, rounded, wide, xp
from tersor._values import check_dense, check_weights
from tersor.hyperbolic._newton import aligned, descend, each, tangents
from tersor.hyperbolic._weights import even
from tersor.hyperbolic.conformal import lambda_x, project
from tersor.hyperbolic.pairwise import squares


def check_several(who: str, x: Array) -> None:
    """Refuses what is no list of points, one at least."""
    if getattr(x, "ndim", 0) < 2 or x.shape[-2] == 0:
        raise ValueError(f"{who}: x must be [..., N, d] with N > 0, got {getattr(x, 'shape', type(x).__name__)}")


def _arguments(who: str, x: Array, weights: Array | None, c: Any) -> tuple[Array, Array, Any]:
    """Points, normalised weights in float64, and c; all with the leading axes of the means, of which points may have some of
    size 1: they are not spread to their weights."""
    check_several(who, x)
    shape = tuple(x.shape[:-1])
    if weights is not None:
        if getattr(weights, "dtype", None) != x.dtype:
            raise TypeError(f"{who}: weights are {getattr(weights, 'dtype', type(weights).__name__)}, x is {x.dtype}")
        shape = broadcast((tuple(weights.shape), shape)) or ()
        if shape[-1:] != tuple(x.shape[-2:-1]):
            raise ValueError(f"{who}: weights {tuple(weights.shape)} do not broadcast to {tuple(x.shape[:-1])}")
    lead = shape[:-1]
    if axes(c) and (c.shape[-1] != 1 or broadcast((tuple(c.shape[:-1]), lead)) != lead):
        raise ValueError(f"{who}: c must be a number or [..., 1] for means {list(lead)}, got shape {tuple(c.shape)}")
    for name, a in (("x", x), ("weights", weights), ("c", c)):
        if is_distributed(a):  # every step of the descent looks at all points
            check_dense(who, name, a)
    points, c = aligned(wide(x), len(lead) + 2), aligned(c, len(lead) + 1)
    points = xp.where(lambda_x(points, each(c), keepdim=True) > 0, points, np.nan)  # outside is nowhere
    zeros = points[..., :1].sum(-1) * 0  # in the graph, and there for rows of no elements too
    if weights is None:
        return points, zeros + 1 / x.shape[-2], c
    check_weights(who, weights)
    w = even(wide(weights), (-1,)) + zeros
    # by no negative sum: of weights that all are negative a graph could not tell any more
    return points, w / abs(w.sum(axis=-1, keepdims=True)), c


def _squares(points: Array, c: Any, at: Array) -> Array:
    """Squared distances of points to their mean, with all derivatives: `dist` has no second one where a point is the mean."""
    if axes(c) or points.ndim < 3 or points.shape[-3] != 1 or at.shape[-2] == 1:
        u = tangents(points, c, at)
        return 4 * (u * u).sum(axis=-1)
    several = points[..., 0, :, :]  # of which no array of all pairs is made
    m = squares(at, several) * lambda_x(at, c, keepdim=True) * lambda_x(several, c, keepdim=True).swapaxes(-1, -2)
    return m * arsinh_root(c * m / 4) ** 2


def _mean(x: Array, w: Array, c: Any, tol: float = 1e-14, max_iter: int = 100, still: bool = False) -> Array:
    """The mean, in torch's graph; `still`: what is made of it does not change with it to first order."""
    if isinstance(x, np.ndarray):
        return descend(x, w, c, tol, max_iter)
    from tersor.hyperbolic import _implicit

    return _implicit.mean(x, w, c, tol, max_iter, still)


def frechet_mean(
    x: Array,
    weights: Array | None = None,
    c: Any = 1.0,
    eps: float | str = 0.0,
    *,
    tol: float = 1e-14,
    max_iter: int = 100,
) -> Array:
    r"""Weighted Fréchet mean, :math:`\arg\min_\mu \sum_i w_i\,d_c(x_i, \mu)^2`.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points of the ball.
    weights : array or tensor [..., N], or None
        Not negative, of the type of x; only their ratios count. None weighs all alike. Leading axes broadcast with those of x:
        a matrix [M, N] gives M means of the same N points.
    c : float, or array of 0 axes or [..., 1]
        One for all means or one for each. The ball has curvature -c; finite, not negative. c = 0 gives the weighted mean.
    {eps}
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
        If c is negative or not finite, there are no points, or shapes do not broadcast.

    Notes
    -----
    Newton's method in float64 from the `weighted_midpoint`, three to six steps as a rule; in the tangent space at the
    present point the Hessian is :math:`\gamma I + U^\top D U`, one product of matrices. The objective is convex, so there is
    one mean. The gradient is implicit, through the same Hessian, at the cost of one step; so are higher ones. Lou et al.,
    "Differentiating through the Fréchet Mean" (2020), has the gradient; the descent there is of first order.

    By a matrix of weights a step is of M·N·d operations in pieces of 8 MiB, forward and backward, so that no
    array of N·M·d is made but by a c for each mean and by second derivatives.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5]])
    >>> hyperbolic.frechet_mean(x, np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])).round(12) + 0.0
    array([[0. , 0. ],
           [0. , 0.5]])
    """
    if not tol >= 0 or max_iter < 0:
        raise ValueError(f"frechet_mean: tol and max_iter must not be negative, got {tol} and {max_iter}")
    points, w, k = _arguments("frechet_mean", x, weights, c)
    return project(rounded(_mean(points, w, k, tol, max_iter), x), c, eps)


def frechet_variance(x: Array, weights: Array | None = None, c: Any = 1.0, mean: Array | None = None) -> Array:
    r"""Weighted mean of squared distances to a point, :math:`\sum_i w_i\,d_c(x_i, \mu)^2/\sum_i w_i`.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points of the ball.
    weights : array or tensor [..., N], or None
        Not negative, of the type of x; None weighs all alike. Leading axes broadcast with those of x, as in `frechet_mean`.
    c : float, or array of 0 axes or [..., 1]
        One for all means or one for each. The ball has curvature -c; finite, not negative.
    mean : array or tensor [..., d], or None
        The point; None: the `frechet_mean`, at which the variance is least.

    Returns
    -------
    array or tensor [...]
        Differentiable, twice too, with respect to x, weights, c and a mean that was given; at the Fréchet mean it does not
        depend on the point to first order.

    Raises
    ------
    TypeError
        If weights or mean are not of the type of x.
    ValueError
        If c is negative or not finite, there are no points, or shapes do not broadcast.
    """
    points, w, c = _arguments("frechet_variance", x, weights, c)
    if mean is None:
        at = _mean(points, w, c, still=True)
    else:
        if getattr(mean, "dtype", None) != x.dtype:
            raise TypeError(f"frechet_variance: mean is {getattr(mean, 'dtype', type(mean).__name__)}, x is {x.dtype}")
        at = wide(mean)
    return rounded((w * _squares(points, c, at)).sum(axis=-1), x)
