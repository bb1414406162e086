"""Places of nodes by eigenvectors of the Laplacian. The one rule: a vector is given with its residual, and its sign is said."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import INTEGERS, is_tensor, whole
from tersor._host import answer, held
from tersor._matrix import KINDS
from tersor.graph.adjacency import matrix, scaled

#: up to so many nodes every eigenvector is computed
DENSE = 512


class Encoding(NamedTuple):
    """Eigenvectors in columns, their eigenvalues, ascending, and the lengths of Lv - λv."""

    vectors: Any
    values: Any
    residuals: Any


def laplacian_pe(A: Any, k: int) -> Encoding:
    r"""The eigenvectors 2 to k + 1 of :math:`I - D^{-1/2} A D^{-1/2}`, as places of nodes.

    Parameters
    ----------
    A : as of `adjacency`
        Of an undirected graph: a symmetric matrix, of weights that are not negative.
    k : int
        How many, fewer than n.

    Returns
    -------
    vectors : float64 [n, k]
        Of length 1. The first of the entries within 1e-6 of the largest modulus is positive.
    values : float64 [k]
        Ascending, within 0 and 2.
    residuals : float64 [k]
        :math:`|Lv - \lambda v|`.

    Raises
    ------
    TypeError
        If A is no graph.
    ValueError
        If the matrix is not symmetric, a weight is negative or not finite, or k is out of range.

    Notes
    -----
    Up to 512 nodes by NumPy's ``eigh``, beyond by ARPACK (scipy), which begins at a fixed vector. A node without edges has 1 on
    the diagonal. Vectors of an eigenvalue that comes several times are one basis of many.
    """
    a = scaled("laplacian_pe", _wide(A), "none", False)
    n = a.shape[0]
    k = whole("laplacian_pe: k", k)
    if not 0 <= k < max(n, 1):
        raise ValueError(f"laplacian_pe: k must be at least 0 and below the {n} nodes, got {k}")
    bad = np.flatnonzero(~((a._data >= 0) & np.isfinite(a._data)))
    if len(bad):
        raise ValueError(f"laplacian_pe: weights must be finite and not negative, got {a._data[bad[0]]}")
    s = a.to_scipy()
    s.sum_duplicates()
    off = abs(s - s.T)
    if off.nnz and off.max() > 1e-12 * abs(s).max():
        i, j = (int(x[0]) for x in (off > 1e-12 * abs(s).max()).nonzero())
        raise ValueError(
            f"laplacian_pe: the matrix must be symmetric, A[{i}, {j}] = {s[i, j]:g}, A[{j}, {i}] = {s[j, i]:g}"
        )
    m = scaled("laplacian_pe", a, "sym", False)
    if n > DENSE and not s.count_nonzero():  # in which ARPACK finds nothing to begin with
        values, vectors = np.ones(k + 1), np.eye(n, k + 1)
    elif n <= DENSE or k + 1 >= n - 1:
        values, vectors = np.linalg.eigh(np.eye(n) - (lambda d: (d + d.T) / 2)(m.to_dense()))
    else:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng(0).standard_normal(n)
        top, vectors = eigsh(m.to_scipy(), k + 1, which="LA", v0=start)
        order = np.argsort(-top, kind="stable")
        values, vectors = 1 - top[order], vectors[:, order]
    values, vectors = values[1 : k + 1], np.ascontiguousarray(vectors[:, 1 : k + 1])
    size = abs(vectors)
    first = (size >= size.max(0, initial=0) - 1e-6).argmax(0) if k else np.zeros(0, int)
    vectors = vectors * np.where(vectors[first, np.arange(k)] < 0, -1, 1)
    rest = vectors - (m @ vectors if k else vectors) - vectors * values
    residuals = np.sqrt((rest * rest).sum(0))
    like = next((x for x in (A, getattr(A, "_data", None)) if is_tensor(x)), values)
    return Encoding(*(answer(x, like) for x in (vectors, values, residuals)))


def _wide(A: Any) -> Any:
    """The matrix in NumPy's float64."""
    a = matrix("laplacian_pe", A)
    indices, indptr = (held("laplacian_pe", "A", x, INTEGERS) for x in (a._pattern.indices, a._pattern.indptr))
    data = held("laplacian_pe", "A", a._data).astype(np.float64)
    return KINDS["CSR"](data, indices, indptr, a.shape)
