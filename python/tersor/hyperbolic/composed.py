"""What is made of other operators: matrices and functions through the tangent space at 0, spheres, means of points.

The rule of this file: plain array code that NumPy and torch read alike; gradients flow through the operators.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tersor._along import along
from tersor._arrays import an_axis, move
from tersor._reference import Array, arsinh_root, dot, rounded, wide, xp
from tersor._values import check_curvature
from tersor.hyperbolic._chunks import by_chunks
from tersor.hyperbolic._weights import even
from tersor.hyperbolic.conformal import lambda_x, project
from tersor.hyperbolic.mobius import mobius_add
from tersor.hyperbolic.origin import expmap0, logmap0, mobius_scalar_mul


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


def mobius_matvec(m: Array, x: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Möbius matrix-vector product, :math:`M \otimes_c x = \exp_0^c(M \log_0^c(x))`.

    Parameters
    ----------
    m : array or tensor [o, i] or [..., o, i], of the type of x
        One matrix, or a batch that broadcasts with the rows of x.
    x : array or tensor [..., i]
        Points of the ball.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives M x.
    {eps}
    dim : int
        The axis of the rows; -1 for a batch of matrices.

    Returns
    -------
    array or tensor [..., o]
        Points of the ball, strictly inside after rounding.

    Raises
    ------
    TypeError
        If m and x are not of one float type.
    ValueError
        If c is negative or not finite, shapes do not go together, or there is a batch of matrices and dim is not -1.

    Notes
    -----
    The product itself is NumPy's or torch's, in float64 as all else: smaller types are rounded once, some rows at a time where
    no gradient is recorded. Ganea et al. (2018), lemma 6.
    """
    if getattr(m, "dtype", None) != x.dtype:
        raise TypeError(f"mobius_matvec: m is {getattr(m, 'dtype', type(m).__name__)}, x is {x.dtype}")
    if m.ndim < 2:
        raise ValueError(f"mobius_matvec: m needs two axes at least, got shape {tuple(m.shape)}")
    if m.ndim > 2 and dim not in (-1, x.ndim - 1):
        raise ValueError(f"mobius_matvec: a batch of matrices goes with dim=-1, got {dim}")

    def rows(x: Array, m: Array, c: Any, dim: int = -1) -> Array:
        v, w = logmap0(wide(x), c, dim=dim), wide(m)
        v = v if dim == -1 else move(v, v.ndim, dim, -1)
        if v.shape[-1] != m.shape[-1]:
            raise ValueError(f"mobius_matvec: m has {m.shape[-1]} columns, rows of x have {v.shape[-1]}")
        y = v @ w.swapaxes(0, 1) if m.ndim == 2 else (w @ v[..., None])[..., 0]
        y = expmap0(y if dim == -1 else move(y, y.ndim, -1, dim), c, eps, dim=dim)
        return y if x.dtype.itemsize == 8 else project(rounded(y, x), c, eps, dim=dim)

    if dim != -1 or m.ndim > 2:
        return rows(x, m, c, dim)
    return by_chunks(rows, x, (m,), c, m.shape[0])


def mobius_fn_apply(
    fn: Callable[..., Array], x: Array, *args: Any, c: Any = 1.0, dim: int = -1, **kwargs: Any
) -> Array:
    r"""A function of vectors applied to points, :math:`\exp_0^c(f(\log_0^c(x)))`.

    Parameters
    ----------
    fn : callable
        Called as ``fn(v, *args, **kwargs)`` on tangent vectors at the origin.
    x : array or tensor [..., d]
        Points of the ball.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives fn(x).
    {dim}

    Returns
    -------
    array or tensor
        Points of the ball, strictly inside after rounding.

    Raises
    ------
    TypeError, ValueError
        As `expmap0`.

    Notes
    -----
    Ganea et al. (2018), definition 3.2.
    """
    return expmap0(fn(logmap0(x, c, dim=dim), *args, **kwargs), c, dim=dim)


def mobius_fn_apply_chain(x: Array, *fns: Callable[[Array], Array], c: Any = 1.0, dim: int = -1) -> Array:
    """Functions of vectors applied to points one after the other, between one `logmap0` and one `expmap0`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the ball.
    fns : callables
        Each takes and gives tangent vectors at the origin; without any, x is returned.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c.
    {dim}

    Returns
    -------
    array or tensor
        Points of the ball.

    Raises
    ------
    TypeError, ValueError
        As `expmap0`.
    """
    if not fns:
        return x
    return mobius_fn_apply(lambda v: functools.reduce(lambda u, fn: fn(u), fns, v), x, c=c, dim=dim)


def mobiusify(fn: Callable[..., Array]) -> Callable[..., Array]:
    """`fn` as a function of points: `mobius_fn_apply` with its first argument given.

    Parameters
    ----------
    fn : callable
        Called as ``fn(v, *args, **kwargs)`` on tangent vectors at the origin.

    Returns
    -------
    callable
        Called as ``f(x, *args, c=1.0, dim=-1, **kwargs)`` on points of the ball.
    """

    @functools.wraps(fn)
    def applied(x: Array, *args: Any, c: Any = 1.0, dim: int = -1, **kwargs: Any) -> Array:
        return mobius_fn_apply(fn, x, *args, c=c, dim=dim, **kwargs)

    return applied


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
