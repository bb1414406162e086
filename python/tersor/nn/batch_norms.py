r"""Batch norms whose statistics are told, mixed or taken of a part. The one rule: parameters and running statistics have the
names that torch gives them, and are moved in training alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import norm, reduce
from tersor._arrays import whole
from tersor.nn._cast import positive
from tersor.nn.norm import Batch, as_it_is, taken
from tersor.norm._arguments import checked_eps, share
from tersor.norm.functional import follow

__all__ = ["AlphaBatchNorm", "BatchChannelNorm"]


class Told(Batch):
    """A batch norm that always keeps running statistics."""

    def __init__(
        self, channels: int, eps: float, momentum: float | None, affine: bool, device: Any = None, dtype: Any = None
    ) -> None:
        positive(self, num_features=channels)
        checked_eps(type(self).__name__, eps)
        if momentum is not None:
            momentum = share(type(self).__name__, "momentum", momentum)
        super().__init__(channels, eps, momentum, affine, True, device, dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class AlphaBatchNorm(Told):
    r"""Batch norm that outside training mixes the running statistics with those of the batch at hand.

    :math:`\mu = \alpha\mu_s + (1 - \alpha)\mu_t`, :math:`\sigma^2` alike: data that moved since training is met half way.

    Parameters
    ----------
    num_features, eps, momentum, affine, device, dtype
        As of ``torch.nn.BatchNorm2d``; inputs [N, C, ...].
    alpha : float in [0, 1]
        1 is batch norm in evaluation, 0 batch norm in training. An attribute, which may be changed.

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    You et al., "Test-time Batch Statistics Calibration for Covariate Shift" (2021).

    Examples
    --------
    >>> import torch
    >>> layer = AlphaBatchNorm(1, alpha=0.5).eval()
    >>> [round(v, 3) for v in layer(torch.tensor([[2.0], [2.0]])).ravel().tolist()]
    [1.414, 1.414]
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        alpha: float = 0.9,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, device, dtype)
        self.alpha = share("AlphaBatchNorm", "alpha", alpha)

    def forward(self, input: Tensor) -> Tensor:
        taken(self, input, self.num_features)
        self._check_input_dim(input)
        mixed: dict[str, Any] = {} if self.training else {"alpha": self.alpha}
        y: Tensor = as_it_is(self._batch, input, **mixed)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}"


class BatchChannelNorm(Told):
    r"""A batch norm and then a norm of groups of channels, each with its own affine map.

    Parameters
    ----------
    num_features : int
    num_groups : int
        Of channels; divides them.
    eps, momentum, device, dtype
        As of ``torch.nn.BatchNorm2d``; inputs [N, C, ...].
    estimate : bool
        Whether training too normalises by the running statistics, which the batch has moved before: for batches of few samples,
        of which none then depends on the others but through them.

    Attributes
    ----------
    weight, bias : [num_features], of the batch norm
    channel_weight, channel_bias : [num_features], of the norm of groups

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range, or the groups do not divide the channels.

    Notes
    -----
    Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization" (2019);
    `WSConv2d` is the other half.

    Examples
    --------
    >>> import torch
    >>> BatchChannelNorm(4, 2)(torch.randn(2, 4, 3, 3)).shape
    torch.Size([2, 4, 3, 3])
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        estimate: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, True, device, dtype)
        self.num_groups, self.estimate = whole("BatchChannelNorm: num_groups", num_groups), bool(estimate)
        if self.num_groups < 1 or num_features % self.num_groups:
            raise ValueError(f"BatchChannelNorm: num_groups={num_groups} does not divide {num_features} channels")
        made = [nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) for _ in range(2)]
        self.channel_weight, self.channel_bias = made
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit scales, no shifts, and no batches."""
        super().reset_parameters()
        if hasattr(self, "channel_bias"):  # torch's own start comes before ours
            nn.init.ones_(self.channel_weight)
            nn.init.zeros_(self.channel_bias)

    def forward(self, input: Tensor) -> Tensor:
        taken(self, input, self.num_features)
        self._check_input_dim(input)
        return as_it_is(self._both, input)

    def _both(self, x: Tensor) -> Tensor:
        y = self._estimated(x) if self.training and self.estimate else self._batch(x)
        return norm.group_norm(y, self.num_groups, self.channel_weight, self.channel_bias, self.eps)

    def _estimated(self, x: Tensor) -> Tensor:
        if x.numel():
            seen = reduce.segment_moments(x.detach(), dim=(0, *range(2, x.ndim)))
            follow(self.running_mean, self.running_var, seen, self._factor())
            self._count()
        # copies: the next batch moves what the backward pass of this one needs
        mean, var = self.running_mean.clone(), self.running_var.clone()
        return norm.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_groups={self.num_groups}, estimate={self.estimate}"
