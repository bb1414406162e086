"""Midpoints over the rows that a sparse matrix names, and over windows of an image, which are such rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._matrix import SparseMatrix
from tersor._reference import Array, scaled
from tersor._values import check_weights
from tersor.hyperbolic._groups import midpoint
from tersor.hyperbolic._spans import spans, windows
from tersor.hyperbolic._unit import curvature, unit
from tersor.hyperbolic._weights import even_lists
from tersor.hyperbolic.midpoint import number


def check_lists(who: str, a: SparseMatrix, x: Array, c: Any) -> tuple[Array, Any]:
    """Values and pattern of a matrix whose rows name points and their weights, at one curvature."""
    if not isinstance(a, SparseMatrix):
        raise TypeError(f"{who}: the first argument must be a CSR, got {type(a).__name__}")
    if getattr(x, "ndim", 0) != 2 or x.shape[0] != a.shape[1]:
        raise ValueError(f"{who}: x must be [{a.shape[1]}, d], got {getattr(x, 'shape', type(x).__name__)}")
    if not number(c):
        raise ValueError(f"{who}: c must be a number or an array of 0 axes, got shape {tuple(c.shape)}")
    data, pattern = a.beside(who, "x", x)
    if data.dtype != x.dtype:
        raise TypeError(f"{who}: the matrix is {data.dtype}, x is {x.dtype}")
    check_weights(who, data)
    return data, pattern


def segment_midpoint(a: SparseMatrix, x: Array, c: Any = 1.0, eps: float | str = 0.0) -> Array:
    r"""Weighted midpoints of the rows that a sparse matrix names: of row i of a, with its entries as weights.

    Parameters
    ----------
    a : CSR [G, N]
        Row g holds the members of group g and their weights, not negative; several entries in one place
        add up.
    x : array or tensor [N, d], of the type of a
        Points of the ball.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative. c = 0 gives weighted means.
    {eps}

    Returns
    -------
    array or tensor [G, d]
        As `weighted_midpoint`; 0 for a group without members. Differentiable, twice too, with respect to x, ``a.data`` and c.

    Raises
    ------
    TypeError
        If a is no CSR, or its type or library is not that of x.
    ValueError
        If c is negative, not finite or no single number, or shapes do not go together.

    Notes
    -----
    About 4 operations per entry and column; gathers of rows are not kept.
    """
    data, pattern = check_lists("segment_midpoint", a, x, c)
    e = unit(x, c)
    if e:
        return scaled(segment_midpoint(a, scaled(x, -e), curvature(c, e), eps), e)
    return midpoint(x, even_lists(data, pattern.indptr), c, pattern.indices, pattern.indptr, 1, eps)


def _pair(name: str, v: int | Sequence[int], least: int) -> tuple[int, int]:
    both = (v, v) if isinstance(v, int) else tuple(v)
    if len(both) != 2 or min(both) < least:
        raise ValueError(f"window_midpoint: {name} must be one or two integers of at least {least}, got {v}")
    return both[0], both[1]


def window_midpoint(
    x: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    c: Any = 1.0,
    eps: float | str = 0.0,
    *,
    tangent: bool = False,
) -> Array:
    """Average pooling by midpoints: of the points in every window of an image of points.

    Parameters
    ----------
    x : array or tensor [..., H, W, d]
        Points of the ball.
    kernel_size : int or (int, int)
        Height and width of a window.
    stride : int or (int, int), or None
        From window to window; None: the size of a window.
    padding : int or (int, int)
        How far windows may reach past the border. What lies there has no part in the midpoint.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative. c = 0 gives average pooling.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.
    tangent : bool
        Whether x and the result are tangent vectors at 0, which stand for their :math:`\\exp_0`.

    Returns
    -------
    array or tensor [..., H', W', d]
        With :math:`H' = \\lfloor (H + 2p - k)/s\\rfloor + 1`. Differentiable, twice too, with respect to x and c.

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If c is negative, not finite or no single number, sizes are not positive, padding is more than half a window, or
        no window fits.
    """
    if getattr(x, "ndim", 0) < 3:
        raise ValueError(f"window_midpoint: x must be [..., H, W, d], got {getattr(x, 'shape', type(x).__name__)}")
    if not number(c):
        raise ValueError(f"window_midpoint: c must be a number or an array of 0 axes, got shape {tuple(c.shape)}")
    e = 0 if tangent else unit(x, c)
    if e:
        return scaled(window_midpoint(scaled(x, -e), kernel_size, stride, padding, curvature(c, e), eps), e)
    kernel = _pair("kernel_size", kernel_size, 1)
    step = kernel if stride is None else _pair("stride", stride, 1)
    pad = _pair("padding", padding, 0)
    *lead, h, w, d = x.shape
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
        raise ValueError(f"window_midpoint: padding {pad} is more than half of the window {kernel}")
    if h + 2 * pad[0] < kernel[0] or w + 2 * pad[1] < kernel[1]:
        raise ValueError(f"window_midpoint: no window {kernel} fits into {(h, w)} with padding {pad}")
    shape = (math.prod(lead), h, w)
    rows, cols = len(spans(h, kernel[0], step[0], pad[0])), len(spans(w, kernel[1], step[1], pad[1]))
    indices: Array
    indptr: Array
    if isinstance(x, np.ndarray):
        indices, indptr, _ = windows(shape, kernel, step, pad)
    else:
        from tersor.hyperbolic import _windows

        indices, indptr = _windows.places(shape, kernel, step, pad, x)
    y = midpoint(x.reshape(math.prod(lead) * h * w, d), None, c, indices, indptr, 1, eps, tangent)
    return y.reshape((*lead, rows, cols, d))
