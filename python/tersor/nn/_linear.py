"""What may be taken for a dense layer of torch. The one rule: its forward pass is torch's, its weight the one that this pass
would use; all else is refused by name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from tersor._layers import transposed

#: hooks of torch that make a parameter before a forward pass, and do nothing else
_MAKERS = (BasePruningMethod, SpectralNorm, WeightNorm)
#: what a layer made of another's weight would not have
_HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}


def parts_of(who: str, layer: Any, of: type[nn.Module] = nn.Linear) -> tuple[Tensor, Tensor | None]:
    """The weight and the bias of a ``torch.nn.Linear`` (or `of`), or of what computes as it, in a pass of `eval` mode."""
    what = "linear" if of is nn.Linear else "conv"
    if isinstance(layer, of):
        return _made(who, what, layer, of)
    if of is nn.Linear and transposed(layer):
        weight, bias = _made(who, what, layer, type(layer))
        return weight.t().contiguous(), bias
    kind = type(layer).__name__
    hint = ""
    if isinstance(layer, type):
        kind = f"the class {layer.__name__}"
    elif isinstance(layer, Tensor):
        hint = "; the constructor takes an encoded or a sparse weight"
    raise TypeError(f"{who}: {what} must be a torch.nn.{of.__name__}, got {kind}{hint}")


def conv_parts(who: str, conv: Any) -> tuple[Tensor, Tensor | None]:
    """As `parts_of`, of a ``torch.nn.Conv2d`` that is a linear layer at every pixel."""
    weight, bias = parts_of(who, conv, nn.Conv2d)
    wanted = {"kernel_size": (1, 1), "stride": (1, 1), "groups": 1}
    for name, value in wanted.items():
        if (got := getattr(conv, name)) != value:
            raise ValueError(f"{who}: {name} of conv must be {value}, got {got}")
    if conv.padding not in ((0, 0), "valid", "same"):
        raise ValueError(f"{who}: padding of conv must be (0, 0), got {conv.padding}")
    return weight[:, :, 0, 0], bias


def check_hooks(who: str, what: str, layer: nn.Module) -> None:
    """Refuses hooks that a layer made of another's weights would not have."""
    for place, name in _HOOKS.items():
        for hook in getattr(layer, place).values():
            if place != "_forward_pre_hooks" or not isinstance(hook, _MAKERS):
                said = getattr(hook, "__qualname__", type(hook).__name__)
                raise TypeError(f"{who}: {what} has a {name} ({said}), which would be lost; remove it first")


@torch.no_grad()
def _made(who: str, what: str, layer: Any, of: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(layer._parameters.get("weight"), nn.UninitializedParameter):
        raise TypeError(f"{who}: {what} has no weight yet: a lazy layer gets it in its first call")
    hint = f"make a torch.nn.{of.__name__} of the weight and the bias that are meant"
    kind = type(layer).__name__
    if "forward" in vars(layer):
        raise TypeError(f"{who}: the forward of {what} ({kind}) has been replaced, which would be lost; {hint}")
    if any(getattr(type(layer), f) is not getattr(of, f) for f in ("forward", "_conv_forward") if hasattr(of, f)):
        raise TypeError(f"{who}: {what} is a {kind} with a forward of its own, which would be lost; {hint}")
    check_hooks(who, what, layer)
    if layer._forward_pre_hooks:
        # hooks leave what they make in the layer: in one that shares its parameters, and is thrown away
        shown = object.__new__(type(layer))
        vars(shown).update(vars(layer), training=False)
        for hook in layer._forward_pre_hooks.values():
            hook(shown, ())
        layer = shown
    if not isinstance(layer.weight, Tensor):
        raise TypeError(f"{who}: the weight of {what} must be a tensor, got {type(layer.weight).__name__}")
    return layer.weight.detach(), layer.bias
