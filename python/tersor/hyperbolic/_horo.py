"""Where horospheres meet, and the ideal points that spread points most. The one rule: of a component all is known by one number
for each point, so that a gradient costs what the value does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tersor._reference import Array, dot, root, xp
from tersor.hyperbolic.conformal import project
from tersor.hyperbolic.pairwise import _cdist, _cdist_bwd

#: how many pairs of points are looked at together
PAIRS = 1 << 20
#: how many axes of tangents are tried, from both ends, and how many of the longest; and from how many of those ascent starts
AXES, LONGEST, STARTS = 4, 16, 3


def meeting(tau: Array, u: Array, across: Array, c: Any) -> tuple[Array, Array]:
    r"""The space part :math:`u - \delta` that has the Busemann values of a point at all axes, and half the difference of the
    two roots; `across` is what the square of the point has beside that of u."""
    each = c + 0 * tau
    k = xp.where(each == 0, 0.0, xp.where(each == 0, 1.0, each) ** 0.5)
    total = u.sum(-1)[..., None]
    # τ - U as a quotient where it would cancel: far out towards one ideal point
    behind = total <= 0
    ahead = xp.where(behind, 1.0, tau + k * total)
    h = xp.where(behind, tau - k * total, (1 + c * (across + dot(u, u) - total * total)) / ahead)
    rest = (u.shape[-1] - 1) * c * across
    half = root(h * h + rest)
    below = xp.where(h > 0, h + half, 1.0)
    beyond = xp.where(h > 0, 0.0, half - h) / xp.where(k > 0, max(u.shape[-1] - 1, 1) * k, 1.0)
    return u - xp.where(h > 0, k * across / below, beyond), half


def spread(tau: Array, u: Array, across: Array, c: float) -> tuple[float, Array]:
    """The mean squared distance of the points that meet, and its gradient by the last column of u."""
    y, half = meeting(tau, u, across, c)
    time = xp.sqrt(1 + c * dot(y, y))
    p = project(y / (1 + time), c)  # rounded, it may lie on the edge
    n, k = len(u), c**0.5
    rows, total, pulls = max(1, PAIRS // n), 0.0, []
    for i in range(0, n, rows):
        d = _cdist(p[i : i + rows], p, c)
        total += float((d * d).sum())
        pulls.append(_cdist_bwd(d * (4 / n**2), p[i : i + rows], p, c, 1)[0])
    g = xp.concatenate(pulls, 0)
    g = g / (1 + time) - y * (c * dot(y, g) / (time * (1 + time) ** 2))
    # δ falls with u_i by y_i over half the difference of the roots
    swing = k * dot(g, xp.ones_like(g)) / xp.where(half > 0, half, 1.0) * (half > 0)
    return total / n**2, g[:, -1] + swing[:, 0] * y[:, -1]


def ascended(f: Callable[[Array], tuple[float, Array]], v: Array, tol: float, steps: int) -> tuple[float, Array]:
    """A maximum over unit vectors near one, by conjugate gradients along great circles."""

    def at(v: Array) -> tuple[float, Array]:
        value, g = f(v)
        return value, g - v * float(g @ v)

    value, g = at(v)
    way, angle = g, 0.1
    for _ in range(steps):
        size = float(g @ g) ** 0.5
        if not size > tol * value:
            break
        slope = float(way @ g)
        if slope <= 0.1 * size * float(way @ way) ** 0.5:
            way, slope = g, size * size
        length = float(way @ way) ** 0.5
        e, slope = way / length, slope / length
        for _ in range(40):
            new = v * np.cos(angle) + e * np.sin(angle)
            there = at(new / float(new @ new) ** 0.5)
            bend = value + slope * angle - there[0]  # a parabola through both has its top there
            top = slope * angle**2 / (2 * bend) if bend > 0 else 2 * angle
            if there[0] >= value + 1e-4 * slope * angle:
                break
            angle = min(max(top, angle / 16), angle / 2)
        else:
            break
        carried = (e * np.cos(angle) - v * np.sin(angle)) * length
        v = new / float(new @ new) ** 0.5
        kept = max(0.0, float(there[1] @ there[1]) - float(there[1] @ g)) / size**2
        way = there[1] + kept * (carried - v * float(carried @ v))
        value, g = there
        angle = min(max(top, angle / 16), 4 * angle, 1.0)
    return value, v


def _others(rows: Array) -> Array:
    """An orthonormal basis, as columns, of what is across orthonormal rows."""
    if isinstance(rows, np.ndarray):
        return np.linalg.qr(rows.T, "complete")[0][:, len(rows) :]
    import torch

    return torch.linalg.qr(rows.mT, "complete")[0][:, len(rows) :]


def components(
    x: Array, tau: Array, tangents: Array, k: int, c: float, tol: float, steps: int, axes: Callable[[Array, int], Array]
) -> tuple[Array, Array]:
    """k directions, one after the other, and the mean squared distances in the first, the first two, ..."""
    rows, values = x[:0], []
    for _ in range(k):
        base = _others(rows)
        known, free = x @ rows.T, x @ base

        def f(v: Array, known: Array = known, free: Array = free) -> tuple[float, Array]:
            u = free @ v
            across = free - u[:, None] * v
            value, g = spread(tau, xp.concatenate([known, u[:, None]], 1), dot(across, across), c)
            return value, free.T @ g

        left = tangents @ base
        ends = axes(left, min(AXES, base.shape[1]))
        lengths = dot(left, left)[:, 0]
        far = [left[i] / lengths[i] ** 0.5 for i in (-lengths).argsort()[:LONGEST] if lengths[i] > 0]
        tried = sorted([(-f(v)[0], i, v) for i, v in enumerate([*ends, *-ends, *far])], key=lambda t: t[:2])
        value, v = max((ascended(f, v, tol, steps) for _, _, v in tried[:STARTS]), key=lambda t: t[0])
        rows = xp.concatenate([rows, (base @ v)[None]], 0)
        values.append(value)
    return rows, values
