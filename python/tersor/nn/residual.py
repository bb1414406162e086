r"""Skip connections. The one rule: vectors lie along the channels, axis 1 of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import hyperbolic
from tersor._arrays import an_axis, axes, dtype_name, sizes
from tersor._values import check_curvature, number
from tersor.hyperbolic._planes import square_norm
from tersor.hyperbolic._smooth import arsinh_root, cosh_root, sinh_root
from tersor.hyperbolic._words import margin
from tersor.nn._cast import accept, autocast_type, exactly
from tersor.nn.curvature import Curvature, curvature


def tangent_add(u: Tensor, v: Tensor, c: Any = 1.0, *, dim: int = -1) -> Tensor:
    r"""Möbius addition of points told by their tangent vectors at 0, :math:`\log_0(\exp_0(u) \oplus \exp_0(v))`.

    Parameters
    ----------
    u, v : tensors of one shape and float type
        Tangent vectors at the origin along `dim`.
    c : float or 0-d tensor
        The ball has curvature -c; c = 0 gives u + v.
    dim : int
        The axis of the vectors.

    Returns
    -------
    tensor like u
        Tangent vectors at the origin.

    Notes
    -----
    With :math:`a = \sqrt c\|u\|`, :math:`b = \sqrt c\|v\|`, :math:`Q = \sinh^2(a - b) + \cosh a\cosh b\,\frac{\sinh a}{a}
    \frac{\sinh b}{b}(c\|u + v\|^2 - (a - b)^2)`: the length of the result is :math:`\operatorname{arsinh}\sqrt Q/\sqrt c` and
    its direction that of :math:`(\cosh^2 b + Q)\frac{\sinh a}{a}u + \cosh a\cosh b\frac{\sinh b}{b}v`. No term cancels and no
    point is made, so that vectors may be as long as sinh has numbers in float64 (a + b up to 350).
    """
    for name, x in (("u", u), ("v", v)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = dtype_name(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"tangent_add: {name} must be a tensor of a float type, got {kind}")
    if autocast_type(u) is not None:
        return exactly(tangent_add, u, v, c, dim=dim)
    if u.dtype != v.dtype:
        raise TypeError(
            f"tangent_add: v is {dtype_name(v.dtype)}, u is {dtype_name(u.dtype)}; tersor does not convert silently"
        )
    if u.shape != v.shape:
        raise ValueError(f"tangent_add: {sizes(u.shape)} {u.dtype} and {sizes(v.shape)} {v.dtype} do not go together")
    if axes(check_curvature("tangent_add", c)):
        raise ValueError(f"tangent_add: c must be a number or a tensor of 0 axes, got shape {sizes(c.shape)}")
    an_axis("tangent_add: dim", dim, u.ndim)
    c = (
        c
        if isinstance(c, Tensor)
        else torch.tensor(number("tangent_add", "c", c), dtype=torch.float64, device=u.device)
    )
    c = c.double()
    both = u + v
    uu, vv, ss = (square_norm(x.movedim(dim, -1)).double() for x in (u, v, both))
    za, zb = c * uu, c * vv
    ratio_a, ratio_b, cosh_a, cosh_b = sinh_root(za), sinh_root(zb), cosh_root(za), cosh_root(zb)
    # so small a number only keeps the root smooth at 0
    apart = (za + 1e-60).sqrt() - (zb + 1e-60).sqrt()
    q = apart.sinh().square() + cosh_a * cosh_b * ratio_a * ratio_b * (c * ss - apart.square())
    length = arsinh_root(q) * (1 + q).rsqrt()
    # of u + v, and what u has besides: nothing cancels where v = -u
    by_both = length * cosh_b * ratio_b
    besides = length * (cosh_b * (cosh_b * ratio_a - cosh_a * ratio_b) + q * ratio_a) / cosh_a
    return both * by_both.to(u.dtype).unsqueeze(dim) + u * besides.to(u.dtype).unsqueeze(dim)


class PoincareResidual(nn.Module):
    r"""A block around which its input is added, :math:`f(x) \oplus x`.

    Parameters
    ----------
    block : Module
        f.
    shortcut : Module or None
        What x goes through on the way around; None: nothing.
    c, learnable, ball, eps
        As `PoincareLinear` takes them.
    dim : int
        The axis of the vectors: 1 for images [B, C, H, W] and for rows [B, C].
    """

    def __init__(
        self,
        block: nn.Module,
        shortcut: nn.Module | None = None,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        dim: int = 1,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
    ) -> None:
        super().__init__()
        self.block, self.shortcut = block, shortcut
        self.curvature, self.dim, self.ball = curvature(c, learnable), dim, ball
        self.eps = margin(type(self).__name__, "eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x)
        y, around, c = self.block(x), x if self.shortcut is None else self.shortcut(x), self.curvature()
        if self.ball:
            z: Tensor = exactly(hyperbolic.mobius_add, y, around, c, self.eps, dim=self.dim)
            return z
        return exactly(tangent_add, y, around, c, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}" + (", ball" if self.ball else "")
