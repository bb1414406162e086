"""The normal distribution wrapped around hyperbolic space. The one rule: vectors are measured by the metric, so that a
deviation means the same in both models."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.distributions.utils import _standard_normal

from tersor import _memory
from tersor._arrays import sizes
from tersor._reference import dot, sinh_root
from tersor._values import one_of
from tersor.nn.curvature import check_given
from tersor.nn.points import MODELS


def log_sinh_ratio(z: Tensor) -> Tensor:
    r""":math:`\log(\sinh\sqrt z/\sqrt z)`, which does not overflow on the way."""
    far = z > 1
    r = torch.where(far, z, 1.0).sqrt()
    return torch.where(far, r + (-torch.expm1(-2 * r)).log() - (2 * r).log(), sinh_root(torch.where(far, 1.0, z)).log())


class WrappedNormal(Distribution):
    r"""Points :math:`\exp_\mu(P_{0 \to \mu}v)` of normal vectors v at the origin, of deviation σ in the metric.

    .. math:: \log p(x) = \log\mathcal N(v; 0, \sigma) - (d - 1)\log\frac{\sinh\sqrt c\,r}{\sqrt c\,r},\quad
        v = P_{\mu \to 0}\log_\mu x,\quad r = d_c(\mu, x)

    Parameters
    ----------
    loc : tensor [..., d]
        μ, points.
    scale : float, or tensor that broadcasts to loc
        σ of each coordinate of v in an orthonormal frame, in units of length: one of the ball's coordinates at 0 is two.
    c : float, tensor of 0 axes or [..., 1], or Curvature
        Points are of curvature -c.
    model : "ball" or "lorentz"
        Whether points are those of `tersor.hyperbolic` or, as their space parts, those of `tersor.lorentz`.

    Raises
    ------
    TypeError
        If loc is no tensor of floats, or scale or c no number and no tensor.
    ValueError
        If scale is not positive or c is negative or not finite (not asked under ``validate_args=False``), c has other axes, or
        the model is unknown; and what `validate_args` of torch checks.

    Notes
    -----
    The density is that by the volume of the space, the same number in both models. `mean` and `mode` are μ, the Fréchet mean.
    Samples and densities are differentiable with respect to loc, scale and c. Nagano et al., "A Wrapped Normal Distribution on
    Hyperbolic Space" (2019); Mathieu et al., "Poincaré Variational Auto-Encoders" (2019).

    Examples
    --------
    >>> import torch
    >>> from tersor import nn
    >>> q = nn.WrappedNormal(torch.zeros(3, 2), 0.5)
    >>> z = q.rsample((10,))
    >>> q.log_prob(z).shape
    torch.Size([10, 3])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: float | Tensor = 1.0, c: Any = 1.0, *, model: str = "ball", validate_args: Any = None
    ) -> None:
        if not isinstance(loc, Tensor) or not loc.is_floating_point() or not loc.ndim:
            got = f"{loc.dtype} of shape {sizes(loc.shape)}" if isinstance(loc, Tensor) else type(loc).__name__
            raise TypeError(f"WrappedNormal: loc must be a tensor of floats [..., d], got {got}")
        one_of("WrappedNormal: model", model, MODELS)
        check_given("WrappedNormal", c, rows=True, value=validate_args is not False)
        self.given, self.model = c, model
        if isinstance(scale, bool) or not isinstance(scale, (int, float, np.number, Tensor)):
            raise TypeError(f"WrappedNormal: scale must be a number or a tensor, got {type(scale).__name__}")
        scale = torch.as_tensor(scale, dtype=loc.dtype, device=loc.device)
        # also where torch asks nothing by default any more, as after a model was compiled
        seen = validate_args is not False and not torch.compiler.is_compiling() and _memory.lack(scale) is None
        if seen and not bool((scale > 0).all()):
            raise ValueError(f"WrappedNormal: scale must be positive, got {scale[~(scale > 0)][0].item()}")
        shape = torch.broadcast_shapes(loc.shape, scale.shape)
        self.loc, self.scale = loc.expand(shape), scale.expand(shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def c(self) -> Any:
        return self.given() if isinstance(self.given, nn.Module) else self.given

    @property
    def _space(self) -> Any:
        return MODELS[self.model]

    @property
    def _unit(self) -> float:
        """The length of a coordinate at the origin."""
        return 2.0 if self.model == "ball" else 1.0

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    def expand(self, batch_shape: Any, _instance: Any = None) -> WrappedNormal:
        """The same for a larger batch, as torch has it."""
        new: WrappedNormal = self._get_checked_instance(WrappedNormal, _instance)
        shape = (*batch_shape, *self.event_shape)
        new.given, new.model, new.loc, new.scale = (
            self.given,
            self.model,
            self.loc.expand(shape),
            self.scale.expand(shape),
        )
        super(WrappedNormal, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Points [*sample_shape, *batch, d], with gradients."""
        shape = self._extended_shape(torch.Size(sample_shape))
        v = _standard_normal(shape, self.loc.dtype, self.loc.device) * self.scale / self._unit
        loc, c = self.loc.expand(shape), self.c
        x: Tensor = self._space.expmap(loc, self._space.parallel_transport0(loc, v, c), c)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density at points [..., d], by volume."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.loc.shape)
        loc, c = self.loc.expand(shape), self.c
        way = self._space.logmap(loc, value.expand(shape), c)
        v = self._unit * self._space.parallel_transport0back(loc, way, c).double()
        scale = self.scale.double()
        normal = -0.5 * (v / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
        wider = log_sinh_ratio(c * dot(v, v))[..., 0] * (self.event_shape[0] - 1)
        return (normal.sum(-1) - wider).to(value.dtype)
