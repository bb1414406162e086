"""What happens at every step of an optimizer. The one rule: what counts steps can be saved, and goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tersor._arrays import whole


def check_optimizer(who: str, optimizer: Any) -> None:
    """An optimizer that calls its hooks, or a TypeError."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"{who}: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")


def closure_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a step evaluates the model itself, so that there are no gradients before it."""
    return any(callable(x) and not isinstance(x, torch.optim.Optimizer) for x in (*args, kwargs.get("closure")))


class Steps:
    """A number of steps, as states have it."""

    steps: int = 0

    def state_dict(self) -> dict[str, Any]:
        """What to save beside the model and the optimizer: how many steps were taken."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after as many steps as a state of `state_dict` says.

        Raises
        ------
        TypeError, ValueError
            If the state is none.
        """
        who = type(self).__name__
        if not isinstance(state, Mapping) or set(state) != {"steps"}:
            raise TypeError(f"{who}: state must be what state_dict() gave, a mapping of 'steps'")
        steps = whole(f"{who}: steps", state["steps"])
        if steps < 0:
            raise ValueError(f"{who}: steps must not be negative, got {steps}")
        self.steps = steps
