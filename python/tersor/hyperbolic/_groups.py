"""Midpoints of groups as one operator. The one rule: a group is a run of rows or a list of rows, and both go one way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._op import op
from tersor._reference import (
    Array,
    arsinh_root,
    arsinh_root_d,
    cosh_root,
    dot,
    gap,
    root,
    sinh_root,
    sinh_root_log_d,
    xp,
)
from tersor._sample import Draw, Rows
from tersor.hyperbolic._words import EPS


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


def _given(x: Array) -> bool:
    return x is not None and math.prod(np.shape(x)) > 0


def _lists(x: Array, weights: Array, indices: Array, indptr: Array, members: int) -> tuple[Array, Array, Array, int]:
    """Rows, weights and groups of the entries, and how many groups there are."""
    x = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
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
            counts.new_ones(len(counts)).cumsum(0).sub(1).repeat_interleave(counts, output_size=indices.shape[0]),
            len(counts),
        )
    w = weights.reshape(-1) if _given(weights) else xp.ones_like(x[:, 0])[rows]
    return rows, w, group, n


def _lifted(x: Array, c: Any, tangent: bool) -> tuple[Array, Array]:
    """f and τ of rows, which are at (τ, f x) on the hyperboloid."""
    if not tangent:
        factor = 2 / gap(c, dot(x, x))
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
    sample=_sample("x", "weights", "c", "indices", "indptr"),
    words=EPS,
    tolerance={"float64": 20000, "float32": 4, "float16": 4, "bfloat16": 4},
)
def midpoint(
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
    sample=_sample("g", "x", "weights", "c", "indices", "indptr"),
    tensors=True,
    tolerance={"float64": 20000, "float32": 40, "float16": 8, "bfloat16": 8},
)
def midpoint_bwd(
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
    m = midpoint.op.reference(x, weights, c, indices, indptr, members)  # type: ignore[attr-defined]
    points, centre, up = x.reshape(-1, d)[rows], m[group], g.reshape(n, d)[group]
    factor, w = 2 / gap(c, dot(points, points)), w[:, None]
    # P from N = P m, whose longest part is known best; T + R for a midpoint at 0
    time = _added(n, group, w * (factor - 1))
    alpha = gap(c, dot(m, m))
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
