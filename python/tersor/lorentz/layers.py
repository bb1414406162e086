"""Means and linear maps of the hyperboloid. The one rule: time follows from space, so nothing leaves the model."""

from __future__ import annotations

from typing import Any

from tersor import hyperbolic
from tersor.hyperbolic._roots import Array
from tersor.hyperbolic.composed import _like, _wide
from tersor.lorentz._space import check_same, time
from tersor.lorentz.convert import ball_of, from_poincare


def midpoint(x: Array, weights: Array | None = None, c: Any = 1.0) -> Array:
    r"""Weighted midpoint (centroid), :math:`\sum_i w_iX_i` brought back to the hyperboloid.

    Parameters
    ----------
    x : array or tensor [..., N, d]
        Points.
    weights : array or tensor [..., N], or None
        Of the type of x. None weighs all alike.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives the weighted mean.

    Returns
    -------
    array or tensor [..., d]
        Differentiable once; see `tersor.hyperbolic.weighted_midpoint`, which does it on the ball in float64.
    """
    if weights is not None:
        check_same("midpoint", x, weights=weights)
    w = None if weights is None else _wide(weights)
    return _like(from_poincare(hyperbolic.weighted_midpoint(ball_of(_wide(x), c), w, c, reducedim=[-2]), c), x)


def linear(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0) -> Array:
    r"""Lorentz linear map: :math:`W\,(t; s) + b`, or :math:`W s + b`, taken as the space part of a point.

    Parameters
    ----------
    x : array or tensor [..., i]
        Points.
    weight : array or tensor [o, i + 1] or [o, i], of the type of x
        With i + 1 columns the first one is for the time.
    bias : array or tensor [o], or None
        Added to the space part.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative; positive where the time takes part.

    Returns
    -------
    array or tensor [..., o]
        Points. Differentiable.

    Raises
    ------
    ValueError
        If weight has neither i nor i + 1 columns.

    Notes
    -----
    Chen et al., "Fully Hyperbolic Neural Networks" (2022), without its scaling of the output.
    """
    check_same("linear", x, weight=weight)
    i = x.shape[-1]
    if weight.ndim != 2 or weight.shape[1] not in (i, i + 1):
        raise ValueError(f"linear: weight must be [o, {i + 1}] or [o, {i}], got {tuple(weight.shape)}")
    y = x @ weight[:, weight.shape[1] - i :].T
    if weight.shape[1] == i + 1:
        y = y + time(x, c) * weight[:, 0]
    return y if bias is None else y + bias
