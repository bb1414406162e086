"""Layers of which some outputs or inputs are kept. The one rule: what is kept is the same numbers, and the layer the same
object."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from tersor._arrays import dtype_name, is_distributed
from tersor.nn._masked import SUFFIX

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def depthwise(module: nn.Module) -> bool:
    """Whether a convolution has a filter for each channel by itself."""
    return type(module) in CONVS and module.groups == module.in_channels == module.out_channels > 1


def kind_of(module: nn.Module) -> str:
    """What a layer may be narrowed as: "layer", with outputs and inputs, "channels", one by one; or nothing."""
    if type(module) is nn.Linear or (type(module) in CONVS and module.groups == 1):
        return "layer"
    if type(module) in NORMS or depthwise(module) or (type(module) is nn.PReLU and module.num_parameters > 1):
        return "channels"
    return ""


def _cut(module: nn.Module, name: str, axis: int, keep: Tensor) -> None:
    for attribute in (name, name + SUFFIX):
        x = module._parameters.get(attribute)
        if x is not None:
            made = x.detach().index_select(axis, keep.to(x.device))
            setattr(module, attribute, nn.Parameter(made, requires_grad=x.requires_grad))
        elif (b := module._buffers.get(attribute)) is not None:
            setattr(module, attribute, b.index_select(axis, keep.to(b.device)))


def narrow(module: Any, keep: Tensor, outputs: bool) -> None:
    """Keeps the outputs, or inputs, of these indices, in place."""
    if kind_of(module) == "channels":
        for name in ("weight", "bias", "running_mean", "running_var"):
            _cut(module, name, 0, keep)
        names = ("num_features",) if type(module) in NORMS else ("in_channels", "out_channels", "groups")
        for name in ("num_parameters",) if type(module) is nn.PReLU else names:
            setattr(module, name, len(keep))
        return
    _cut(module, "weight", 0 if outputs else 1, keep)
    if outputs:
        _cut(module, "bias", 0, keep)
    ends = ("out_features", "in_features") if type(module) is nn.Linear else ("out_channels", "in_channels")
    setattr(module, ends[0 if outputs else 1], len(keep))


def _taken(who: str, layer: Any, keep: Any, outputs: bool) -> Any:
    if not isinstance(layer, nn.Module) or kind_of(layer) != "layer":
        what = f"{type(layer).__name__} of {layer.groups} groups" if type(layer) in CONVS else type(layer).__name__
        raise TypeError(f"{who}: layer must be a torch.nn.Linear or a convolution of one group, got {what}")
    if layer._parameters.get("weight") is None:
        raise TypeError(
            f"{who}: the weight of layer is made by a hook, not kept; remove weight_norm or prune from it first"
        )
    if is_distributed(layer.weight):
        raise TypeError(f"{who}: the weight of layer is a DTensor; layers are cut before they are sharded")
    n = layer.weight.shape[0 if outputs else 1]
    if not isinstance(keep, Tensor) or dtype_name(keep.dtype) not in ("bool", "int64", "int32"):
        kind = dtype_name(keep.dtype) if isinstance(keep, Tensor) else type(keep).__name__
        raise TypeError(f"{who}: keep must be a tensor of bool, int64 or int32, got {kind}")
    if keep.ndim != 1 or (keep.dtype == torch.bool and len(keep) != n):
        raise ValueError(
            f"{who}: keep must have shape ({n},) as a mask, or one axis as indices, got {tuple(keep.shape)}"
        )
    index = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep.long()
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < n):
        raise ValueError(
            f"{who}: keep must hold indices from 0 to {n - 1}, got {int(index.min())} to {int(index.max())}"
        )
    made = copy.copy(layer)
    # its own parameters, buffers and hooks
    made.__dict__ |= {k: copy.copy(v) for k, v in vars(layer).items() if isinstance(v, (dict, set))}
    narrow(made, index, outputs)
    return made


def take_outputs(layer: nn.Module, keep: Tensor) -> nn.Module:
    """A smaller layer that gives some of the outputs (rows, filters, heads) of a linear layer or a convolution.

    Parameters
    ----------
    layer : torch.nn.Linear or Conv1d, Conv2d, Conv3d of one group
        It stays as it is.
    keep : bool tensor [out], or tensor of indices
        A head of an attention is the run of outputs of its queries, keys and values, and of inputs of what follows.

    Returns
    -------
    torch.nn.Module
        Of the kind of `layer`, with its bias, its device and its training state.

    Raises
    ------
    TypeError
        If layer or keep are something else.
    ValueError
        If keep has another length, or an index is out of range.

    See Also
    --------
    take_inputs, shrink, tersor.prune.row_scores
    """
    made: nn.Module = _taken("take_outputs", layer, keep, True)
    return made


def take_inputs(layer: nn.Module, keep: Tensor) -> nn.Module:
    """A smaller layer that takes some of the inputs (columns, channels) of a linear layer or a convolution.

    Parameters
    ----------
    layer : torch.nn.Linear or Conv1d, Conv2d, Conv3d of one group
        It stays as it is.
    keep : bool tensor [in], or tensor of indices

    Returns
    -------
    torch.nn.Module
        As if the other inputs were 0.

    Raises
    ------
    TypeError, ValueError
        As `take_outputs`.
    """
    made: nn.Module = _taken("take_inputs", layer, keep, False)
    return made
