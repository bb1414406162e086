"""Masks that move while a model is trained sparse. The one rule: each layer keeps as many weights as it had, at each step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from tersor import prune
from tersor._arrays import whole
from tersor._values import number, one_of
from tersor.nn._steps import Steps, check_optimizer, closure_of
from tersor.nn.masks import Masks
from tersor.random import TAGS, philox4x32

#: the stream of the words that make a seed for each step and layer; what grows has the one before
_STREAM = 2


class DynamicSparse(Steps):
    r"""Dynamic sparse training: every so many steps some weights of each layer are dropped, and as many grow elsewhere.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The masks are attached to it, if they are not.
    masks : Masks
        Of a model that is sparse already: ``Masks(model).prune(0.9)``, of first weights say.
    method : "rigl" or "set"
        What grows: where the gradient is largest, or anywhere.
    fraction : float between 0 and 1
        The share :math:`\zeta` of each layer's weights that changes places; with an `end` it falls with the steps,
        :math:`\frac{\zeta}{2}\left(1 + \cos \frac{\pi t}{T}\right)`.
    every : int
        How many steps lie between two changes.
    end : int, optional
        T: there are no changes from this step on.
    regrow : bool
        See `tersor.prune.rigl_update`.
    seed : int in [0, 2^64)
        Of method "set".

    Attributes
    ----------
    steps : how many steps were taken
    moved : how many weights changed places in the last change

    Raises
    ------
    TypeError
        If optimizer or masks are something else, or an argument is of a wrong type.
    ValueError
        If an argument is out of range, the optimizer does not have all weights, or a step is given a closure, which makes
        gradients when it is too late to look at them.

    See Also
    --------
    Masks, tersor.prune.rigl_update, tersor.prune.set_update

    Notes
    -----
    A change is made at the beginning of a step, by the gradients that it is given (of all weights, under DDP of all processes,
    which then make the same masks), and the step is made under the new masks. What grows begins at +0, without a memory; what
    is dropped and grows at once keeps both. Weights without a gradient in that step stay as they are. Evci et al., "Rigging
    the Lottery" (2020); Mocanu et al. (2018).

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn
    >>> model = torch.nn.Linear(64, 8)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> masks = tnn.Masks(model).prune(0.9)
    >>> dynamic = tnn.DynamicSparse(optimizer, masks, every=2, end=8)
    >>> for _ in range(10):
    ...     model(torch.randn(4, 64)).square().mean().backward()
    ...     optimizer.step()
    >>> masks, dynamic.steps
    (Masks(1 weights, 90.0% pruned), 10)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        masks: Masks,
        *,
        method: str = "rigl",
        fraction: float = 0.3,
        every: int = 100,
        end: int | None = None,
        regrow: bool = True,
        seed: int = 0,
    ) -> None:
        who = "DynamicSparse"
        check_optimizer(who, optimizer)
        if not isinstance(masks, Masks):
            raise TypeError(f"{who}: masks must be Masks, got {type(masks).__name__}")
        self.method = one_of(f"{who}: method", method, ("rigl", "set"))
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float, np.floating)):
            raise TypeError(f"{who}: fraction must be a number, got {type(fraction).__name__}")
        if not 0 <= fraction <= 1:
            raise ValueError(f"{who}: fraction must be between 0 and 1, got {fraction}")
        self.fraction, self.regrow = number(who, "fraction", fraction), bool(regrow)
        self.every, self.seed = whole(f"{who}: every", every), whole(f"{who}: seed", seed)
        self.end = None if end is None else whole(f"{who}: end", end)
        for name, value, least in (("every", self.every, 1), ("end", self.end, 1), ("seed", self.seed, 0)):
            if value is not None and not least <= value < 1 << 64:
                raise ValueError(f"{who}: {name} must be in [{least}, 2^64), got {value}")
        self.masks, self.moved = masks, 0
        own = masks._own(optimizer)
        if missing := [name for name in masks if name not in own]:
            raise ValueError(f"{who}: the optimizer does not have {', '.join(missing)}")
        masks.detach(optimizer)  # gradients are looked at before they are masked: hooks run in their order
        self._hooks = [optimizer.register_step_pre_hook(self._before)]
        masks.attach(optimizer)
        self._hooks.append(optimizer.register_step_post_hook(self._after))

    def remove(self) -> Masks:
        """Ends the changes; the masks stay, and are held.

        Returns
        -------
        Masks
        """
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        return self.masks

    def share(self) -> float:
        """Which part of the weights the next step changes."""
        t = self.steps
        if t == 0 or t % self.every or (self.end is not None and t >= self.end):
            return 0.0
        return self.fraction if self.end is None else self.fraction / 2 * (1 + math.cos(math.pi * t / self.end))

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if closure_of(args, kwargs):
            raise ValueError("DynamicSparse: a step with a closure makes its gradients too late; give it none")
        share = self.share()
        if not share:
            return
        made = {}
        for i, (name, mask) in enumerate(self.masks.items()):
            weight = self.masks.weight(name)
            if weight.grad is None:
                continue
            if self.method == "rigl":
                made[name] = prune.rigl_update(weight.detach(), weight.grad, mask, share, regrow=self.regrow)
            else:
                made[name] = prune.set_update(weight.detach(), mask, share, seed=_seed(self.seed, self.steps, i))
        self.moved = sum(int((new & ~self.masks[name]).sum()) for name, new in made.items())
        self.masks.update(made)

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.steps += 1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hooks": []}


def _seed(seed: int, step: int, layer: int) -> int:
    """A seed for one layer in one step."""
    counter = np.array([[step & 0xFFFFFFFF, step >> 32, layer, TAGS["growth"] + 256 * _STREAM]], np.uint32)
    low, high = philox4x32(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32))[0, :2]
    return int(low) | int(high) << 32
