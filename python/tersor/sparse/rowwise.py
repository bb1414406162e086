"""Functions of the rows of a sparse matrix. The one rule: what is not stored takes no part, it is no zero here."""

from __future__ import annotations

import math
from typing import Any

from tersor._arrays import is_tensor
from tersor._matrix import SparseMatrix
from tersor._values import called
from tersor.sparse._multiply import csr_softmax
from tersor.sparse._structure import summed

Array = Any


def softmax(a: SparseMatrix) -> Any:
    r"""Softmax over the stored entries of each row, :math:`e^{a_{ij}} / \sum_k e^{a_{ik}}` with k among them.

    Parameters
    ----------
    a : CSR [M, K]

    Returns
    -------
    CSR [M, K]
        With the places of a. Rows without entries stay empty. Differentiable once with respect to ``a.data``.

    Raises
    ------
    TypeError
        If a is no CSR.
    ValueError
        If a place is stored twice: `CSR.sum_duplicates` makes one entry of them.

    Notes
    -----
    Two reads and a write of the values, exponentials of many short rows at once; float64 inside, with the digits of the type
    of the values, rounded once. A row with NaN or +inf, or of -inf alone, is NaN. In a trace the places must be known to
    differ: those of `from_dense` and `CSR.sum_duplicates` are, others once asked.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.CSR(np.array([1.0, 1.0, 5.0]), np.array([0, 2, 1]), np.array([0, 2, 3]), (2, 3))
    >>> sparse.softmax(a).to_dense()
    array([[0.5, 0. , 0.5],
           [0. , 1. , 0. ]])
    """
    x, p = a._data, a._pattern
    meta = is_tensor(x) and x.device.type == "meta"
    if not meta and p.merged()[1] is not None:
        raise ValueError("softmax: a has entries of equal place; sum_duplicates() makes one of them")
    if not is_tensor(x) or x.device.type in ("cpu", "meta"):
        return a._of(called("softmax", csr_softmax, x, p.indptr), p)  # type: ignore[attr-defined]
    row, wide = p.rows(), x.double()
    most = wide.detach().new_full((p.shape[0],), -math.inf).scatter_reduce(0, row, wide.detach(), "amax")
    e = (wide - most[row]).exp()
    return a._of((e / summed(e, p.indptr)[row]).to(x.dtype), p)  # type: ignore[attr-defined]
