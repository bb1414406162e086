"""Means and linear maps of the hyperboloid. The one rule: time follows from space, so nothing leaves the model."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, rounded, sinh_root, wide, xp
from tersor.lorentz._space import check_same, checked, root_of, time
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
    :math:`N/R` with :math:`N = \sum_i w_is_i` and :math:`R^2 = T^2 - c\|N\|^2`, :math:`T = \sum_i w_i\tau_i`, of which
    :math:`T - \sqrt c\|N\|` is taken as :math:`\sum_i w_i\frac{1 + c\|s_i^\perp\|^2}{\tau_i + \sqrt cs_i^\parallel}` by what is
    across N and along it: no term cancels where weights are not negative, and float32 data has all its digits at any radius
    that it reaches. float64 data has the length of the result corrected by its distances to the points: with any a along N,
    :math:`\cosh\delta\,N/\sum_i w_i\cosh\sqrt c\,d(a, s_i)`, where δ is what is between a and the midpoint. That is right up to
    :math:`\sqrt c\rho = 18`, where a is no more along N than float64 can say, and loses :math:`e^{2(\sqrt c\rho - 18)}` beyond.
    """
    if weights is not None:
        check_same("midpoint", x, weights=weights)
    s = wide(x)
    w = s[..., :1].sum(-1) * 0 + 1 if weights is None else wide(weights)
    y = _centroid(s, w, checked(c))
    if x.dtype.itemsize < 8:
        return rounded(y, x)
    fixed = [a.detach() if hasattr(a, "detach") else a for a in (s, w, c, y)]
    return y + (_lengthened(*fixed) - fixed[-1])


def _centroid(s: Array, w: Array, c: Any) -> Array:
    """N/R."""
    w = w[..., None]
    tau = root_of(s, c)
    total, time = (w * s).sum(-2), (w * tau).sum(-2)
    square = dot(total, total)
    plain = time * time - c * square
    # that is enough near the origin, and at c = 0 all there is
    close = plain > time * time / 1e4
    k = xp.where(close, 1.0, c + 0 * square) ** 0.5
    norm = xp.sqrt(xp.where(close, 1.0, square))
    way = xp.where(close, 0.0, total) / norm
    along = dot(way[..., None, :], s)
    across = s - along * way[..., None, :]
    k_each = k[..., None, :]
    ahead = tau + k_each * xp.where(along > 0, along, -along)
    # a point behind the origin, as N sees it, has the sum itself
    less = xp.where(along > 0, (1 + k_each**2 * dot(across, across)) / ahead, ahead)
    whole = xp.where(close, plain, (time + k * norm) * (w * less).sum(-2))
    return total * xp.where(time < 0, -1.0, 1.0) / xp.sqrt(xp.where(whole > 0, whole, 1.0)) * (whole > 0)


def _lengthened(s: Array, w: Array, c: Any, guess: Array) -> Array:
    """The midpoint from one near it; that one where weights have no midpoint."""
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


@along("x")
def linear(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0, *, dim: int = -1) -> Array:
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
    dim : int
        The axis of the rows.

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
