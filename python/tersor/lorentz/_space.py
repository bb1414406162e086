"""What all of the Lorentz model is written with. The one rule: float64 inside, one rounding at the end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor._reference import Array, dot, rounded, wide, xp


def check_same(who: str, x: Array, **others: Array) -> None:
    for name, y in others.items():
        if getattr(y, "dtype", None) != x.dtype:
            raise TypeError(f"{who}: {name} is {getattr(y, 'dtype', type(y).__name__)}, x is {x.dtype}")


def _at_hand(c: Any) -> bool:
    """Whether the numbers of a tensor can be looked at: no device is waited for, and nothing watches."""
    import torch

    if torch.compiler.is_compiling() or c.device.type != "cpu" or torch._C._len_torch_dispatch_stack():
        return False
    from tersor._memory import lack

    return lack(c) is None


def checked(c: Any) -> Any:
    """c, where it is a number that can be looked at."""
    if isinstance(c, (int, float)):  # what traces reads no function of NumPy
        fine = 0 <= c < math.inf
    elif is_tensor(c):
        fine = not _at_hand(c) or bool(((c.detach() >= 0) & c.detach().isfinite()).all())
    else:
        fine = not isinstance(c, (np.ndarray, np.generic)) or bool(np.all(np.isfinite(c) & (np.asarray(c) >= 0)))
    if not fine:
        raise ValueError(f"lorentz: curvature must be finite and not negative, got {c}")
    return c


def root_of(s: Array, c: Any) -> Array:
    return xp.sqrt(1 + c * dot(s, s))


def time(x: Array, c: Any = 1.0) -> Array:
    r"""The time part of points, :math:`t = \sqrt{1/c + \|s\|^2}`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; at 0 the time is infinite.

    Returns
    -------
    array or tensor [..., 1]
        Differentiable.

    Raises
    ------
    TypeError, ValueError
        If x is not a float array, or c is negative or not finite.
    """
    s = wide(x)
    return rounded(root_of(s, checked(c)) / (c**0.5 + 0 * s[..., :1]), x)
