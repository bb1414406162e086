"""A linear layer of quantized weights. The one rule: the weights it multiplies with are exactly those of its codes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tersor import quant
from tersor._arrays import dtype_name
from tersor.quant import Encoded

#: per thread, the memory that weights are decoded into where no gradient has to find them later
_SCRATCH = threading.local()


def _scratch(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for one decoded weight, shared by all layers of a thread, as large as the largest of them."""
    kept: dict[Any, Tensor] = _SCRATCH.__dict__.setdefault("kept", {})
    memory = kept.get((dtype, device))
    n = math.prod(shape)
    if memory is None or memory.numel() < n:
        memory = kept[dtype, device] = torch.empty(n, dtype=dtype, device=device)
    return memory[:n].view(shape)


class QuantLinear(nn.Module):
    r"""A linear layer whose weight is kept encoded, :math:`y = x\hat W^\top + b` with :math:`\hat W` decoded as it is used.

    Parameters
    ----------
    weight : Encoded of tensors [out, in]
        What ``tersor.quant.encode`` made of the weight.
    bias : tensor [out], optional

    Notes
    -----
    Codes and scales are buffers: they are saved and moved with the module and are not trained. The gradient flows to x and
    to the bias. The weight is decoded in the dtype of x, so ``layer.to(torch.bfloat16)`` changes the bias and nothing else:
    scales keep their precision. Without a gradient to record, all layers of a thread decode into the same memory.
    """

    data: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, weight: Encoded, bias: Tensor | None = None) -> None:
        super().__init__()
        self.scheme, self.shape, self.dtype = weight.scheme, weight.shape, weight.dtype
        self.register_buffer("data", weight.data)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("zero_point", weight.zero_point)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: str) -> QuantLinear:
        """The layer ``linear`` with its weight encoded by ``scheme`` ("int8-row", "int4-g128", …)."""
        return cls(quant.encode(linear.weight.detach(), scheme), linear.bias)

    @property
    def encoded(self) -> Encoded:
        """The weight as `tersor.quant.decode` takes it."""
        return Encoded(self.data, self.scale, self.zero_point, self.scheme, self.shape, self.dtype)

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for."""
        decoded: Tensor = quant.decode(self.encoded)
        return decoded

    def forward(self, x: Tensor) -> Tensor:
        e = replace(self.encoded, dtype=dtype_name(x.dtype))
        # what a backward will read must not be overwritten by the next layer
        kept = torch.is_grad_enabled() and x.requires_grad
        if kept or torch.compiler.is_compiling():
            weight = quant.decode(e)
        else:
            weight = quant.decode(e, out=_scratch(self.shape, x.dtype, x.device))
        return torch.nn.functional.linear(x, weight, self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantLinear:
        exact = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != exact.dtype:
            self.scale = exact.to(self.scale.device)
        return self

    def extra_repr(self) -> str:
        return f"{self.shape[1]}, {self.shape[0]}, {self.scheme}, bias={self.bias is not None}"
