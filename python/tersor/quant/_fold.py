"""Scales of the inputs of layers, folded into what gives these inputs. The one rule: a fold stands only if the block gives the
same as before it; what has another reader, or something between that scales do not pass, is found out so and put back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tersor._layers import linear, matrix, sizes
from tersor._walk import Block, Walk
from tersor.quant._sensitivity import results
from tersor.quant.hadamard import drawn

#: linear layers before one that are tried, the last called first: the values of an attention, the gated half of a perceptron
_TRIED = 3


def inputs(walk: Walk, block: Block) -> list[tuple[list[str], list[Any]]]:
    """The layers of a block that are given the same tensor, in the order of their calls, and the modules that it may come from:
    the one whose result it is, then linear layers before them of as many outputs."""
    given: list[tuple[Any, list[str]]] = []
    before: list[list[Any]] = []
    linears: list[Any] = []
    made: list[tuple[Any, Any]] = []
    own = {layer: name for name, layer in block.layers.items()}

    def see(module: Any, args: Any) -> None:
        x = args[0]
        at = next((i for i, (y, _) in enumerate(given) if y is x), None)
        if at is None:
            given.append((x, []))
            source = [m for m, y in reversed(made) if y is x]
            past = [m for m in reversed(linears) if sizes(m)[0] == sizes(module)[1]]
            before.append(list(dict.fromkeys([*source, *past[:_TRIED]])))
        given[at if at is not None else -1][1].append(own[module])

    def gave(module: Any, _: Any, result: Any) -> None:
        if isinstance(result, torch.Tensor) and isinstance(getattr(module, "weight", None), torch.Tensor):
            made.append((module, result))
            if linear(module):
                linears.append(module)

    hooks = [layer.register_forward_pre_hook(see) for layer in block.layers.values()]
    hooks += [module.register_forward_hook(gave) for module in block.module.modules() if module is not block.module]
    try:
        walk.result(block, 0)
    finally:
        for hook in hooks:
            hook.remove()
    return [(names, sources) for (_, names), sources in zip(given, before, strict=True)]


def _ones(module: Any, size: int) -> Iterator[float]:
    """What a module that gives as many numbers may add to its weight before it multiplies with it: a norm perhaps one."""
    weight = matrix(module)
    if weight.shape[0] == size:
        yield 0.0
        if weight.ndim == 1 and getattr(module, "bias", None) is None:
            yield 1.0


def _divide(module: Any, s: Any, one: float) -> Any:
    """Divides what a module gives; by what it is then divided, each number rounded once. What is left of one more than a weight
    of 16 bits has few digits: it is what layers have to be multiplied with."""
    weight, bias, s = matrix(module), getattr(module, "bias", None), s.to(module.weight.device).double()
    if weight.ndim > 1:
        weight.copy_(weight.double() / s[:, None])
    else:
        had = weight.double() + one
        weight.copy_(had / s - one)
        has = weight.double() + one
        s = torch.where((had != 0) & (has != 0), had / has, s)
    if bias is not None:
        bias.copy_(bias.double() / s)
    return s


def fold(
    walk: Walk,
    block: Block,
    names: list[str],
    sources: list[Any],
    s: Any,
    forbidden: Mapping[Any, str],
    before: list[Any],
) -> Any:
    """The module that takes the scales s of the inputs of these layers, and what it has taken of them, or None; ``before`` is
    told what was there."""
    layers = [block.layers[name] for name in names]
    (want,) = walk.result(block, 0)
    # halves and doubles: what only nearly passes scales is not hidden by what 16 bits round
    halves = torch.from_numpy(2.0 ** drawn(len(s)))
    for source in sources:
        if any(p in forbidden for p in source.parameters(recurse=False)) or any(source is layer for layer in layers):
            continue
        for one in _ones(source, len(s)):
            touched = [*source.parameters(recurse=False), *(layer.weight for layer in layers)]
            saved = [(p, p.detach().clone()) for p in touched]
            for by in (halves, s):
                with torch.no_grad():
                    known = want
                    if one and by is halves:  # no weight at all: one more than it is halved and doubled exactly
                        source.weight.zero_()
                        (known,) = walk.result(block, 0)
                    taken = _divide(source, by, one)
                    for layer in layers:
                        matrix(layer).copy_(matrix(layer).double() * taken.to(layer.weight.device))
                (got,) = walk.result(block, 0)
                stands = same(known, got, by is halves)
                if stands and by is s:
                    before.extend(saved)
                    return source, taken
                with torch.no_grad():
                    for p, value in saved:
                        p.copy_(value)
                if not stands:
                    break
    return None


def same(want: Any, got: Any, exact: bool = False) -> bool:
    """Whether results are the same ones up to rounding, or ``exact`` ones up to the order of sums."""
    pairs = list(zip(results(want), results(got), strict=True))
    return bool(pairs) and all(
        bool((a - b).norm() <= _most(torch.finfo(a.dtype).eps, exact) * a.norm()) for a, b in pairs
    )


def _most(eps: float, exact: bool) -> float:
    return eps / 4 if exact and eps > 1e-4 else min(1e3 * eps, 0.05)
