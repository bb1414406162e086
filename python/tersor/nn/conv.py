r"""Hyperbolic convolution. The one rule: a patch is one vector, the β-concatenation of its pixels, and is never written down:
its products are torch's convolution and its squared norm is the sum of theirs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tersor import hyperbolic
from tersor._arrays import whole
from tersor.hyperbolic._words import margin
from tersor.nn._cast import accept, check_images, exactly, positive
from tersor.nn.beta import beta_ratio
from tersor.nn.curvature import Curvature, curvature
from tersor.nn.linear import identity_

Pair = int | tuple[int, int]


def pair(layer: nn.Module, name: str, value: Pair, least: int) -> tuple[int, int]:
    """Two sizes, of which one may stand for both."""
    who = f"{type(layer).__name__}: {name}"
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise ValueError(f"{who} must be a number or two, got {value}")
    a, b = (whole(who, v) for v in both)
    if a < least or b < least:
        raise ValueError(f"{who} must be {least} or more, got {value}")
    return a, b


class Conv2d(nn.Module):
    """What convolutions of points have in common: their sizes and parameters, and which images they take."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        positive(self, in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair(self, "kernel_size", kernel_size, 1)
        self.stride, self.padding = pair(self, "stride", stride, 1), pair(self, "padding", padding, 0)
        self.dilation = pair(self, "dilation", dilation, 1)
        shape = (out_channels, in_channels, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, like=self.weight)
        check_images(self, x)
        sizes = zip(x.shape[-2:], self.kernel_size, self.padding, self.dilation, strict=True)
        if any(n + 2 * p <= (k - 1) * d for n, k, p, d in sizes):
            raise ValueError(
                f"{type(self).__name__}: kernels {self.kernel_size} do not fit images of {tuple(x.shape[-2:])}, padded by "
                f"{self.padding}" + (f", dilated by {self.dilation}" if self.dilation != (1, 1) else "")
            )
        return self._of_images(x[None])[0] if x.ndim == 3 else self._of_images(x)

    def _of_images(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        said: list[Any] = [self.in_channels, self.out_channels, f"kernel_size={self.kernel_size}"]
        for name, usual in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1))):
            if getattr(self, name) != usual:
                said.append(f"{name}={getattr(self, name)}")
        return ", ".join(map(str, [*said, f"bias={self.bias is not None}"]))


class PoincareConv2d(Conv2d):
    r"""Hyperbolic convolution of images whose pixels are vectors along the channels.

    The pixels of a patch are β-concatenated to one vector (`beta_concat`) and go through a fully connected layer
    (`PoincareLinear`); zero padding is padding with the origin.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or pair
        As in ``torch.nn.Conv2d``.
    bias, c, learnable, ball, eps, device, dtype
        As `PoincareLinear` takes them.

    Attributes
    ----------
    weight : [out, in, kh, kw], the normals of the hyperplanes; at first half a unit matrix at the middle of the kernel, for
        any shape: the identity for a kernel of one pixel
    bias : [out] or None

    Notes
    -----
    Images are worked on channels-last; others are copied. What is saved for the backward is the input, the product and one
    number per pixel. van Spengler, Berkhout and Mettes, "Poincaré ResNet" (2023), section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        bias: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias, device, dtype)
        self.ball, self.eps = ball, margin(type(self).__name__, "eps", eps)
        self.curvature = curvature(c, learnable, device)
        #: what β-concatenation multiplies the tangent vectors of pixels with
        self.scale = beta_ratio(in_channels, in_channels * math.prod(self.kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The middle pixel of each patch."""
        identity_(self.weight, self.bias, 0.5)

    def _of_images(self, x: Tensor) -> Tensor:
        return exactly(self._convolve, x, self.weight, self.bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        from tersor.hyperbolic import _node

        c = self.curvature()
        if self.ball:
            x = hyperbolic.logmap0(x, c, dim=1)
        product = _node.Images(self.stride, self.padding, self.dilation, self.scale)
        y = _node.tangent(x, weight, bias, c, product)
        return hyperbolic.expmap0(y, c, self.eps, dim=1) if self.ball else y

    def extra_repr(self) -> str:
        return super().extra_repr() + (", ball" if self.ball else "")
