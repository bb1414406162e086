"""What norms are told. The one rule: a number that is none is named with what was got."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, check_writable, dtype_name
from tersor._values import number


def real(who: str, name: str, value: Any) -> float:
    """A number of Python or NumPy that a float is near."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{who}: {name} must be a number, got {type(value).__name__}")
    return number(who, name, value)


def finite(who: str, name: str, value: Any) -> float:
    value = real(who, name, value)
    if not -math.inf < value < math.inf:  # compared: of a symbol of torch.compile math.isfinite makes no number
        raise ValueError(f"{who}: {name} must be finite, got {value}")
    return value


def share(who: str, name: str, value: Any, all_: bool = True) -> float:
    """A part of 1, or all of it if that may be."""
    value = real(who, name, value)
    if not (0 <= value <= 1 if all_ else 0 <= value < 1):
        most = "at most" if all_ else "less than"
        raise ValueError(f"{who}: {name} must be at least 0 and {most} 1, got {value}")
    return value


def checked_eps(who: str, eps: Any, name: str = "eps") -> float:
    eps = real(who, name, eps)
    if not 0 <= eps < math.inf:  # compared, as above
        raise ValueError(f"{who}: {name} must be finite and not negative, got {eps}")
    return eps


def alike(who: str, x: Any, weight: Any, bias: Any = None, v: Any = None, **others: Any) -> None:
    """Raises unless γ, β and what else there is for channels are of the type of `x`, or float32 beside 16 bits."""
    own = dtype_name(x.dtype)
    for name, p in (("weight", weight), ("bias", bias), ("v", v), *others.items()):
        if p is None or dtype_name(p.dtype) == own:
            continue
        if dtype_name(p.dtype) != "float32" or own not in FLOATS[2:]:
            raise TypeError(f"{who}: {name} is {dtype_name(p.dtype)}, x is {own}; tersor does not convert silently")


def last_axes(who: str, x: Any, given: Any) -> tuple[int, ...]:
    """``normalized_shape`` as torch has it, the last axes of `x`."""
    try:
        shape: tuple[int, ...] = (operator.index(given),)
    except TypeError:
        try:
            shape = tuple(operator.index(n) for n in given)
        except TypeError:
            raise TypeError(f"{who}: normalized_shape must be an int or a tuple of ints, got {given!r}") from None
    n = len(shape)
    if not n or tuple(x.shape[-n:]) != shape:
        raise ValueError(f"{who}: x of shape {tuple(x.shape)} does not end in normalized_shape {shape}")
    return shape


def checked_out(who: str, x: Any, out: Any) -> None:
    """Raises unless `out` is a place for an array of the shape of `x` whose axes may be seen as others."""
    if tuple(out.shape) != tuple(x.shape):
        raise ValueError(f"{who}: out must have shape {tuple(x.shape)}, got {tuple(out.shape)}")
    check_writable(who, "out", out)
