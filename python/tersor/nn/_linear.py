"""What may be taken for a dense linear layer. The one rule: its forward pass is torch's, its weight [out, in] and the one that
this pass would use; all else is refused by name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

#: hooks of torch that make a parameter before a forward pass, and do nothing else
_MAKERS = (BasePruningMethod, SpectralNorm, WeightNorm)
#: what a layer made of another's weight would not have
_HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}


def parts_of(who: str, linear: Any) -> tuple[Tensor, Tensor | None]:
    """The weight and the bias of a ``torch.nn.Linear``, or of what computes as it, in a forward pass of `eval` mode."""
    if isinstance(linear, nn.Linear):
        return _made(who, "linear", linear, nn.Linear)
    kind = type(linear).__name__
    hint = ""
    if kind == "Conv1D":
        hint = "; its weight is [in, out]: make a torch.nn.Linear of the transposed weight"
    elif isinstance(linear, type):
        kind = f"the class {linear.__name__}"
    elif isinstance(linear, Tensor):
        hint = "; the constructor takes an encoded or a sparse weight"
    raise TypeError(f"{who}: linear must be a torch.nn.Linear, got {kind}{hint}")


def conv_parts(who: str, conv: Any) -> tuple[Tensor, Tensor | None]:
    """As `parts_of`, of a ``torch.nn.Conv2d`` that is a linear layer at every pixel."""
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"{who}: conv must be a torch.nn.Conv2d, got {type(conv).__name__}")
    wanted = {"kernel_size": (1, 1), "stride": (1, 1), "groups": 1}
    for name, value in wanted.items():
        if (got := getattr(conv, name)) != value:
            raise ValueError(f"{who}: {name} of conv must be {value}, got {got}")
    if conv.padding not in ((0, 0), "valid", "same"):
        raise ValueError(f"{who}: padding of conv must be (0, 0), got {conv.padding}")
    weight, bias = _made(who, "conv", conv, nn.Conv2d)
    return weight[:, :, 0, 0], bias


@torch.no_grad()
def _made(who: str, name: str, linear: Any, plain: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(linear._parameters.get("weight"), nn.UninitializedParameter):
        raise TypeError(f"{who}: {name} has no weight yet: a lazy layer gets it in its first call")
    hint = "make a torch.nn.Linear of the weight and the bias that are meant"
    kind = type(linear).__name__
    if "forward" in vars(linear):
        raise TypeError(f"{who}: the forward of {name} ({kind}) has been replaced, which would be lost; {hint}")
    if type(linear).forward is not plain.forward:
        raise TypeError(f"{who}: {name} is a {kind} with a forward of its own, which would be lost; {hint}")
    for place, word in _HOOKS.items():
        for hook in getattr(linear, place).values():
            if place != "_forward_pre_hooks" or not isinstance(hook, _MAKERS):
                said = getattr(hook, "__qualname__", type(hook).__name__)
                raise TypeError(f"{who}: {name} has a {word} ({said}), which would be lost; remove it first")
    if linear._forward_pre_hooks:
        # hooks leave what they make in the layer: in one that shares its parameters, and is thrown away
        shown = object.__new__(type(linear))
        vars(shown).update(vars(linear), training=False)
        for hook in linear._forward_pre_hooks.values():
            hook(shown, ())
        linear = shown
    if not isinstance(linear.weight, Tensor):
        raise TypeError(f"{who}: the weight of {name} must be a tensor, got {type(linear.weight).__name__}")
    return linear.weight.detach(), linear.bias
