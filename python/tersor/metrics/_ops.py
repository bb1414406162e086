"""The operators of metrics. The one rule: a reference decides by comparing what it is about, edges or pairs, one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array
from tersor._op import op
from tersor._sample import Draw

Sample = tuple[list[Any], dict[str, Any]]


def _drawn(draw: Draw) -> tuple[np.ndarray, np.ndarray, int]:
    """Probabilities, some of them at edges of bins, and targets."""
    rng, kind = draw.rng, draw.seed % 3
    n, k = math.prod(draw.lead), draw.d if kind else 1
    p = rng.random((n, k))
    p = np.where(rng.random((n, k)) < 0.3, p.round(1), p)
    return draw.cast(p), rng.integers(0, k if kind else 2, n), kind


def _sizes(draw: Draw) -> np.ndarray:
    return draw.rng.integers(1, 40, 1 + draw.seed % 2)


def _sample_bins(draw: Draw) -> Sample:
    p, y, kind = _drawn(draw)
    sizes = _sizes(draw)
    return [p, y, sizes], {"kind": kind, "total": int(sizes.sum())}


def _sample_judged(draw: Draw) -> Sample:
    p, y, kind = _drawn(draw)
    return [p, y], {"kind": kind}


def _sample_quantile(draw: Draw) -> Sample:
    p, _, _ = _drawn(draw)
    sizes = _sizes(draw)
    return [p.T.copy(), draw.rng.random(p.T.shape) < 0.5, sizes], {"total": int(sizes.sum())}


def _sample_ranks(**scalars: Any) -> Any:
    def draw_all(draw: Draw) -> Sample:
        shape = (math.prod(draw.lead), 1 + draw.d % 3)
        x, y = (draw.rng.standard_normal(shape).round(draw.seed % 3) for _ in range(2))
        x[:1], y[:1] = 9, -9  # of what is all one there is no correlation
        x, y = draw.cast(x), draw.cast(y)
        return [x, y], dict.fromkeys(scalars, draw.seed % 3)

    return draw_all


def _added(right: np.ndarray, p: np.ndarray, bins: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    """Counts, hits and sums of right minus confidence of the bins of each row."""
    found: list[list[np.ndarray]] = [[], [], []]
    for h, v, b in zip(right, p, bins, strict=True):
        for to, w in zip(found, (None, h, h - v), strict=True):
            to.append(np.bincount(b, w, n))
    count, hits, gap = (np.array(v).reshape(len(p), n) for v in found)
    return count.astype(np.int64), hits.astype(np.int64), gap


@op(sample=_sample_judged, within=(0.0, 1.0))
def _calibration_judged(probs: Array, target: Array, kind: int = 0) -> tuple[Array, Array]:
    """Confidences and whether they were right, by rows: of one class, of the largest of each row, or of every class."""
    if kind == 1:
        top = probs.argmax(1) if len(probs) else np.zeros(0, np.int64)
        return probs[np.arange(len(probs)), top][None], (top == target)[None]
    return probs.T, np.arange(probs.shape[1])[:, None] + (kind == 0) == target


@op(sample=_sample_bins, within=(0.0, 1.0))
def _calibration_bins(
    probs: Array, target: Array, sizes: Array, kind: int = 0, total: int = 1
) -> tuple[Array, Array, Array]:
    """What bins of one width count and add up: the bin of p is how many edges k/n within are strictly below."""
    p, right = _calibration_judged.op.reference(probs, target, kind)  # type: ignore[attr-defined]
    parts = [_added(right, p, np.searchsorted(np.arange(1, n) / n, p), n) for n in sizes]
    count, hits, gap = (np.concatenate(v, 1) for v in zip(*parts, strict=True))
    return count, hits, gap


@op(sample=_sample_quantile, within=(0.0, 1.0))
def _calibration_quantile(
    confidence: Array, hit: Array, sizes: Array, total: int = 1
) -> tuple[Array, Array, Array, Array]:
    """What bins of equal mass count and add up, and their edges: equal numbers are in the bin of the first of them."""
    parts = []
    for n in sizes:
        first = np.array([np.searchsorted(np.sort(row), row) for row in confidence]).reshape(confidence.shape)
        bins = first * n // max(confidence.shape[1], 1)
        edges = np.zeros((len(confidence), n + 1))
        for e, b, row in zip(edges, bins, confidence, strict=True):
            np.maximum.at(e, b + 1, row)
        parts.append((*_added(hit, confidence, bins, n), np.maximum.accumulate(edges, 1)))
    count, hits, gap, edges = (np.concatenate(v, 1) for v in zip(*parts, strict=True))
    return count, hits, gap, edges


@op(sample=_sample_ranks(variant=1), any_dtype=True)
def _kendall(preds: Array, target: Array, variant: int = 1) -> Array:
    """Kendall's rank correlation of columns, pair by pair."""
    n, found = len(preds), []
    for x, y in zip(preds.T, target.T, strict=True):
        dx, dy = ((v[:, None] > v).astype(np.int64) - (v[:, None] < v) for v in (x, y))
        excess, moved = (dx * dy).sum() / 2, [(np.abs(d).sum() / 2) for d in (dx, dy)]
        m = min(len(set(v.tolist())) for v in (x, y))
        below = [n * (n - 1) / 2, math.sqrt(moved[0] * moved[1]), n * n * (m - 1) / max(2 * m, 1)][variant]
        none = n < 2 or (variant and m < 2)
        found.append(math.nan if none else excess / below)
    return np.array(found)


@op(sample=_sample_ranks(), any_dtype=True)
def _spearman(preds: Array, target: Array) -> Array:
    """Spearman's rank correlation of columns, from ranks by comparing."""
    found = []
    for x, y in zip(preds.T, target.T, strict=True):
        a, b = (((v[:, None] > v).astype(np.int64) - (v[:, None] < v)).sum(1) for v in (x, y))
        size = math.sqrt((a * a).sum()) * math.sqrt((b * b).sum())
        found.append((a * b).sum() / size if size else math.nan)
    return np.array(found)
