"""The experts of a mixture, and what each of them is given. The one rule: whose products are not the two that are known is
refused by name.

A module of transformers holds the weights of all experts in two tensors, [experts, out, in], and is called with tokens, the
experts of each and their weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tersor._gram import gram

#: what transformers says of a module of experts whose products are two, in the way that its fused products rely on
_SAID = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "_is_expert_parallel", "_apply_gate")
_PLACE = "transformers.integrations.moe"


def unknown(module: Any) -> str | None:
    """Why a module of experts has products that are not known, or None."""
    kind = type(module).__name__
    if not isinstance(module, torch.nn.Module) or not all(hasattr(module, name) for name in _SAID):
        return f"experts in one tensor, which the forward of {kind} reads in a way of its own"
    forward = getattr(type(module).forward, "__globals__", {}).get("__name__")
    if forward != _PLACE or "forward" in vars(module):
        return f"experts whose forward ({kind}) has been replaced, which would be lost"
    if module._is_expert_parallel:
        return "experts that are spread over processes"
    up, down = projections(module)
    wanted = {up, down} | ({f"{up}_bias", f"{down}_bias"} if module.has_bias else set())
    there = {name for name, p in module._parameters.items() if p is not None}
    if there != wanted or any(module._parameters[name].ndim != 3 for name in (up, down)):
        return f"experts of {kind} with the parameters {', '.join(sorted(there))}, where {', '.join(sorted(wanted))} are known"
    return None


def projections(module: Any) -> tuple[str, str]:
    """The names of the two weights of experts."""
    return "gate_up_proj" if module.has_gate else "up_proj", "down_proj"


def matrix(module: Any, name: str) -> Any:
    """A weight [experts, out, in] of a module of experts."""
    weight = module._parameters[name].detach()
    return weight.transpose(1, 2) if module.is_transposed else weight


def routed(
    name: str,
    walk: Any,
    block: Any,
    of: str,
    experts: Any,
    some: Sequence[int],
    counts: Callable[[int], Any],
) -> dict[int, tuple[Any, Any, int]]:
    """Of some experts the Gram matrices of what their two products are given in all batches, and how many rows that were;
    ``counts(batch)`` gives what each token of a batch counts, or None."""
    up, _ = projections(experts)
    names = list(inspect.signature(type(experts).forward).parameters)[1:]
    found: dict[int, tuple[Any, Any, int]] = {}

    def see(_: str, batch: int, args: Any, kwargs: Any) -> None:
        x, chosen = (args[i] if i < len(args) else kwargs[key] for i, key in enumerate(names[:2]))
        x = x.detach().reshape(-1, x.shape[-1])
        count = counts(batch)
        count = count.reshape(-1) if count is not None and count.numel() == len(x) else None
        who = f"{name}: what {of} is given in batches[{batch}]"
        for i in some:
            rows = (chosen.reshape(len(x), -1) == i).any(-1)
            rows = (rows if count is None else rows & (count > 0)).nonzero()[:, 0]
            if not len(rows):
                continue
            given = x[rows]
            weight = None if count is None else count[rows].float()
            bias = experts._parameters[f"{up}_bias"][i] if experts.has_bias else None
            middle = torch.nn.functional.linear(given, matrix(experts, up)[i], bias)
            middle = experts._apply_gate(middle) if experts.has_gate else experts.act_fn(middle)
            old = found.get(i, (None, None, 0))
            grams = [gram(who, rows, weight, onto) for rows, onto in ((given, old[0]), (middle, old[1]))]
            found[i] = grams[0], grams[1], old[2] + len(rows)

    walk.listen(block, {of: experts}, see)
    return found
