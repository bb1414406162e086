"""Matrices and functions through the tangent space at 0. The one rule: plain array code that NumPy and torch read alike;
gradients flow through the operators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tersor._arrays import move
from tersor._reference import Array, rounded, wide
from tersor.hyperbolic._chunks import by_chunks
from tersor.hyperbolic.conformal import project
from tersor.hyperbolic.origin import expmap0, logmap0


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
