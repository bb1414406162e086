"""Activations. The one rule: a function of numbers acts on tangent vectors at 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tersor import hyperbolic
from tersor.hyperbolic._words import margin
from tersor.nn._cast import accept, exactly
from tersor.nn.curvature import Curvature, curvature


class PoincareActivation(nn.Module):
    r"""A function applied in the tangent space at 0, on points :math:`\exp_0(f(\log_0(x)))`.

    Parameters
    ----------
    fn : callable
        Of tensors, element by element (``torch.relu``, a module, …).
    c, learnable, ball, eps
        As `PoincareLinear` takes them; only the ball form looks at them.
    dim : int
        The axis of the vectors.
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        dim: int = 1,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
    ) -> None:
        super().__init__()
        self.fn, self.curvature, self.dim, self.ball = fn, curvature(c, learnable), dim, ball
        self.eps = margin(type(self).__name__, "eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x)
        if not self.ball:
            return self.fn(x)
        c = self.curvature()
        v = exactly(hyperbolic.logmap0, x, c, dim=self.dim)
        y: Tensor = exactly(hyperbolic.expmap0, self.fn(v), c, self.eps, dim=self.dim)
        return y

    def extra_repr(self) -> str:
        name = "" if isinstance(self.fn, nn.Module) else getattr(self.fn, "__name__", repr(self.fn))
        return ", ".join([name] * bool(name) + ["ball"] * self.ball)


class PoincareReLU(PoincareActivation):
    """`PoincareActivation` with ReLU."""

    def __init__(self, c: float | nn.Parameter | Curvature = 1.0, **options: object) -> None:
        super().__init__(torch.relu, c, **options)  # type: ignore[arg-type]
