"""Scores of whole rows, columns and channels. The one rule: a score is the norm of all that goes with one place of an axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import is_tensor, whole
from tersor._reference import quiet, scaled, xp
from tersor._values import check_dense

Array = Any


def row_scores(w: Array, *, axis: int = 0, norm: float = 2) -> Array:
    r"""The norm of each row, column or channel of a weight, :math:`s_i = \|w_{i\cdot}\|_p`.

    Parameters
    ----------
    w : array or tensor, float64, float32, float16 or bfloat16
        Of one axis or more: [out, in] of a linear layer, [out, in, ...] of a convolution.
    axis : int
        Whose places are scored: 0 for what a layer gives, 1 for what it takes.
    norm : 1, 2 or inf
        p.

    Returns
    -------
    float64 array or tensor [n], n places of the axis

    Raises
    ------
    TypeError
        If w is not a float array, or a DTensor, axis not an integer or norm not a number.
    ValueError
        If w has no axes, axis is none of them, or norm is another.

    See Also
    --------
    global_masks, tersor.nn.shrink

    Notes
    -----
    One read of w, summed in float64; two of float64, whose squares are of rows made about 1 by a power of two. Li, Kadav,
    Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets" (2017).
    """
    axis = whole("axis", axis)
    if norm not in (1, 2, math.inf):
        raise ValueError(f"row_scores: norm must be 1, 2 or inf, got {norm}")
    if not -w.ndim <= axis < w.ndim:
        raise ValueError(f"row_scores: axis must be one of w, whose shape is {tuple(w.shape)}, got {axis}")
    n = w.shape[axis]
    rest = math.prod(k for i, k in enumerate(w.shape) if i != axis % w.ndim)
    if is_tensor(w):
        import torch

        check_dense("row_scores", "w", w)
        if not n * rest:
            return w.new_zeros(n, dtype=torch.float64)
        rows = w.movedim(axis, 0).reshape(n, rest)
        if norm == 2 and rows.dtype == torch.float64:
            return _length(rows)
        return torch.linalg.vector_norm(rows.float() if w.element_size() == 2 else rows, norm, 1, dtype=torch.float64)
    rows = np.moveaxis(w, axis, 0).reshape(n, rest).astype(np.float64)
    if norm == 2:
        return _length(rows) if rest else np.zeros(n)
    return np.abs(rows).sum(1) if norm == 1 else np.abs(rows).max(1, initial=0.0)


def _length(rows: Array) -> Array:
    """The 2-norm of rows of float64, also where squares are beyond it."""
    _, e = xp.frexp(xp.amax(abs(rows), 1))
    with quiet(rows):
        near = scaled(rows, -e[:, None])
        return scaled(xp.sqrt((near * near).sum(1)), e)
