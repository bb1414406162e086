"""Sparse times sparse. The one rule: places first, then values at them, so that room is that of the result.

On the CPU rows are gathered in room for one (Gustavson, "Two fast algorithms for sparse matrices", 1978). On other devices all
terms of some rows are listed, sorted by column and compressed (Dalton, Olson, Bell, "Optimizing sparse matrix–matrix
multiplication for the GPU", 2015), so that gradients go through torch's own functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor._matrix import SparseMatrix
from tersor._values import called, tensor_of
from tersor.sparse._multiply import csr_matmul, csr_matmul_count, csr_matmul_places
from tersor.sparse._operators import csr_sort
from tersor.sparse._pattern import Pattern
from tersor.sparse._structure import beside, counted, index_type, runs, summed, widened

Array = Any

#: terms that are listed at a time, but for a row that has more
TERMS = 1 << 20
#: columns of which room for a row is made without a thought
NARROW = 1 << 16


def multiplied(a: Any, b: Any) -> Any:
    """The product of two matrices of ours."""
    who = "spgemm"
    (rows, inner), (height, cols) = a.shape, b.shape
    if inner != height:
        raise ValueError(f"{who}: a has shape {a.shape}, b {b.shape}")
    if dtype_name(a.dtype) != dtype_name(b.dtype):
        raise TypeError(f"{who}: a is {dtype_name(a.dtype)}, b is {dtype_name(b.dtype)}; astype makes them one")
    u, v = a._data, b._data
    if is_tensor(u) != is_tensor(v):
        u, v = (x if is_tensor(x) else tensor_of(x) for x in (u, v))
    if is_tensor(u) and u.device != v.device:
        raise ValueError(f"{who}: a is on {u.device}, b on {v.device}")
    if is_tensor(u) and u.device.type != "cpu":
        return a._of(*listed(who, (u, a._pattern), (v, b._pattern), (rows, cols)))
    return a._of(*_compiled(who, (u, a._pattern), (v, b._pattern), (rows, cols)))


def _compiled(who: str, a: tuple[Any, Pattern], b: tuple[Any, Pattern], shape: tuple[int, int]) -> tuple[Any, Pattern]:
    """Values and places of the product, by the kernels."""
    (u, p), (v, q), (rows, cols) = a, b, shape
    (ia, pa), (ib, pb), names = p.host(), q.host(), None
    if cols > max(4 * len(ib), NARROW):
        # of so many columns few are stored: these are numbered, in their order
        names, ib = np.unique(ib, return_inverse=True)
    width = cols if names is None else len(names)
    sizes = max(rows, p.shape[1], cols, len(ia), len(ib))
    ia, pa, ib, pb = (x.astype(index_type(sizes), copy=False) for x in (ia, pa, ib, pb))
    offsets = called(who, csr_matmul_count, ia, pa, ib, pb, width)
    entries = int(offsets[-1])
    kind = index_type(sizes, entries)
    ia, pa, ib, pb, offsets = (x.astype(kind, copy=False) for x in (ia, pa, ib, pb, offsets))
    columns = called(who, csr_matmul_places, ia, pa, ib, pb, offsets, width, entries)
    parts = (ia, pa, v, ib, pb, columns, offsets)
    if is_tensor(u):
        parts = tuple(tensor_of(x) if isinstance(x, np.ndarray) else x for x in parts)
    data = called(who, csr_matmul, u, *parts, width)
    if names is not None:
        columns = names[columns].astype(kind, copy=False)
    return data, beside(data, Pattern.distinct(columns, offsets, shape))


def listed(who: str, a: tuple[Any, Pattern], b: tuple[Any, Pattern], shape: tuple[int, int]) -> tuple[Any, Pattern]:
    """Values and places of the product by lists of all terms, for tensors of any device: values stay where they are."""
    (u, p), (v, q), (rows, cols) = a, b, shape
    (ia, pa), (ib, pb) = p.host(), q.host()
    each = np.diff(pb).astype(np.int64)[ia]
    ends = np.append(0, np.cumsum(each))[pa]
    parts, first = [], 0
    while first < rows:
        # as many rows as are within reach, at least one
        last = max(int(np.searchsorted(ends, ends[first] + TERMS, side="right")) - 1, first + 1)
        parts.append(_some(who, (ia, pa, each), (ib, pb), (u, v), slice(first, last), cols))
        first = last
    import torch

    lengths = np.concatenate([np.zeros(0, np.int64), *(n for _, n, _ in parts)])
    kind = index_type(rows, cols, int(lengths.sum()))
    columns = np.concatenate([np.zeros(0, kind), *(c for c, *_ in parts)]).astype(kind, copy=False)
    data = torch.cat([u[:0], *(x for *_, x in parts)])
    return data, beside(data, Pattern.distinct(columns, counted(lengths, kind), (rows, cols)))


def _some(
    who: str, a: tuple[Any, Any, Any], b: tuple[Any, Any], values: tuple[Any, Any], which: slice, cols: int
) -> tuple[np.ndarray, np.ndarray, Array]:
    """Columns, lengths and values of some rows of the product."""
    (ia, pa, each), (ib, pb), (u, v) = a, b, values
    offsets = pa[which.start : which.stop + 1].astype(np.int64)
    entries = slice(offsets[0], offsets[-1])
    starts = counted(each[entries], np.int64)
    of_a = np.repeat(np.arange(entries.start, entries.stop), each[entries])
    of_b = runs(pb[ia[entries]].astype(np.int64), starts)
    kind = index_type(cols, len(of_a))
    indptr = starts[offsets - entries.start].astype(kind)
    columns, indptr, order = called(who, csr_sort, ib[of_b].astype(kind), indptr, cols, kind is np.int64)
    pattern, begins = Pattern(columns, indptr, (len(offsets) - 1, cols)).merged()
    of_a, of_b = of_a[order], of_b[order]
    of_a, of_b = (tensor_of(x).to(u.device) for x in (of_a, of_b))
    terms = widened(u[of_a]) * widened(v[of_b])
    if begins is not None:
        terms = summed(terms, begins)
    return pattern.indices, np.diff(pattern.indptr).astype(np.int64), terms.to(u.dtype)


def spgemm(a: SparseMatrix, b: SparseMatrix) -> Any:
    r"""Sparse times sparse, :math:`C = A B`; ``a @ b`` too.

    Parameters
    ----------
    a : CSR [M, K]
    b : CSR [K, N], of the type of a
        One of the two may be made of NumPy arrays beside tensors, as a constant.

    Returns
    -------
    CSR [M, N]
        Stored are the places that entries of both reach, sums that happen to be 0 too, each once, in order. Differentiable
        with respect to ``a.data`` and ``b.data``, also more than once.

    Raises
    ------
    TypeError
        If dtypes differ, or one is no CSR.
    ValueError
        If shapes do not match.

    Notes
    -----
    2·T operations for T terms, T the sum over the entries (i, k) of a of the length of row k of b, and two walks over their
    places. A value is one chain of fused multiply-adds over k ascending, of the same bits for any number of threads; 16-bit
    values are added in float32 and rounded once. Places are made on the CPU, values where they are. A second derivative goes
    through a list of all terms, in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> (a @ a).to_dense()
    array([[2., 0.],
           [0., 2.]])
    """
    return multiplied(a, b)
