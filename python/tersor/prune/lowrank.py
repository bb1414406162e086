"""Matrices of low rank with some rows beside them. The one rule: rows stay by an exact mask, whatever their sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import is_tensor
from tersor._reference import rounded, wide, xp
from tersor._values import readable
from tersor.prune._rank import share
from tersor.prune.masks import global_masks

Array = Any


class LowRankSparse(NamedTuple):
    """A matrix as a product of two thin ones and some rows: ``left @ right``, with ``rows`` added at ``kept``.

    Attributes
    ----------
    left : array or tensor [out, r]
    right : array or tensor [r, in]
    rows : array or tensor [n, in]
    kept : int64 array or tensor [n]
        Where the rows stand, ascending.
    """

    left: Any
    right: Any
    rows: Any
    kept: Any

    def to_dense(self) -> Any:
        """The matrix."""
        y = self.left @ self.right
        if is_tensor(y):
            return y.index_add(0, self.kept, self.rows)
        np.add.at(y, self.kept, self.rows)
        return y


def lowrank_plus_sparse(w: Array, ratio: float, sparsity: float, *, scores: Array | None = None) -> LowRankSparse:
    r"""A matrix as the best one of low rank and the rows of what it leaves that matter most.

    .. math:: W \approx L R + S, \quad L = U_r \sqrt{\Sigma_r},\quad R = \sqrt{\Sigma_r} V_r^\top, \quad
              r = \lceil \text{ratio} \cdot n m / (n + m) \rceil

    Parameters
    ----------
    w : array or tensor [n, m], float64, float32, float16 or bfloat16
    ratio : float between 0 and 1
        Of the numbers of w that L and R have together; 0 is rank 0.
    sparsity : float between 0 and 1
        Of the rows of W − L R that are left out, rounded half to even.
    scores : float array or tensor [n], optional
        What each row is worth; the norm of what the product leaves of it, if absent.

    Returns
    -------
    LowRankSparse
        Of the type of w.

    Raises
    ------
    TypeError
        If w or scores are no float arrays.
    ValueError
        If w is no matrix, numbers are out of range, or one is not finite.

    Notes
    -----
    One singular value decomposition in float64. Rows stay by a mask and not by their sum, which may be 0. Li et al.,
    "LoSparse: Structured Compression of Large Language Models based on Low-Rank and Sparse Approximation"
    (2023); of merged experts in Li et al. (2024).

    Examples
    --------
    >>> import numpy as np
    >>> made = lowrank_plus_sparse(np.diag([4.0, 3.0, 1.0]), 0.6, 2 / 3)
    >>> made.left.shape, made.kept
    ((3, 1), array([1]))
    """
    who = "lowrank_plus_sparse"
    readable(who, w=w, scores=scores)
    if w.ndim != 2:
        raise ValueError(f"{who}: w must be [out, in], got shape {tuple(w.shape)}")
    if not 0 <= ratio <= 1:
        raise ValueError(f"{who}: ratio must be between 0 and 1, got {ratio}")
    v = wide(w.detach() if is_tensor(w) else w)
    if not bool(xp.isfinite(v).all()):
        raise ValueError(f"{who}: w holds non-finite values")
    n, m = v.shape
    if scores is not None and tuple(scores.shape) != (n,):
        raise ValueError(f"{who}: scores has shape {tuple(scores.shape)}, w {n} rows")
    if scores is not None and not bool(xp.isfinite(scores).all()):
        raise ValueError(f"{who}: scores holds non-finite values")
    rank = min(int(-(-ratio * n * m // max(n + m, 1))), n, m)
    svd = _svd(v)
    u, s, t = svd[0][:, :rank], xp.sqrt(svd[1][:rank]), svd[2][:rank]
    left, right = rounded(u * s, w), rounded(s[:, None] * t, w)
    rest = v - wide(left) @ wide(right)
    if scores is None:  # of norms the order alone is asked, which is that of rows of any size
        size = abs(rest).max() if n and m else 1.0
        near = rest / xp.where(size > 0, size, 1.0) if n and m else rest
        worth = (near * near).sum(1)
    else:
        worth = scores.detach() if is_tensor(scores) else scores
    (mask,) = global_masks([worth], k=share(sparsity, n), scores=[worth])
    places = mask.nonzero()
    kept = places[:, 0] if is_tensor(mask) else places[0]
    return LowRankSparse(left, right, rounded(rest[kept], w), kept)


def _svd(v: Array) -> Any:
    if not is_tensor(v):
        return np.linalg.svd(v, full_matrices=False)
    import torch

    return torch.linalg.svd(v, full_matrices=False)
