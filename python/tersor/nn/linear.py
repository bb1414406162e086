"""Fully connected layers and multinomial regression. The one rule: tangent vectors at 0 go in and out, unless a layer is
told that it works on points of the ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tersor import hyperbolic
from tersor._arrays import is_distributed
from tersor.hyperbolic._words import margin
from tersor.nn._cast import accept, exactly, positive
from tersor.nn._state import shard_like
from tersor.nn.curvature import Curvature, curvature


@torch.no_grad()
def identity_(weight: Tensor, bias: Tensor | None = None, scale: float = 0.5) -> None:
    """Half a unit matrix in a weight [out, in, ...] of any shape (at the middle of a kernel), and biases 0.

    More outputs than inputs: the rest is 0. Fewer: the rest of the inputs is not looked at.
    """
    # what is written into an element of a DTensor goes into a copy of it
    whole = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device) if is_distributed(weight) else weight
    whole.zero_()
    middle = tuple(k // 2 for k in weight.shape[2:])
    for i in range(min(weight.shape[0], weight.shape[1])):
        whole[(i, i, *middle)] = scale
    if whole is not weight:
        weight.copy_(shard_like(whole, weight))
    if bias is not None:
        bias.zero_()


class PoincareLinear(nn.Module):
    r"""Hyperbolic fully connected layer (HNN++), :math:`v \mapsto` `poincare_fc_tangent` (v), or `poincare_fc` on points.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether the hyperplanes have an offset, r.
    c : float, Parameter or Curvature
        The ball has curvature -c; a `Curvature` may be shared by layers. A parameter of one number is kept as it is.
    learnable : bool
        Whether a curvature given as a number is learned, as the softplus of a parameter.
    ball : bool
        Whether rows are points of the ball, in and out; else tangent vectors at the origin, where nothing is clamped or
        projected.
    eps : float or str
        In the ball, how far inside results stay ("tight" or "compat").
    device, dtype
        Of the parameters.

    Attributes
    ----------
    weight : [out, in], the normals z_k as rows; half a unit matrix at first, so that the layer is the identity
    bias : [out] or None, the signed distances r_k of the hyperplanes from the origin
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive(self, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features, self.ball = in_features, out_features, ball
        self.eps = margin(type(self).__name__, "eps", eps)
        self.curvature = curvature(c, learnable, device)
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The identity, whatever the shape."""
        identity_(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.in_features, like=self.weight)
        z, c = self.weight.t(), self.curvature()
        y: Tensor
        if self.ball:
            y = exactly(hyperbolic.poincare_fc, x, z, self.bias, c, self.eps)
        else:
            y = exactly(hyperbolic.poincare_fc_tangent, x, z, self.bias, c)
        return y

    def extra_repr(self) -> str:
        form = ", ball" if self.ball else ""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{form}"


class PoincareMLR(nn.Module):
    r"""Hyperbolic multinomial regression: signed distances to `out_features` hyperplanes, as logits.

    Parameters
    ----------
    in_features, out_features, bias, c, learnable, ball, device, dtype
        As `PoincareLinear` takes them; logits are numbers in both forms.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive(self, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features, self.ball = in_features, out_features, ball
        self.curvature = curvature(c, learnable, device)
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normals of random directions: the logits of equal planes would stay equal."""
        with torch.no_grad():
            nn.init.normal_(self.weight, std=(2 * self.in_features * self.out_features) ** -0.5)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.in_features, like=self.weight)
        c, flat = self.curvature(), not self.ball
        y: Tensor = exactly(hyperbolic.poincare_mlr, x, self.weight.t(), self.bias, c, tangent=flat)
        return y

    def extra_repr(self) -> str:
        form = ", ball" if self.ball else ""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{form}"
