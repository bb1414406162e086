"""Gram matrices of rows. The one rule: products are the library's own, sums of batches are float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import FLOATS, cast, detached, dtype_name, torch_module

#: rows of a product in their own type; what is added up beyond is float64
_ROWS = 4096


def gram(name: str, x: Any, weights: Any = None, onto: Any = None) -> Any:
    """The sum of the weighted outer products of the rows of x [.., K] with themselves: float64 [K, K], added to ``onto`` if it
    is given. Errors bear the name of who was called."""
    x = detached(name, x)
    kind = dtype_name(x.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: x must be a float array, got {kind}")
    if x.ndim == 0:
        raise ValueError(f"{name}: x needs a last axis, got a 0-d array")
    xp, k = np if isinstance(x, np.ndarray) else torch_module(), x.shape[-1]
    rows = x.reshape(-1, k) if k else x.reshape(0, 0)
    root = None
    if weights is not None:
        weights = detached(name, weights)
        if tuple(weights.shape) != tuple(x.shape[:-1]):
            raise ValueError(f"{name}: weights must have shape {tuple(x.shape[:-1])}, got {tuple(weights.shape)}")
        root = cast(xp, weights.reshape(-1), "float64")
        if not bool(xp.isfinite(root).all()) or bool((root < 0).any()):
            raise ValueError(f"{name}: weights must be finite and not negative")
        root = xp.sqrt(root)[:, None]
    if onto is not None:
        if tuple(onto.shape) != (k, k):
            raise ValueError(f"{name}: onto must have shape {(k, k)}, got {tuple(onto.shape)}")
        if dtype_name(onto.dtype) != "float64":
            raise TypeError(f"{name}: onto must be float64, got {dtype_name(onto.dtype)}")
    total = xp.zeros((k, k), dtype=xp.float64, **({} if xp is np else {"device": x.device}))
    compute = "float64" if kind == "float64" else "float32"
    for at in range(0, len(rows), _ROWS):
        some = cast(xp, rows[at : at + _ROWS], compute)
        if root is not None:
            some = some * cast(xp, root[at : at + _ROWS], compute)
        with np.errstate(all="ignore"):
            total += some.T @ some
    if not bool(xp.isfinite(total).all()):
        what = "has squares beyond float32" if bool(xp.isfinite(rows).all()) else "holds non-finite values"
        raise ValueError(f"{name}: x {what}")
    if onto is None:
        return total
    onto += total
    return onto
