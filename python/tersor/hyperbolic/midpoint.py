"""Means of points: weighted midpoints over axes, over the rows a sparse matrix names, and over windows of an image.

The rule of this file: a group is a run of rows or a list of rows, and one operator serves both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._csr import CSR, tensor_of
from tersor._op import op
from tersor._sample import Draw, Rows
from tersor.hyperbolic import composed
from tersor.hyperbolic._roots import (
    EPS,
    Array,
    arsinh_root,
    arsinh_root_d,
    cosh_root,
    dot,
    root,
    sinh_root,
    sinh_root_log_d,
    xp,
)
from tersor.hyperbolic.origin import expmap0, logmap0, mobius_scalar_mul


def _sample(*kinds: str) -> Any:
    """Points in runs of equal length or in lists, with weights and without."""
    rows = Rows()

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        members, tangent = (1, 3, 8)[draw.seed % 3], draw.seed % 7 > 3
        lists, weighted = draw.seed % 2 == 1, draw.seed % 5 != 0
        n = math.prod(draw.lead)
        shape = (n,) if lists else (n, members)
        point = Draw(draw.seed, draw.dtype, shape, draw.d, draw.scale, draw.c)
        groups, entries = n, n * members
        indices = indptr = None
        if lists:
            groups = draw.seed % 7
            counts = draw.rng.integers(0, 2 * members, groups) * (n > 0)
            entries = int(counts.sum())
            index = (np.int32, np.int64)[draw.seed % 4 // 2]
            indptr = np.concatenate([[0], np.cumsum(counts)]).astype(index)
            indices = draw.rng.integers(0, max(n, 1), entries).astype(index)
        made = {
            "x": lambda: rows.one(point, "tangent" if tangent else "ball", draw.c),
            "g": lambda: draw.cast(draw.rng.standard_normal((groups, draw.d))),
            "weights": lambda: draw.cast(draw.rng.uniform(0.1, 2, entries)) if weighted and entries else None,
            "c": lambda: draw.c,
            "indices": lambda: indices,
            "indptr": lambda: indptr,
        }
        return [made[k]() for k in kinds], {"members": members, "tangent": tangent}

    return draw_all


def _shape(x: Array, indptr: Array, members: int) -> tuple[int, ...]:
    if len(x.shape) == 0:
        raise ValueError("midpoint: x needs a last axis, got a 0-d array")
    if indptr is None or math.prod(indptr.shape) == 0:
        return (math.prod(x.shape[:-1]) // max(members, 1), x.shape[-1])
    return (indptr.shape[0] - 1, x.shape[-1])


def _given(x: Array) -> bool:
    return x is not None and math.prod(np.shape(x)) > 0


def _lists(x: Array, weights: Array, indices: Array, indptr: Array, members: int) -> tuple[Array, Array, Array, int]:
    """Rows, weights and groups of the entries, and how many groups there are."""
    x = x.reshape(-1, x.shape[-1])
    if not _given(indptr):
        rows = xp.cumsum(xp.ones_like(x[:, 0]), 0) - 1
        rows = rows.astype(np.int64) if isinstance(rows, np.ndarray) else rows.long()
        group, n = rows // members, len(x) // members
    elif isinstance(indptr, np.ndarray):
        rows, group, n = indices, np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), len(indptr) - 1
    else:
        counts = indptr.diff()
        rows, group, n = (
            indices.long(),
            counts.new_ones(len(counts)).cumsum(0).sub(1).repeat_interleave(counts),
            len(counts),
        )
    w = weights.reshape(-1) if _given(weights) else xp.ones_like(x[:, 0])[rows]
    return rows, w, group, n


def _lifted(x: Array, c: Any, tangent: bool) -> tuple[Array, Array]:
    """f and τ of rows, which are at (τ, f x) on the hyperboloid."""
    if not tangent:
        factor = 2 / (1 - c * dot(x, x))
        return factor, factor - 1
    z = 4 * c * dot(x, x)
    return 2 * sinh_root(z), cosh_root(z)


def _added(n: int, group: Array, values: Array) -> Array:
    """The sums of the rows of `values` that belong to each of `n` groups."""
    if isinstance(values, np.ndarray):
        total = np.zeros((n, values.shape[-1]))
        np.add.at(total, group, values)
        return total
    return values.new_zeros(n, values.shape[-1]).index_add(0, group.long(), values)


@op(
    outputs=("m",),
    meta=lambda x, weights, c, indices, indptr, members, **rest: [(_shape(x, indptr, members), x.dtype)],
    sample=_sample("x", "weights", "c", "indices", "indptr"),
    words=EPS,
    tolerance={"float64": 20000, "float32": 4, "float16": 4, "bfloat16": 4},
)
def _midpoint(
    x: Array,
    weights: Array = None,
    c: Any = 1.0,
    indices: Array = None,
    indptr: Array = None,
    members: int = 1,
    eps: float | str = 0.0,
    tangent: bool = False,
) -> Array:
    """Midpoints of runs of `members` rows, or of the rows that the lists name; of tangent vectors at 0, or of points."""
    d = x.shape[-1]
    rows, w, group, n = _lists(x, weights, indices, indptr, members)
    points = x.reshape(-1, d)[rows]
    factor, tau = _lifted(points, c, tangent)
    total, time = _added(n, group, w[:, None] * factor * points), _added(n, group, w[:, None] * tau)
    square = time**2 - c * dot(total, total)
    height = root(xp.where(square < 0, 0.0, square))
    if tangent:
        height = xp.where(time < 0, -height, height)
        per = xp.where(height == 0, 0.0, 1 / xp.where(height == 0, 1, height))
        return total * per / 2 * arsinh_root(c * dot(total, total) * per**2)
    below = time + xp.where(time < 0, -height, height)
    return total / xp.where(below == 0, 1, below)


@op(
    outputs=("dx", "dweights", "dc"),
    meta=lambda g, x, weights, c, *rest, **scalars: [
        (tuple(x.shape), x.dtype),
        (tuple(weights.shape), x.dtype),
        (tuple(c.shape), c.dtype),
    ],
    sample=_sample("g", "x", "weights", "c", "indices", "indptr"),
    tensors=True,
    tolerance={"float64": 20000, "float32": 40, "float16": 8, "bfloat16": 8},
)
def _midpoint_bwd(
    g: Array,
    x: Array,
    weights: Array = None,
    c: Any = 1.0,
    indices: Array = None,
    indptr: Array = None,
    members: int = 1,
    tangent: bool = False,
) -> tuple[Array, Array, Array]:
    r"""Gradient of `weighted_midpoint`.

    With :math:`A = \langle g, x - m\rangle - \frac{c\|x - m\|^2}{\alpha_m}\langle g, m\rangle` and :math:`P = T + R`,
    :math:`dx = \frac{w\lambda}{P}(g + c\lambda A x - c\lambda_m\langle g, m\rangle(x - m))`,
    :math:`dw = \lambda A/P`,
    :math:`dc = \sum\frac wP(\lambda^2\|x\|^2A/2 - \lambda\langle x, x - m\rangle\langle g, m\rangle/\alpha_m)`.

    Of tangent vectors: m = h N/R with h = S(q)/2, q = c\|N\|^2/R^2, then back to N, T and c.
    """
    d = x.shape[-1]
    rows, w, group, n = _lists(x, weights, indices, indptr, members)
    if tangent:
        return _tangent_bwd(g, x, weights, c, rows, w[:, None], group, n)
    m = _midpoint.op.reference(x, weights, c, indices, indptr, members)  # type: ignore[attr-defined]
    points, centre, up = x.reshape(-1, d)[rows], m[group], g.reshape(n, d)[group]
    factor, w = 2 / (1 - c * dot(points, points)), w[:, None]
    # P from N = P m, whose longest part is known best; T + R for a midpoint at 0
    time = _added(n, group, w * (factor - 1))
    alpha = 1 - c * dot(m, m)
    below = 2 * time / (2 - alpha)
    share = w / xp.where(below == 0, 1, below)[group]
    alpha, gm, v = alpha[group], dot(up, centre), points - centre
    along = dot(up, v) - c * dot(v, v) / alpha * gm
    own = share * factor * (up + c * factor * along * points - 2 * c / alpha * gm * v)
    dx = _added(math.prod(x.shape[:-1]), rows, own)
    dw = factor * along / xp.where(below == 0, 1, below)[group]
    dc = share * (factor**2 * dot(points, points) * along / 2 - factor * dot(points, v) * gm / alpha)
    dw = dw.reshape(np.shape(weights)) if _given(weights) else dw[:0, 0]
    return dx.reshape(x.shape), dw, dc.sum().reshape(np.shape(c))


def _tangent_bwd(
    g: Array, x: Array, weights: Array, c: Any, rows: Array, w: Array, group: Array, n: int
) -> tuple[Array, Array, Array]:
    d = x.shape[-1]
    points = x.reshape(-1, d)[rows]
    square = dot(points, points)
    factor, tau = _lifted(points, c, True)
    total, time = _added(n, group, w * factor * points), _added(n, group, w * tau)
    height = time**2 - c * dot(total, total)
    per = xp.where(height > 0, xp.where(time < 0, -1.0, 1.0) / root(xp.where(height > 0, height, 1.0)), 0.0)
    at = total * per
    q = c * dot(at, at)
    gy, h, slope = g.reshape(n, d), arsinh_root(q) / 2, arsinh_root_d(q) / 2
    along = dot(gy, at)
    by_at = h * gy + 2 * c * slope * along * at
    # 1/R changes with N by cN/R³ and with T by -T/R³, and with c by |N|²/2R³
    pull = dot(by_at, at)
    by_total, by_time = per * (by_at + c * pull * at), -pull * time * per**2
    dc = (slope * along * dot(at, at) + pull * dot(at, at) / 2).sum()
    up, ut = by_total[group], by_time[group]
    bend = factor * sinh_root_log_d(4 * c * square) * 4
    inner = bend * dot(up, points) + factor * ut
    dx = _added(math.prod(x.shape[:-1]), rows, w * (factor * up + 2 * c * inner * points))
    dw = factor * dot(up, points) + tau * ut
    dw = dw.reshape(np.shape(weights)) if _given(weights) else dw[:0, 0]
    return dx.reshape(x.shape), dw, (dc + (w * square * inner).sum()).reshape(np.shape(c))


def _number(c: Any) -> bool:
    return getattr(c, "ndim", 0) == 0


def _front(x: Array, order: Sequence[int]) -> Array:
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
        The shape of xs without `dim`, or one that broadcasts to it; None weighs all alike.
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
        The midpoints; 0 where all weights are 0. Differentiable once, with respect to xs, weights and c.

    Raises
    ------
    TypeError
        If weights are not of the type of xs.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    About 4 operations per element, in float64; float64 data is summed in twice its precision. The gradient needs the
    differences between points and midpoint alone, in which nothing cancels. Ungar, "A Gyrovector Space Approach to
    Hyperbolic Geometry" (2008). A curvature with axes takes a slower way.
    """
    n = xs.ndim
    axis = dim % n
    axes = [i for i in range(n) if i != axis] if reducedim is None else sorted({i % n for i in reducedim})
    if axis in axes:
        raise ValueError(f"weighted_midpoint: reducedim {reducedim} holds dim {dim}")
    if not _number(c):
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
        y = _midpoint(x, w, c, None, None, members, eps, tangent).reshape((*lead[: len(kept)], x.shape[-1]))
    if lincomb:
        over = tuple(range(len(kept), n - 1))
        total = members if w is None else w.sum(axis=over)[..., None]
        total = float(total) if w is None else total
        y = y * total if tangent else mobius_scalar_mul(total, y, c, eps)
    shape = [1 if i in axes else xs.shape[i] for i in range(n) if i != axis] if keepdim else list(y.shape[:-1])
    y = y.reshape((*shape, y.shape[-1]))
    at = axis if keepdim else axis - sum(i < axis for i in axes)
    return np.moveaxis(y, -1, at) if isinstance(y, np.ndarray) else y.movedim(-1, at)


