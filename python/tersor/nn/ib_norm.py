r"""Two norms side by side. The one rule: in training one pass serves both, by the label of each sample and channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tersor import norm
from tersor._arrays import sizes
from tersor._segments import Moments
from tersor.nn.batch_norms import Told
from tersor.nn.norm import as_it_is, taken
from tersor.norm._arguments import share
from tersor.norm.functional import follow

__all__ = ["IBNorm"]


class IBNorm(Told):
    r"""Instance norm of the first channels and batch norm of the others, in one pass.

    Of C channels the first :math:`h = \lfloor C\cdot ratio\rfloor` forget how bright and contrasty a sample is.

    Parameters
    ----------
    channels : int
    ratio : float in [0, 1]
    eps, momentum, device, dtype
        As of ``torch.nn.BatchNorm2d``; inputs [N, C, ...].

    Attributes
    ----------
    weight, bias : [channels]
    running_mean, running_var : [channels - h]

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    Pan et al., "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net" (2018); any number of
    channels, also odd ones.

    Examples
    --------
    >>> import torch
    >>> IBNorm(5)(torch.randn(2, 5, 3, 3)).shape
    torch.Size([2, 5, 3, 3])
    """

    def __init__(
        self,
        channels: int,
        ratio: float = 0.5,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(channels, eps, momentum, True, device, dtype)
        self.ratio = share("IBNorm", "ratio", ratio)
        self.half = int(channels * self.ratio)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.empty(channels - self.half, device=device, dtype=dtype))
        self.reset_running_stats()

    def forward(self, input: Tensor) -> Tensor:
        taken(self, input, self.num_features)
        self._check_input_dim(input)
        return as_it_is(self._one if self.training and input.numel() else self._parts, input)

    def _one(self, x: Tensor) -> Tensor:
        """Both by the label of each sample and channel."""
        (n, c), h = x.shape[:2], self.half
        if x[0, 0].numel() == 1 and (h or n == 1):
            raise ValueError(f"IBNorm: one element has no variance, got shape {sizes(x.shape)}")
        sample, channel = (torch.arange(m, device=x.device) for m in (n, c))
        labels = torch.where(channel < h, sample[:, None] * h + channel, n * h + channel - h)
        ones = (1,) * (x.ndim - 2)
        given = {"labels": labels.reshape(n, c, *ones), "num_segments": n * h + c - h, "return_stats": True}
        affine = (p.reshape(-1, *ones) for p in (self.weight, self.bias))
        y, seen = norm.standardize(x, *affine, dim=None, eps=self.eps, **given)
        if h < c:
            moments = Moments(*(s.reshape(-1)[n * h :] for s in seen))
            follow(self.running_mean, self.running_var, moments, self._factor())
        self._count()
        return y

    def _parts(self, x: Tensor) -> Tensor:
        """The two norms beside each other."""
        h, w, b, parts = self.half, self.weight, self.bias, []
        if h:
            parts.append(norm.instance_norm(x[:, :h], w[:h], b[:h], self.eps))
        if h < self.num_features:
            mean, var = self.running_mean, self.running_var
            parts.append(norm.batch_norm(x[:, h:], mean, var, w[h:], b[h:], False, 0.0, self.eps))
        return torch.cat(parts, 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ratio={self.ratio}"
