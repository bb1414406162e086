"""Masks held through the steps of optimizers. The one rule: what an optimizer remembers of a pruned weight is what it begins
with, so that nothing moves it, and what grows begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tersor._arrays import FLOATS, dtype_name
from tersor.nn._steps import closure_of
from tersor.prune.apply import prune_inplace

#: what an optimizer begins with where that is not 0, by its key in the state: the option that says it
_BEGINS = {(torch.optim.Rprop, "step_size"): "lr"}


class Held:
    """Masks by the names of weights, with hooks on the steps of optimizers."""

    _hooks: list[tuple[torch.optim.Optimizer, tuple[Any, Any, dict[str, Any]]]]

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __getitem__(self, name: str) -> Tensor:
        raise NotImplementedError

    def weight(self, name: str) -> Tensor:
        raise NotImplementedError

    def _own(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """The weights that an optimizer moves."""
        there = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return {name: w for name in self if id(w := self.weight(name)) in there}

    def _clean(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """By weight, the mask under which all that this optimizer remembers is 0."""
        return next(hooks[2] for other, hooks in self._hooks if other is optimizer)

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        clean, inside = self._clean(optimizer), closure_of(args, kwargs)
        for name, weight in self._own(optimizer).items():
            if not masked(weight.grad, self[name]) or inside:
                clean.pop(name, None)  # gradients that nobody could mask: the state is masked after the step

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        clean = self._clean(optimizer)
        for name, weight in self._own(optimizer).items():
            mask, state = self[name], optimizer.state.get(weight, {})
            # of zeros the next state is 0: it is masked where the mask is a new one, or the state was loaded
            old = clean.get(name)
            if old is None or old[0] is not mask or old[1] != mask._version or old[2] is not state:
                for key, of in state.items():
                    if isinstance(of, Tensor) and of.shape == mask.shape:
                        masked(of, mask)
                        if (option := _BEGINS.get((type(optimizer), key))) and of.layout == torch.strided:
                            of.masked_fill_(~mask, _option(optimizer, weight, option))
                clean[name] = mask, mask._version, state
            prune_inplace(weight, mask)

    # a copy is of masks: the optimizer of the original is not its own

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hooks": []}


def masked(x: Tensor | None, mask: Tensor) -> bool:
    """Masks what goes with a weight; whether it could be."""
    if x is None:
        return True
    if x.layout != torch.strided:
        return False
    if dtype_name(x.dtype) in FLOATS:
        prune_inplace(x, mask)
    else:
        x.masked_fill_(~mask, 0)
    return True


def _option(optimizer: torch.optim.Optimizer, weight: Tensor, option: str) -> float:
    """Of the group that a weight is in."""
    group = next(g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
    return float(group[option])
