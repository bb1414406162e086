"""Tables of embeddings with fewer rows and narrower ones. The one rule: what goes is decided by values, and the decision has a
slope, so that what went may come back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import Integers, Number, dtype_name, is_tensor
from tersor._reference import quiet, rounded
from tersor._values import check_dense, one_of

Array = Any

SURROGATES = ("long-tailed", "identity")


def threshold_rows(e: Array, threshold: Number, *, p: int = 1, surrogate: str = "long-tailed") -> Array:
    r"""Rows of embeddings whose norm is above a threshold that is learned; the others are 0.

    .. math:: y = m\,e, \quad m = 1[u > 0], \quad u = \|e\|_p - t

    Parameters
    ----------
    e : array or tensor [..., d], float64, float32, float16 or bfloat16
    threshold : float, or array or tensor that goes with the rows [...]
        t: one for all, or one for each row, as of the fields that rows belong to.
    p : 1 or 2
    surrogate : "long-tailed" or "identity"
        What stands for the slope of m: :math:`\varphi(u) = 2 - 4|u|` to 0.4, 0.4 to 1, then 0; or 1.

    Returns
    -------
    array or tensor [..., d]
        Of the type of e.

    Raises
    ------
    TypeError
        If e is not a float array, or a DTensor.
    ValueError
        If the threshold does not go with the rows, p or surrogate is another, or e has no axes.

    Notes
    -----
    With g the gradient of y and :math:`a = \langle g, e\rangle \varphi(u)`: :math:`\partial t = -a`,
    :math:`\partial e = m g + a\, \partial\|e\|_p`, where the norm has slope 0 at 0. Norms of 16-bit rows are
    float32. A row with u = 0 is 0, one of NaN stays. One read of e and one write. Lyu et al., "OptEmbed: Learning Optimal
    Embedding Table for Click-through Rate Prediction" (2022).

    Examples
    --------
    >>> import numpy as np
    >>> threshold_rows(np.array([[0.5, -0.5], [0.1, 0.2]]), 0.6)
    array([[ 0.5, -0.5],
           [ 0. ,  0. ]])
    """
    who = "threshold_rows"
    one_of(f"{who}: surrogate", surrogate, SURROGATES)
    if p not in (1, 2):
        raise ValueError(f"{who}: p must be 1 or 2, got {p}")
    if not e.ndim:
        raise ValueError(f"{who}: e must have an axis of numbers, got a 0-d array")
    shape = tuple(getattr(threshold, "shape", ()))
    if len(shape) >= e.ndim or any(n not in (1, m) for n, m in zip(shape[::-1], e.shape[-2::-1], strict=False)):
        raise ValueError(f"{who}: threshold has shape {shape}, the rows of e {tuple(e.shape[:-1])}")
    narrow = dtype_name(e.dtype) in ("float16", "bfloat16")
    if not is_tensor(e):
        with quiet(e):
            v = e.astype(np.float32) if narrow else e
            norm = np.abs(v).sum(-1) if p == 1 else np.sqrt((v * v).sum(-1))
            gone = norm <= np.asarray(threshold)
            return rounded(np.where(gone[..., None], v.dtype.type(0), v), e)
    import torch

    check_dense(who, "e", e)
    v = e.float() if narrow else e
    norm = v.abs().sum(-1) if p == 1 else torch.linalg.vector_norm(v, 2, -1)
    u = norm - threshold
    if surrogate == "long-tailed":
        far = u.detach().abs()
        slope = torch.where(far <= 0.4, 2 - 4 * far, 0.4 * (far <= 1).to(far.dtype))
    else:
        slope = torch.ones_like(u)
    # 0, with the slope φ(u)
    leans = slope * torch.where(u.isfinite(), u - u.detach(), 0.0)
    kept = torch.where((u.detach() <= 0)[..., None], 0.0, v)
    return (kept + torch.where(v.isfinite(), v, 0.0) * leans[..., None]).to(e.dtype)


def prefix_mask(e: Array, dims: Integers) -> Array:
    r"""The first numbers of each row, as many as are said; the others are 0: embeddings of mixed width in one table.

    .. math:: y_j = e_j\,1[j < k]

    Parameters
    ----------
    e : array or tensor [..., d], float64, float32, float16 or bfloat16
    dims : integer array or tensor that goes with the rows [...]
        k, from 0 to d; what is beyond is all of the row, what is below nothing of it.

    Returns
    -------
    array or tensor [..., d]

    Raises
    ------
    TypeError
        If e is not a float array, or dims no integers.
    ValueError
        If dims does not go with the rows.

    Notes
    -----
    The gradient is the gradient under the same mask. One read and one write. Masks of all widths in turn train a table from
    which any of them can be cut (OptEmbed, 2022); soft weights cut at a threshold are the same mask (Cheng, Shen, Huang,
    "Differentiable Neural Input Search for Recommender Systems", 2020).

    Examples
    --------
    >>> import numpy as np
    >>> prefix_mask(np.ones((2, 3)), np.array([1, 3]))
    array([[1., 0., 0.],
           [1., 1., 1.]])
    """
    who = "prefix_mask"
    shape = tuple(dims.shape)
    if (
        not e.ndim
        or len(shape) >= e.ndim
        or any(n not in (1, m) for n, m in zip(shape[::-1], e.shape[-2::-1], strict=False))
    ):
        raise ValueError(f"{who}: dims has shape {shape}, the rows of e {tuple(e.shape[:-1])}")
    if not is_tensor(e):
        return np.where(np.arange(e.shape[-1]) < dims[..., None], e, e.dtype.type(0))
    import torch

    check_dense(who, "e", e)
    return torch.where(torch.arange(e.shape[-1], device=e.device) < dims[..., None], e, 0.0)


def md_dims(
    rows: Sequence[int],
    alpha: float,
    *,
    dim: int | None = None,
    budget: int | None = None,
    power_of_two: bool = True,
) -> list[int]:
    r"""Widths of tables of embeddings by how many rows they have: the larger the table, the rarer each row, the narrower.

    .. math:: d_i = \lambda\, n_i^{-\alpha}, \qquad \lambda = d\, n_{\min}^{\alpha} \quad\text{or}\quad
              \lambda = B \Big/ \sum_i n_i^{1-\alpha}

    Parameters
    ----------
    rows : sequence of int
        :math:`n_i`, 1 or more.
    alpha : float
        From 0, all alike, to 1, all of one size.
    dim : int
        d, the width of the smallest table; either this
    budget : int
        or B, how many numbers all tables have together, before widths are rounded.
    power_of_two : bool
        Round to the nearest power of two (of its logarithm, half to even), else down; at least 1 either way.

    Returns
    -------
    list of int

    Raises
    ------
    TypeError
        If rows are no integers.
    ValueError
        If a number is out of range, or not exactly one of dim and budget is given.

    Notes
    -----
    Rounding to powers of two may take more than the budget, down never, but for widths below 1. Ginart et al., "Mixed Dimension
    Embeddings with Application to Memory-Efficient Recommendation Systems" (2021).

    Examples
    --------
    >>> md_dims([100, 10_000, 1_000_000], 0.3, dim=64)
    [64, 16, 4]
    """
    who = "md_dims"
    if (dim is None) == (budget is None):
        raise ValueError(f"{who}: exactly one of dim and budget must be given")
    if not 0 <= alpha <= 1:
        raise ValueError(f"{who}: alpha must be between 0 and 1, got {alpha}")
    sizes = [int(n) for n in rows]
    if any(n < 1 for n in sizes):
        raise ValueError(f"{who}: rows must be 1 or more, got {min(sizes)}")
    for name, value in (("dim", dim), ("budget", budget)):
        if value is not None and value < 1:
            raise ValueError(f"{who}: {name} must be 1 or more, got {value}")
    if not sizes:
        return []
    if dim is not None:
        widths = [dim * (n / min(sizes)) ** -alpha for n in sizes]
    else:
        scale = budget / math.fsum(n ** (1 - alpha) for n in sizes)  # type: ignore[operator]
        widths = [scale * n**-alpha for n in sizes]
    # a power that is whole but for its last digit is whole
    whole = [2 ** round(math.log2(w)) if power_of_two else math.floor(w * (1 + 2**-48)) for w in widths]
    return [max(1, math.floor(w)) for w in whole]
