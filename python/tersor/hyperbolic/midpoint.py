"""Weighted midpoints over axes. The one rule: one pass over the points, whatever the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import an_axis, axes, is_tensor
from tersor._reference import Array, dot, root, rounded, scaled, wide, xp
from tersor._values import at_hand, check_values, check_weights
from tersor.hyperbolic import composed
from tersor.hyperbolic._groups import midpoint
from tersor.hyperbolic._unit import curvature, unit
from tersor.hyperbolic._weights import even
from tersor.hyperbolic.conformal import lambda_x, project
from tersor.hyperbolic.origin import expmap0, logmap0, mobius_scalar_mul
from tersor.hyperbolic.pairwise import squares


def number(c: Any) -> bool:
    return axes(c) == 0


def move_front(x: Array, order: Sequence[int]) -> Array:
    if list(order) == list(range(x.ndim)):
        return x
    return x.transpose(order) if isinstance(x, np.ndarray) else x.permute(*order)


class Plan(NamedTuple):
    """The axes of points: that of the rows, those that are summed over, those that are left, in order."""

    axis: int
    over: list[int]
    kept: list[int]

    @property
    def order(self) -> list[int]:
        return [*self.kept, *self.over, self.axis]


def plan(who: str, x: Array, reducedim: Sequence[int] | None, dim: int, usual: Sequence[int] | None = None) -> Plan:
    """What `reducedim` and `dim` say; None: the usual axes, all others."""
    n = x.ndim
    for i in (dim, *(reducedim or ())):
        an_axis(who, i, n)
    axis = dim % n
    given = reducedim if reducedim is not None else usual
    over = [i for i in range(n) if i != axis] if given is None else sorted({i % n for i in given})
    if axis in over:
        raise ValueError(f"{who}: reducedim {reducedim} holds dim {dim}")
    return Plan(axis, over, [i for i in range(n) if i != axis and i not in over])


def weighing(who: str, name: str, x: Array, weights: Array, at: Plan) -> Array:
    """Weights spread to the points, with the axes that are summed over last."""
    if getattr(weights, "dtype", None) != x.dtype:
        raise TypeError(f"{who}: weights are {getattr(weights, 'dtype', type(weights).__name__)}, {name} {x.dtype}")
    full = tuple(x.shape[: at.axis]) + tuple(x.shape[at.axis + 1 :])
    try:
        w = np.broadcast_to(weights, full) if isinstance(weights, np.ndarray) else weights.expand(full)
    except (ValueError, RuntimeError):
        raise ValueError(f"{who}: weights {tuple(weights.shape)} do not broadcast to {full}") from None
    return move_front(w, [i - (i > at.axis) for i in at.order[:-1]])


def put_back(y: Array, x: Array, at: Plan, keepdim: bool) -> Array:
    """Means [kept..., d] of points x with their rows along the axis of those, reduced axes of size 1 where these stay."""
    shape = [1 if i in at.over else x.shape[i] for i in range(x.ndim) if i != at.axis] if keepdim else []
    if len(shape) > y.ndim - 1:
        y = y.reshape((*shape, y.shape[-1]))
    to = at.axis if keepdim else at.axis - sum(i < at.axis for i in at.over)
    if to == y.ndim - 1:
        return y
    return np.moveaxis(y, -1, to) if isinstance(y, np.ndarray) else y.movedim(-1, to)


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
    {eps}
    reducedim : sequence of int, or None
        The axes over which points are summed; None: all but `dim`.
    {dim}
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
    e = 0 if tangent else unit(xs, c)
    if e:
        words: dict[str, Any] = {
            "reducedim": reducedim,
            "dim": dim,
            "keepdim": keepdim,
            "lincomb": lincomb,
            "posweight": posweight,
        }
        return scaled(weighted_midpoint(scaled(xs, -e), weights, curvature(c, e), eps, **words), e)
    at = plan("weighted_midpoint", xs, reducedim, dim)
    if not number(c):
        xs = expmap0(xs, c, dim=at.axis) if tangent else xs
        y = composed.midpoint(xs, weights, c, eps, at.over, at.axis, keepdim, lincomb, posweight)
        to = at.axis if keepdim else at.axis - sum(i < at.axis for i in at.over)
        return logmap0(y, c, dim=to) if tangent else y
    kept = len(at.kept)
    x = move_front(xs, at.order)
    lead = tuple(x.shape[:-1])
    members = math.prod(lead[kept:])
    w = None if weights is None else weighing("weighted_midpoint", "xs", xs, weights, at)
    if posweight and w is not None:
        turn = (w >= 0) * 2 - 1
        turn = turn.astype(xs.dtype) if isinstance(turn, np.ndarray) else turn.to(xs.dtype)
        x, w = x * turn[..., None], w * turn
    if members == 0:
        y = x.sum(axis=tuple(range(kept, x.ndim - 1)))
    else:
        ratios = w if w is None else even(w, range(kept, x.ndim - 1))
        y = midpoint(x, ratios, c, None, None, members, eps, tangent)
        if kept != 1:
            y = y.reshape((*lead[:kept], x.shape[-1]))
    if lincomb:
        total = members if w is None else w.sum(axis=tuple(range(kept, x.ndim - 1)))[..., None]
        total = float(total) if w is None else total
        y = y * total if tangent else mobius_scalar_mul(total, y, c, eps)
    return put_back(y, xs, at, keepdim)


def check_matrix(who: str, x: Array, weights: Array, c: Any) -> None:
    """Raises unless a matrix of weights [..., M, N] goes with points [..., N, d] of its type, and one curvature."""
    for name, a in (("x", x), ("weights", weights)):
        check_values(who, name, a)
        if a.ndim < 2:
            raise ValueError(f"{who}: {name} must have two axes or more, got shape {tuple(a.shape)}")
    if weights.dtype != x.dtype:
        raise TypeError(f"{who}: weights are {weights.dtype}, x is {x.dtype}")
    if weights.shape[-1] != x.shape[-2]:
        raise ValueError(f"{who}: weights {tuple(weights.shape)} do not go with points {tuple(x.shape)}")
    check_weights(who, weights)
    if axes(c):
        raise ValueError(f"{who}: c must be a number or an array of 0 axes, got shape {tuple(c.shape)}")


def mixed(weights: Array, x: Array) -> Array:
    """The product of [..., M, N] and [..., N, d], as stacks: torch sums two plain matrices in another order."""
    n = max(3, weights.ndim, x.ndim)
    a, b = (v.reshape((1,) * (n - v.ndim) + tuple(v.shape)) for v in (weights, x))
    y: Array = a @ b
    return y[0] if max(weights.ndim, x.ndim) == 2 else y


def cancels(x: Array) -> float:
    """How much may cancel in float64, of data of a smaller type and of its own."""
    return 1e6 if x.dtype.itemsize < 8 else 2.0


#: the square of a last digit of float64, for a direction of some
EDGE = 2.0**-104


def mixed_height(w: Array, s: Array, tau: Array, c: Any, loss: float) -> tuple[Array, Array, Array]:
    r"""Sums of points of the hyperboloid by a matrix of weights: N, T and :math:`R = \sqrt{T^2 - c\|N\|^2}`.

    Where more than `loss` cancels, :math:`R^2 = \sum_iw_i(\tau_i + \sqrt cs_i^\parallel)\sum_iw_i(\tau_i - \sqrt
    cs_i^\parallel)` by what is along N and across it, which the differences of directions say; NaN where the digits of that of
    N are too few.
    """
    total, time = mixed(w, s), mixed(w, tau)
    square = dot(total, total)
    plain = time * time - c * square
    close = (c * square == 0) | (plain >= time * time / loss)
    if (not is_tensor(close) or at_hand(close)) and bool(close.all()):
        return total, time, root(plain)
    k = xp.where(close, 1.0, c + 0 * square) ** 0.5
    far, long = xp.where(close, 1.0, square), dot(s, s)
    turn = squares(xp.where(close, 0.0, total) / far**0.5, s / xp.where(long > 0, long, 1.0) ** 0.5)
    size, times = root(long).swapaxes(-1, -2), tau.swapaxes(-1, -2)
    along, across = size * (1 - turn / 2), size * size * turn * (1 - turn / 4)
    ahead = times + k * abs(along)
    behind = (1 + k * k * across) / ahead
    sides = [w * xp.where(along > 0, ahead, behind), w * xp.where(along > 0, behind, ahead)]
    whole = xp.where(close, plain, sides[0].sum(-1)[..., None] * sides[1].sum(-1)[..., None])
    return total, time, root(xp.where(close | (whole > EDGE * 2**24 * c * square), whole, math.nan))


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
    {eps}

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
    float64 and no array of N·M·d, where `weighted_midpoint` wants points spread to [M, N, d]. What cancels in the root is taken
    by differences of directions instead, at the price of a `cdist`: float64 keeps its digits up to :math:`\sqrt c\rho = 18` and
    loses :math:`e^{2(\sqrt c\rho - 18)}` of them beyond, of points near each other, until midpoints are NaN, at 28.
    `weighted_midpoint` has them at any radius. Shimizu et al., "Hyperbolic neural networks++" (2021), have the name.
    """
    check_matrix("weighted_midpoint_bmm", x, weights, c)
    e = unit(x, c)
    if e:
        return scaled(weighted_midpoint_bmm(scaled(x, -e), weights, curvature(c, e), eps), e)
    w, p = even(wide(weights), (-1,)), wide(x)
    factor = lambda_x(p, c, keepdim=True)
    total, time, height = mixed_height(w, factor * p, factor - 1, c, cancels(x))
    below = time + height
    return project(rounded(total / xp.where(below == 0, 1.0, below), x), c, eps)
