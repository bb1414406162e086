r"""Batch normalisation by midpoint. The one rule: evaluation uses running statistics, never those of the batch at hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import hyperbolic
from tersor.hyperbolic._carry import carry
from tersor.hyperbolic._normal import normalize
from tersor.hyperbolic._words import margin
from tersor.nn._cast import accept, exactly, positive
from tersor.nn._state import widen
from tersor.nn.curvature import Curvature, curvature
from tersor.norm._arguments import checked_eps, share


class PoincareBatchNorm(nn.Module):
    r"""Batch normalisation of points: their midpoint is moved to a learned point, their spread made a learned one.

    .. math:: y = b \oplus \operatorname{gyr}[b, \ominus m]\left(\frac{\gamma}{\sqrt{v + \varepsilon}} \otimes
        (\ominus m \oplus x)\right)

    with m the midpoint of the batch and v the mean of :math:`d(x, m)^2`: log at m, transport to b, scaling, and exp at b.

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
    weight : [1], the standard deviation γ of what comes out, 1 at first
    bias : [num_features], b as a tangent vector at 0, 0 at first
    running_mean : [num_features], of the kind of what comes in: a tangent vector at 0, or a point; running_var : 0-d

    Notes
    -----
    One mean and one variance for all features, as the geometry has it. The tangent form goes through no ball: vectors may be
    of any length (beyond 80/√c they count as of that length). van Spengler et al., "Poincaré ResNet" (2023), section 3.3,
    with running statistics.
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
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive(self, num_features=num_features)
        checked_eps(type(self).__name__, epsilon, "epsilon")
        share(type(self).__name__, "momentum", momentum)
        self.num_features, self.epsilon, self.momentum = num_features, epsilon, momentum
        self.ball, self.eps = ball, margin(type(self).__name__, "eps", eps)
        self.curvature = curvature(c, learnable, device)
        self.weight = nn.Parameter(torch.ones(1, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones((), device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device))

    def reset_running_stats(self) -> None:
        """Forgets all batches."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Unit spread around the origin, and no batches."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)
        self.reset_running_stats()

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.num_features, 1, like=self.running_mean)
        y, *seen = exactly(self._normalize, x, self.weight, self.bias)
        if seen:
            self._track(*seen)
        return y

    def _normalize(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
        """The batch normalised, and in training its midpoint, its variance and the curvature."""
        c = self.curvature()
        moved = x.movedim(1, -1)
        rows = moved.reshape(-1, self.num_features)
        target = rows.new_zeros(self.num_features) if bias is None else bias
        if self.ball and bias is not None:
            target = hyperbolic.expmap0(bias, c)
        seen: tuple[Tensor, ...] = ()
        if self.training:
            if not len(rows):
                raise ValueError("PoincareBatchNorm: a batch of no points has no midpoint")
            scale = rows.new_ones(()) if weight is None else weight.reshape(())
            y, middle, variance = normalize(rows, target, scale, c, self.epsilon, self.ball, self.eps)
            seen = middle.detach(), variance.detach(), c.detach()
        else:
            factor = (self.running_var.to(rows.dtype) + self.epsilon).rsqrt()
            factor = factor if weight is None else factor * weight.reshape(())
            y = carry(rows, self.running_mean.to(rows.dtype), target, factor, c, self.ball, self.eps)
        return y.view(moved.shape).movedim(-1, 1), *seen

    @torch.no_grad()
    def _track(self, middle: Tensor, variance: Tensor, c: Tensor) -> None:
        self.num_batches_tracked += 1
        old, new = self.running_mean, middle.to(self.running_mean.dtype)
        # towards the new midpoint: that one as the origin of the scaling
        self.running_mean.copy_(carry(old, new, new, 1 - self.momentum, c, self.ball))
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state = dict(state_dict)
        if self.weight is not None:
            widen(state, prefix + "weight")
        super()._load_from_state_dict(state, prefix, *rest)

    def extra_repr(self) -> str:
        form = ", ball" if self.ball else ""
        return (
            f"{self.num_features}, epsilon={self.epsilon}, momentum={self.momentum}, "
            f"affine={self.weight is not None}{form}"
        )
