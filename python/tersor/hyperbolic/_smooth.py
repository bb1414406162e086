"""Functions of a square that are smooth at 0, on torch tensors with autograd's own gradients. The one rule: below 0.01 the
series speaks, because there the closed form has no good slope."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _near(z: Tensor, series: tuple[float, ...], closed: Callable[[Tensor], Tensor]) -> Tensor:
    small = z < 1e-2
    value = torch.full_like(z, series[-1])
    for a in series[-2::-1]:
        value = value * z + a
    return torch.where(small, value, closed(torch.where(small, 1, z).sqrt()))


def sinh_root(z: Tensor) -> Tensor:
    """sinh √z/√z"""
    return _near(z, (1, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800), lambda s: s.sinh() / s)


def cosh_root(z: Tensor) -> Tensor:
    """cosh √z"""
    return _near(z, (1, 1 / 2, 1 / 24, 1 / 720, 1 / 40320, 1 / 3628800), torch.cosh)


def arsinh_root(z: Tensor) -> Tensor:
    """arsinh √z/√z"""
    series = (1, -1 / 6, 3 / 40, -5 / 112, 35 / 1152, -63 / 2816, 231 / 13312, -143 / 10240)
    return _near(z, series, lambda s: s.asinh() / s)
