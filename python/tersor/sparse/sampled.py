"""Dense times dense where a pattern says. The one rule: the places of the pattern are used, its values are not."""

from __future__ import annotations

from typing import Any

from tersor._arrays import is_tensor
from tersor._matrix import SparseMatrix
from tersor._values import watched
from tersor.sparse._csr import CSR
from tersor.sparse._operators import _sddmm
from tersor.sparse.product import operands

Array = Any


def sddmm(pattern: SparseMatrix, a: Array, b: Array) -> CSR:
    r"""Dense times dense where a pattern says, :math:`S_{ik} = \langle a_i, b_k\rangle` for every stored place (i, k).

    Parameters
    ----------
    pattern : CSR [M, K]
        Its places are used, its values are not.
    a : array or tensor [M, D] or [B, M, D], float64, float32, float16 or bfloat16
    b : array or tensor [K, D] or [B, K, D], of the dtype of a
        With a leading axis, products are added over it.

    Returns
    -------
    CSR [M, K]
        With the places of pattern; several entries in one place have the full value each. Differentiable once with
        respect to a and b, through its ``data``.

    Raises
    ------
    TypeError
        If dtypes or libraries differ, or pattern is no CSR.
    ValueError
        If shapes do not match.

    Notes
    -----
    2·nnz·D·B operations. The adjoint of `spmm`: :math:`\langle A X, Y\rangle = \langle A, S(Y, X)\rangle`. Sums are cut into
    chunks of 1024 terms, in sixteen lanes (float64: eight), so their order follows from D alone.
    """
    _, p = operands("sddmm", pattern, ("a", a), ("b", b))
    rows, cols = p.shape
    if not 2 <= a.ndim <= 3 or a.ndim != b.ndim:
        raise ValueError(f"sddmm: a and b must have two axes or three, got {tuple(a.shape)} and {tuple(b.shape)}")
    want = (*a.shape[:-2], cols, a.shape[-1])
    if a.shape[-2] != rows or tuple(b.shape) != tuple(want):
        raise ValueError(f"sddmm: a has shape {tuple(a.shape)}, b {tuple(b.shape)}, the pattern {p.shape}")
    if is_tensor(a) and b is a:  # two arguments to the graph of a gradient
        b = b.view_as(b)
    transposed = p.transposed() if watched(b) else (None, None, None)
    return CSR._of(_sddmm(a, b, p.indices, p.indptr, *transposed), p)
