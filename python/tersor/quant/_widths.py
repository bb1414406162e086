"""The bits of each layer, chosen for what all of them lose. The one rule: losses are those of layers as they are given their
inputs while nothing is changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tersor._layers import sizes
from tersor.quant._encoded import Scheme
from tersor.quant._solvers import Hessians, compensated
from tersor.quant.allocate import bit_allocate
from tersor.quant.pareto import bit_pareto


def widest(among: Sequence[int], cost: Callable[[int], float], budget: float) -> int:
    """The most bits that the budget of one layer allows, by itself; the fewest there are if none."""
    return max((b for b in among if cost(b) <= budget), default=min(among))


def prices(kinds: Mapping[str, Scheme], layers: Mapping[str, Any]) -> Callable[[str, int], float]:
    def cost(name: str, bits: int) -> float:
        (n, k), how = sizes(layers[name]), kinds[name]
        return float(n * (k * bits + 32 * (k // how.elements(k)) * (2 if how.affine else 1)))

    return cost


def widths(
    walk: Any,
    layers: Mapping[str, Any],
    weights: Callable[[Any], Any] | None,
    kinds: Mapping[str, Scheme],
    among: Sequence[int],
    budget: float,
    cost: Callable[[str, int], float],
    scales: Callable[..., Any] | None,
    options: Mapping[str, Any],
) -> tuple[dict[str, int], tuple[tuple[float, float], ...], tuple[float, float]]:
    """The bits of each layer, of what it is given while nothing is changed; what other budgets come to, and this one."""
    from tersor._inputs import mask, visit
    from tersor.quant._sensitivity import gains

    counts = weights or mask
    gain = gains(walk.module, walk.call, len(walk.batches), layers, lambda batch: counts(walk.batches[batch]))
    losses: dict[str, list[float]] = {}
    for block, seen in visit("calibrate", walk, weights):
        hessians = Hessians(seen, options)
        for k, layer in block.layers.items():
            if seen.left(k) is not None:
                continue  # is left, and said to be
            h = hessians(k, layer, True)
            losses[k] = []
            for b in among:
                of = scales and functools.partial(scales, bits=b)
                errors = compensated(k, layer, h, replace(kinds[k], bits=b), of, options).error
                losses[k].append(float(errors @ gain[k]))
    if losses and not any(map(any, losses.values())):
        raise ValueError(
            "calibrate: no gradient leads from what the module gives to its layers: no width can be chosen"
        )
    costs = [[cost(k, b) for b in among] for k in losses]
    numbers = sum(layers[k].weight.numel() for k in losses)
    allowed = budget * numbers
    if losses and sum(map(min, costs)) > allowed:
        least = sum(map(min, costs)) / numbers
        raise ValueError(
            f"calibrate: budget {budget:g} is below the {least:g} bits a weight that {min(among)} bits take"
        )
    shape = (len(losses), len(among))
    tables = np.reshape(list(losses.values()), shape), np.reshape(costs, shape)
    made, front = bit_allocate(*tables, allowed), bit_pareto(*tables)
    found = {k: among[i] for k, i in zip(losses, made.choice, strict=True)}
    # what only the quantized module reaches (an expert that was never chosen) is known too late
    known = {k: widest(among, functools.partial(cost, k), budget * layer.weight.numel()) for k, layer in layers.items()}
    per = max(numbers, 1)
    curve = tuple((float(c) / per, float(v)) for c, v in zip(front.cost, front.loss, strict=True))
    return known | found, curve, (made.cost / per, made.loss)
