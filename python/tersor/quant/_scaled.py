"""Inputs of the layers of a block scaled before it is quantized. The one rule: layers of one input share its scales, which
stand where something before takes them, and why they do not is said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from tersor._layers import matrix
from tersor.quant._encoded import Scheme
from tersor.quant._fold import fold, inputs
from tersor.quant._recipes import Recipes
from tersor.quant.awq import awq_search, smooth_scales

#: of layers that share their inputs, the scales of these (ones: none are better; None: none are wanted)
Way = Callable[[Mapping[str, Any]], Any]


def searched(given: Any, kinds: Mapping[str, Scheme], recipes: Recipes) -> Way:
    """Those with which the weights, rounded to the nearest, err least (AWQ); of layers of several schemes, those of the first
    that is calibrated."""

    def way(layers: Mapping[str, Any]) -> Any:
        scaled = [k for k in layers if recipes.of(k).solver == "awq"]
        if not scaled:
            return None
        name = scaled[0]
        how = kinds[name]
        w = torch.cat([matrix(layers[k]).detach().cpu() for k in scaled if kinds[k] == how])
        h, mean = given.grams[name].cpu(), given.magnitudes[name].cpu()
        return awq_search(w, h, mean, dtype=how.codes, group=how.group or None, symmetric=not how.affine).scales

    return way


def smoothed(given: Any, alpha: float) -> Way:
    """Those that divide what is hard to round between inputs and weights (SmoothQuant)."""

    def way(layers: Mapping[str, Any]) -> Any:
        w = torch.stack([matrix(layer).detach().abs().amax(0) for layer in layers.values()]).amax(0)
        maxima = given.maxima[next(iter(layers))]
        return smooth_scales(maxima.cpu().double(), w.cpu().double(), alpha)

    return way


def scale(
    walk: Any,
    block: Any,
    given: Any,
    way: Way,
    wanted: Collection[str],
    folded: dict[str, str],
    unscaled: dict[str, str],
    before: list[tuple[Any, Any]],
) -> None:
    """Scales the inputs of the layers of a block where something takes the scales; of those that are ``wanted``, why not."""
    seen = [k for k in block.layers if given.left(k) is None]
    if block.calls != 1 or block.module in block.layers.values():
        unscaled |= {k: "no block around it that is run once" for k in seen if k in wanted}
        return
    names = {m: k for k, m in walk.module.named_modules()}
    owners: dict[Any, int] = {}
    for m in names:
        for p in m.parameters(recurse=False):
            owners[p] = owners.get(p, 0) + 1
    shared = {p: "shared" for p, n in owners.items() if n > 1}
    for alike, sources in inputs(walk, block):
        if not set(alike) <= set(seen):
            why = "its inputs are another layer's too, which is left"
            unscaled |= {k: why for k in alike if k in seen and k in wanted}
            continue
        s = way({k: block.layers[k] for k in alike})
        if s is None:
            continue
        if bool((s == 1).all()):
            unscaled |= {k: "no scales are better than none" for k in alike if k in wanted}
            continue
        found = fold(walk, block, alike, sources, s, shared, before)
        if found is None:
            unscaled |= {k: "nothing before it takes its scales" for k in alike if k in wanted}
            continue
        source, taken = found
        folded |= dict.fromkeys(alike, names[source])
        for k in alike:
            t = taken.to(given.grams[k])
            given.grams[k] /= t * t[:, None]
