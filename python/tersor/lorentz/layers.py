"""Means and linear maps of the hyperboloid. The one rule: time follows from space, so nothing leaves the model."""

from __future__ import annotations

from typing import Any

from tersor import hyperbolic
from tersor._reference import Array, dot, rounded, sinh_root, wide, xp
from tersor.lorentz._space import check_same, time
from tersor.lorentz.convert import ball_of, from_poincare
from tersor.lorentz.distance import dist


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
        Differentiable, twice too, with respect to x, weights and c.

    Raises
    ------
    TypeError, ValueError
        If weights are not of the type of x, c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    Through the ball, in float64 (see `tersor.hyperbolic.weighted_midpoint`), which leaves 16 digits less those of
    :math:`e^{\sqrt c\rho}`: all that float32 shows up to :math:`\sqrt c\rho = 18`. float64 data has the length of the result
    corrected, by its distances to the points: with :math:`N = \sum_i w_is_i` and any a along N,
    :math:`\cosh\delta\,N/\sum_i w_i\cosh\sqrt c\,d(a, s_i)`, where δ is what is between a and the midpoint. That is right for
    weights that are not negative up to :math:`\sqrt c\rho = 18`, where a is no more along N than float64 can say, and loses
    :math:`e^{2(\sqrt c\rho - 18)}` beyond; the gradients are those of the ball.
    """
    if weights is not None:
        check_same("midpoint", x, weights=weights)
    s = wide(x)
    w: Any = None if weights is None else wide(weights)
    y = from_poincare(hyperbolic.weighted_midpoint(ball_of(s, c), w, c, reducedim=[-2]), c)
    if x.dtype.itemsize < 8:
        return rounded(y, x)
    fixed = [a.detach() if hasattr(a, "detach") else a for a in (s, w, c, y)]
    return y + (_lengthened(*fixed) - fixed[-1])


def _lengthened(s: Array, w: Array | None, c: Any, guess: Array) -> Array:
    """The midpoint from one near it; that one where weights have no midpoint."""
    w = xp.ones_like(s[..., :1].sum(-1)) if w is None else w
    total = (w[..., None] * s).sum(-2)
    square = dot(total, total)
    # the point a = κN, and C = Σ w cosh: with e = tanh δ, 1/R = cosh δ/C
    part = dot(guess, total) / xp.where(square > 0, square, 1.0)
    a = part * total
    z = c * dist(a[..., None, :], s, c, keepdim=True) ** 2
    half = sinh_root(z / 4)
    height = (w[..., None] * (1 + z / 2 * half * half)).sum(-2)
    fine = height != 0
    per = 1 / xp.where(fine, height, 1.0)
    rest = 1 - c * square * (per - part) ** 2 / (1 + c * square * part**2)
    fine = fine & (rest > 0)
    return xp.where(fine, total * per / xp.sqrt(xp.where(fine, rest, 1.0)), guess)


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
    TypeError
        If arrays are not of one float type.
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
    return rounded(y if bias is None else y + bias, x)  # NumPy multiplies bfloat16 to float32
