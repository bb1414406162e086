"""One of several widths for each layer, within a budget. The one rule: a choice is proven, or comes with its bound."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import Level
from tersor._op import op
from tersor._sample import Draw
from tersor.quant._arguments import Array, detached, one_of
from tersor.quant.qparams import cast, torch_module


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    """Numbers of few bits, so that every sum is exact and many are equal."""
    layers, levels, rng = min(math.prod(draw.lead), 24), min(max(draw.d, 1), 6), draw.rng
    cost, loss = rng.integers(0, 8, (layers, levels)) / 4, rng.integers(-8, 32, (layers, levels)) / 8
    least, most = cost.min(1).sum(), cost.max(1).sum()
    budget = float(least + rng.integers(0, 5) / 4 * (most - least))
    return [draw.cast(loss), draw.cast(cost)], {"budget": budget, "exact": draw.seed % 2 == 0}


def _front(loss: Any, cost: Any) -> list[tuple[float, float, int]]:
    """(cost, loss, level) of what no other level is as cheap and as good as, the cheapest first."""
    kept: list[tuple[float, float, int]] = []
    for c, v, k in sorted(zip(map(float, cost), map(float, loss), range(len(cost)), strict=True)):
        if not kept or v < kept[-1][1]:
            kept.append((c, v, k))
    return kept


def _steps(layer: int, front: list[tuple[float, float, int]]) -> list[tuple[float, int, float, float, int]]:
    """(-gain for its cost, layer, cost, loss, level) of the steps along the lower convex hull of a front."""
    steps, at = [], 0
    while at + 1 < len(front):
        c, v, _ = front[at]
        best, to = min(((w - v) / (b - c), -i) for i, (b, w, _) in enumerate(front) if i > at)
        at = -to
        steps.append((best, layer, front[at][0] - c, front[at][1] - v, front[at][2]))
    return steps


@op(sample=_sample, native=True, integer=True)
def _bit_allocate(loss: Array, cost: Array, budget: float, exact: bool = True) -> tuple[Array, Array]:
    """The choice, then its loss, its cost and the bound."""
    fronts = [_front(v, c) for v, c in zip(loss, cost, strict=True)]
    if exact:
        # whole choices of the layers from some one on, the cheapest first, none as cheap and as good as another
        kept: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
        for front in fronts[::-1]:
            made = sorted((c + b, v + w, (k, *rest)) for c, v, k in front for b, w, rest in kept)
            kept = []
            for one in made:
                if not kept or one[1] < kept[-1][1]:
                    kept.append(one)
        c, v, choice = [one for one in kept if one[0] <= budget][-1]
        return np.array(choice, np.int32), np.array([v, c, v])
    choices, c, v = [f[0][2] for f in fronts], sum(f[0][0] for f in fronts), sum(f[0][1] for f in fronts)
    for rate, layer, dc, dv, k in sorted(s for i, f in enumerate(fronts) for s in _steps(i, f)):
        if c + dc > budget:
            return np.array(choices, np.int32), np.array([v, c, v + rate * (budget - c)])
        choices[layer], c, v = k, c + dc, v + dv
    return np.array(choices, np.int32), np.array([v, c, v], float)


class Allocation(NamedTuple):
    """What `bit_allocate` chose.

    Attributes
    ----------
    choice : int64 [L]
        The level of each layer.
    loss, cost : float
        Sums over the layers, rounded once.
    bound : float
        No choice within the budget has a smaller loss: the loss itself for ``method="dp"``.
    """

    choice: Any
    loss: float
    cost: float
    bound: float


def bit_allocate(loss: Level, cost: Level, budget: float, *, method: str = "dp") -> Allocation:
    r"""One level for each layer, so that the sum of losses is the least that the budget allows.

    .. math:: \min_k \sum_l \mathrm{loss}_{l k_l} \quad\text{with}\quad \sum_l \mathrm{cost}_{l k_l} \le \mathrm{budget}

    Parameters
    ----------
    loss, cost : float or integer array or tensor [L, K]
        Of layer l with its level k (a width in bits, say): any finite numbers, no divisor in common needed.
    budget : float
        May be infinite.
    method : "dp" or "lagrangian"
        The best choice, proven; or the best one that a multiplier finds, in which every layer is on its lower convex hull, with
        the bound that the multiplier gives.

    Returns
    -------
    Allocation
        Of choices of equal loss the one of the lowest cost, of these the one with the lowest level in the first layer, then
        the second.

    Raises
    ------
    TypeError
        If an array is of no number type.
    ValueError
        If there is no choice within the budget (the message has the least cost), an array is not finite, shapes differ, or the
        exact method would keep more than 2^23 partial choices.

    Notes
    -----
    "lagrangian": :math:`O(L K \log L K)`. "dp": layer after layer, partial choices of which none is as cheap and as good as
    another, without those whose relaxation is beyond the best choice known; 300 layers of 6 levels take milliseconds, an
    instance made for it (costs that are their own gains) takes exponential time, which is cut off. Sums are kept in twice the
    digits of float64, and compared with the budget as rounded to it once: what `math.fsum` gives. A larger budget never gives
    a larger loss, with either method. Kellerer, Pferschy and Pisinger, "Knapsack Problems" (2004), chapter 11.

    Examples
    --------
    >>> import numpy as np
    >>> loss, cost = np.array([[8.0, 1.0], [3.0, 0.0]]), np.array([[2.0, 4.0], [2.0, 4.0]])
    >>> bit_allocate(loss, cost, 6).choice
    array([1, 0])
    """
    name = "bit_allocate"
    exact = one_of(name, "method", method, {"dp": True, "lagrangian": False})
    arrays = []
    for what, x in (("loss", loss), ("cost", cost)):
        x = detached(name, x)
        if x.ndim != 2 or not x.shape[1]:
            raise ValueError(f"{name}: {what} must be [layers, levels], got shape {tuple(x.shape)}")
        arrays.append(cast(np if isinstance(x, np.ndarray) else torch_module(), x, "float64"))
    if tuple(arrays[0].shape) != tuple(arrays[1].shape):
        raise ValueError(f"{name}: loss has shape {tuple(arrays[0].shape)}, cost {tuple(arrays[1].shape)}")
    choice, sums = _bit_allocate(*arrays, float(budget), exact)
    of, at, bound = (float(v) for v in sums)
    wide = choice.astype(np.int64) if isinstance(choice, np.ndarray) else choice.long()
    return Allocation(wide, of, at, bound)
