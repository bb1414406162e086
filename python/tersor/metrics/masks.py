"""What a person would have to correct in a mask. The one rule: growth stays within what it grows in, and each boundary pixel
counts once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import Array, Mask, whole
from tersor._host import answer, held

#: the four sides of a pixel, clockwise from above: rows and columns
_SIDES = ((-1, 0), (0, 1), (1, 0), (0, -1))


class Effort(NamedTuple):
    """Points to be set and regions to be clicked at, of false positives and of false negatives."""

    fp_points: int
    fp_regions: int
    fn_points: int
    fn_regions: int


def _mask(who: str, what: str, x: Any) -> np.ndarray:
    m = held(who, what, x, ("bool",))
    if m.ndim != 2:
        raise ValueError(f"{who}: {what} must have shape [H, W], got {m.shape}")
    return m


def _masks(who: str, pred: Any, target: Any, skeleton: Any, relax: Any) -> tuple[Any, Any, Any, int]:
    p, t = _mask(who, "pred", pred), _mask(who, "target", target)
    s = np.zeros_like(p) if skeleton is None else _mask(who, "skeleton", skeleton)
    for what, m in (("target", t), ("skeleton", s)):
        if m.shape != p.shape:
            raise ValueError(f"{who}: {what} has shape {m.shape}, pred {p.shape}")
    n = whole(f"{who}: relax", relax)
    if n < 0:
        raise ValueError(f"{who}: relax must not be negative, got {n}")
    return p, t, s, min(n, sum(p.shape))  # nothing reaches farther


def _grown(m: np.ndarray) -> np.ndarray:
    """A mask and the four neighbours of its pixels."""
    y = m.copy()
    y[1:] |= m[:-1]
    y[:-1] |= m[1:]
    y[:, 1:] |= m[:, :-1]
    y[:, :-1] |= m[:, 1:]
    return y


def _relaxed(p: np.ndarray, t: np.ndarray, s: np.ndarray, relax: int) -> tuple[np.ndarray, np.ndarray]:
    outside = ~(p | t)
    for _ in range(relax):  # what is eroded is what the rest grows into; beyond the image nothing grows
        outside = _grown(outside)
    found = []
    for wrong, within in ((p & ~t, ~t), (t & ~p, ~p)):
        seed = wrong & ~outside
        for _ in range(relax):
            seed = _grown(seed) & within
        found.append(seed & wrong)
    return found[0], found[1] | (s & ~p)


def relaxed_errors(pred: Mask, target: Mask, skeleton: Mask | None = None, relax: int = 5) -> tuple[Array, Array]:
    r"""Where a mask is wrong by more than the width of a boundary.

    The union of both, eroded, keeps what lies deep in errors; that grows back within the complement of the other mask.

    Parameters
    ----------
    pred, target : bool array or tensor ``[H, W]``
    skeleton : bool ``[H, W]``, optional
        Of the target: pixels that must not be missed, however thin.
    relax : int
        How many pixels a boundary may be off.

    Returns
    -------
    fp, fn : bool ``[H, W]``

    Raises
    ------
    TypeError
        If they are no masks.
    ValueError
        If shapes differ or relax is negative.

    Notes
    -----
    O(H W relax), by growth with the cross of a pixel and its four neighbours; what is outside the image counts as set when it
    is eroded. No gradient. Qin et al., "Highly Accurate Dichotomous Image Segmentation" (2022).

    Examples
    --------
    >>> import numpy as np
    >>> target = np.zeros((9, 9), bool)
    >>> target[2:7, 2:7] = True
    >>> [int(e.sum()) for e in relaxed_errors(np.roll(target, 1, 0), target)]
    [0, 0]
    """
    fp, fn = _relaxed(*_masks("relaxed_errors", pred, target, skeleton, relax))
    return answer(fp, pred), answer(fn, pred)


def _regions(m: np.ndarray) -> np.ndarray:
    """The number of the region of each pixel, regions joined over corners too, from 0; -1 outside."""
    label = np.full((m.shape[0] + 2, m.shape[1] + 2), -1)
    label[1:-1, 1:-1] = np.where(m, -2, -1)
    found = 0
    for i, j in np.argwhere(m) + 1:
        if label[i, j] != -2:
            continue
        label[i, j] = found
        todo = [(i, j)]
        while todo:
            a, b = todo.pop()
            for c in (a - 1, a, a + 1):
                for d in (b - 1, b, b + 1):
                    if label[c, d] == -2:
                        label[c, d] = found
                        todo.append((c, d))
        found += 1
    return label[1:-1, 1:-1]


def _borders(m: np.ndarray) -> list[list[tuple[int, int]]]:
    """The pixels along each border of a mask, clockwise around what is set, from the first in reading order.

    Followed are the sides of pixels that part set from not set, each once; over a corner the way goes on, as regions do.
    """
    f = np.pad(m, 1)
    open_ = [f & ~np.roll(f, (-di, -dj), (0, 1)) for di, dj in _SIDES]
    left = {(int(i), int(j), d) for d, sides in enumerate(open_) for i, j in np.argwhere(sides)}
    borders = []
    for start in sorted(left):
        if start not in left:
            continue
        path: list[tuple[int, int]] = []
        at = start
        while at in left:
            left.remove(at)
            i, j, d = at
            if not path or path[-1] != (i - 1, j - 1):
                path.append((i - 1, j - 1))
            (si, sj), (ai, aj) = _SIDES[d], _SIDES[(d + 1) % 4]
            if f[i + si + ai, j + sj + aj]:
                at = i + si + ai, j + sj + aj, (d - 1) % 4
            elif f[i + ai, j + aj]:
                at = i + ai, j + aj, d
            else:
                at = i, j, (d + 1) % 4
        borders.append(path[:-1] if len(path) > 1 and path[0] == path[-1] else path)
    return borders


def _runs(path: list[tuple[int, int]], cond: np.ndarray, seen: set[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The parts of a closed border where a condition holds; what another part has is not taken again."""
    gap = next((k for k, p in enumerate(path) if not cond[p]), 0)
    runs: list[list[tuple[int, int]]] = [[]]
    for p in path[gap:] + path[:gap]:
        if cond[p] and p not in seen:
            seen.add(p)
            runs[-1].append(p)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _vertices(line: list[tuple[int, int]], epsilon: float) -> int:
    """How many points of an open line stay when none may be farther than epsilon from it (Douglas and Peucker)."""
    points = np.array(line, float)
    kept, todo = {0, len(points) - 1}, [(0, len(points) - 1)]
    while todo:
        a, b = todo.pop()
        if b - a < 2:
            continue
        far, way = points[a + 1 : b] - points[a], points[b] - points[a]
        length = np.hypot(*way)
        off = np.abs(far[:, 0] * way[1] - far[:, 1] * way[0]) / length if length else np.hypot(*far.T)
        k = int(off.argmax())
        if off[k] > epsilon:
            kept.add(a + 1 + k)
            todo += [(a, a + 1 + k), (a + 1 + k, b)]
    return len(kept)


