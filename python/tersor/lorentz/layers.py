"""Means and linear maps of the hyperboloid. The one rule: time follows from space, so nothing leaves the model."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._arrays import is_tensor
from tersor._reference import Array, dot, root, rounded, sinh_root, wide, xp
from tersor._values import check_weights
from tersor.hyperbolic._planes import mlr_rows
from tersor.hyperbolic.midpoint import check_matrix, mixed
from tersor.lorentz._space import check_same, checked, root_of, time
from tersor.lorentz.distance import dist


def midpoint(x: Array, weights: Array | None = None, c: Any = 1.0) -> Array:
    r"""Weighted midpoint (centroid), :math:`\sum_i w_iX_i` brought back to the hyperboloid.

    Parameters
    ----------
    x : array or tensor [..., N, d]
        Points.
    weights : array or tensor [..., N], or None
        Not negative, of the type of x. None weighs all alike.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives the weighted mean.

    Returns
    -------
    array or tensor [..., d]
        Differentiable, twice too, with respect to x, weights and c.

    Raises
    ------
    TypeError, ValueError
        If weights are not of the type of x or negative, c is negative or not finite, or shapes do not broadcast.

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
        check_weights("midpoint", weights)
    s = wide(x)
    w = s[..., :1].sum(-1) * 0 + 1 if weights is None else wide(weights)
    y = _centroid(s, w, checked(c))
    if x.dtype.itemsize < 8:
        return rounded(y, x)
    fixed = [a.detach() if is_tensor(a) else a for a in (s, w, c, y)]
    return y + (_lengthened(*fixed) - fixed[-1])


def _centroid(s: Array, w: Array, c: Any) -> Array:
    """N/R."""
    w = w[..., None]
    tau = root_of(s, c)
    total, time = (w * s).sum(-2), (w * tau).sum(-2)
    square = dot(total, total)
    plain = time * time - c * square
    # that is enough near the origin, and at c = 0 all there is
    close = plain >= time * time / 1e4
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
    return total * xp.where(time < 0, -1.0, 1.0) / xp.sqrt(xp.where(whole <= 0, 1.0, whole)) * (1.0 * ~(whole <= 0))


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


def _planes(who: str, x: Array, weight: Array, bias: Array | None, c: Any) -> Array:
    """The signed distances to hyperplanes, times the lengths of their normals: as the ball's are made of its products, with the
    product and the conformal factor in hand."""
    check_same(who, x, weight=weight)
    if weight.ndim != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"{who}: weight must be [o, {x.shape[-1]}], got {tuple(weight.shape)}")
    if bias is not None:
        check_same(who, x, bias=bias)
        if tuple(bias.shape) != (weight.shape[0],):
            raise ValueError(f"{who}: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
    factor = 1 + root_of(wide(x), checked(c))
    w = wide(weight)
    n = root(dot(w, w))[..., 0]
    t = (wide(x) @ w.T) / (2 * factor)
    r = 0 * n if bias is None else wide(bias) / 2
    return mlr_rows(t, factor[..., 0], n / 2, r, c, True)


@along("x")
def mlr(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Logits of a multinomial regression, the signed distances of points to hyperplanes times the lengths of their normals,

    .. math:: y_k = \frac{\|z_k\|}{\sqrt c}\operatorname{arsinh}\left(\sqrt c\,\langle s, \hat z_k\rangle\cosh\sqrt c\,a_k -
        \sqrt{1 + c\|s\|^2}\,\sinh\sqrt c\,a_k\right).

    Parameters
    ----------
    x : array or tensor [..., i]
        Points.
    weight : array or tensor [o, i], of the type of x
        Normals z_k at the origin, as rows.
    bias : array or tensor [o], or None
        The signed distances a_k of the hyperplanes from the origin along their normals.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives :math:`\langle s, z_k\rangle - a_k\|z_k\|`.
    dim : int
        The axis of the rows.

    Returns
    -------
    array or tensor [..., o]
        Numbers. Differentiable, twice too.

    Raises
    ------
    TypeError
        If arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    `tersor.hyperbolic.poincare_mlr` of the same points with half of the normals and of the distances, in float64. Bdeir,
    Schwethelm, Landwehr, "Fully Hyperbolic Convolutional Neural Networks" (2024), theorem 2.
    """
    return rounded(_planes("mlr", x, weight, bias, c), x)


@along("x")
def fc(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Fully connected layer by hyperplanes: the point whose signed distances to those through the origin are the logits of
    `mlr`, :math:`\sinh(\sqrt c\,y_k)/\sqrt c`.

    Parameters
    ----------
    x : array or tensor [..., i]
        Points.
    weight, bias, c, dim
        As `mlr` takes them; the unit matrix without a bias is the identity.

    Returns
    -------
    array or tensor [..., o]
        Points. Differentiable, twice too.

    Raises
    ------
    TypeError
        If arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    `tersor.hyperbolic.poincare_fc` of the same points with half of the normals and of the distances, in float64. Shimizu et
    al., "Hyperbolic neural networks++" (2021), section 3.2.
    """
    y = _planes("fc", x, weight, bias, c)
    return rounded(y * sinh_root(c * y * y), x)


def weighted_midpoint_bmm(x: Array, weights: Array, c: Any = 1.0) -> Array:
    r"""Midpoints of one set of points, one for each row of a matrix of weights.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points.
    weights : array or tensor [..., M, N], of the type of x
        Not negative.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives weighted means.

    Returns
    -------
    array or tensor [..., M, d]
        Differentiable, twice too, with respect to x, weights and c. A row of zeros has the origin.

    Raises
    ------
    TypeError, ValueError
        If weights are not of the type of x, c is negative or not finite, or shapes do not go together.

    Notes
    -----
    :math:`WS/R` with :math:`R^2 = (W\tau)^2 - c\|WS\|^2 \ge (\sum_i w_i)^2`, two products in float64 and no array of N·M·d,
    where `midpoint` wants points spread to [M, N, d]. What cancels in R loses :math:`e^{2\sqrt c\rho}` of the digits of
    float64, so that float32 has its own up to :math:`\sqrt c\rho = 9`; `midpoint` has them at any radius.
    """
    check_same("weighted_midpoint_bmm", x, weights=weights)
    check_matrix("weighted_midpoint_bmm", x, weights)
    s, w = wide(x), wide(weights)
    total, time = mixed(w, s), mixed(w, root_of(s, checked(c)))
    square, least = time * time - c * dot(total, total), w.sum(-1)[..., None] ** 2
    height = root(xp.where(square < least, least, square))
    return rounded(total / xp.where(height == 0, 1.0, height), x)
