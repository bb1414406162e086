r"""Layers whose filters are standardised before they are used. The one rule: they are torch's layers, arguments and states."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from tersor import norm
from tersor.nn._cast import accept, check_images, exactly
from tersor.norm._arguments import checked_eps

__all__ = ["WSConv2d", "WSLinear"]


class _Standardized(nn.Module):
    """A weight that is trained as it is and used as `tersor.norm.weight_standardize` makes it."""

    weight: nn.Parameter
    gain: nn.Parameter | None
    eps: float

    def _told(self, gain: bool, eps: float) -> None:
        if math.prod(self.weight.shape[1:]) == 1:
            raise ValueError(
                f"{type(self).__name__}: one weight has no variance; two at least are standardised together"
            )
        self.eps = checked_eps(type(self).__name__, eps)
        made = torch.ones(len(self.weight), device=self.weight.device, dtype=self.weight.dtype) if gain else None
        self.register_parameter("gain", None if made is None else nn.Parameter(made))

    def _used(self) -> Tensor:
        return exactly(norm.weight_standardize, self.weight, self.gain, self.eps)

    def reset_parameters(self) -> None:
        """torch's, and unit gains."""
        super().reset_parameters()
        if getattr(self, "gain", None) is not None:
            nn.init.ones_(self.gain)


class WSConv2d(_Standardized, nn.Conv2d):
    r"""``torch.nn.Conv2d`` whose filters have mean 0 and variance 1, :math:`g(w - \mu)/\sqrt{v + \varepsilon}`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size and so on
        As of ``torch.nn.Conv2d``.
    gain : bool
        Whether g is learned, one number for each filter; else 1.
    eps : float

    Raises
    ------
    TypeError, ValueError
        If eps is none, or one weight stands alone.

    Notes
    -----
    Without a gain the state is that of ``torch.nn.Conv2d``. Qiao et al., "Micro-Batch Training with Batch-Channel Normalization
    and Weight Standardization" (2019).

    Examples
    --------
    >>> import torch
    >>> WSConv2d(3, 4, 3, padding=1)(torch.randn(2, 3, 5, 5)).shape
    torch.Size([2, 4, 5, 5])
    """

    def __init__(self, *args: Any, gain: bool = False, eps: float = 1e-5, **options: Any) -> None:
        super().__init__(*args, **options)
        self._told(gain, eps)

    def forward(self, input: Tensor) -> Tensor:
        accept(self, input, like=self.weight)
        check_images(self, input)
        return self._conv_forward(input, self._used(), self.bias)


class WSLinear(_Standardized, nn.Linear):
    r"""``torch.nn.Linear`` whose rows have mean 0 and variance 1, :math:`g(w - \mu)/\sqrt{v + \varepsilon}`.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As of ``torch.nn.Linear``.
    gain : bool
        Whether g is learned, one number for each row; else 1.
    eps : float

    Raises
    ------
    TypeError, ValueError
        If eps is none, or one weight stands alone.

    Notes
    -----
    As `WSConv2d`, of one pixel.

    Examples
    --------
    >>> import torch
    >>> WSLinear(3, 4)(torch.randn(2, 3)).shape
    torch.Size([2, 4])
    """

    def __init__(self, *args: Any, gain: bool = False, eps: float = 1e-5, **options: Any) -> None:
        super().__init__(*args, **options)
        self._told(gain, eps)

    def forward(self, input: Tensor) -> Tensor:
        accept(self, input, self.in_features, -1, self.weight)
        return linear(input, self._used(), self.bias)
