"""One of several widths for each layer, within a budget. The one rule: a choice is proven, or comes with its bound."""

from __future__ import annotations

from typing import Any, NamedTuple

from tersor import _allocate
from tersor._arrays import Level
from tersor._op import op
from tersor._sample import Draw
from tersor.quant._arguments import Array, one_of


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    loss, cost, rest = _allocate.drawn(draw)
    return [loss, cost], rest


@op(sample=_sample, native=True, integer=True)
def _bit_allocate(loss: Array, cost: Array, budget: float, method: int = _allocate.EXACT) -> tuple[Array, Array]:
    """The choice, then its loss, its cost and the bound."""
    return _allocate.reference(loss, cost, budget, method)


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
    how = one_of(name, "method", method, {"dp": _allocate.EXACT, "lagrangian": _allocate.MULTIPLIER})
    return Allocation(*_allocate.chosen(name, _bit_allocate, {"loss": loss, "cost": cost}, budget, how))
