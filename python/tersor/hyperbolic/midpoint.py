"""Weighted midpoints over axes. The one rule: one pass over the points, whatever the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import axes
from tersor._reference import Array, dot, root, rounded, wide, xp
from tersor._values import check_values, check_weights
from tersor.hyperbolic import composed
from tersor.hyperbolic._groups import midpoint
from tersor.hyperbolic._weights import even
from tersor.hyperbolic.conformal import lambda_x, project
from tersor.hyperbolic.origin import expmap0, logmap0, mobius_scalar_mul


def number(c: Any) -> bool:
    return axes(c) == 0


def _front(x: Array, order: Sequence[int]) -> Array:
    if list(order) == list(range(x.ndim)):
        return x
    return x.transpose(order) if isinstance(x, np.ndarray) else x.permute(*order)


def weighted_midpoint(
    xs: Array,
    weights: Array | None = None,
    c: Any = 1.0,
    eps: float | str = 0.0,
    *,
    reducedim: Sequence[int] | None = None,
    dim: int = -1,
    keepdim: bool = False,
    lincomb: bool = False,
    posweight: bool = False,
    tangent: bool = False,
) -> Array:
    r"""Weighted midpoint of points (gyromidpoint): the one whose vector on the hyperboloid is the weighted sum of theirs.

    .. math:: m = \tfrac12 \otimes_c \frac{\sum_i w_i\lambda_{x_i}x_i}{\sum_i w_i(\lambda_{x_i} - 1)}

    Parameters
    ----------
    xs : array or tensor [..., d]
        Points of the ball.
    weights : array or tensor, or None
        The shape of xs without `dim`, or one that broadcasts to it; not negative, but with `posweight`. None weighs all
        alike.
    c : float, or array of 0 axes, or one that broadcasts over what is not reduced
        The ball has curvature -c; finite, not negative. c = 0 gives the weighted mean.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.
    reducedim : sequence of int, or None
        The axes over which points are summed; None: all but `dim`.
    dim : int
        The axis of the rows.
    keepdim : bool
        Whether reduced axes stay, with size 1.
    lincomb : bool
        Whether the result is multiplied by the sum of the weights (`mobius_scalar_mul`).
    posweight : bool
        Whether a negative weight counts as its absolute value on the `antipode`.
    tangent : bool
        Whether xs and the result are tangent vectors at 0, which stand for their :math:`\exp_0`. No length is too long then.

    Returns
    -------
    array or tensor
        The midpoints; 0 where all weights are 0. Differentiable, twice too, with respect to xs, weights and c.

    Raises
    ------
    TypeError
        If weights are not of the type of xs.
    ValueError
        If c is negative or not finite, a weight is negative (as far as weights can be looked at: on the CPU, and not in a
        trace), or shapes do not broadcast.

    Notes
    -----
    About 4 operations per element, in float64; float64 data is summed in twice its precision. The gradient needs the
    differences between points and midpoint alone, in which nothing cancels. Ungar, "A Gyrovector Space Approach to
    Hyperbolic Geometry" (2008). A curvature with axes takes a slower way.
    """
    if weights is not None and not posweight:
        check_weights("weighted_midpoint", weights)
    n = xs.ndim
    axis = dim % n
    axes = [i for i in range(n) if i != axis] if reducedim is None else sorted({i % n for i in reducedim})
    if axis in axes:
        raise ValueError(f"weighted_midpoint: reducedim {reducedim} holds dim {dim}")
    if not number(c):
        xs = expmap0(xs, c, dim=axis) if tangent else xs
        y = composed.midpoint(xs, weights, c, eps, axes, axis, keepdim, lincomb, posweight)
        return logmap0(y, c, dim=axis if keepdim else axis - sum(i < axis for i in axes)) if tangent else y
    kept = [i for i in range(n) if i != axis and i not in axes]
    order = [*kept, *axes, axis]
    x = _front(xs, order)
    lead = tuple(x.shape[:-1])
    members = math.prod(lead[len(kept) :])
    w = None
    if weights is not None:
        if getattr(weights, "dtype", None) != xs.dtype:
            raise TypeError(
                f"weighted_midpoint: weights are {getattr(weights, 'dtype', type(weights).__name__)}, xs {xs.dtype}"
            )
        full = tuple(xs.shape[:axis]) + tuple(xs.shape[axis + 1 :])
        try:
            w = np.broadcast_to(weights, full) if isinstance(weights, np.ndarray) else weights.expand(full)
        except (ValueError, RuntimeError):
            raise ValueError(f"weighted_midpoint: weights {tuple(weights.shape)} do not broadcast to {full}") from None
        w = _front(w, [i - (i > axis) for i in order[:-1]])
    if posweight and w is not None:
        turn = (w >= 0) * 2 - 1
        turn = turn.astype(xs.dtype) if isinstance(turn, np.ndarray) else turn.to(xs.dtype)
        x, w = x * turn[..., None], w * turn
    if members == 0:
        y = x.sum(axis=tuple(range(len(kept), n - 1)))
    else:
        ratios = w if w is None else even(w, range(len(kept), n - 1))
        y = midpoint(x, ratios, c, None, None, members, eps, tangent)
        if len(kept) != 1:
            y = y.reshape((*lead[: len(kept)], x.shape[-1]))
    if lincomb:
        over = tuple(range(len(kept), n - 1))
        total = members if w is None else w.sum(axis=over)[..., None]
        total = float(total) if w is None else total
        y = y * total if tangent else mobius_scalar_mul(total, y, c, eps)
    shape = [1 if i in axes else xs.shape[i] for i in range(n) if i != axis] if keepdim else list(y.shape[:-1])
    if len(shape) != y.ndim - 1:
        y = y.reshape((*shape, y.shape[-1]))
    at = axis if keepdim else axis - sum(i < axis for i in axes)
    if at == y.ndim - 1:
        return y
    return np.moveaxis(y, -1, at) if isinstance(y, np.ndarray) else y.movedim(-1, at)


def check_matrix(who: str, x: Array, weights: Array) -> None:
    """Raises unless a matrix of weights [..., M, N] goes with points [..., N, d] of its type."""
    for name, a in (("x", x), ("weights", weights)):
        check_values(who, name, a)
        if a.ndim < 2:
            raise ValueError(f"{who}: {name} must have two axes or more, got shape {tuple(a.shape)}")
    if weights.dtype != x.dtype:
        raise TypeError(f"{who}: weights are {weights.dtype}, x is {x.dtype}")
    if weights.shape[-1] != x.shape[-2]:
        raise ValueError(f"{who}: weights {tuple(weights.shape)} do not go with points {tuple(x.shape)}")
    check_weights(who, weights)


def mixed(weights: Array, x: Array) -> Array:
    """The product of [..., M, N] and [..., N, d], as stacks: torch sums two plain matrices in another order."""
    n = max(3, weights.ndim, x.ndim)
    a, b = (v.reshape((1,) * (n - v.ndim) + tuple(v.shape)) for v in (weights, x))
    y: Array = a @ b
    return y[0] if max(weights.ndim, x.ndim) == 2 else y


def weighted_midpoint_bmm(x: Array, weights: Array, c: Any = 1.0, eps: float | str = 0.0) -> Array:
    r"""Midpoints of one set of points, one for each row of a matrix of weights.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points of the ball.
    weights : array or tensor [..., M, N], of the type of x
        Not negative.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative. c = 0 gives weighted means.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.

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
    :math:`m = N/(T + \sqrt{T^2 - c\|N\|^2})` with :math:`N = W(\lambda x)`, :math:`T = W(\lambda - 1)`, two products in
    float64 and no array of N·M·d, where `weighted_midpoint` wants points spread to [M, N, d]; the root is at least
    :math:`\sum_i w_i`. Shimizu et al., "Hyperbolic neural networks++" (2021), have the name.
    """
    check_matrix("weighted_midpoint_bmm", x, weights)
    if axes(c):
        raise ValueError(f"weighted_midpoint_bmm: c must be a number or an array of 0 axes, got shape {tuple(c.shape)}")
    w, p = even(wide(weights), (-1,)), wide(x)
    factor = lambda_x(p, c, keepdim=True)
    total, top = mixed(w, factor * p), mixed(w, factor - 1)
    square, least = top * top - c * dot(total, total), w.sum(-1)[..., None] ** 2
    below = top + root(xp.where(square < least, least, square))
    return project(rounded(total / xp.where(below > 0, below, 1.0), x), c, eps)
