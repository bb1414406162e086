"""Points spread evenly over a disk of hyperbolic space. The one rule: the radius is drawn by its share of the volume, and found
by Newton's method where that has no inverse."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from tersor._arrays import sizes, whole
from tersor._reference import arsinh_root, dot, root, sinh_root
from tersor._values import one_of
from tersor.nn.curvature import check_given
from tersor.nn.points import MODELS
from tersor.nn.wrapped_normal import log_sinh_ratio

#: of Gauss and Legendre, on 0 to 1: nodes lie closest at the ends, where the volume of a large disk is
NODES, WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(96))
STEPS = 40
#: from which c R²/4 on sinh(√cr/2) is half an exponential for every share that is drawn, and shares are not smaller
FAR, LEAST = 325.0**2, 1e-250


#: by this a point of float64 is as far inside as its own rounding may have put it out
INSIDE = 1 - 2.0**-49


def toward_zero(x: Tensor, y: Tensor) -> Tensor:
    """x in the type of y, rounded toward 0: not farther from the origin."""
    y = x.to(y.dtype)
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[y.dtype.itemsize]
    return torch.where(y.double().abs() > x.abs(), (y.view(bits) - 1).view(y.dtype), y)


def log_volume(r: Tensor, c: Any, d: int) -> Tensor:
    r""":math:`\log\int_0^r(\sinh(\sqrt ct)/\sqrt c)^{d - 1}dt`."""
    t = r[..., None] * (NODES.to(r.device) + 1) / 2
    area = (d - 1) * (t.log() + log_sinh_ratio(c * t * t))
    return r.log() + torch.logsumexp(area + (WEIGHTS.to(r.device) / 2).log(), -1)


class UniformDisk(Distribution):
    r"""Points of a disk around the origin, evenly by the volume of the space: radii of density :math:`\propto
    \sinh^{d - 1}(\sqrt cr)`, up to R.

    Parameters
    ----------
    dim : int
        d, coordinates of a point.
    radius : float, or tensor
        R, a distance: positive. A tensor is a batch of disks, and differentiable.
    c : float, tensor of 0 axes, or Curvature
        Points are of curvature -c; 0 is flat space.
    model : "ball" or "lorentz"
        Whether points are those of `tersor.hyperbolic` or, as their space parts, those of `tersor.lorentz`.

    Raises
    ------
    ValueError
        If dim or radius is not positive or not finite, points of the hyperboloid at that radius are beyond its type, c is
        negative (none of these is asked under ``validate_args=False``), or the model is unknown, or points have another
        number of coordinates.

    Notes
    -----
    In two dimensions :math:`\sinh(\sqrt cr/2) = \sqrt u\sinh(\sqrt cR/2)` for a share u of the volume; in others r is found
    from u in float64. A sample that its type rounds out of the disk is rounded toward the origin. The density is one over the
    volume, by volume; points farther out have density 0. Samples and densities are differentiable with respect to radius and c.

    Examples
    --------
    >>> import torch
    >>> from tersor import hyperbolic, nn
    >>> x = nn.UniformDisk(2, 5.0).sample((100,))
    >>> bool((hyperbolic.dist0(x) <= 5).all())
    True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"radius": constraints.positive}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, dim: int, radius: float | Tensor, c: Any = 1.0, *, model: str = "ball", validate_args: Any = None
    ) -> None:
        dim = whole("UniformDisk: dim", dim)
        if dim < 1:
            raise ValueError(f"UniformDisk: dim must be positive, got {dim}")
        one_of("UniformDisk: model", model, MODELS)
        if isinstance(radius, bool) or not isinstance(radius, (int, float, Tensor)):
            raise TypeError(f"UniformDisk: radius must be a number or a tensor, got {type(radius).__name__}")
        check_given("UniformDisk", c, value=validate_args is not False)
        self.given, self.model = c, model
        self.radius = radius if isinstance(radius, Tensor) else torch.tensor(float(radius))
        if not self.radius.is_floating_point():
            raise TypeError(f"UniformDisk: radius must be of floats, got {self.radius.dtype}")
        if validate_args is not False and not torch.compiler.is_compiling():
            if not bool(((self.radius > 0) & self.radius.isfinite()).all()):
                raise ValueError("UniformDisk: radius must be positive and finite")
            most, k = torch.finfo(self.radius.dtype).max, float(self.c) ** 0.5
            # of what sinh gives without an exponential beyond float64
            most = math.asinh(min(k * most, 2.0**1022)) / k if k > 0 else most
            if model == "lorentz" and bool((self.radius.double() > most).any()):
                raise ValueError(f"UniformDisk: the hyperboloid's points in {self.radius.dtype} end before this radius")
        super().__init__(self.radius.shape, torch.Size((dim,)), validate_args=validate_args)

    @property
    def c(self) -> Any:
        return self.given() if isinstance(self.given, nn.Module) else self.given

    def expand(self, batch_shape: Any, _instance: Any = None) -> UniformDisk:
        """The same for a larger batch, as torch has it."""
        new: UniformDisk = self._get_checked_instance(UniformDisk, _instance)
        new.given, new.model, new.radius = self.given, self.model, self.radius.expand(batch_shape)
        super(UniformDisk, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _radii(self, share: Tensor) -> Tensor:
        """The radii of the disks that have these shares of the volume."""
        (d,), most, c = self.event_shape, self.radius.double(), self.c
        if d == 1:
            return share * most
        if d == 2:
            z = c * most * most / 4
            far = z > FAR
            half = share.sqrt() * most / 2 * sinh_root(torch.where(far, 0.0, z))
            near = 2 * half * arsinh_root(c * half * half)
            return torch.where(far, most + share.log() / (z + (c == 0)).sqrt() * most / 2, near)
        target = share.log() + log_volume(most, c, d)
        with torch.no_grad():
            r = most.expand(share.shape).clone()
            for _ in range(STEPS):  # the logarithm of the volume is convex by that of r, and r comes from above
                r *= ((target - log_volume(r, c, d)) / self._slope(r, d, c)).exp()
        # once more, in the graph: the implicit gradient
        step = (target - log_volume(r, c, d)) / self._slope(r, d, c).detach()
        return r * step.exp()

    @staticmethod
    def _slope(r: Tensor, d: int, c: Any) -> Tensor:
        """Of the logarithm of the volume, by that of r."""
        area = (d - 1) * (r.log() + log_sinh_ratio(c * r * r))
        return (r.log() + area - log_volume(r, c, d)).exp()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Points [*sample_shape, *batch, d], with gradients."""
        shape = self._extended_shape(torch.Size(sample_shape))
        like: dict[str, Any] = {"dtype": torch.float64, "device": self.radius.device}
        v = torch.randn(shape, **like)
        r = self._radii(torch.rand(shape[:-1], **like).clamp_min(LEAST))
        v = v / root(dot(v, v)) * r[..., None]
        space, c = MODELS[self.model], self.c
        x: Tensor = space.expmap0(v / 2 if self.model == "ball" else v, c)
        y = x.to(self.radius.dtype)
        with torch.no_grad():
            out = ~(space.dist0(y.double(), c) <= self.radius)  # also past the edge of the ball, where there is none
            return_to = toward_zero(x * INSIDE, y)
        return y + torch.where(out[..., None], return_to - y, 0.0).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density at points [..., d], by volume; minus infinity out of the disk."""
        (d,), c = self.event_shape, self.c
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"UniformDisk: value must be a tensor of floats, got {type(value).__name__}")
        if value.ndim < 1 or value.shape[-1] != d:
            raise ValueError(f"UniformDisk: points of {d} coordinates are needed, got shape {sizes(value.shape)}")
        if self._validate_args:
            self._validate_sample(value)
        sphere = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)
        density = -sphere - log_volume(self.radius.double(), c, d)
        r = MODELS[self.model].dist0(value.double(), c)
        p = torch.where(r > self.radius, -torch.inf, density)
        return torch.where(r.isnan(), torch.nan, p).to(value.dtype)
