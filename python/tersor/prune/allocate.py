"""How much to prune of each layer, within a budget. The one rule: a choice is proven, or comes with its bound."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor import _allocate
from tersor._arrays import FLOATS, INTEGERS, Level, is_tensor
from tersor._host import answer, held
from tersor._op import op
from tersor._sample import Draw
from tersor._values import one_of

Array = Any

_METHODS = {"exact": _allocate.EXACT, "binned": _allocate.BINNED, "lagrange": _allocate.MULTIPLIER}


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    losses, costs, rest = _allocate.drawn(draw)
    return [costs, losses], rest


@op(sample=_sample, native=True, integer=True)
def _budget_allocate(costs: Array, losses: Array, budget: float, method: int = _allocate.EXACT) -> tuple[Array, Array]:
    """The choice, then its loss, its cost and the bound."""
    return _allocate.reference(losses, costs, budget, method)


class Allocation(NamedTuple):
    """What `budget_allocate` chose.

    Attributes
    ----------
    choice : int64 [L]
        The amount of each layer.
    cost, loss : float
        Sums over the layers, rounded once.
    bound : float
        No choice within the budget has a smaller loss: the loss itself for ``method="exact"``.
    """

    choice: Any
    cost: float
    loss: float
    bound: float


def budget_allocate(costs: Level, losses: Level, budget: float, *, method: str = "exact") -> Allocation:
    r"""One of several amounts for each layer, so that the sum of losses is the least that the budget allows.

    .. math:: \min_p \sum_l \mathrm{loss}_{l p_l} \quad\text{with}\quad \sum_l \mathrm{cost}_{l p_l} \le \mathrm{budget}

    Parameters
    ----------
    costs, losses : float or integer array or tensor [L, P]
        Of layer l with its amount p, any finite numbers: the weights, operations or seconds that are left of it, and what is
        lost. Two columns, of which one costs nothing, choose whole layers to leave out.
    budget : float
        May be infinite.
    method : "exact", "binned" or "lagrange"
        The best choice, proven; the best one in 16384 bins of the room beyond the cheapest amounts, each cost rounded up, or
        what the multiplier finds where that is better, with what that leaves of the budget spent on what gains most for its
        cost; what the multiplier finds, every layer being on its lower convex hull.
        The last two have the bound that the multiplier gives, and are never over the budget.

    Returns
    -------
    Allocation
        Of choices of equal loss the one of the lowest cost, of these (exact) the one with the lowest amount in the first layer,
        then the second.

    Raises
    ------
    TypeError
        If an array is of no number type.
    ValueError
        If there is no choice within the budget (the message has the least cost), an array is not finite, shapes differ, or the
        exact method would keep more than 2^23 partial choices.

    Notes
    -----
    "lagrange": :math:`O(L P \log L P)`; "binned": :math:`O(L P B)` time and 4 L B bytes with :math:`B = 2^{14}`; "exact": as
    much as it takes, mostly little (see `tersor.quant.bit_allocate`, which is the same program). The amounts of Xu et al.,
    "Efficient Joint Optimization of Layer-Adaptive Weight Pruning in Deep Neural Networks" (2023), and the layers of
    LAPTOP-Diff (Zhang et al., 2024). Kellerer, Pferschy and Pisinger, "Knapsack Problems" (2004), chapter 11.

    Examples
    --------
    Two layers, half or all of each kept:

    >>> import numpy as np
    >>> costs, losses = np.array([[50.0, 100.0], [20.0, 40.0]]), np.array([[4.0, 0.0], [1.0, 0.0]])
    >>> budget_allocate(costs, losses, 120).choice
    array([1, 0])
    """
    name = "budget_allocate"
    how = _METHODS[one_of(f"{name}: method", method, tuple(_METHODS))]
    choice, loss, cost, bound = _allocate.chosen(
        name, _budget_allocate, {"costs": costs, "losses": losses}, budget, how
    )
    if how == _allocate.BINNED:
        choice, cost, loss = _spent(costs, losses, float(budget), choice)
        bound = min(bound, loss)
    return Allocation(choice, cost, loss, bound)


def _spent(costs: Level, losses: Level, budget: float, choice: Array) -> tuple[Array, float, float]:
    """The choice with what bins left of the budget spent: the amount that gains most for its cost, as long as one fits."""
    cost, loss = (held("budget_allocate", what, x, (*FLOATS, *INTEGERS)).astype(np.float64)
                  for what, x in (("costs", costs), ("losses", losses)))  # fmt: skip
    at, rows = np.array(choice.cpu().numpy() if is_tensor(choice) else choice), np.arange(len(cost))
    while True:
        spent = math.fsum(cost[rows, at])
        more, gain = cost - cost[rows, at][:, None], loss[rows, at][:, None] - loss
        better = (gain > 0) & (more <= budget - spent)
        if not better.any():
            return answer(at, choice), spent, math.fsum(loss[rows, at])
        with np.errstate(all="ignore"):  # what costs nothing has an infinite rate
            rate = np.where(better, gain / np.maximum(more, 0), -1.0)
        layer, amount = np.unravel_index(int(rate.argmax()), rate.shape)
        if math.fsum([*np.delete(cost[rows, at], layer), cost[layer, amount]]) > budget:  # by a rounding
            return answer(at, choice), spent, math.fsum(loss[rows, at])
        at[layer] = amount
