"""A convolution of quantized weights. The one rule: it is the product of patches with the codes where that is faster, else
torch's own convolution with the decoded weight.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tersor import quant
from tersor._arrays import whole
from tersor.nn._cast import accept, check_images, lowered
from tersor.nn._linear import parts_of
from tersor.nn._product import Product, encoded_as, own_codes
from tersor.quant import Encoded
from tersor.quant._encoded import scheme as find_scheme

Pair = int | tuple[int, int]
#: elements of patches that are made at once: images are taken some at a time
TOGETHER = 1 << 22
_MODES = ("zeros", "reflect", "replicate", "circular")


def _pair(what: str, value: Any, least: int) -> tuple[int, int]:
    who = f"QuantConv2d: {what}"
    many = tuple(whole(who, v) for v in (value if isinstance(value, (tuple, list)) else (value, value)))
    if len(many) != 2 or min(many) < least:
        raise ValueError(f"{who} must be {least} or more, or a pair of such, got {value}")
    return many[0], many[1]


class QuantConv2d(Product):
    r"""A convolution of images whose weight is kept encoded: each pixel is :math:`\hat W p + b` of its patch p.

    Parameters
    ----------
    weight : Encoded of tensors [out, in / groups · kh · kw]
        What ``tersor.quant.encode`` made of ``conv.weight.flatten(1)``: rows are filters.
    bias : tensor [out], optional
    kernel_size : int or pair
    stride, padding, dilation, groups, padding_mode
        As in ``torch.nn.Conv2d``.
    activations : "float" or "int8"
        x as it is; or each patch rounded to int8 (see `tersor.quant.packed_linear`), which is faster from some tens of
        channels on. Its gradient passes straight through. Not with ``groups``.
    activation : "relu", "gelu" or "silu", optional
        As of `QuantLinear`.

    Attributes
    ----------
    data, scale, zero_point, outer, encoding, panels, table : buffers, as in `QuantLinear`
    bias : [out] parameter or None

    Raises
    ------
    TypeError
        If an argument or an input is of a wrong type.
    ValueError
        If shapes do not go together, or int8 activations meet groups.

    Notes
    -----
    With int8 activations, and of up to 96 pixels of floats without a gradient, patches are gathered (a kernel of one pixel
    needs none) and multiplied with the codes as they are: O(pixels · in · kh · kw · out). In all other cases of floats (more
    pixels, groups and depthwise filters, float64, a GPU, traced code) torch's own convolution is the faster one: the weight is
    decoded for it, at every call. Patches are gathered in runs of channels where a filter has one scale; with scales by groups
    of its inputs they are gathered number by number, which is slower. Images in ``torch.channels_last`` are not copied, and
    what comes out is laid out as what went in.

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn
    >>> conv = torch.nn.Conv2d(16, 8, 3, padding=1)
    >>> layer = tnn.QuantConv2d.from_float(conv, "int8-row", "int8")
    >>> layer(torch.randn(2, 16, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(
        self,
        weight: Encoded,
        bias: Tensor | None = None,
        kernel_size: Pair = 1,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        *,
        padding_mode: str = "zeros",
        activations: str = "float",
        activation: str | None = None,
    ) -> None:
        self.kernel_size, self.stride = _pair("kernel_size", kernel_size, 1), _pair("stride", stride, 1)
        self.dilation, self.groups = _pair("dilation", dilation, 1), whole("QuantConv2d: groups", groups)
        if padding_mode not in _MODES:
            raise ValueError(f"QuantConv2d: padding_mode must be one of {', '.join(_MODES)}, got {padding_mode!r}")
        self.padding_mode, self.padding = padding_mode, padding
        if isinstance(padding, str):
            if padding not in ("same", "valid") or (padding == "same" and self.stride != (1, 1)):
                raise ValueError(
                    f"QuantConv2d: padding is {padding!r} with stride {self.stride}: 'valid', or 'same' at 1"
                )
            total = [
                (k - 1) * d if padding == "same" else 0 for k, d in zip(self.kernel_size, self.dilation, strict=True)
            ]
            self._pads = tuple(n for t in reversed(total) for n in (t // 2, t - t // 2))
        else:
            self.padding = _pair("padding", padding, 0)
            self._pads = tuple(p for p in reversed(self.padding) for _ in range(2))
        area, shape = math.prod(self.kernel_size), tuple(getattr(weight, "shape", ()))
        if len(shape) == 2:  # what is no weight at all is refused below
            if self.groups < 1 or shape[1] % area or shape[0] % self.groups:
                raise ValueError(
                    f"QuantConv2d: weight {shape} is not of kernels {self.kernel_size} in {self.groups} groups"
                )
            self.out_channels, self.in_channels = shape[0], shape[1] // area * self.groups
        if activations == "int8" and self.groups > 1:
            raise ValueError(
                f"QuantConv2d: int8 activations go with groups = 1, got {self.groups}: patches of few channels are torch's"
            )
        # the codes are laid out there, by the shape of the kernel
        super().__init__(weight, bias, activations, False, activation)

    @classmethod
    def from_float(
        cls, conv: nn.Conv2d, scheme: str, activations: str = "float", *, activation: str | None = None
    ) -> QuantConv2d:
        """The convolution ``conv`` with its filters encoded by ``scheme`` ("int8-row", "int4-g16", …).

        What is taken of it and refused is as in `QuantLinear.from_float`. A filter is a row of in / groups · kh · kw numbers.
        """
        weight, _ = parts_of("QuantConv2d.from_float", conv, nn.Conv2d)
        return cls.of(
            encoded_as("QuantConv2d.from_float", weight.flatten(1), scheme), conv, activations, activation=activation
        )

    @classmethod
    def of(
        cls, weight: Encoded, conv: nn.Conv2d, activations: str = "float", *, activation: str | None = None
    ) -> QuantConv2d:
        """The convolution ``conv`` with these codes of ``conv.weight.flatten(1)``, and its own bias."""
        dense, bias = parts_of("QuantConv2d.of", conv, nn.Conv2d)
        own = own_codes("QuantConv2d.of", weight, dense.flatten(1))
        layer = cls(
            own,
            bias,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            padding_mode=conv.padding_mode,
            activations=activations,
            activation=activation,
        )
        return layer._as_frozen(bias)

    def _said(self) -> str:
        (outs, columns), (h, w) = self.shape, self.kernel_size
        return f"{self.scheme} {outs}x{columns // (h * w)}x{h}x{w}"

    @property
    def weight(self) -> Tensor:
        """The weight [out, in / groups, kh, kw] that the codes stand for."""
        return super().weight.reshape(self.shape[0], -1, *self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, like=self.bias)
        check_images(self, x)
        if x.ndim == 3:
            return self.forward(x[None])[0]
        x, bias = lowered(x, self.bias)
        size = self._size(x)
        if self.activations == "float" and not self._few(x, size):
            return self._convolved(x, bias)
        images = x.shape[0]
        if not torch.compiler.is_compiling():
            images = TOGETHER // max(1, math.prod(size) * self.shape[1])
        parts = [self._multiply(self._patches(part, size), bias) for part in x.split(max(1, images))]
        y = (parts[0] if len(parts) == 1 else torch.cat(parts)).permute(0, 3, 1, 2)
        return y if x.is_contiguous(memory_format=torch.channels_last) else y.contiguous()

    def _size(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of the result."""
        left, right, top, bottom = self._pads
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        high, wide = x.shape[2] + top + bottom - (kh - 1) * dh, x.shape[3] + left + right - (kw - 1) * dw
        if high < 1 or wide < 1:
            raise ValueError(
                f"QuantConv2d: kernels {self.kernel_size} do not fit images of {tuple(x.shape[2:])}, padded by {self.padding}"
            )
        return (high - 1) // sh + 1, (wide - 1) // sw + 1

    def _few(self, x: Tensor, size: tuple[int, int]) -> bool:
        """Whether floats are few enough, and nothing else is asked, for patches to be faster than torch's convolution."""
        if self.groups > 1 or torch.compiler.is_compiling() or (torch.is_grad_enabled() and x.requires_grad):
            return False
        return self._laid_out(x, x.shape[0] * math.prod(size) * self.shape[1]) is not None

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """By torch's own convolution."""
        weight = self._decoded(x).reshape(self.shape[0], -1, *self.kernel_size)
        left, right, top, bottom = self._pads
        pads = (top, left)
        if self.padding_mode != "zeros" or (left, top) != (right, bottom):
            x, pads = self._padded(x), (0, 0)
        return self._bent(nn.functional.conv2d(x, weight, bias, self.stride, pads, self.dilation, self.groups))

    def _padded(self, x: Tensor) -> Tensor:
        if not any(self._pads):
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        left, right, top, bottom = self._pads
        short = {"reflect": 1, "circular": 0}.get(mode)  # by how much a pad must be less than the image
        if short is not None and (max(left, right) + short > x.shape[-1] or max(top, bottom) + short > x.shape[-2]):
            raise ValueError(
                f"QuantConv2d: images of {tuple(x.shape[2:])} are too small for {mode} padding by {self.padding}"
            )
        return nn.functional.pad(x, self._pads, mode)

    @property
    def _by_channels(self) -> bool:
        """Whether the channels of a pixel lie beside each other in patches and panels: those of files have them apart."""
        return self.kernel_size != (1, 1) and self.scale.numel() <= self.shape[0]

    def _patches(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The patches [B, H, W, in · kh · kw] of images."""
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        x = self._padded(x).permute(0, 2, 3, 1)
        if (kh, kw) == (1, 1):
            return x[:, ::sh, ::sw]
        p = x.contiguous().unfold(1, (kh - 1) * dh + 1, sh).unfold(2, (kw - 1) * dw + 1, sw)[..., ::dh, ::dw]
        if self._by_channels:
            p = p.permute(0, 1, 2, 4, 5, 3)
        return p.reshape(x.shape[0], *size, self.shape[1])

    def _in_order(self) -> Encoded:
        e = self.encoded
        if not self._by_channels:
            return e
        how = find_scheme(self.scheme)
        q = self.data if how.bits == 8 else quant.unpack(self.data, how.bits, self.shape, dtype="uint8")
        q = q.reshape(self.shape[0], -1, math.prod(self.kernel_size)).transpose(1, 2).reshape(self.shape)
        return replace(e, data=q.contiguous() if how.bits == 8 else quant.pack(q, how.bits))

    def extra_repr(self) -> str:
        said: list[Any] = [self.in_channels, self.out_channels, f"kernel_size={self.kernel_size}"]
        usual = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
        said += [f"{k}={getattr(self, k)}" for k, v in usual.items() if getattr(self, k) != v]
        return ", ".join(map(str, [*said, self._options()]))
