r"""Norms of rows beside torch's. The one rule: rows lie along the last axes, and nothing is kept but what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersor import norm
from tersor._arrays import sizes
from tersor.nn._cast import accept, exactly, positive
from tersor.nn.norm import ends, taken
from tersor.norm._arguments import checked_eps

__all__ = ["CRMSNorm", "PeriNorm", "TimeDependentNorm"]


class CRMSNorm(nn.RMSNorm):
    r"""RMS norm of rows that are completed by minus their sum, :math:`\gamma x/\sqrt{(\sum x^2 + (\sum x)^2)/(d+1) +
    \varepsilon}`: the layer norm of rows of mean 0 of which the last number is not stored.

    Parameters
    ----------
    normalized_shape : int
        The last axis alone.
    eps, elementwise_affine, device, dtype
        As of ``torch.nn.RMSNorm``.

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    Jiang et al., "Pre-RMSNorm and Pre-CRMSNorm Transformers" (2023).

    Examples
    --------
    >>> import torch
    >>> CRMSNorm(3, elementwise_affine=False)(torch.tensor([[1.0, -1.0, 2.0]])).round(decimals=4).tolist()
    [[0.6324999928474426, -0.6324999928474426, 1.2648999691009521]]
    """

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-6,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        positive(self, normalized_shape=normalized_shape)
        super().__init__(normalized_shape, checked_eps("CRMSNorm", eps), elementwise_affine, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        ends(self, x)
        return exactly(norm.crms_norm, x, self.weight, self.eps)


class TimeDependentNorm(nn.Module):
    r"""Layer norm whose affine map moves with a time, :math:`\gamma = p_1 + s(p_0 - p_1)`, β alike; :math:`s = \sigma(wt + b)`.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The last axes.
    eps : float
    device, dtype
        As of ``torch.nn.LayerNorm``.

    Attributes
    ----------
    weight, bias : [2, *normalized_shape]
        :math:`p_0` and :math:`p_1` of γ and of β.
    time_weight, time_bias : [1]
        w and b, 1 and 0 at first.

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    Liu et al., "Alleviating Distortion in Image Generation via Multi-Resolution Diffusion Models" (2024).

    Examples
    --------
    >>> import torch
    >>> TimeDependentNorm(8)(torch.randn(2, 5, 8), torch.tensor([0.1, 0.9])).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        several = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        self.normalized_shape: tuple[int, ...] = tuple(several)
        if not several:
            raise ValueError("TimeDependentNorm: normalized_shape must name an axis or more, got ()")
        for n in self.normalized_shape:
            positive(self, normalized_shape=n)
        self.eps = checked_eps("TimeDependentNorm", eps)
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight, self.bias = (nn.Parameter(torch.empty(2, *self.normalized_shape, **kind)) for _ in range(2))
        self.time_weight, self.time_bias = (nn.Parameter(torch.empty(1, **kind)) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A layer norm at all times."""
        for p in (self.weight, self.time_weight):
            nn.init.ones_(p)
        for p in (self.bias, self.time_bias):
            nn.init.zeros_(p)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """`x` is [N, ..., *normalized_shape] and `t` [N], of any float type."""
        ends(self, x)
        accept(self, t)
        if x.ndim == len(self.normalized_shape) or tuple(t.shape) != tuple(x.shape[:1]):
            raise ValueError(
                f"TimeDependentNorm: one time for each sample is needed, got t {sizes(t.shape)} for x {sizes(x.shape)}"
            )
        return exactly(self._normalised, x, t, self.weight, self.bias, self.time_weight, self.time_bias)

    def _normalised(self, x: Tensor, t: Tensor, *parameters: Tensor) -> Tensor:
        *ends_, w, b = parameters
        n = len(self.normalized_shape)
        s = (t.to(w.dtype) * w + b).sigmoid().reshape(-1, *(1,) * (x.ndim - 1))
        gain, shift = (p[1] + s * (p[0] - p[1]) for p in ends_)
        y: Tensor = norm.standardize(x, gain, shift, dim=tuple(range(-n, 0)), eps=self.eps)
        return y

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class PeriNorm(nn.Module):
    r"""What a block adds is normalised, added to the stream, and the sum normalised for the next block.

    :math:`s = r + \gamma_i\,\mathrm{norm}(x) + \beta_i`, :math:`y = \gamma\,\mathrm{norm}(s) + \beta` (`tersor.norm.add_norm`).

    Parameters
    ----------
    normalized_shape : int
        The last axis.
    eps : float
    kind : "rms" or "layer"
        "layer" has β.
    device, dtype
        As of ``torch.nn.LayerNorm``.

    Attributes
    ----------
    weight, bias, inner_weight, inner_bias : [normalized_shape]

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range, or the kind is unknown.

    Notes
    -----
    Kim et al., "Peri-LN: Revisiting Layer Normalization in the Transformer Architecture" (2025).

    Examples
    --------
    >>> import torch
    >>> y, stream = PeriNorm(8)(torch.randn(2, 8), torch.randn(2, 8))
    >>> y.shape, stream.shape
    (torch.Size([2, 8]), torch.Size([2, 8]))
    """

    def __init__(
        self, normalized_shape: int, eps: float = 1e-6, *, kind: str = "rms", device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        positive(self, normalized_shape=normalized_shape)
        if kind not in ("rms", "layer"):
            raise ValueError(f"PeriNorm: kind must be 'rms' or 'layer', got {kind!r}")
        self.normalized_shape, self.kind = (normalized_shape,), kind
        self.eps = checked_eps("PeriNorm", eps)
        for name in ("weight", "bias", "inner_weight", "inner_bias"):
            there = kind == "layer" or "weight" in name
            made = nn.Parameter(torch.empty(normalized_shape, device=device, dtype=dtype)) if there else None
            self.register_parameter(name, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit scales and no shifts."""
        for name, p in self.named_parameters(recurse=False):
            nn.init.constant_(p, float("weight" in name))

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """What the next block reads, and the stream."""
        for given in (x, residual):
            ends(self, given)
            taken(self, given)
        options = {"inner_weight": self.inner_weight, "inner_bias": self.inner_bias}
        return exactly(norm.add_norm, x, residual, self.weight, self.bias, kind=self.kind, eps=self.eps, **options)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, kind={self.kind!r}"
