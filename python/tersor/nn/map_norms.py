r"""Norms of maps that are told where: inside a mask, at a coordinate. The one rule: what is
told comes with the input, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from tersor import norm
from tersor._arrays import Labels, flag, sizes
from tersor.nn._cast import accept, exactly, positive
from tersor.nn.norm import as_it_is, taken
from tersor.norm._arguments import checked_eps

__all__ = ["CoordinateModulation", "RegionNorm"]


class RegionNorm(nn.Module):
    r"""Batch norm of a region and of what is around it by themselves, each with its own affine map.

    Parameters
    ----------
    num_features : int
        Inputs [N, C, H, W], with a mask [N, 1, H, W] of bool or 0 and 1.
    eps : float
    affine : bool
    device, dtype
        As of ``torch.nn.BatchNorm2d``.

    Attributes
    ----------
    weight, bias : [2, num_features], outside first

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    No running statistics: each batch by its own, in evaluation too. Yu et al., "Region Normalization for Image Inpainting"
    (2020).

    Examples
    --------
    >>> import torch
    >>> mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    >>> RegionNorm(3)(torch.randn(2, 3, 4, 4), mask).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        positive(self, num_features=num_features)
        self.num_features, self.eps = num_features, checked_eps("RegionNorm", eps)
        for name in ("weight", "bias"):
            made = (
                torch.empty(2, num_features, device=device, dtype=dtype) if flag("RegionNorm: affine", affine) else None
            )
            self.register_parameter(name, None if made is None else nn.Parameter(made))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit scales and no shifts."""
        for name, p in self.named_parameters(recurse=False):
            nn.init.constant_(p, float(name == "weight"))

    def forward(self, input: Tensor, mask: Labels) -> Tensor:
        taken(self, input, self.num_features)
        y: Tensor = as_it_is(norm.region_norm, input, mask, self.weight, self.bias, self.eps)
        return y

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}"


class CoordinateModulation(nn.Module):
    r"""Features of places, normalised over all of them, with scale and shift read from grids at their coordinates.

    :math:`y_{pc} = \gamma(a_p)(x_{pc} - \mu_c)/\sqrt{v_c + \varepsilon} + \beta(a_p)`, γ and β read between the points of a
    grid over :math:`[-1, 1]^k` (at its edge beyond).

    Parameters
    ----------
    num_features : int
        The last axis of the input.
    size : int or up to three of int
        Points of the grids along each coordinate, the last one first, as ``torch.nn.functional.grid_sample`` has them.
    shared : bool
        Whether all features have the same grids.
    eps : float
    device, dtype
        As of ``torch.nn.BatchNorm1d``.

    Attributes
    ----------
    weight, bias : [1 or num_features, *size]

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    γ and β are not laid out for each feature where these share them. Lee et al., "Coordinate-Aware Modulation for Neural
    Fields" (2024).

    Examples
    --------
    >>> import torch
    >>> CoordinateModulation(8, (4, 4))(torch.randn(10, 8), 2 * torch.rand(10, 2) - 1).shape
    torch.Size([10, 8])
    """

    def __init__(
        self,
        num_features: int,
        size: int | Sequence[int],
        *,
        shared: bool = True,
        eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.size: tuple[int, ...] = tuple(size) if isinstance(size, Sequence) else (size,)
        positive(self, num_features=num_features)
        for n in self.size:
            positive(self, size=n)
        if not 1 <= len(self.size) <= 3:
            raise ValueError(f"CoordinateModulation: size has one to three axes, got {size}")
        self.num_features, self.eps = num_features, checked_eps("CoordinateModulation", eps)
        self.shared = flag("CoordinateModulation: shared", shared)
        grid = (1 if self.shared else num_features, *self.size)
        self.weight, self.bias = (nn.Parameter(torch.empty(grid, device=device, dtype=dtype)) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A norm that is the same everywhere."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        """`x` is [..., num_features] and `at` [..., len(size)], of x's type."""
        accept(self, x, self.num_features, -1, self.weight)
        accept(self, at, len(self.size), -1, self.weight)
        if at.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"CoordinateModulation: a coordinate for each place is needed, got {sizes(at.shape)} for x {sizes(x.shape)}"
            )
        return exactly(self._modulated, x, at, self.weight, self.bias)

    def _modulated(self, x: Tensor, at: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows, k = x.reshape(-1, self.num_features), len(self.size)
        wide = torch.promote_types(x.dtype, torch.float32)
        places = at.reshape(1, *(1,) * max(k - 1, 1), -1, k).to(wide)
        grids = torch.cat([weight, bias])[None].to(wide)
        if k == 1:  # a map of one row
            grids, places = grids[:, :, None], torch.cat([places, torch.zeros_like(places)], -1)
        read = grid_sample(grids, places, align_corners=True, padding_mode="border").reshape(len(grids[0]), -1)
        gain, shift = read.T.to(x.dtype).split(len(weight), 1)
        y: Tensor = norm.standardize(rows, gain, shift, dim=0, eps=self.eps)
        return y.reshape(x.shape)

    def extra_repr(self) -> str:
        return f"{self.num_features}, size={self.size}, shared={self.shared}, eps={self.eps}"
