r"""Layers of the hyperboloid. The one rule: points go in and out as their space parts, so that whatever a layer makes of them
is a point, and the concatenation of points is that of arrays.

What works on numbers one by one works on space parts (``torch.nn.ReLU``, ``Dropout``): the time follows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import lorentz
from tersor.nn._cast import accept, exactly, positive
from tersor.nn.attention import Attention, shares
from tersor.nn.batchnorm import PoincareBatchNorm
from tersor.nn.conv import Conv2d, Pair
from tersor.nn.curvature import Curvature, curvature
from tersor.nn.linear import PoincareMLR


def _curved(layer: nn.Module, c: Any, learnable: bool, device: Any) -> Curvature:
    """The curvature of a layer in which the time takes part."""
    made = curvature(c, learnable, device)
    if made.first == [0.0]:
        raise ValueError(f"{type(layer).__name__}: c must be positive, in flat space points have no time; got 0")
    return made


class LorentzLinear(nn.Module):
    r"""Linear map of whole points whose space part is kept, :math:`s \mapsto W(t, s) + b` (`tersor.lorentz.linear`); or, with
    `planes`, the fully connected layer by hyperplanes (`tersor.lorentz.fc`).

    Parameters
    ----------
    in_features, out_features : int
        Sizes of space parts.
    bias : bool
        Whether b is there: numbers that are added, or distances of the hyperplanes from the origin.
    c : float, Parameter or Curvature
        Points are of curvature -c; positive, unless `planes`.
    planes : bool
        Which of the two layers.
    learnable, device, dtype
        As `PoincareLinear` takes them.

    Attributes
    ----------
    weight : [out, 1 + in], the time's column first and 0 at first, others as in ``torch.nn.Linear``; with `planes` [out, in],
        the normals
    bias : [out] or None

    Notes
    -----
    Chen et al., "Fully Hyperbolic Neural Networks" (2022), without its scaling of the output; HyperCore's and HyperbolicCV's
    layer has the same weights, the time first. Shimizu et al., "Hyperbolic neural networks++" (2021), for `planes`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        planes: bool = False,
        learnable: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive(self, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features, self.planes = in_features, out_features, planes
        self.curvature = curvature(c, learnable, device) if planes else _curved(self, c, learnable, device)
        columns = in_features if planes else in_features + 1
        self.weight = nn.Parameter(torch.empty(out_features, columns, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Uniform numbers as torch has them, and nothing for the time."""
        bound = max(self.in_features, 1) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if not self.planes:
            self.weight[:, 0].zero_()
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.in_features, like=self.weight)
        y: Tensor = exactly(lorentz.fc if self.planes else lorentz.linear, x, self.weight, self.bias, self.curvature())
        return y

    def extra_repr(self) -> str:
        form = ", planes" if self.planes else ""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{form}"


class LorentzMLR(PoincareMLR):
    r"""Multinomial regression on the hyperboloid: signed distances to hyperplanes as logits (`tersor.lorentz.mlr`).

    Parameters
    ----------
    in_features, out_features, bias, c, learnable, device, dtype
        As `PoincareMLR` takes them.

    Attributes
    ----------
    weight : [out, in], the normals; of random directions at first
    bias : [out] or None, the distances of the planes from the origin
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, c, learnable=learnable, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.in_features, like=self.weight)
        y: Tensor = exactly(lorentz.mlr, x, self.weight, self.bias, self.curvature())
        return y


class LorentzConv2d(Conv2d):
    r"""Convolution of images whose pixels are points: those of a patch are concatenated to one point, of time
    :math:`\sqrt{1/c + \sum_i \|s_i\|^2}`, and go through the map of `LorentzLinear`. Padding is with the origin.

    Parameters
    ----------
    in_channels, out_channels : int
        Sizes of space parts.
    kernel_size, stride, padding, dilation : int or pair
        As in ``torch.nn.Conv2d``.
    bias, c, learnable, device, dtype
        As `LorentzLinear` takes them.

    Attributes
    ----------
    weight : [out, in, kh, kw], as ``torch.nn.Conv2d`` has it
    time : [out], the time's column, 0 at first
    bias : [out] or None

    Notes
    -----
    The squares of pixels are summed over patches by a convolution of one channel. Bdeir, Schwethelm, Landwehr, "Fully
    Hyperbolic Convolutional Neural Networks" (2024), section 4.2.
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias, device, dtype)
        self.curvature = _curved(self, c, learnable, device)
        self.time = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Uniform numbers as torch has them, and nothing for the time."""
        bound = max(self.weight[0].numel(), 1) ** -0.5 if len(self.weight) else 0.0
        nn.init.uniform_(self.weight, -bound, bound)
        self.time.zero_()
        if self.bias is not None:
            self.bias.zero_()

    def _of_images(self, x: Tensor) -> Tensor:
        return exactly(self._convolve, x, self.weight, self.time, self.bias)

    def _convolve(self, x: Tensor, weight: Tensor, time: Tensor, bias: Tensor | None) -> Tensor:
        way = (self.stride, self.padding, self.dilation)
        squares = x.double().square().sum(1, keepdim=True)
        patches = torch.conv2d(squares, squares.new_ones(1, 1, *self.kernel_size), None, *way)
        times = (1 / self.curvature() + patches).sqrt().to(x.dtype)
        return torch.conv2d(x, weight, bias, *way) + times * time[:, None, None]


class LorentzBatchNorm(PoincareBatchNorm):
    r"""`PoincareBatchNorm` of the hyperboloid: the centroid of a batch is moved to a learned point, the spread made a learned
    one, by logarithm, transport, scaling and exponential.

    Parameters
    ----------
    num_features : int
        Size of axis 1, along which space parts lie; all other axes are the batch.
    epsilon, momentum, affine, c, learnable, device, dtype
        As `PoincareBatchNorm` takes them.

    Attributes
    ----------
    weight, bias, running_mean, running_var
        As `PoincareBatchNorm` has them for tangent vectors of the ball, half as long as the hyperboloid's.

    Notes
    -----
    Points go through the tangent space at the origin, where the operator of batch normalisation works at any radius. Bdeir et
    al. (2024), section 4.3, with the mean squared distance as variance and with running statistics.
    """

    def __init__(
        self,
        num_features: int,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, epsilon, momentum, affine, c, learnable=learnable, device=device, dtype=dtype)

    def _normalize(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
        c = self.curvature()
        y, *seen = super()._normalize(lorentz.logmap0(x, c, dim=1) / 2, weight, bias)
        return lorentz.expmap0(2 * y, c, dim=1), *seen


def _mixed(q: Tensor, k: Tensor, v: Tensor, c: Any, scale: Tensor, mask: Tensor | None) -> Tensor:
    y: Tensor = lorentz.weighted_midpoint_bmm(v, shares(lorentz.cdist(q, k, c), scale, mask), c)
    return y


class LorentzAttention(Attention):
    r"""Multi-head attention on the hyperboloid: `LorentzLinear` makes queries, keys and values, whose space parts are taken
    apart into heads; a query sees the centroid of the values, weighed by :math:`\operatorname{softmax}(-\text{scale}\cdot
    d(q, k))`; heads are concatenated.

    Parameters
    ----------
    embed_dim, num_heads : int
        The second divides the first.
    bias, c, learnable, device, dtype
        As `LorentzLinear` takes them.

    Attributes
    ----------
    log_scale : [num_heads], the logarithm of each head's inverse temperature

    Notes
    -----
    Gulcehre et al., "Hyperbolic attention networks" (2019); Chen et al. (2022), section 3.3.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        bias: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        own = _curved(self, c, learnable, device)

        def linear() -> LorentzLinear:
            return LorentzLinear(embed_dim, embed_dim, bias, own, device=device, dtype=dtype)

        super().__init__(embed_dim, num_heads, own, linear, device, dtype)

    def _heads(self, x: Tensor, c: Any) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).movedim(-2, -3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, c: Any, scale: Tensor, mask: Tensor | None) -> Tensor:
        return exactly(_mixed, q, k, v, c, scale, mask)

    def _joined(self, heads: Tensor, c: Any) -> Tensor:
        return heads.movedim(-3, -2).flatten(-2)
