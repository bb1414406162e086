"""The curvature of a layer. The one rule: it is positive by its parametrisation where it is learned, and stays float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Curvature(nn.Module):
    r"""A curvature -c, constant or learned, that layers may share.

    Parameters
    ----------
    c : float
        Finite, not negative; positive if it is learned.
    learnable : bool
        Whether c is a parameter, :math:`c = \operatorname{softplus}(\rho) = \log(1 + e^\rho)`, which starts at the c given.

    Notes
    -----
    Calling it gives c as a 0-d float64 tensor. A constant is saved with the module and keeps its precision when the module is
    moved to another dtype.
    """

    c: Tensor

    def __init__(self, c: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        c = float(c)
        if not (math.isfinite(c) and c >= 0):
            raise ValueError(f"Curvature: c must be finite and not negative, got {c}")
        if learnable and c == 0:
            raise ValueError("Curvature: a learned c is positive, got 0")
        self.learnable = learnable
        if learnable:
            # the inverse of softplus, for large c too
            self.rho = nn.Parameter(torch.tensor(c + math.log(-math.expm1(-c))))
        else:
            self.register_buffer("c", torch.tensor(c, dtype=torch.float64))

    def forward(self) -> Tensor:
        return nn.functional.softplus(self.rho.double()) if self.learnable else self.c

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Curvature:
        exact = None if self.learnable else self.c
        super()._apply(fn, recurse)
        if exact is not None and self.c.dtype != exact.dtype:
            self.c = exact.to(self.c.device)
        return self

    def extra_repr(self) -> str:
        return f"{float(self().detach()):g}" + (", learnable" if self.learnable else "")


def curvature(c: float | Curvature, learnable: bool) -> Curvature:
    """What a layer makes of its argument: a curvature that is shared, or one of its own."""
    return c if isinstance(c, Curvature) else Curvature(c, learnable)