def segment_midpoint(a: CSR, x: Array, c: Any = 1.0, eps: float | str = 0.0) -> Array:
    r"""Weighted midpoints of the rows that a sparse matrix names: of row i of a, with its entries as weights.

    Parameters
    ----------
    a : CSR [G, N]
        Row g holds the members of group g and their weights; several entries in one place add up.
    x : array or tensor [N, d], of the type of a
        Points of the ball.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative. c = 0 gives weighted means.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.

    Returns
    -------
    array or tensor [G, d]
        As `weighted_midpoint`; 0 for a group without members. Differentiable once, with respect to x, ``a.data`` and c.

    Raises
    ------
    TypeError
        If a is no CSR, or its type or library is not that of x.
    ValueError
        If c is negative, not finite or no single number, or shapes do not go together.

    Notes
    -----
    About 4 operations per entry and column; gathers of rows are not kept.
    """
    if not isinstance(a, CSR):
        raise TypeError(f"segment_midpoint: the first argument must be a CSR, got {type(a).__name__}")
    if getattr(x, "ndim", 0) != 2 or x.shape[0] != a.shape[1]:
        raise ValueError(f"segment_midpoint: x must be [{a.shape[1]}, d], got {getattr(x, 'shape', type(x).__name__)}")
    if not _number(c):
        raise ValueError(f"segment_midpoint: c must be a number or an array of 0 axes, got shape {tuple(c.shape)}")
    data, pattern = a._data, a._pattern
    if not isinstance(x, np.ndarray) and isinstance(data, np.ndarray):
        data, pattern = tensor_of(data), pattern.tensors()
    elif isinstance(x, np.ndarray) and not isinstance(data, np.ndarray):
        raise TypeError("segment_midpoint: x is a NumPy array, the matrix is made of tensors")
    if data.dtype != x.dtype:
        raise TypeError(f"segment_midpoint: the matrix is {data.dtype}, x is {x.dtype}")
    return _midpoint(x, data, c, pattern.indices, pattern.indptr, 1, eps)


