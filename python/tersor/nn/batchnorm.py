r"""Batch normalisation by midpoint. The one rule: evaluation uses running statistics, never those of the batch at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tersor import hyperbolic
from tersor.nn.curvature import Curvature, curvature


class PoincareBatchNorm(nn.Module):
    r"""Batch normalisation of points: their midpoint is moved to a learned point, their spread made a learned one.

    .. math:: y = b \oplus \operatorname{gyr}[b, \ominus m]\left(\frac{\gamma}{\sqrt{v + \varepsilon}} \otimes
        (\ominus m \oplus x)\right)

    with m the midpoint of the batch and v the mean of :math:`d(x, m)^2`: the closed form of log at m, transport to b,
    scaling, and exp at b.

    Parameters
    ----------
    num_features : int
        Size of axis 1, along which points lie; all other axes are the batch.
    epsilon : float
        Added to the variance.
    momentum : float
        How far a batch moves the running statistics: the midpoint along a geodesic, the variance in a straight line.
    affine : bool
        Whether b and γ are learned.
    c, learnable, ball, eps, device, dtype
        As `PoincareLinear` takes them.

    Attributes
    ----------
    weight : 0-d, the standard deviation γ of what comes out, 1 at first
    bias : [num_features], b as a tangent vector at 0, 0 at first
    running_mean : [num_features], a point of the ball; running_var : 0-d

    Notes
    -----
    One mean and one variance for all features, as the geometry has it. In the tangent form points lie where the type has
    numbers near the edge of the ball: vectors longer than that (8.6/√c in float32, 18.7/√c in float64) count as the last
    point inside. van Spengler et al., "Poincaré ResNet" (2023), section 3.3, with running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        c: float | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features, self.epsilon, self.momentum, self.ball, self.eps = num_features, epsilon, momentum, ball, eps
        self.curvature = curvature(c, learnable)
        self.weight = nn.Parameter(torch.ones((), device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones((), device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device))

    def reset_running_stats(self) -> None:
        """Forgets all batches."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"PoincareBatchNorm: axis 1 must have {self.num_features}, got shape {tuple(x.shape)}")
        c = self.curvature()
        moved = x.movedim(1, -1)
        rows = moved.reshape(-1, self.num_features)
        points = rows if self.ball else hyperbolic.expmap0(rows, c)
        if self.training:
            if not len(rows):
                raise ValueError("PoincareBatchNorm: a batch of no points has no midpoint")
            middle = hyperbolic.weighted_midpoint(points, None, c)
            centred = hyperbolic.mobius_add(-middle, points, c)
            variance = hyperbolic.dist0(centred, c).square().mean()
            self._track(middle.detach(), variance.detach(), c.detach())
        else:
            middle, variance = self.running_mean, self.running_var
            centred = hyperbolic.mobius_add(-middle, points, c)
        factor = (variance + self.epsilon).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight
        y = hyperbolic.mobius_scalar_mul(factor, centred, c)
        if self.bias is not None:
            target = hyperbolic.expmap0(self.bias, c)
            y = hyperbolic.mobius_add(target, hyperbolic.gyration(target, -middle, y, c), c, self.eps)
        if not self.ball:
            y = hyperbolic.logmap0(y, c)
        return y.view(moved.shape).movedim(-1, 1)

    @torch.no_grad()
    def _track(self, middle: Tensor, variance: Tensor, c: Tensor) -> None:
        self.num_batches_tracked += 1
        moved = hyperbolic.geodesic(self.momentum, self.running_mean, middle.to(self.running_mean.dtype), c)
        self.running_mean.copy_(moved)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)

    def extra_repr(self) -> str:
        form = ", ball" if self.ball else ""
        return (
            f"{self.num_features}, epsilon={self.epsilon}, momentum={self.momentum}, "
            f"affine={self.weight is not None}{form}"
        )
