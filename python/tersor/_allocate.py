"""One of several levels for each of many layers, within a budget: what the families that choose so share.
The one rule: a choice is proven, or comes with its bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tersor._arrays import is_tensor, ordinary
from tersor._sample import Draw
from tersor._values import readable

Array = Any
Front = list[tuple[float, float, int]]

#: by a multiplier, every layer on its lower hull; the best; the best in bins of the room beyond the cheapest levels
MULTIPLIER, EXACT, BINNED = 0, 1, 2
BINS = 1 << 14


def drawn(draw: Draw) -> tuple[Array, Array, dict[str, Any]]:
    """Losses, costs, a budget and a method: numbers of few bits, so that every sum is exact and many are equal."""
    layers, levels, rng = min(math.prod(draw.lead), 24), min(max(draw.d, 1), 6), draw.rng
    cost, loss = rng.integers(0, 8, (layers, levels)) / 4, rng.integers(-8, 32, (layers, levels)) / 8
    least, most = cost.min(1).sum(), cost.max(1).sum()
    budget = float(least + rng.integers(0, 5) / 4 * (most - least))
    return draw.cast(loss), draw.cast(cost), {"budget": budget, "method": draw.seed % 3}


def _front(loss: Any, cost: Any) -> Front:
    """(cost, loss, level) of what no other level is as cheap and as good as, the cheapest first."""
    kept: Front = []
    for c, v, k in sorted(zip(map(float, cost), map(float, loss), range(len(cost)), strict=True)):
        if not kept or v < kept[-1][1]:
            kept.append((c, v, k))
    return kept


def _steps(layer: int, front: Front) -> list[tuple[float, int, float, float, int]]:
    """(-gain for its cost, layer, cost, loss, level) of the steps along the lower convex hull of a front."""
    steps, at = [], 0
    while at + 1 < len(front):
        c, v, _ = front[at]
        best, to = min(((w - v) / (b - c), -i) for i, (b, w, _) in enumerate(front) if i > at)
        at = -to
        steps.append((best, layer, front[at][0] - c, front[at][1] - v, front[at][2]))
    return steps


def _exact(fronts: list[Front], budget: float) -> tuple[list[int], float, float]:
    # whole choices of the layers from some one on, the cheapest first, none as cheap and as good as another
    kept: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
    for front in fronts[::-1]:
        made = sorted((c + b, v + w, (k, *rest)) for c, v, k in front for b, w, rest in kept)
        kept = []
        for one in made:
            if not kept or one[1] < kept[-1][1]:
                kept.append(one)
    c, v, choice = [one for one in kept if one[0] <= budget][-1]
    return list(choice), v, c


def _multiplier(fronts: list[Front], budget: float) -> tuple[list[int], float, float, float]:
    choices, c, v = [f[0][2] for f in fronts], sum(f[0][0] for f in fronts), sum(f[0][1] for f in fronts)
    for rate, layer, dc, dv, k in sorted(s for i, f in enumerate(fronts) for s in _steps(i, f)):
        if c + dc > budget:
            return choices, v, c, v + rate * (budget - c)
        choices[layer], c, v = k, c + dc, v + dv
    return choices, v, c, v


def _binned(fronts: list[Front], room: float) -> list[tuple[float, float, int]]:
    """The level of each layer."""
    least, levels, taken = np.zeros(BINS + 1), [], []
    for front in fronts:
        beyond = [c - front[0][0] for c, _, _ in front]
        over = [math.ceil(b / room * BINS * (1 + 2**-49)) if b and room else b and BINS + 1 for b in beyond]
        bins = [min(n, BINS + 1) if n else 0 for n in over]
        next_, which = np.full(BINS + 1, np.inf), np.zeros(BINS + 1, int)
        for i, (n, (_, v, _)) in enumerate(zip(bins, front, strict=True)):
            made = np.full(BINS + 1, np.inf)
            made[n:] = least[: BINS + 1 - n] + v
            which, next_ = np.where(made < next_, i, which), np.minimum(made, next_)
        least = next_
        levels.append(which)
        taken.append(bins)
    at, found = BINS, []
    for front, which, bins in zip(fronts[::-1], levels[::-1], taken[::-1], strict=True):
        i = int(which[at])
        found.append(front[i])
        at -= int(bins[i])
    return found[::-1]


def reference(loss: Any, cost: Any, budget: float, method: int) -> tuple[Array, Array]:
    """The choice, then its loss, its cost and the bound."""
    fronts = [_front(v, c) for v, c in zip(loss, cost, strict=True)]
    if method == EXACT:
        choice, v, c = _exact(fronts, budget)
        return np.array(choice, np.int32), np.array([v, c, v])
    choice, v, c, bound = _multiplier(fronts, budget)
    if method == BINNED:
        least, most = (sum(f[i][0] for f in fronts) for i in (0, -1))
        levels = _binned(fronts, min(budget, math.nextafter(most, math.inf)) - least)
        cost_of, loss_of = sum(one[0] for one in levels), sum(one[1] for one in levels)
        if cost_of <= budget and (loss_of, cost_of) <= (v, c):
            choice, v, c, bound = [one[2] for one in levels], loss_of, cost_of, min(bound, loss_of)
    return np.array(choice, np.int32), np.array([v, c, bound], float)


def arrays(who: str, tables: dict[str, Array]) -> list[Any]:
    """Two tables [layers, levels] of finite numbers, as float64."""
    made: list[Any] = []
    readable(who, **tables)
    for what, x in tables.items():
        ordinary(who, f": {what}", x)
        if x.ndim != 2 or not x.shape[1]:
            raise ValueError(f"{who}: {what} must be [layers, levels], got shape {tuple(x.shape)}")
        made.append(x.detach().double() if is_tensor(x) else x.astype(np.float64))
    (one, x), (other, y) = tables.items()
    if tuple(x.shape) != tuple(y.shape):
        raise ValueError(f"{who}: {one} has shape {tuple(x.shape)}, {other} {tuple(y.shape)}")
    return made


def chosen(
    who: str, op: Callable[..., Any], tables: dict[str, Array], budget: float, method: int
) -> tuple[Array, float, float, float]:
    """The choice of an operator for two tables [layers, levels], as int64, and its loss, cost and bound."""
    choice, sums = op(*arrays(who, tables), float(budget), method)
    loss, cost, bound = (float(v) for v in sums)
    return (choice.long() if is_tensor(choice) else choice.astype(np.int64)), loss, cost, bound
