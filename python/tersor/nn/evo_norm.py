r"""A norm that is its own nonlinearity. The one rule: states are those of timm's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import norm
from tersor._arrays import whole
from tersor.nn._cast import exactly, positive
from tersor.nn.norm import taken
from tersor.norm._arguments import checked_eps, share
from tersor.norm.evo import _VARIANTS as VARIANTS

__all__ = ["EvoNorm2d"]


class EvoNorm2d(nn.Module):
    r"""EvoNorm: a norm and its nonlinearity in one formula (`tersor.norm.evonorm`), in place of batch norm and ReLU.

    Parameters
    ----------
    channels : int
        Inputs [N, C, ...].
    variant : "b0", "b1", "b2", "s0", "s1" or "s2"
        b takes the larger of the batch's deviation and one of the sample itself, s that of groups of the sample's channels.
    groups : int
        In the variants s; divides the channels.
    eps : float, optional
        By default 1e-3 in "b0" and 1e-5 in the others.
    momentum : float
        Of the running variance.
    device, dtype
        As of ``torch.nn.BatchNorm2d``.

    Attributes
    ----------
    weight, bias : [channels]
    v : [channels], in "b0" and "s0"
    running_var : [channels], in the variants b

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range, the variant is unknown or the groups do not divide the channels.

    Notes
    -----
    States are those of timm's ``EvoNorm2dB0`` and the others. Liu et al., "Evolving Normalization-Activation Layers" (2020).

    Examples
    --------
    >>> import torch
    >>> EvoNorm2d(8, "s0", groups=4)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    running_var: Tensor | None
    v: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        variant: str = "b0",
        groups: int = 32,
        eps: float | None = None,
        momentum: float = 0.1,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        positive(self, channels=channels)
        if variant not in VARIANTS:
            raise ValueError(f"EvoNorm2d: variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        self.channels, self.variant, self.groups = channels, variant, whole("EvoNorm2d: groups", groups)
        if self.groups < 1 or (variant[0] == "s" and channels % self.groups):
            raise ValueError(f"EvoNorm2d: groups={groups} does not divide {channels} channels")
        self.eps = checked_eps("EvoNorm2d", (1e-3 if variant == "b0" else 1e-5) if eps is None else eps)
        self.momentum = share("EvoNorm2d", "momentum", momentum)
        for name in ("weight", "bias", "v"):
            made = torch.empty(channels, device=device, dtype=dtype) if name != "v" or variant[1] == "0" else None
            self.register_parameter(name, None if made is None else nn.Parameter(made))
        of_batch = torch.empty(channels, device=device, dtype=dtype) if variant[0] == "b" else None
        self.register_buffer("running_var", of_batch)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit scales, no shift, and no batches."""
        for name, p in self.named_parameters(recurse=False):
            nn.init.constant_(p, float(name != "bias"))
        if self.running_var is not None:
            self.running_var.fill_(1)

    def forward(self, input: Tensor) -> Tensor:
        taken(self, input, self.channels)
        return exactly(self._normalised, input, self.weight, self.bias, self.v)

    def _normalised(self, x: Tensor, weight: Tensor, bias: Tensor, v: Tensor | None) -> Tensor:
        options: dict[str, Any] = {"groups": self.groups, "eps": self.eps, "momentum": self.momentum}
        options |= {"running_var": self.running_var, "training": self.training}
        y: Tensor = norm.evonorm(x, self.variant, weight, bias, v, **options)
        return y

    def extra_repr(self) -> str:
        grouped = f", groups={self.groups}" if self.variant[0] == "s" else f", momentum={self.momentum}"
        return f"{self.channels}, {self.variant!r}, eps={self.eps}{grouped}"
