"""The experts of mixtures quantized by what each of them is given. The one rule: an expert of fewer rows than its weight has
columns is rounded to the nearest, and said to be.

By fewer rows its Hessian knows nothing of some directions, and codes that make up for each other's errors among those that it
knows lose more than the nearest ones of what else the expert is given: up to three times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from tersor._arrays import dtype_name
from tersor._routed import matrix, projections, routed, unknown
from tersor.quant._encoded import Scheme, fitted
from tersor.quant._recipes import Recipes
from tersor.quant._solvers import WAYS, named
from tersor.quant.affine import dequantize
from tersor.quant.gptq import GPTQ, factored

#: bytes of the Hessians of the experts that a run of the block is for
MOST = 1 << 30


class Mixtures:
    """The modules of experts of a module, and the schemes of their weights.

    Parameters
    ----------
    who : str
    module : torch.nn.Module
    wanted : True for all that there are, or the names of tensors of experts
    recipes : of the weights, by the names of the tensors
    fallback : whether rows that groups do not divide have smaller ones

    Attributes
    ----------
    modules : the modules, by name
    kinds : the schemes of the tensors that are quantized
    left : why others are not, by name
    """

    def __init__(self, who: str, module: Any, wanted: bool | Collection[str], recipes: Recipes, fallback: bool) -> None:
        self._who, self._recipes = who, recipes
        self.modules: dict[str, Any] = {}
        self.kinds: dict[str, Scheme] = {}
        self.left: dict[str, str] = {}
        named_ = set() if isinstance(wanted, bool) else set(wanted)
        owners: dict[int, int] = {}
        for inner in module.modules():
            for p in inner.parameters(recurse=False):
                owners[id(p)] = owners.get(id(p), 0) + 1
        for name, inner in module.named_modules():
            why = unknown(inner)
            stacks = {
                _tensor(name, k): p
                for k, p in inner._parameters.items()
                # of DBRX one below the other
                if p is not None and (p.ndim == 3 or (why and p.ndim == 2 and k != "weight"))
            }
            asked = stacks if wanted is True else {k: p for k, p in stacks.items() if k in named_}
            if not asked or ("expert" not in f"{name} {type(inner).__name__}".lower() and not named_):
                continue
            why = why or (inner.is_transposed and "transposed experts, whose scales would go along the outputs")
            for k, p in asked.items():
                rows = p.shape[-1]
                kind = recipes.of_tensor(k).how
                if why or owners[id(p)] > 1:
                    self.left[k] = why or "shared with another module"
                elif fitted(kind, rows).group != kind.group and not fallback:
                    self.left[k] = f"rows of {rows} do not divide into groups of {kind.group}"
                elif not bool(p.isfinite().all()):
                    raise ValueError(f"{who}: {k} holds non-finite values")
                else:
                    self.kinds[k] = fitted(kind, rows)
                    self.modules[name] = inner
            named_ -= set(asked)
        if named_:
            raise TypeError(f"{who}: {min(named_)!r} is no tensor of experts of the module")

    def leave(self, why: str) -> None:
        """Leaves all of them as they are."""
        self.left |= dict.fromkeys(self.kinds, why)
        self.modules, self.kinds = {}, {}

    def solve(
        self,
        walk: Any,
        block: Any,
        of: str,
        counts: Callable[[int], Any],
        scales: Callable[..., Any] | None,
        options: Mapping[str, Any],
        before: list[tuple[Any, Any]],
    ) -> tuple[dict[str, GPTQ], dict[str, tuple[int, ...]]]:
        """The codes of the weights of a module of experts, which they become, and which experts were rounded to the nearest;
        experts one group after another, as memory allows."""
        experts = self.modules[of]
        up, down = projections(experts)
        many, _, k = matrix(experts, up).shape
        size = 8 * (k**2 + matrix(experts, down).shape[2] ** 2)
        step = max(1, MOST // size)
        found: dict[str, list[GPTQ]] = {_tensor(of, name): [] for name in (up, down) if _tensor(of, name) in self.kinds}
        few: dict[str, list[int]] = {name: [] for name in found}
        for name in found:
            parameter = experts._parameters[name.rpartition(".")[2]]
            before.append((parameter, parameter.detach().clone()))
        for start in range(0, many, step):
            some = range(start, min(start + step, many))
            seen = routed(self._who, walk, block, of, experts, some, counts)
            for i in some:
                for name, at in ((up, 0), (down, 1)):
                    if (tensor := _tensor(of, name)) not in found:
                        continue
                    weight = matrix(experts, name)[i]
                    width = weight.shape[1]
                    h = seen[i][at] if i in seen else weight.new_zeros(width, width, dtype=torch.float64)
                    short = i not in seen or seen[i][2] < width
                    few[tensor] += [i] * short
                    made = self._one(f"{tensor}[{i}]", tensor, weight, h, short, scales, options)
                    weight.copy_(dequantize(made.codes, made.scale, made.zero_point, dtype=weight.dtype))
                    found[tensor].append(made)
        return {name: _stacked(some) for name, some in found.items()}, {k: tuple(v) for k, v in few.items() if v}

    def _one(
        self,
        who: str,
        tensor: str,
        weight: Any,
        h: Any,
        short: bool,
        scales: Callable[..., Any] | None,
        options: Mapping[str, Any],
    ) -> GPTQ:
        solver = "" if short else self._recipes.of_tensor(tensor).solver
        h = h.cpu()
        if solver == "gptq":
            compute = "float64" if dtype_name(weight.dtype) == "float64" else "float32"
            try:
                h = factored(h, weight.shape[1], compute=compute, act_order=options["act_order"], damp=options["damp"])
            except ValueError as error:
                raise named(who, error) from None
        own = scales and (lambda _, rows: scales(tensor, rows))
        return WAYS[solver](who, SimpleNamespace(weight=weight), h, self.kinds[tensor], own, options)


def _tensor(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _stacked(some: Sequence[GPTQ]) -> GPTQ:
    """The codes of all experts, [experts, out, in]."""
    parts = [None if any(x is None for x in every) else torch.stack(list(every)) for every in zip(*some, strict=True)]
    return GPTQ(*parts)
