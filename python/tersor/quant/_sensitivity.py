"""What errors of a layer do to what a module gives. The one rule: the gradient says it, of random signs at the module's end.

With J the Jacobian of all results by one output of a layer, |J|² = E (Jᵀv)² over random signs v (Hutchinson 1990): one
backward pass has it for every output of every layer. Times the squared error of that output, summed, it is to first order what
the results lose; layers far apart in size become comparable, as their errors by themselves are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tersor._layers import sizes


def results(given: Any) -> list[Any]:
    """The float tensors among what a module gives; caches and the like within are none of them."""
    if isinstance(given, torch.Tensor):
        return [given] if given.is_floating_point() else []
    some = given.values() if isinstance(given, Mapping) else given if isinstance(given, (tuple, list)) else ()
    return [x for x in some if isinstance(x, torch.Tensor) and x.is_floating_point()]


def gains(
    module: Any, run: Callable[[int], Any], batches: int, layers: Mapping[str, Any], counts: Callable[[int], Any]
) -> dict[str, Any]:
    """The squared effect of each output [N] of the layers, summed over tokens; 0 where no result depends on it. ``run(batch)``
    gives the module's results, ``counts(batch)`` what its tokens count."""
    found = {name: torch.zeros(sizes(layer)[0], dtype=torch.float64) for name, layer in layers.items()}
    signs = torch.Generator().manual_seed(0)
    outputs: list[tuple[str, Any]] = []

    def hook(name: str) -> Callable[..., Any]:
        def see(_: Any, __: Any, output: Any) -> Any:
            # a leaf, where nothing before it has a gradient; a copy, which the module may write to
            seen = output if output.requires_grad else output.detach().requires_grad_()
            outputs.append((name, seen))
            return seen.clone()

        return see

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        for batch in range(batches):
            outputs.clear()
            with torch.enable_grad():
                ends = [x for x in results(run(batch)) if x.requires_grad]
                count = counts(batch)
                probes = []
                for end in ends:
                    v = torch.randint(0, 2, end.shape, generator=signs).to(end) * 2 - 1
                    if count is not None and tuple(count.shape) == tuple(end.shape[:-1]):
                        v = v * count[..., None].to(v)
                    probes.append(v)
            if not ends or not outputs:
                continue
            slopes = torch.autograd.grad(ends, [x for _, x in outputs], probes, allow_unused=True)
            for (name, _), slope in zip(outputs, slopes, strict=True):
                if slope is not None:
                    found[name] += slope.double().square().reshape(-1, slope.shape[-1]).sum(0).cpu()
    finally:
        for each in hooks:
            each.remove()
    return found
