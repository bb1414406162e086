"""Weights that fade before they are pruned. The one rule: what is to go is trained and made smaller step by step, and is
exactly 0 when it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersor._arrays import dtype_name, whole
from tersor.nn.masks import Masks


class ProgressiveShrink(Masks):
    r"""Masks that are reached by shrinking: over T steps of the optimizer what goes is multiplied down to 0.

    After step t = 0, 1, ..., T − 1 of the optimizer

    .. math:: x \leftarrow \frac{T - t - 1}{T - t}\, x

    for what is to go, so that without gradients it falls linearly; from the last step on it is pruned.

    Parameters
    ----------
    model : torch.nn.Module
    include, exclude : sequences of shell patterns
        As in `Masks`, as is everything that is not said here; biases by ``"*.bias"``.

    Attributes
    ----------
    left_steps : how many steps are left of those of `fade`; 0 when nothing fades

    See Also
    --------
    Masks, shrink, tersor.prune.group_saliency

    Notes
    -----
    Rows that have faded, with their biases, go for good by ``shrink(model, example)``. HESSO chooses the groups that go in
    several periods, each by `tersor.prune.group_saliency`, and fades them in the steps of the next one: one `fade` for each
    period. Chen et al., "HESSO: Towards Automatic Efficient and User Friendly Any Neural Network Training and Pruning" (2024).

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn, prune
    >>> model = torch.nn.Linear(8, 4)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> fading = tnn.ProgressiveShrink(model, include=["weight", "bias"]).attach(optimizer)
    >>> keep = torch.tensor([True, False, True, True])
    >>> for _ in range(fading.fade({"weight": keep, "bias": keep}, 10).left_steps):
    ...     model(torch.randn(4, 8)).square().mean().backward()
    ...     optimizer.step()
    >>> fading, float(model.weight[1].detach().abs().max())
    (ProgressiveShrink(2 weights, 25.0% pruned), 0.0)
    """

    def __init__(self, model: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        super().__init__(model, include=include, exclude=exclude)
        self.left_steps = 0
        self._aims: dict[str, Tensor] = {}

    def fade(self, masks: Mapping[str, Tensor], steps: int) -> ProgressiveShrink:
        """Begins to shrink what these masks do not keep; it is pruned after so many steps of the optimizer.

        Parameters
        ----------
        masks : mapping of names to bool tensors
            Of the shape of the weight, or one number for each of its rows; weights without one stay.
        steps : int
            T, 1 or more.

        Returns
        -------
        ProgressiveShrink
            These.

        Raises
        ------
        TypeError
            If a mask is no bool tensor, or steps no integer.
        ValueError
            If there is no weight of that name, shapes differ, steps are none, no optimizer is attached, or something fades
            already.
        """
        who = "ProgressiveShrink.fade"
        count = whole(f"{who}: steps", steps)
        if count < 1:
            raise ValueError(f"{who}: steps must be 1 or more, got {steps}")
        if self.left_steps:
            raise ValueError(f"{who}: something fades already, for {self.left_steps} steps more")
        if len(self._hooks) != 1:
            raise ValueError(f"{who}: the steps are those of one optimizer, and {len(self._hooks)} are attached")
        self._aims = self._checked(who, masks)
        self.left_steps = count
        return self

    def _checked(self, who: str, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is to be kept of each weight."""
        if not isinstance(masks, Mapping):
            raise TypeError(f"{who}: masks must be a mapping of names to tensors, got {type(masks).__name__}")
        made = {}
        for name, mask in masks.items():
            if name not in self:
                raise ValueError(f"{who}: there is no mask called {name!r}; there are {', '.join(self)}")
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = dtype_name(mask.dtype) if hasattr(mask, "dtype") else type(mask).__name__
                raise TypeError(f"{who}: the mask {name!r} must be a bool tensor, got {kind}")
            own = self[name]
            if mask.shape not in (own.shape, own.shape[:1]):
                raise ValueError(
                    f"{who}: the mask {name!r} must have shape {tuple(own.shape)}, or {tuple(own.shape[:1])} for rows, "
                    f"got {tuple(mask.shape)}"
                )
            made[name] = (
                mask.to(own.device).reshape(-1, *[1] * (own.ndim - mask.ndim), *mask.shape[1:]).expand_as(own) & own
            )
        return made

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.left_steps:
            share, self.left_steps = (self.left_steps - 1) / self.left_steps, self.left_steps - 1
            for name, aim in self._aims.items():
                weight = self.weight(name)
                weight.copy_(torch.where(aim, weight, weight * share))
            if not self.left_steps:
                self.update(self._aims)
                self._aims = {}
        super()._after(optimizer, args, kwargs)

    def state_dict(self) -> dict[str, Any]:
        """What to save beside the model and the optimizer: what fades, and for how many steps more."""
        return {"left_steps": self.left_steps, "aims": dict(self._aims)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where a state of `state_dict` was saved.

        Raises
        ------
        TypeError, ValueError
            If the state is none, or is of other weights.
        """
        who = "ProgressiveShrink"
        if not isinstance(state, Mapping) or set(state) != {"left_steps", "aims"}:
            raise TypeError(f"{who}: state must be what state_dict() gave, a mapping of 'left_steps' and 'aims'")
        left = whole(f"{who}: left_steps", state["left_steps"])
        if left < 0:
            raise ValueError(f"{who}: left_steps must not be negative, got {left}")
        self._aims, self.left_steps = self._checked(who, state["aims"]), left
