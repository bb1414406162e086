"""The equation of the Fréchet mean, and Newton's method for it. The one rule: everything is seen from the present point, in the
tangent space at the origin, where the Hessian has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tersor._arrays import axes
from tersor._reference import Array, dot, tanh_root, tanh_root_d, xp
from tersor.hyperbolic.midpoint import weighted_midpoint
from tersor.hyperbolic.mobius import mobius_add
from tersor.hyperbolic.origin import expmap0, logmap0

#: elements of a piece of points that are spread to their means: 8 MiB of float64
PIECE = 1 << 20


def each(c: Any) -> Any:
    """The curvature of every mean as that of its points."""
    return c[..., None, :] if axes(c) else c


def aligned(a: Any, n: int) -> Any:
    """An array with n axes, the first of size 1; a number stays one."""
    lack = n - axes(a)
    return a if not axes(a) or lack <= 0 else a.reshape((1,) * lack + tuple(a.shape))


def pieces(x: Array, lead: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cuts means of leading axes `lead` so that each piece has no more than `PIECE` elements of its points x."""
    whole, cut = math.prod(x.shape[-2:]), len(lead)
    while cut and whole * lead[cut - 1] <= PIECE:
        cut -= 1
        whole *= lead[cut]
    if not cut:
        yield ()
        return
    step = max(1, PIECE // max(whole, 1))
    for at in np.ndindex(lead[: cut - 1]):
        for i in range(0, lead[cut - 1], step):
            yield (*(slice(k, k + 1) for k in at), slice(i, i + step))


def part(a: Any, at: tuple[slice, ...]) -> Any:
    """A piece of what belongs to means, or of what is one for several."""
    return a[tuple(s if n > 1 else slice(None) for s, n in zip(at, a.shape, strict=False))] if axes(a) else a


def unit_of(x: Array) -> float:
    """The power of two by which points, and 1/√c, have to be divided so that squares of squares are ordinary numbers."""
    top = abs(float(abs(x).max())) if math.prod(x.shape) else 1.0
    ordinary = not (0 < top < 1e-60 or 1e60 < top < math.inf)  # and so is what is no number
    return 1.0 if ordinary else 2.0 ** (math.frexp(top)[1] - 1)


def tangents(x: Array, c: Any, at: Array) -> Array:
    """The points as tangents where `at` is the origin."""
    return logmap0(mobius_add(-at[..., None, :], x, each(c)), each(c))


def pull(x: Array, w: Array, c: Any, at: Array) -> tuple[Array, Array]:
    """The tangents, and their weighted mean: the gradient, but for its sign."""
    u = tangents(x, c, at)
    return u, (w[..., None] * u).sum(axis=-2)


def hessian(u: Array, w: Array, c: Any) -> Array:
    r"""Of half the mean squared distance: :math:`\sum w(\hat u\hat u^\top + h(1 - \hat u\hat u^\top))`, h = r coth r."""
    c = each(c)
    z = 4 * c * dot(u, u)
    t = tanh_root(z)
    # h = 1/t, and (1 - h)/|u|² by the derivative of t, in which nothing cancels
    bend = -4 * c * (2 * tanh_root_d(z) / t + t)
    eye = np.eye(u.shape[-1]) if isinstance(u, np.ndarray) else u.new_ones(u.shape[-1]).diag()
    rank_one = (u * (w[..., None] * bend)).swapaxes(-1, -2) @ u
    return (w[..., None] / t).sum(axis=-2)[..., None] * eye + rank_one


def solve(matrix: Array, v: Array) -> Array:
    if isinstance(v, np.ndarray):
        return np.linalg.solve(matrix, v[..., None])[..., 0]
    import torch

    return torch.linalg.solve(matrix, v[..., None])[..., 0]


def descend(x: Array, w: Array, c: Any, tol: float, max_iter: int) -> Array:
    """The means. Points that are one for several, with axes of size 1, are spread to them piece by piece."""
    unit = unit_of(x)
    if unit != 1:
        return descend(x / unit, w, c * unit * unit, tol, max_iter) * unit
    lead, ends, c = tuple(w.shape[:-1]), tuple(x.shape[-2:]), aligned(c, w.ndim)
    if tuple(x.shape[:-2]) == lead:
        return _descend(x, w, c, tol, max_iter)
    y: Array = w[..., :1] * xp.zeros_like(x[..., 0, :])
    for at in pieces(x, lead):
        some = part(w, at)
        spread = xp.broadcast_to(part(x, at), (*some.shape[:-1], *ends))
        y[at] = _descend(spread, some, part(c, at), tol, max_iter)
    return y


def _descend(x: Array, w: Array, c: Any, tol: float, max_iter: int) -> Array:
    """The mean. A step that does not shorten the gradient is halved."""
    at = weighted_midpoint(x, w, each(c), reducedim=[-2])
    u, g = pull(x, w, c, at)
    scale = g[..., :1] * 0 + 1
    for _ in range(max_iter):
        size = (g * g).sum(axis=-1, keepdims=True)
        spread = (w[..., None] * u * u).sum(axis=-2).sum(axis=-1, keepdims=True)
        if not bool((size > tol * tol * spread).any()):
            break
        step = scale * solve(hessian(u, w, c), g)
        there = mobius_add(at, expmap0(step, c), c)
        v, h = pull(x, w, c, there)
        better = ((h * h).sum(axis=-1, keepdims=True) < size) * 1.0
        if not bool(((better > 0) | (scale > 1e-3)).any()):
            break
        at, g = at + better * (there - at), g + better * (h - g)
        u = u + better[..., None] * (v - u)
        scale = better + (1 - better) * scale * 0.5
    return at
