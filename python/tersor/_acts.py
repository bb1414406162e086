"""The activations that products end with. The one rule: their numbers are those of the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tersor import _core
from tersor._arrays import is_tensor

Array = Any

#: their names, by number
ACTS = (None, "relu", "relu6", "gelu", "silu")

_erf = np.vectorize(math.erf, otypes=[np.float64])


def act_number(who: str, act: str | None) -> int:
    """The number of an activation."""
    if act not in ACTS:
        raise ValueError(f"{who}: act must be None, 'relu', 'relu6', 'gelu' or 'silu', got {act!r}")
    return ACTS.index(act)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def _normal(z: np.ndarray, erf: Callable[[np.ndarray], np.ndarray] = _erf) -> np.ndarray:
    return 0.5 + 0.5 * erf(z / math.sqrt(2))


def activated(act: int, z: np.ndarray, erf: Callable[[np.ndarray], np.ndarray] = _erf) -> np.ndarray:
    """The activation of sums; gelu is x Φ(x), silu x σ(x)."""
    name = ACTS[act]
    if name in ("relu", "relu6"):
        return np.clip(z, 0, math.inf if name == "relu" else 6)
    return z * _normal(z, erf) if name == "gelu" else z * _sigmoid(z) if name == "silu" else z


def _compiled(x: np.ndarray) -> np.ndarray:
    """erf as the kernels have it; references have Python's own, to be held against."""
    y = np.empty_like(x, order="C")
    _core.math("erf", np.ascontiguousarray(x), y)
    return y


def slopes(act: int, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Its derivative; where it is made of bounds, 0 at and beyond these in y."""
    name = ACTS[act]
    if name == "gelu":
        return _normal(z) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    if name == "silu":
        return _sigmoid(z) * (1 + z * (1 - _sigmoid(z)))
    return ((y > 0) & (y < (math.inf if name == "relu" else 6))).astype(np.float64)


def applied(act: str | None, z: Array) -> Array:
    """The activation of what a product gave, where that has none: of its type, computed in float64 or as torch does."""
    if act is None:
        return z
    if not is_tensor(z):
        with np.errstate(all="ignore"):
            return activated(ACTS.index(act), z.astype(np.float64), _compiled).astype(z.dtype)
    import torch

    y = getattr(torch.nn.functional, act)(z)
    # beyond 10 gelu is z in every type; torch's is infinite at the end of the range, and NaN of infinity
    return torch.where(z > 10, z, y) if act == "gelu" else y
