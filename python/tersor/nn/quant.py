"""A linear layer of quantized weights. The one rule: the weights it multiplies with are exactly those of its codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tersor import quant
from tersor.quant import Encoded


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
    to the bias.
    """

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
    def weight(self) -> Tensor:
        """The weight that the codes stand for."""
        e = Encoded(self.data, self.scale, self.zero_point, self.scheme, self.shape, self.dtype)
        decoded: Tensor = quant.decode(e)
        return decoded

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.shape[1]}, {self.shape[0]}, {self.scheme}, bias={self.bias is not None}"
