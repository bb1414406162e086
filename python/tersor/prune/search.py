"""Whole layers, heads and neurons within a budget. The one rule: what is chosen fits, and nothing that fits is better, or the
order in which it was looked for is said.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import Level, is_tensor
from tersor._host import answer, held
from tersor._reference import wide
from tersor.prune.allocate import Allocation, budget_allocate

Array = Any


def layer_knapsack(costs: Level, losses: Level, budget: float, *, method: str = "exact") -> Allocation:
    r"""Which layers of a model are kept: those whose absence would lose most, within a budget.

    .. math:: \min_{z \in \{0,1\}^L} \sum_l (1 - z_l)\, \mathrm{loss}_l \quad\text{with}\quad \sum_l z_l\, \mathrm{cost}_l \le
              \mathrm{budget}

    Parameters
    ----------
    costs, losses : float or integer arrays or tensors [L]
        What a layer takes (parameters, operations) and what the model loses without it, each measured alone.
    budget : float
    method : "exact", "binned" or "lagrange"
        As of `budget_allocate`, which solves it with two amounts for each layer.

    Returns
    -------
    Allocation
        ``choice`` is 1 where a layer is kept, 0 where it goes.

    Raises
    ------
    TypeError
        If an array is of no number type.
    ValueError
        If shapes differ, an array is not finite, or costs below 0 leave nothing within the budget.

    Notes
    -----
    That losses add up is a finding of Zhang et al., "LAPTOP-Diff: Layer Pruning and Normalized Distillation for Compressing
    Diffusion Models" (2024).

    Examples
    --------
    >>> import numpy as np
    >>> layer_knapsack(np.array([4.0, 3.0, 2.0]), np.array([5.0, 4.0, 3.0]), 5).choice
    array([0, 1, 1])
    """
    who = "layer_knapsack"
    if costs.ndim != 1 or tuple(losses.shape) != tuple(costs.shape):
        raise ValueError(
            f"{who}: costs and losses must be [layers], got {tuple(costs.shape)} and {tuple(losses.shape)}"
        )
    cost, loss = wide(costs), wide(losses)
    if is_tensor(cost):
        import torch

        both: Any = torch.stack
    else:
        both = np.stack
    return budget_allocate(both([0 * cost, cost], -1), both([loss, 0 * loss], -1), budget, method=method)


class Heads(NamedTuple):
    """What `head_neuron_search` kept.

    Attributes
    ----------
    heads, neurons : bool arrays or tensors of the shapes of their scores
        True where one is kept.
    cost, score : float
        Of what is kept.
    """

    heads: Any
    neurons: Any
    cost: float
    score: float


def head_neuron_search(heads: Array, neurons: Array, budget: float, *, head_cost: float, neuron_cost: float) -> Heads:
    r"""Heads of attention and neurons of feed-forward layers that are worth most together, within a budget.

    .. math:: \max_{h, n} \sum_{i \le h} a_{(i)} + \sum_{j \le n} b_{(j)} \quad\text{with}\quad
              h\,c_a + n\,c_b \le \mathrm{budget}

    with the scores a and b in descending order.

    Parameters
    ----------
    heads, neurons : float arrays or tensors
        What each is worth, of all layers: [layers, heads] and [layers, neurons], say; not negative.
    budget : float
        Not negative; may be infinite.
    head_cost, neuron_cost : float
        What one of them takes: 3 S d e + 2 S² e + S e d multiply-adds of a head of width e, 2 S d of a neuron, for S tokens of
        width d. Positive.

    Returns
    -------
    Heads
        The best choice there is, as all heads cost alike and all neurons too; of equal scores the one with the fewest heads,
        and of equal heads or neurons the lowest index.

    Raises
    ------
    TypeError
        If scores are no float arrays, or of two libraries or types.
    ValueError
        If a score is negative or not finite, or a number is out of range.

    See Also
    --------
    budget_allocate, layer_knapsack, tersor.nn.shrink

    Notes
    -----
    Two sorts and one pass over prefix sums, :math:`O(H \log H + N \log N)`; the published search fills neurons anew for each
    number of heads. Khaki and Plataniotis, "The Need for Speed: Pruning Transformers with One Recipe" (2024).

    Examples
    --------
    >>> import numpy as np
    >>> made = head_neuron_search(np.array([3.0, 1.0]), np.array([1.0, 2.0, 0.5]), 4, head_cost=2, neuron_cost=1)
    >>> made.heads, made.neurons, made.score
    (array([ True, False]), array([ True,  True, False]), 6.0)
    """
    who = "head_neuron_search"
    for name, value in (("head_cost", head_cost), ("neuron_cost", neuron_cost)):
        if not 0 < value < np.inf:
            raise ValueError(f"{who}: {name} must be positive and finite, got {value}")
    if not budget >= 0:
        raise ValueError(f"{who}: budget must not be negative, got {budget}")
    orders, sums = [], []
    for name, x in (("heads", heads), ("neurons", neurons)):
        v = held(who, name, x).astype(np.float64).reshape(-1)
        if not np.isfinite(v).all() or (v < 0).any():
            raise ValueError(f"{who}: {name} must be finite and not negative")
        orders.append(np.argsort(-v, kind="stable"))
        sums.append(np.concatenate([[0.0], np.cumsum(v[orders[-1]])]))
    h = np.arange(len(sums[0]))
    most = len(sums[1]) - 1
    limit = min(float(budget), h[-1] * head_cost + most * neuron_cost)
    fits = h * head_cost <= limit
    n = np.floor(np.where(fits, limit - h * head_cost, 0) / neuron_cost).astype(np.int64)
    # what fits is said by the sum that is compared: the quotient may be off by one
    n += (h * head_cost + (n + 1) * neuron_cost <= limit) * 1
    n = np.clip(n - (h * head_cost + n * neuron_cost > limit), 0, most)
    total = np.where(fits, sums[0] + sums[1][n], -np.inf)
    best = int(total.argmax())
    kept = [_first(x, order, int(k)) for x, order, k in zip((heads, neurons), orders, (best, n[best]), strict=True)]
    return Heads(kept[0], kept[1], best * head_cost + int(n[best]) * neuron_cost, float(total[best]))


def _first(x: Array, order: np.ndarray, k: int) -> Array:
    mask = np.zeros(len(order), bool)
    mask[order[:k]] = True
    return answer(mask.reshape(tuple(x.shape)), x)