def _effort(m: np.ndarray, cond: np.ndarray, epsilon: float) -> tuple[int, int]:
    """The points along the borders that touch what is right, and the regions that do not."""
    cond, label = _grown(cond), _regions(m)
    touched: set[int] = set()
    seen: set[tuple[int, int]] = set()
    points = 0
    for path in _borders(m):
        for run in _runs(path, cond, seen):
            points += _vertices(run, epsilon)
            touched.add(int(label[run[0]]))
    return points, int(label.max(initial=-1)) + 1 - len(touched)


def human_correction_effort(
    pred: Mask, target: Mask, skeleton: Mask | None = None, relax: int = 5, epsilon: float = 2.0
) -> Effort:
    r"""How many clicks it would take a person to correct a mask: points of polygons, and regions of their own.

    Of the `relaxed_errors`, regions that touch what is right by no pixel of their borders are a click each; along borders that
    do, points are set, so many that none is farther than epsilon from the line between them.

    Parameters
    ----------
    pred, target : bool array or tensor ``[H, W]``
    skeleton : bool ``[H, W]``, optional
        Of the target, as in `relaxed_errors`.
    relax : int
    epsilon : float
        In pixels, not negative.

    Returns
    -------
    fp_points, fp_regions, fn_points, fn_regions : int

    Raises
    ------
    TypeError
        If they are no masks.
    ValueError
        If shapes differ, or a number is negative or not finite.

    Notes
    -----
    Regions are joined over corners; borders are followed clockwise from their first pixel in reading order, and the lines along
    them depend on where they begin, so counts of points are near those of the paper's program, not equal to them. No gradient.
    Qin et al., "Highly Accurate Dichotomous Image Segmentation" (2022).

    Examples
    --------
    >>> import numpy as np
    >>> target = np.zeros((9, 9), bool)
    >>> target[2:7, 2:7] = True
    >>> human_correction_effort(target, target)
    Effort(fp_points=0, fp_regions=0, fn_points=0, fn_regions=0)
    """
    who = "human_correction_effort"
    p, t, s, n = _masks(who, pred, target, skeleton, relax)
    if not 0 <= epsilon < float("inf"):
        raise ValueError(f"{who}: epsilon must be finite and not negative, got {epsilon}")
    fp, fn = _relaxed(p, t, s, n)
    right = p & t
    return Effort(*_effort(fp, right | fn, epsilon), *_effort(fn, ~(right | fp | fn), epsilon))