@functools.lru_cache(maxsize=16)
def _windows(
    shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> Any:
    """Rows and offsets of the windows of images [B, H, W], those at the border without what lies outside."""
    b, h, w = shape

    def spans(size: int, k: int, step: int, edge: int) -> list[np.ndarray]:
        starts = range(-edge, size + edge - k + 1, step)
        return [np.arange(max(i, 0), min(i + k, size)) for i in starts]

    ys, xs = spans(h, kernel[0], stride[0], pad[0]), spans(w, kernel[1], stride[1], pad[1])
    one = [np.add.outer(y * w, x).reshape(-1) for y in ys for x in xs]
    counts = np.array([len(v) for v in one], np.int64)
    flat = np.concatenate(one) if one else np.zeros(0, np.int64)
    indices = (np.arange(b)[:, None] * (h * w) + flat).reshape(-1).astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(np.tile(counts, b))]).astype(np.int64)
    indices.flags.writeable = indptr.flags.writeable = False
    return indices, indptr, (len(ys), len(xs))


def _pair(name: str, v: int | Sequence[int], least: int) -> tuple[int, int]:
    both = (v, v) if isinstance(v, int) else tuple(v)
    if len(both) != 2 or min(both) < least:
        raise ValueError(f"window_midpoint: {name} must be one or two integers of at least {least}, got {v}")
    return both[0], both[1]


