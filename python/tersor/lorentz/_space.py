"""What all of the Lorentz model is written with. The one rule: float64 inside, one rounding at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor.hyperbolic._roots import Array


def library(x: Array) -> Any:
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def widened(x: Array) -> Array:
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


def rounded(y: Array, x: Array) -> Array:
    return y.astype(x.dtype) if isinstance(y, np.ndarray) else y.to(x.dtype)


def row_dot(x: Array, y: Array) -> Array:
    return (x * y).sum(-1)[..., None]


def check_same(who: str, x: Array, **others: Array) -> None:
    for name, y in others.items():
        if getattr(y, "dtype", None) != x.dtype:
            raise TypeError(f"{who}: {name} is {getattr(y, 'dtype', type(y).__name__)}, x is {x.dtype}")


def checked(c: Any) -> Any:
    """c, where it is a number that can be looked at."""
    if isinstance(c, (int, float, np.ndarray, np.generic)) and not np.all(np.isfinite(c) & (np.asarray(c) >= 0)):
        raise ValueError(f"lorentz: curvature must be finite and not negative, got {c}")
    return c


def smooth(z: Array, f: Any, coefficients: tuple[float, ...]) -> Array:
    """f(√z)/√z, by its series near 0, where a gradient by f would cancel."""
    lib = library(z)
    near = z < 1e-2
    root = lib.sqrt(lib.where(near, lib.ones_like(z), z))
    small = lib.where(near, z, lib.zeros_like(z))
    value = small * 0
    for k in reversed(coefficients):
        value = value * small + k
    return lib.where(near, value, f(root) / root)


def sinh_ratio(z: Array) -> Array:
    return smooth(z, library(z).sinh, (1, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800))


def arsinh_ratio(z: Array) -> Array:
    lib = library(z)
    series = (1, -1 / 6, 3 / 40, -15 / 336, 105 / 3456, -945 / 42240, 10395 / 599040, -135135 / 9676800)
    return smooth(z, lib.arcsinh if lib is np else lib.asinh, series)


def root_of(s: Array, c: Any) -> Array:
    return library(s).sqrt(1 + c * row_dot(s, s))


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
    """
    s = widened(x)
    return rounded(root_of(s, checked(c)) / (c**0.5 + 0 * s[..., :1]), x)
