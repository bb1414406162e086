"""Functions of rows that are computed in float64 and rounded once. The one rule: rows of smaller types go through in chunks
that stay in cache, forward and backward, so that nothing of float64 has the size of the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tersor._arrays import axes
from tersor._reference import Array, wide

#: elements of a chunk: half a MiB of float64
CHUNK = 1 << 16

F = Callable[..., Array]


class Fast(Protocol):
    """The same by kernels: forward into y, and the gradients of x, the parameters and c, all of which are given."""

    def forward(self, x: Array, y: Array, *params: Array) -> None: ...
    def backward(self, g: Array, x: Array, *params: Array) -> tuple[Array, ...]: ...


def by_chunks(f: F, x: Array, params: tuple[Array, ...], c: Any, o: int, fast: Fast | None = None) -> Array:
    """``f(x, *params, c)``, a function of each row of x alone, with results of the type of x and `o` numbers to a row.

    Where x is cut, parameters and a curvature that is an array come to f in float64, in which their gradients are added up.
    """
    d, n = max(x.shape[-1:], default=0), math.prod(x.shape[:-1])
    step = max(64, CHUNK // max(d, o, 1))
    if x.dtype.itemsize == 8 or axes(c) or n <= step:
        return f(x, *params, c)
    if not isinstance(x, np.ndarray):
        from tersor.hyperbolic import _torch_chunks

        return _torch_chunks.apply(f, fast, x, params, c, o, step)
    rows, y = np.ascontiguousarray(x.reshape(n, d)), np.empty((n, o), x.dtype)
    params = tuple(p if p is None else wide(p) for p in params)
    for i in range(0, n, step):
        at = slice(i, i + step)
        if fast is None:
            y[at] = f(rows[at], *params, c)
        else:
            fast.forward(rows[at], y[at], *params, np.array(c, np.float64))
    return y.reshape(*x.shape[:-1], o)
