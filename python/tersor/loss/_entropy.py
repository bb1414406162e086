"""Cross entropy of rows of logits as an operator, and its gradient. The one rule: what is small is a sum of what is small: of
the classes beside the label, never one less the label's share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Array, is_tensor
from tersor._op import op
from tersor._reference import quiet, there, xp
from tersor._sample import Draw


def _sample(backward: bool) -> Any:
    """Labels, some to be ignored; with weights or without, smoothed or not, with all kinds of powers."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        rng, seed = draw.rng, draw.seed
        x, target = draw.normal(*draw.lead, draw.d), rng.integers(0, max(draw.d, 1), draw.lead)
        target = np.where(rng.random(draw.lead) < 0.2, -100, target).astype((np.int64, np.int32)[seed % 2])
        weight = draw.cast(rng.uniform(0.1, 2, draw.d)) if seed % 3 else None
        scalars = {"label_smoothing": (0.0, 0.1, 1.0)[seed // 3 % 3], "gamma": (0.0, 1.0, 2.0, 0.5)[seed // 9 % 4]}
        arrays = [x, target, weight]
        if not backward:
            return arrays, {"ignore_index": -100, **scalars}
        wide = [np.asarray(a, np.float64) if a is not None and a is not target else a for a in arrays]
        kept = _cross_entropy.op.reference(*wide, -100, **scalars)[1:]  # type: ignore[attr-defined]
        g = np.asarray(rng.standard_normal(draw.lead), "float64" if draw.dtype == "float64" else "float32")
        return [g, *arrays, *map(np.asarray, kept)], {"ignore_index": -100, **scalars, "needs": 3}

    return draw_all


#: what Σ w (m − x) is scaled by, as in `entropy.rs`: with it no sum overflows whose share of a loss does not
SCALE = 2.0**-24


def _sum(mask: Array, x: Array) -> Array:
    """Of the elements of rows that a mask takes."""
    return xp.where(mask, x, 0 * mask).sum(-1)


def _times(a: Array, x: Array) -> Array:
    """a·x, 0 where a is 0 and x infinite; what is finite has its slope there."""
    return a * xp.where((a == 0) & xp.isinf(x), 0 * a, x)


def _both(a: Array, log: Array, half: Array) -> Array:
    """a·−log p, of log Σ e^{x − m} and (m − x)/2: the whole may be beyond the type where its share of a loss is not."""
    return a * log + _times(2 * a, half)


class _Row:
    """What a loss and its gradient are made of, for every row.

    A label is found among the classes, so that none reads beyond them; a row whose label is none of them is NaN.
    """

    def __init__(self, x: Array, target: Array, weight: Array, ignore: int, smoothing: float, gamma: float):
        c = x.shape[-1]
        ones = x.new_ones(x.shape) if is_tensor(x) else np.ones(x.shape)
        classes = ones.cumsum(-1) - 1
        self.live, self.gamma = target != ignore, gamma
        self.at = (classes == target[..., None]) & self.live[..., None]
        lost = self.live & ~self.at.any(-1)
        x = xp.where(self.live[..., None], x, 0 * self.at)  # whatever rows hold that are left out
        w = weight * ones if there(weight) else ones
        stuck = x.detach() if is_tensor(x) else x
        top = xp.amax(stuck, -1) if c else stuck.sum(-1)
        first = stuck == top[..., None]
        e = xp.exp(x - top[..., None])
        # those at the top are 1 each: what is summed is what they are beyond 1
        self.more = _sum(~first, e) + (_sum(first, e) - 1) + xp.where(lost, np.nan, 0.0) + (top - top)
        self.top, self.rest, self.half = top, _sum(~self.at, e) + 0 * self.more, top / 2 - _sum(self.at, x) / 2
        self.below = _sum(w != 0, w * (SCALE * top[..., None] - SCALE * x))
        self.w, self.total, self.even = w, w.sum(-1), smoothing / max(c, 1)
        self.own = _sum(self.at, w)
        self.share = 1 - smoothing
        #: (m − x)/2 of all classes
        self.log, self.halves = xp.log1p(self.more), top[..., None] / 2 - x / 2
        self.e, self.sum = e, self.more + 1
        self.other = self.rest / self.sum
        self.ce = 0 * self.more
        if smoothing < 1:
            self.ce = self.ce + _both(self.own * self.share, self.log, self.half)
        if smoothing > 0:
            self.ce = self.ce + self.total * self.even * self.log + self.below * (self.even / SCALE)
        self.doubt = self.power(gamma) if gamma else 0 * self.more + 1.0

    def power(self, k: float) -> Array:
        """(1 − p_t)^k"""
        return xp.where(self.other > 0, xp.where(self.other > 0, self.other, 1.0) ** k, self.other)


@op(sample=_sample(False))
def _cross_entropy(
    logits: Array,
    target: Array,
    weight: Array = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
) -> tuple[Array, ...]:
    """(1 − p_t)^γ ce of every row; the largest logit m, Σ e^{x − m} − 1, the same without the label, Σ w (m − x) scaled."""
    with quiet(logits):
        row = _Row(logits, target, weight, ignore_index, label_smoothing, gamma)
        made = (_times(row.doubt, row.ce), row.top, row.more, row.rest, row.below)
        return tuple(xp.where(row.live, v, 0 * row.live) for v in made)


@op(sample=_sample(True), tensors=True, exempt=("g", "top", "more", "rest", "below"))
def _cross_entropy_bwd(
    g: Array,
    logits: Array,
    target: Array,
    weight: Array = None,
    top: Array = ...,
    more: Array = ...,
    rest: Array = ...,
    below: Array = ...,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
    needs: int = 3,
) -> tuple[Array, Array]:
    r"""Gradient of `cross_entropy`: :math:`p(AQ + k) - A\epsilon w/C`, and what is next to 1 by the other classes."""
    with quiet(logits):
        row = _Row(logits, target, weight, ignore_index, label_smoothing, gamma)
        p = row.e / row.sum[..., None]
        pt, even, u = _sum(row.at, p), row.even, row.own * row.share
        k = 0 * row.more
        if gamma:
            power = row.power(gamma - 1)
            k = xp.where((pt > 0) & (row.other > 0), gamma * row.ce * pt * power, k)
        a = row.doubt
        at = a * ((pt * row.total - row.own) * even - u * row.other) - k * row.other
        dx = _times(p, (a * (u + row.total * even) + k)[..., None]) - (a * even)[..., None] * row.w
        dx = _times(g[..., None], xp.where(row.at, at[..., None], dx))
        nothing = logits.reshape(-1)[:0]
        dw = nothing
        if there(weight) and needs & 2:
            part = (g * a)[..., None] * (row.share * row.at + even)  # of each class in the loss
            slope = xp.where(row.live[..., None], _both(part, row.log[..., None], row.halves), 0 * row.at)
            dw = slope.reshape(-1, slope.shape[-1]).sum(0) if slope.shape[-1] else slope.sum()[None][:0]
        return xp.where(row.live[..., None], dx, 0 * row.at) if needs & 1 else nothing, dw
