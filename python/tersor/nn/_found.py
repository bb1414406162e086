"""Which layers of a model are exchanged, and which codes are theirs. The one rule: what is left has a reason that is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tersor._layers import transposed
from tersor.checkpoint._parts import held
from tersor.checkpoint._patterns import Patterns
from tersor.nn.quant import QuantLinear
from tersor.nn.quant_conv import QuantConv2d
from tersor.quant import Encoded

#: the encoded layer of each dense one
CODED: dict[type[nn.Module], Any] = {nn.Linear: QuantLinear, nn.Conv2d: QuantConv2d}


def tensors(name: str, module: nn.Module | None) -> list[str]:
    """What patterns may call the weights of a layer."""
    ours = dict.fromkeys(module._parameters if module is not None and of_experts(name, module) else ())
    return [f"{name}.{n}" for n in ours or ("weight",)]


def of_experts(name: str, module: nn.Module) -> bool:
    """Whether a module of others holds the weights of experts side by side, or, as DBRX, one below the other."""
    own = module._parameters.items()
    stacked = any(p is not None and (p.ndim == 3 or (p.ndim == 2 and k != "weight")) for k, p in own)
    return stacked and "expert" in f"{name} {type(module).__name__}".lower()


def paired(
    layers: Mapping[str, Any], codes: Mapping[str, Encoded], left: dict[str, str], others: bool
) -> dict[str, Encoded]:
    """The codes of each layer; what is of none is said in `left`, and all of them are an error, if no ``others`` are there."""
    found: dict[str, Encoded] = {}
    taken: dict[str, str] = {}
    for name, code in codes.items():
        if not isinstance(name, str) or not isinstance(code, Encoded):
            raise TypeError(f"convert: codes must be an Encoded for a name, got {type(code).__name__} for {name!r}")
        stem = name.removesuffix(".weight")
        alike = (
            [stem]
            if stem in layers
            else [k for k in layers if f".{k}".endswith(f".{stem}") or f".{stem}".endswith(f".{k}")]
        )
        if len(alike) != 1:
            left[name] = f"codes that may be of {' or '.join(alike)}" if alike else "codes of no linear layer"
            continue
        layer = layers[alike[0]]
        if (
            getattr(layer, "weight", None) is None
        ):  # packed by another library, which has replaced its forward: left, and said
            shape = layer.out_features, layer.in_features
        else:
            shape = tuple(layer.weight.shape)[:: -1 if transposed(layer) else 1]
        if tuple(code.shape) != (shape[0], math.prod(shape[1:])):
            raise ValueError(
                f"convert: codes {name!r} are of shape {tuple(code.shape)}, the layer {alike[0]!r} is {shape}"
            )
        if alike[0] in taken:
            raise ValueError(f"convert: {taken[alike[0]]!r} and {name!r} are both codes of the layer {alike[0]!r}")
        found[alike[0]], taken[alike[0]] = code, name
    if not found and not others:
        raise ValueError(
            f"convert: none of the codes is of a linear layer of the model; they are of {', '.join(codes) or 'nothing'}"
        )
    return found


def why_left(names: Sequence[str], module: nn.Module, patterns: Patterns, shared: Mapping[int, str]) -> str | None:
    """Why a layer that stands at these names is not even tried."""
    every = [tensor for name in names for tensor in tensors(name, module)]
    if any(map(patterns.excluded, every)):
        return "excluded"
    if any(map(patterns.included, every)):
        return None
    if patterns.include:
        return "not included"
    if why := shared.get(id(module)):
        return why
    parameter = module._parameters.get("weight")
    if parameter is not None and (other := shared.get(id(parameter))):
        return f"its weight is also that of {other}"
    return next(filter(None, (held(tensor, "") for tensor in every)), None)


def others_of(model: nn.Module) -> dict[int, str]:
    """Parameters that modules of other kinds use too, by the first of these, and layers whose weight torch reads by itself."""
    others: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            others[id(module.out_proj)] = "torch's attention reads its weight itself"
        elif isinstance(module, nn.TransformerEncoderLayer):
            others |= dict.fromkeys(
                map(id, (module.linear1, module.linear2)), "torch's encoder layer reads its weight itself"
            )
        if not (isinstance(module, tuple(CODED)) or transposed(module)):
            for parameter in module._parameters.values():
                if parameter is not None:
                    others.setdefault(id(parameter), name)
    return others
