"""What every budget gives, of one table of widths. The one rule: each point is the best choice of its cost, exactly."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tersor import _allocate
from tersor._arrays import Level, is_tensor, whole


class Pareto(NamedTuple):
    """What `bit_pareto` found, the cheapest first.

    Attributes
    ----------
    cost, loss : float64 [S + 1]
        Sums over the layers, rounded once: the one rises, the other falls.
    first : int64 [L]
        The level of each layer at the cheapest point.
    layer, level : int64 [S]
        Of each further point, the layer that changes and what it changes to.
    """

    cost: Any
    loss: Any
    first: Any
    layer: Any
    level: Any

    def choice(self, point: int) -> Any:
        """The level of each layer [L] at a point."""
        if not -len(self.cost) <= (at := whole("Pareto.choice: point", point)) < len(self.cost):
            raise IndexError(f"Pareto.choice: point must be one of {len(self.cost)}, got {point}")
        at = range(len(self.cost))[at]
        found = self.first.clone() if is_tensor(self.first) else self.first.copy()
        for layer, level in zip(self.layer[:at], self.level[:at], strict=True):
            found[layer] = level
        return found

    def within(self, budget: float) -> int:
        """The last point whose cost is no more than this."""
        if isinstance(budget, bool) or not hasattr(budget, "__float__"):
            raise TypeError(f"Pareto.within: budget must be a number, got {type(budget).__name__}")
        try:
            most = float(budget)
        except OverflowError:
            most = math.inf if budget > 0 else -math.inf
        if not float(self.cost[0]) <= most:
            raise ValueError(f"Pareto.within: budget {budget} is below the least cost, {float(self.cost[0])}")
        return int((self.cost <= most).sum()) - 1


def bit_pareto(loss: Level, cost: Level) -> Pareto:
    r"""The losses that budgets of any size come to, with one level for each layer.

    .. math:: \min_k \sum_l \mathrm{loss}_{l k_l} + \mu\, \mathrm{cost}_{l k_l}

    for every :math:`\mu \ge 0`: the corners of the lower convex hull of all choices. At its own cost no choice loses less; for
    a budget between two corners `bit_allocate` may find one that is better than the left of them, and none is below the line
    through both.

    Parameters
    ----------
    loss, cost : float or integer array or tensor [L, K]
        As of `bit_allocate`.

    Returns
    -------
    Pareto
        Of points of equal worth the layers in order.

    Raises
    ------
    TypeError
        If an array is of no number type.
    ValueError
        If an array is not finite, shapes differ, or sums leave float64.

    Notes
    -----
    :math:`O(L K^2 + S \log S)` in exact fractions, :math:`S \le L (K - 1)`: 300 layers of 6 widths take a tenth of
    a second. Everett (1963), "Generalized Lagrange multiplier method", theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> loss, cost = np.array([[8.0, 1.0], [3.0, 0.0]]), np.array([[2.0, 4.0], [2.0, 4.0]])
    >>> found = bit_pareto(loss, cost)
    >>> found.cost, found.loss, found.choice(1)
    (array([4., 6., 8.]), array([11.,  4.,  1.]), array([1, 0]))
    """
    x, y = _allocate.arrays("bit_pareto", {"loss": loss, "cost": cost})
    for what, t in (("loss", x), ("cost", y)):
        if not bool((abs(t) < np.inf).all()):
            raise ValueError(f"bit_pareto: {what} holds non-finite values")
    losses, costs = ([[Fraction(v) for v in row] for row in t.tolist()] for t in (x, y))
    first: list[int] = []
    steps: list[tuple[Fraction, int, int, Fraction, Fraction, int]] = []
    for layer, (v, c) in enumerate(zip(losses, costs, strict=True)):
        at = min(range(len(v)), key=lambda k: (c[k], v[k], k))
        first.append(at)
        while True:
            better = [
                ((v[k] - v[at]) / (c[k] - c[at]), -c[k], k) for k in range(len(v)) if v[k] < v[at] and c[k] > c[at]
            ]
            if not better:
                break
            rate, _, k = min(better)
            steps.append((rate, layer, len(steps), c[k] - c[at], v[k] - v[at], k))
            at = k
    least = (sum((row[k] for row, k in zip(t, first, strict=True)), Fraction()) for t in (costs, losses))
    sums = [tuple(least)]
    steps.sort()
    for _, _, _, more, less, _ in steps:
        sums.append((sums[-1][0] + more, sums[-1][1] + less))
    try:
        totals = np.array([[float(c), float(v)] for c, v in sums])
    except OverflowError:
        raise ValueError("bit_pareto: sums of loss or cost are beyond float64") from None
    order = np.array([(s[1], s[5]) for s in steps], np.int64).reshape(-1, 2)
    found = [np.ascontiguousarray(a) for a in (*totals.T, np.array(first, np.int64), *order.T)]
    if is_tensor(loss) or is_tensor(cost):
        import torch

        found = [torch.from_numpy(a).to((loss if is_tensor(loss) else cost).device) for a in found]
    return Pareto(*found)
