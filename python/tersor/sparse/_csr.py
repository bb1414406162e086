"""The sparse matrix, checked where it is made. The one rule: nothing that it hands out leads back to its places."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor._matrix import matrix_of, turned
from tersor._values import called, check_values, lasting, tensor_of
from tersor.sparse._algebra import Algebra
from tersor.sparse._check import checked_indices, checked_shape, name_outside
from tersor.sparse._convert import Converted
from tersor.sparse._operators import csr_sort
from tersor.sparse._pattern import Pattern
from tersor.sparse._select import Selected
from tersor.sparse._structure import index_type, owned, taken
from tersor.sparse.product import spmm
from tersor.sparse.terms import multiplied

Array = Any


class CSR(Converted, Selected, Algebra):
    r"""A sparse matrix by rows: row i has its entries at ``indptr[i]:indptr[i + 1]`` of ``data`` and ``indices``.

    ``A @ x`` is `spmm`, ``x @ A`` the product from the other side: both for arrays and tensors of one, two or three axes.
    ``A @ B`` is `spgemm`.

    Parameters
    ----------
    data : array or tensor [nnz], float64, float32, float16 or bfloat16
        The values. Copied, but for a tensor that requires a gradient: that one is used itself (or, out of order, through
        one differentiable gather), and products send their gradient to it.
    indices : array or tensor [nnz], int32 or int64
        Column of each entry. Rows are sorted here, stably; entries of equal place are kept, and add up in every use.
    indptr : array or tensor [rows + 1], int32 or int64
        Where the rows begin: from 0 to nnz, never falling.
    shape : (int, int)
        Rows and columns.

    Attributes
    ----------
    data : the values in order; of tensors the tensor itself, of arrays a read-only copy
    indices, indptr, perm : the places in order, and where each entry stood when it was given: ``data`` is the values given,
        taken at ``perm``. Copies, arrays read-only; int32 where everything fits
    shape, nnz, dtype : as of the arrays
    T : the transpose

    ``a[2:5]``, ``a[rows, cols]`` and masks choose, ``a + b``, ``a - b``, ``2 * a`` and ``a / 2`` are matrices again, as is
    `scale`; `sum` and `diagonal` are arrays. Not in traces: what makes other places needs to see these.

    Raises
    ------
    TypeError
        If data is not of a float type, or indices are not int32 or int64.
    ValueError
        If lengths disagree, indptr does not start at 0, falls or does not end at nnz, or a column is outside the shape.

    Notes
    -----
    Construction is one pass over the entries, and a sort of the rows that need it. Safe to share between threads; pickles
    without what was derived from it, and is checked again when loaded: ``torch.load`` takes a file of one after
    ``torch.serialization.add_safe_globals([CSR])``. A matrix of tensors without values (device "meta") is taken as sorted.

    Examples
    --------
    Values in the order of an edge list, which need not be sorted:

    >>> import numpy as np
    >>> from tersor.sparse import CSR
    >>> a = CSR(np.array([5.0, 7.0]), np.array([2, 0]), np.array([0, 2]), (1, 3))
    >>> a.data, a.perm
    (array([7., 5.]), array([1, 0], dtype=int32))
    >>> a.with_data(np.array([50.0, 70.0]), order="given").to_dense()
    array([[70.,  0., 50.]])
    """

    __slots__ = ("__weakref__",)

    def __init__(self, data: Array, indices: Array, indptr: Array, shape: Sequence[int]) -> None:
        rows, cols = checked_shape(shape)
        check_values("CSR", "data", data)
        columns, offsets = checked_indices("indices", indices, data), checked_indices("indptr", indptr, data)
        if len(offsets) != rows + 1:
            raise ValueError(f"CSR: indptr has {len(offsets)} elements, a matrix of {rows} rows needs {rows + 1}")
        if data.ndim != 1 or len(data) != len(columns):
            raise ValueError(f"CSR: data has shape {tuple(data.shape)}, indices {len(columns)} elements")
        kind = index_type(rows, cols, len(columns))
        if is_tensor(columns) or is_tensor(offsets):
            bare = data.new_empty(0)
            dtype = bare.long().dtype if kind is np.int64 else bare.int().dtype
            columns, offsets = (
                (i if is_tensor(i) else tensor_of(i)).to(device="meta", dtype=dtype) for i in (columns, offsets)
            )
            self._data, self._pattern = data, Pattern(columns, offsets, (rows, cols))
            return
        if columns.dtype != offsets.dtype:
            columns, offsets = columns.astype(np.int64), offsets.astype(np.int64)
        try:
            columns, offsets, perm = called("CSR", csr_sort, columns, offsets, cols, kind is np.int64)
        except ValueError:
            name_outside(columns, offsets, cols)
            raise
        self._data, self._pattern = owned(data, columns, offsets, (rows, cols), perm)

    @classmethod
    def _selected(cls, values: Array, places: Array, cols: int) -> CSR:
        """The matrix of as many entries in every row, at places that ascend and differ, as a selection gives them."""
        rows, k = values.shape
        if is_tensor(values):
            columns = places.reshape(rows * k)
            offsets = (values.new_ones(rows + 1, dtype=places.dtype).cumsum(0) - 1) * k
            if lasting(values) and index_type(rows * k, cols) is np.int32:  # sizes of a trace are not to be asked
                columns, offsets = columns.int(), offsets.int()
        else:
            kind = index_type(rows * k, cols)
            columns, offsets = places.reshape(-1).astype(kind), np.arange(rows + 1, dtype=kind) * kind(k)
        return cls._of(values.reshape(rows * k), Pattern.distinct(columns, offsets, (rows, cols)))

    def __reduce__(self) -> tuple[Any, ...]:
        p = self._pattern
        return CSR, (self._data, p.indices, p.indptr, p.shape), {"perm": p.perm}

    def __setstate__(self, state: dict[str, Any]) -> None:
        perm, p = state["perm"], self._pattern
        if perm is not None:
            if perm.ndim != 1 or len(perm) != self.nnz:
                raise ValueError(f"CSR: perm has shape {tuple(perm.shape)}, {self.nnz} entries are stored")
            perm = perm.to(p.indices.device) if is_tensor(p.indices) else np.array(perm)
            self._pattern = Pattern(p.indices, p.indptr, p.shape, perm)

    def __copy__(self) -> CSR:
        return CSR._of(self._data, self._pattern)

    def __deepcopy__(self, memo: dict[int, Any]) -> CSR:
        # what hangs on a graph is copied as the values that it is
        graph = is_tensor(self._data) and self._data.grad_fn is not None
        data = self._data.detach().clone() if graph else copy.deepcopy(self._data, memo)
        return CSR._of(data, copy.deepcopy(self._pattern, memo))

    def __matmul__(self, x: Any) -> Any:
        other = x if isinstance(x, np.ndarray) else matrix_of("spgemm", "b", x)
        return multiplied(self, other) if isinstance(other, CSR) else spmm(self, x)

    def __rmatmul__(self, x: Array) -> Array:
        check_values("x @ CSR", "x", x)
        if not x.ndim or x.shape[-1] != self.shape[0]:
            raise ValueError(f"x @ CSR: x has shape {tuple(x.shape)}, the matrix {self.shape[0]} rows")
        a = CSR._of(tensor_of(self._data), self._pattern.tensors()) if is_tensor(x) > is_tensor(self._data) else self
        return turned(spmm(a.T, turned(x)))

    def with_data(self, data: Array, order: str = "stored") -> CSR:
        """The same places with other values; what was derived from the structure is shared.

        They come in the order of ``self.data``, or with ``order="given"`` in the order in which the entries were given when
        the matrix was made. A tensor is used itself (out of order, through one differentiable gather), so that a parameter
        can be passed anew in every step; an array is copied.
        """
        check_values("CSR.with_data", "data", data)
        if data.ndim != 1 or data.shape[0] != self.nnz:
            raise ValueError(f"CSR.with_data: data has shape {tuple(data.shape)}, {self.nnz} entries are stored")
        if order not in ("stored", "given"):
            raise ValueError(f"CSR.with_data: order must be 'stored' or 'given', got {order!r}")
        if is_tensor(data):
            pattern = self._pattern.tensors()
            if pattern.indices.device != data.device:
                raise ValueError(f"CSR.with_data: data is on {data.device}, the matrix on {pattern.indices.device}")
        else:
            pattern = self._pattern
            if is_tensor(pattern.indices):
                raise TypeError("CSR.with_data: data is a NumPy array, the matrix is made of tensors")
        if order == "given" and pattern.perm is not None:
            return CSR._of(taken(data, pattern.perm), pattern)
        return CSR._of(data.contiguous() if is_tensor(data) else np.array(data, order="C"), pattern)
