r"""A layer norm whose deviations became constants. The one rule: it is a linear map, and folds into the layer behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersor import norm, reduce
from tersor._arrays import sizes
from tersor.nn._cast import exactly, positive
from tersor.nn.norm import ends
from tersor.nn.prep_bn import into
from tersor.norm._arguments import checked_eps

__all__ = ["FrozenLayerNorm"]


class FrozenLayerNorm(nn.LayerNorm):
    r"""A layer norm that divides by constants, :math:`\gamma(x - \mu)/\bar\sigma + \beta`: a linear map, which `fold` puts into
    the layer behind.

    `observe` takes the mean of :math:`\sqrt{v + \varepsilon}` over the rows that a layer norm sees.

    Parameters
    ----------
    normalized_shape, eps, elementwise_affine, bias, device, dtype
        As of ``torch.nn.LayerNorm``.
    positions : int
        Constants along the axis before: row i has that of min(i, positions - 1). 1: one for all; 2: the first by itself.

    Attributes
    ----------
    std : [positions]
        :math:`\bar\sigma`, 1 at first.
    rows : [positions]
        How many it is the mean of.

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    Baroni et al., "Transformers Don't Need LayerNorm at Inference Time" (2025).

    Examples
    --------
    >>> import torch
    >>> x, layer = torch.randn(5, 8), torch.nn.LayerNorm(8)
    >>> frozen = FrozenLayerNorm.from_float(layer)
    >>> frozen.observe(x)
    >>> behind = torch.nn.Linear(8, 3)
    >>> torch.allclose(frozen.fold(behind)(x), behind(frozen(x)), atol=1e-5)
    True
    """

    std: Tensor
    rows: Tensor

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        positions: int = 1,
    ) -> None:
        positive(self, positions=positions)
        checked_eps("FrozenLayerNorm", eps)
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype)
        self.positions = positions
        self.register_buffer("std", torch.empty(positions, device=device, dtype=dtype))
        self.register_buffer("rows", torch.empty(positions, device=device, dtype=torch.int64))
        self.reset_parameters()

    @classmethod
    def from_float(cls, layer: nn.LayerNorm, *, positions: int = 1) -> FrozenLayerNorm:
        """A frozen norm with the parameters of a layer norm, themselves.

        Raises
        ------
        TypeError
            If it is none.
        """
        if not isinstance(layer, nn.LayerNorm):
            raise TypeError(f"FrozenLayerNorm.from_float: a torch.nn.LayerNorm is needed, got {type(layer).__name__}")
        weight, bias = layer.weight, layer.bias
        shape, like = layer.normalized_shape, {} if weight is None else {"device": weight.device, "dtype": weight.dtype}
        made = cls(shape, layer.eps, weight is not None, bias is not None, **like, positions=positions)
        made.weight, made.bias = weight, bias
        return made.train(layer.training)

    def reset_parameters(self) -> None:
        """Unit scale, no shift, constants of 1 that nothing was seen for."""
        super().reset_parameters()
        if hasattr(self, "rows"):
            self.std.fill_(1)
            self.rows.fill_(0)

    def _places(self, x: Tensor) -> Tensor:
        """Which constant each row along the axis before has."""
        n = x.ndim - len(self.normalized_shape)
        if not n and self.positions > 1:
            raise ValueError(f"FrozenLayerNorm: there is no axis of positions in shape {sizes(x.shape)}")
        length = x.shape[n - 1] if n and self.positions > 1 else 1
        return torch.arange(length, device=x.device).clamp_max(self.positions - 1)

    def forward(self, input: Tensor) -> Tensor:
        ends(self, input)
        return exactly(self._divided, input, self.weight, self.bias)

    def _divided(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        n = len(self.normalized_shape)
        std = self.std[self._places(x)].reshape(-1, *(1,) * n).to(x.dtype)
        y: Tensor = norm.standardize(x, weight, bias, dim=tuple(range(-n, 0)), eps=0.0, std=std)
        return y

    def _deviations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows, ``[…, length]`` in float64, and their places."""
        ends(self, x)
        n, places = len(self.normalized_shape), self._places(x)
        var = reduce.segment_moments(x, dim=tuple(range(-n, 0))).var
        return (var + self.eps).sqrt().reshape(-1, len(places)), places

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Takes rows into the mean that the constants are.

        Raises
        ------
        TypeError, ValueError
            As a forward pass does; also if a deviation is not finite, which would stay for good.
        """
        std, places = self._deviations(x)
        if not bool(std.isfinite().all()):
            raise ValueError("FrozenLayerNorm: a row that is observed has a deviation that is not finite")
        new = torch.zeros_like(self.rows).index_add(0, places, torch.full_like(places, len(std)))
        sums = std.new_zeros(self.positions).index_add(0, places, std.sum(0))
        whole_ = (self.rows + new).clamp_min(1)
        self.std.copy_(torch.where(new > 0, (self.std.double() * self.rows + sums) / whole_, self.std))
        self.rows.add_(new)

    def penalty(self, x: Tensor) -> Tensor:
        r"""The mean of :math:`(\sigma_i - \bar\sigma)^2` over rows, :math:`\bar\sigma` the mean of their own place in x.

        In the loss it brings deviations together before they become constants. float64, with a gradient.
        """
        std, places = self._deviations(x)
        sums = std.new_zeros(self.positions).index_add(0, places, std.sum(0))
        count = std.new_zeros(self.positions).index_add(0, places, torch.full_like(std[0], len(std)))
        return (std - (sums / count.clamp_min(1))[places]).square().mean()

    @torch.no_grad()
    def fold(self, linear: nn.Linear) -> nn.Linear:
        """A copy of the layer behind with this norm in it.

        Raises
        ------
        TypeError
            If the layer is no ``torch.nn.Linear``.
        ValueError
            If there are several constants or several axes, or the layer takes another number of inputs.
        """
        if self.positions > 1 or len(self.normalized_shape) > 1:
            raise ValueError(
                f"FrozenLayerNorm.fold: one constant and one axis are a map of rows, got positions={self.positions} and "
                f"normalized_shape={tuple(self.normalized_shape)}"
            )
        scale = (linear.weight.new_ones(self.normalized_shape) if self.weight is None else self.weight) / self.std
        shift = torch.zeros_like(scale) if self.bias is None else self.bias
        return into("FrozenLayerNorm", linear, scale, shift, True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, positions={self.positions}"
