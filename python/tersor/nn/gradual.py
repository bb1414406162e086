"""Pruning that grows while a model is trained. The one rule: each step of the optimizer is one of the schedule, and what was
pruned is never brought back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tersor._arrays import whole
from tersor.nn._steps import Steps
from tersor.nn.masks import Masks


class GradualPruner(Steps, Masks):
    r"""Masks whose sparsity follows a schedule: after step t of the optimizer exactly ``schedule(t)`` of the weights are
    pruned.

    Parameters
    ----------
    model : torch.nn.Module
    schedule : callable of the number of steps, counted from 1, that gives a sparsity
        Such as ``lambda t: prune.cubic_schedule(t, 100, 2000, 0.0, 0.98)``; one that falls prunes nothing more.
    min_keep : int, or one for each weight
        The largest so many of each weight are kept whatever the others are like: no layer is cut through.
    scope : "global" or "layer"
        Rank all weights together, or prune the same share of each.
    every : int
        Weights are ranked in each step whose number this divides, or in all.
    include, exclude : sequences of shell patterns
        As in `Masks`, as is everything that is not said here.

    Attributes
    ----------
    steps : how many steps were taken

    Raises
    ------
    TypeError, ValueError
        As `Masks`; if schedule cannot be called, or an argument is out of range.

    See Also
    --------
    Masks, tersor.prune.cubic_schedule

    Notes
    -----
    Weights are ranked by magnitude, as they are after the step. A state of the model has the masks, `state_dict` the number of
    steps. Zhu, Gupta, "To prune, or not to prune" (2017); Gupta, Levrie, "Is Complexity Required for Neural Network Pruning?"
    (2022), whose minimum of weights in a layer is min_keep.

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn, prune
    >>> model = torch.nn.Linear(64, 8)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> pruner = tnn.GradualPruner(model, lambda t: prune.cubic_schedule(t, 0, 10, 0.0, 0.9)).attach(optimizer)
    >>> for _ in range(10):
    ...     model(torch.randn(4, 64)).square().mean().backward()
    ...     optimizer.step()
    >>> pruner
    GradualPruner(1 weights, 90.0% pruned)
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Callable[[int], float],
        min_keep: int | Sequence[int] = 0,
        *,
        scope: str = "global",
        every: int = 1,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        self.schedule, self.min_keep, self.scope = schedule, min_keep, scope
        self.every = whole("GradualPruner: every", every)
        if self.every < 1:
            raise ValueError(f"GradualPruner: every must be positive, got {every}")
        super().__init__(model, include=include, exclude=exclude)
        self.prune(self._now(), scope=scope, min_keep=min_keep)  # says now what is wrong with the arguments

    def _now(self) -> Any:
        """What is pruned already, in the terms of the scope."""
        gone = [mask.numel() - int(mask.sum()) for mask in self.values()]
        total = [mask.numel() for mask in self.values()]
        if self.scope == "layer":
            return [g / n if n else 0.0 for g, n in zip(gone, total, strict=True)]
        return sum(gone) / max(sum(total), 1)

    def attach(self, optimizer: torch.optim.Optimizer) -> GradualPruner:
        """Holds the masks through every step of one optimizer, and moves them; see `Masks.attach`."""
        if self._hooks:
            raise ValueError("GradualPruner: the steps of the schedule are those of one optimizer, and one is attached")
        super().attach(optimizer)
        return self

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            target, now = self.schedule(self.steps), self._now()
            if isinstance(target, bool) or not isinstance(target, (int, float, np.floating)):
                raise TypeError(f"GradualPruner: schedule must give numbers, got {type(target).__name__}")
            aims = [max(target, g) for g in now] if isinstance(now, list) else max(target, now)
            self.prune(aims, scope=self.scope, min_keep=self.min_keep)
        super()._after(optimizer, args, kwargs)
