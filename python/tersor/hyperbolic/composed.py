"""Squared distances and the mean of two, of other operators. The one rule: plain array code that NumPy and torch read alike;
gradients flow through the operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._along import along
from tersor._arrays import move
from tersor._reference import Array, arsinh_root, dot, rounded, wide, xp
from tersor.hyperbolic._weights import even
from tersor.hyperbolic.conformal import lambda_x, project
from tersor.hyperbolic.mobius import mobius_add
from tersor.hyperbolic.origin import mobius_scalar_mul


@along("x", "y")
def dist2(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Squared geodesic distance, :math:`d_c(x, y)^2`, with all its derivatives where the points are one too.

    Parameters
    ----------
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`4\|x - y\|^2`.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        NaN where a point lies outside the ball. Differentiable, any number of times: the Hessian at equal points is
        :math:`2\lambda_x^2I`.

    Raises
    ------
    {refused}

    Notes
    -----
    :math:`q\lambda_x\lambda_yS(u)^2` with :math:`q = \|x - y\|^2`, :math:`u = cq\lambda_x\lambda_y/4`,
    :math:`S(u) = \operatorname{arsinh}\sqrt u/\sqrt u`, in float64: smooth, where the square of `dist` has no second derivative
    at equal points, since `dist` has none.
    """
    s, r = wide(x), wide(y)
    way = s - r
    m = dot(way, way) * lambda_x(s, c, keepdim=True) * lambda_x(r, c, keepdim=True)
    edge = m == math.inf  # where the factor is 0
    square = rounded(xp.where(edge, m, m * arsinh_root(c * xp.where(edge, 0.0, m) / 4) ** 2), x)
    return square if keepdim else square[..., 0]


def midpoint(
    xs: Array,
    weights: Array | None,
    c: Any,
    eps: float | str,
    axes: Sequence[int],
    axis: int,
    keepdim: bool,
    lincomb: bool,
    posweight: bool,
) -> Array:
    """`weighted_midpoint` with a curvature that has axes, over `axes`, rows along `axis`.

    Computed in float64 around a first guess: points are moved there by Möbius addition, where nothing cancels, and the
    midpoint back. The midpoint moves with its points, so that the guess has no part in the gradient.
    """
    over = tuple(i if i < axis else i - 1 for i in axes)
    x = wide(move(xs, xs.ndim, axis, -1))
    w = x[..., :1] * 0 + 1
    if weights is not None:
        at = axis - xs.ndim
        spread = np.expand_dims(weights, at) if isinstance(weights, np.ndarray) else weights.unsqueeze(at)
        w = wide(move(spread, spread.ndim, at, -1)) * w
    if posweight:
        turn = (w >= 0) * 2.0 - 1.0
        x, w = x * turn, w * turn
    whole, w = w, even(w, over)

    def mean(points: Array, guess: bool = False) -> Array:
        factor = lambda_x(points, c, keepdim=True)
        total = ((factor - 1) * w).sum(axis=over, keepdims=True)
        v = (factor * w * points).sum(axis=over, keepdims=True) / (total + (total == 0))
        rest = 1 - c * (v * v).sum(axis=-1, keepdims=True)
        height = (rest * (rest > 0)) ** 0.5
        if guess:  # of close points far out no digit of the rest is left, but the bound of the triangle inequality
            least = (w * ((w > 0) * 2 - 1)).sum(axis=over, keepdims=True) / (total + (total == 0))
            height = xp.where(height < least, least, height)
        return v / (1 + height)

    if isinstance(x, np.ndarray):
        guess = project(mean(x, True), c)
    else:
        import torch

        with torch.no_grad():
            guess = project(mean(x, True), c)
    # far out the mean rounds onto the edge, which is no point
    y = mobius_add(guess, project(mean(mobius_add(-guess, x, c)), c), c)
    if lincomb:
        y = mobius_scalar_mul(whole.sum(axis=over, keepdims=True), y, c)
    y = move(project(rounded(y, xs), c, eps), xs.ndim, -1, axis)
    if keepdim:
        return y
    for i in reversed(axes):
        y = y.squeeze(i)
    return y
