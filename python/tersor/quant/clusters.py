"""Rows and numbers in groups. The one rule: numbers in the best groups that there are, rows in those that Lloyd's steps reach
from a seed, the same everywhere."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, Array, whole
from tersor._op import op
from tersor._sample import Draw
from tersor._values import seeded
from tersor.quant._arguments import detached
from tersor.quant.codebook import _codebook_assign, _codebook_sums, _library, _like, _wide
from tersor.random import TAGS, words


def _numbers(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    n = int(np.prod(draw.lead)) + 5
    weights = draw.cast(draw.rng.uniform(0.5, 2, n)) if draw.seed % 2 else None
    return [draw.normal(n), weights], {"k": 1 + draw.seed % 5}


@op(sample=_numbers, native=True, tolerance=dict.fromkeys(FLOATS, 2000.0))
def _kmeans_1d(x: Array, weights: Array = None, k: int = 1) -> tuple[Array, Array, Array]:
    """Groups of numbers in order, of the least sum of squares, by trying every cut."""
    wide = np.asarray(x, np.float64)
    heavy = np.ones(len(wide)) if weights is None or not np.size(weights) else np.asarray(weights, np.float64)
    values, place = np.unique(wide, return_inverse=True)
    mass = np.bincount(place, heavy)
    n, groups = len(values), min(k, len(values))

    def cost(i: int, j: int) -> float:
        m = np.average(values[i:j], weights=mass[i:j])
        return float((mass[i:j] * (values[i:j] - m) ** 2).sum())

    best, cuts = [0.0] + [cost(0, j) for j in range(1, n + 1)], [[0] * (n + 1)]
    for layer in range(1, groups):
        tried = [[best[i] + cost(i, j) for i in range(layer, j)] for j in range(layer + 1, n + 1)]
        cuts.append([0] * (layer + 1) + [layer + int(np.argmin(t)) for t in tried])
        best = [np.inf] * (layer + 1) + [min(t) for t in tried]
    centers, label, end, total = np.full(k, np.nan), np.zeros(n, np.int64), n, 0.0
    for group in reversed(range(groups)):
        start = cuts[group][end]
        centers[group] = np.average(values[start:end], weights=mass[start:end])
        label[start:end], total, end = group, total + cost(start, end), start
    return label[place], centers, np.asarray(total)


class Groups(NamedTuple):
    """Rows or numbers in groups: the label of each, the means of the groups, and the sum of squares around them."""

    labels: Any
    centers: Any
    inertia: Any


def kmeans_1d(x: Array, k: int, *, weights: Array = None) -> Groups:
    r"""The k groups of numbers with the least :math:`\sum w (x - c)^2`: the optimum, not a search for it.

    Parameters
    ----------
    x : array or tensor ``[n]``
    k : int
        1 to n.
    weights : array or tensor ``[n]`` of x's dtype, optional
        Positive.

    Returns
    -------
    labels : int64 ``[n]``
        Groups are numbered by rising mean; equal numbers share one.
    centers : ``[k]``, like x
        With fewer than k different numbers there are as many groups, and the other centers are NaN.
    inertia : float

    Raises
    ------
    TypeError
        If x and weights are not floats of one type.
    ValueError
        If k is not within 1 and n, or something is not finite or a weight not positive.

    Notes
    -----
    Sorting and dynamic programming, O(n log n + k t log t) for t different numbers and 4 k t bytes; sums about the median, in
    pairs of float64. Grønlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in 1D" (2017).
    """
    name = "kmeans_1d"
    x = detached(name, x)
    if weights is not None:
        weights = detached(name, weights)
        if tuple(weights.shape) != tuple(x.shape):
            raise ValueError(f"{name}: weights have shape {tuple(weights.shape)}, x {tuple(x.shape)}")
    k = whole(f"{name}: k", k)
    if x.ndim == 1 and not 1 <= k <= max(x.shape[0], 1):
        raise ValueError(f"{name}: k must lie within 1 and the {x.shape[0]} numbers of x, got {k}")
    labels, centers, inertia = _kmeans_1d(x, weights, k)
    return Groups(labels, _like(centers, x), float(inertia))


def kmeans(x: Array, k: int, *, seed: int = 0, iterations: int = 100) -> Groups:
    r"""k groups of rows with a small :math:`\sum |x - c|^2`: Lloyd's iteration from centers far apart.

    Parameters
    ----------
    x : array or tensor ``[n, d]``
    k : int
        1 to n.
    seed : int
        Of the first centers; the same bits on every machine and for any number of threads.
    iterations : int
        At most so many steps; fewer if no label changes.

    Returns
    -------
    labels : int64 ``[n]``
    centers : ``[k, d]``, like x
    inertia : float
        Of these centers; it never grows from step to step.

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If k is not within 1 and n, or x holds non-finite values.

    Notes
    -----
    2 n k d operations a step, and no array of all pairs. The first centers are rows drawn with the probability of their squared
    distance from those before (k-means++: Arthur and Vassilvitskii, 2007), row j by word j of tag 32; a group that has lost its
    rows takes the row farthest from its center, of equally far ones the first.
    """
    name = "kmeans"
    x, k = detached(name, x), whole(f"{name}: k", k)
    seed, iterations = seeded(name, seed), whole(f"{name}: iterations", iterations)
    if x.ndim != 2:
        raise ValueError(f"{name}: x must be [n, d], got shape {tuple(x.shape)}")
    if not 1 <= k <= x.shape[0]:
        raise ValueError(f"{name}: k must lie within 1 and the {x.shape[0]} rows of x, got {k}")
    if iterations < 1:
        raise ValueError(f"{name}: iterations must be at least 1, got {iterations}")
    wide = _wide(x)
    if not bool(_library(x).isfinite(wide).all()):
        raise ValueError(f"{name}: x holds non-finite values")
    centers, labels = _like(_far_apart(wide, k, seed), x), None
    for _ in range(iterations):
        before, labels = labels, _codebook_assign(x, centers, 1, 0)[:, 0]
        if before is not None and bool((before == labels).all()):
            break
        total, size = _codebook_sums(x, labels, k)
        lost = [j for j, n in enumerate(size.tolist()) if n == 0]
        if lost:
            away = ((wide - _wide(centers)[labels]) ** 2).sum(-1)
            for j in lost:
                i = int(away.argmax())
                total[j], size[j], away[i] = wide[i], 1, -1
        centers = _like(total / size[:, None], x)
    labels = _codebook_assign(x, centers, 1, 0)[:, 0]
    return Groups(labels, centers, float(((wide - _wide(centers)[labels]) ** 2).sum()))


def _far_apart(x: Array, k: int, seed: int) -> Array:
    """k rows, each drawn with the probability of its squared distance from those before it."""
    n = x.shape[0]
    w = words(seed, TAGS["rounding"], 0, np.zeros(k, np.uint64), np.arange(k, dtype=np.uint64))
    u = (w >> np.uint32(8)) * 2.0**-24
    chosen = [int(u[0] * n)]
    away = ((x - x[chosen[0]]) ** 2).sum(-1)
    for j in range(1, k):
        running = away.cumsum(0)
        # the first row at which the running sum is beyond the drawn part of it; the next one not chosen if all are the same
        i = int((running <= float(u[j]) * float(running[-1])).sum()) if float(running[-1]) > 0 else chosen[-1] + 1
        chosen.append(min(i, n - 1))
        nearer = ((x - x[chosen[-1]]) ** 2).sum(-1)
        away = _library(x).minimum(away, nearer)
    return x[chosen]
