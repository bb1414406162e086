"""Layers brought back as torch's own. The one rule: a dense layer has the weight that its codes or its values stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tersor.nn.experts import QuantExperts
from tersor.nn.quant_conv import QuantConv2d
from tersor.nn.sparse import SparseConv1x1, SparseLinear
from tersor.nn.sparse_int8 import SparseInt8Linear


@torch.no_grad()
def dense(layer: Any) -> nn.Module:
    if isinstance(layer, QuantExperts):
        return layer.dense()
    bias = layer.bias
    if getattr(layer, "activation", None):
        raise ValueError(f"it has an activation of its own, {layer.activation}, which a dense layer would lack")
    if getattr(layer, "act", None):
        raise ValueError(f"it has an activation of its own, {layer.act}, which a dense layer would lack")
    if isinstance(layer, (SparseLinear, SparseConv1x1)):
        weight, grad = layer.to_dense(), layer.data.requires_grad
    elif isinstance(layer, SparseInt8Linear):
        weight, grad = layer.to_dense(), bias is None or bias.requires_grad
    else:
        weight, grad = layer.weight.to(getattr(torch, layer.dtype)), bias is None or bias.requires_grad
    made: nn.Module
    if isinstance(layer, QuantConv2d):
        shape: Any = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, bias is not None
        made = nn.Conv2d(layer.in_channels, layer.out_channels, *shape, layer.padding_mode, device="meta")
    elif isinstance(layer, SparseConv1x1):
        made, weight = nn.Conv2d(layer.in_channels, layer.out_channels, 1, device="meta"), weight[..., None, None]
        made.bias = None
    else:
        made = nn.Linear(layer.in_features, layer.out_features, bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return made.train(layer.training)