def window_midpoint(
    x: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    c: Any = 1.0,
    eps: float | str = 0.0,
    *,
    tangent: bool = False,
) -> Array:
    """Average pooling by midpoints: of the points in every window of an image of points.

    Parameters
    ----------
    x : array or tensor [..., H, W, d]
        Points of the ball.
    kernel_size : int or (int, int)
        Height and width of a window.
    stride : int or (int, int), or None
        From window to window; None: the size of a window.
    padding : int or (int, int)
        How far windows may reach past the border. What lies there has no part in the midpoint.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative. c = 0 gives average pooling.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.
    tangent : bool
        Whether x and the result are tangent vectors at 0, which stand for their :math:`\\exp_0`.

    Returns
    -------
    array or tensor [..., H', W', d]
        With :math:`H' = \\lfloor (H + 2p - k)/s\\rfloor + 1`. Differentiable once, with respect to x and c.

    Raises
    ------
    ValueError
        If c is negative, not finite or no single number, sizes are not positive, padding is more than half a window, or
        no window fits.
    """
    if getattr(x, "ndim", 0) < 3:
        raise ValueError(f"window_midpoint: x must be [..., H, W, d], got {getattr(x, 'shape', type(x).__name__)}")
    if not _number(c):
        raise ValueError(f"window_midpoint: c must be a number or an array of 0 axes, got shape {tuple(c.shape)}")
    kernel = _pair("kernel_size", kernel_size, 1)
    step = kernel if stride is None else _pair("stride", stride, 1)
    pad = _pair("padding", padding, 0)
    *lead, h, w, d = x.shape
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
        raise ValueError(f"window_midpoint: padding {pad} is more than half of the window {kernel}")
    if h + 2 * pad[0] < kernel[0] or w + 2 * pad[1] < kernel[1]:
        raise ValueError(f"window_midpoint: no window {kernel} fits into {(h, w)} with padding {pad}")
    indices, indptr, (rows, cols) = _windows((math.prod(lead), h, w), kernel, step, pad)
    if not isinstance(x, np.ndarray):
        import torch

        indices, indptr = (torch.from_numpy(v.copy()).to(x.device) for v in (indices, indptr))
    y = _midpoint(x.reshape(-1, d), None, c, indices, indptr, 1, eps, tangent)
    return y.reshape((*lead, rows, cols, d))
