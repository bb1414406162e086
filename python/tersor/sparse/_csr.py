"""The sparse matrix, checked where it is made. The one rule: nothing that it hands out leads back to its places."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, dtype_name, is_tensor
from tersor._matrix import SparseMatrix, turned
from tersor._values import called, check_values, float_name, tensor_of
from tersor.sparse._check import checked_indices, checked_shape, name_outside
from tersor.sparse._operators import csr_dense, csr_sort
from tersor.sparse._pattern import Pattern
from tersor.sparse.product import spmm

Array = Any

#: the largest size that int32 indices serve
LONGEST = 2**31 - 1


class CSR(SparseMatrix):
    r"""A sparse matrix by rows: row i has its entries at ``indptr[i]:indptr[i + 1]`` of ``data`` and ``indices``.

    ``A @ x`` is `spmm`, ``x @ A`` the product from the other side: both for arrays and tensors of one, two or three axes.

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
        tensor = is_tensor(data)
        check_values("CSR", "data", data)
        columns, offsets = checked_indices("indices", indices, data), checked_indices("indptr", indptr, data)
        if len(offsets) != rows + 1:
            raise ValueError(f"CSR: indptr has {len(offsets)} elements, a matrix of {rows} rows needs {rows + 1}")
        if data.ndim != 1 or len(data) != len(columns):
            raise ValueError(f"CSR: data has shape {tuple(data.shape)}, indices {len(columns)} elements")
        wide = max(rows, cols, len(columns)) > LONGEST
        if is_tensor(columns) or is_tensor(offsets):
            kind = data.new_empty(0).long().dtype if wide else data.new_empty(0).int().dtype
            columns, offsets = (
                (i if is_tensor(i) else tensor_of(i)).to(device="meta", dtype=kind) for i in (columns, offsets)
            )
            self._data, self._pattern = data, Pattern(columns, offsets, (rows, cols))
            return
        if columns.dtype != offsets.dtype:
            columns, offsets = columns.astype(np.int64), offsets.astype(np.int64)
        try:
            columns, offsets, perm = called("CSR", csr_sort, columns, offsets, cols, wide)
        except ValueError:
            name_outside(columns, offsets, cols)
            raise
        if bool((perm[1:] > perm[:-1]).all()):
            perm = None
        if tensor:
            import torch

            parts = (None if i is None else torch.from_numpy(i).to(data.device) for i in (columns, offsets, perm))
            columns, offsets, perm = parts
            if perm is not None:
                data = data[perm]
            elif not data.requires_grad:
                data = data.clone()
            data = data.contiguous()
        else:
            data = np.array(data, order="C") if perm is None else np.ascontiguousarray(data)[perm]
        self._data = data
        self._pattern = Pattern(columns, offsets, (rows, cols), perm)

    @classmethod
    def _of(cls, data: Array, pattern: Pattern) -> CSR:
        a = cls.__new__(cls)
        a._data = data
        a._pattern = pattern
        return a

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

    @property
    def data(self) -> Array:
        return self._data if is_tensor(self._data) else _given_out(self._data)

    @property
    def indices(self) -> Array:
        return _given_out(self._pattern.indices)

    @property
    def indptr(self) -> Array:
        return _given_out(self._pattern.indptr)

    @property
    def perm(self) -> Array:
        p = self._pattern
        if p.perm is not None:
            return _given_out(p.perm)
        if is_tensor(p.indices):
            return p.indices.new_ones(self.nnz).cumsum(0, dtype=p.indices.dtype) - 1
        perm = np.arange(self.nnz, dtype=p.indices.dtype)
        perm.flags.writeable = False
        return perm

    @property
    def dtype(self) -> Any:
        return self._data.dtype

    @property
    def nnz(self) -> int:
        """Stored entries, explicit zeros and repeated places among them."""
        return int(self._data.shape[0])

    @property
    def T(self) -> CSR:
        """The transpose. One pass; its structure is made once, and ``a.T.T`` is a again, in the order of ``a.data``."""
        perm, rows, offsets = self._pattern.transposed()
        return CSR._of(self._data[perm], Pattern(rows, offsets, self.shape[::-1]))

    def __repr__(self) -> str:
        rows, cols = self.shape
        where = "NumPy" if isinstance(self._data, np.ndarray) else f"torch, {self._data.device}"
        return f"CSR({rows}×{cols}, {self.nnz} entries of {dtype_name(self.dtype)}, {where})"

    def __matmul__(self, x: Array) -> Array:
        return spmm(self, x)

    def __rmatmul__(self, x: Array) -> Array:
        check_values("x @ CSR", "x", x)
        if not 1 <= x.ndim <= 3 or x.shape[-1] != self.shape[0]:
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
            return CSR._of(data[pattern.perm], pattern)
        return CSR._of(data.contiguous() if is_tensor(data) else np.array(data, order="C"), pattern)

    def to(self, *args: Any, **kwargs: Any) -> CSR:
        """On another device, or of another float type, as ``torch.Tensor.to``: for matrices of tensors. Differentiable."""
        if not is_tensor(self._data):
            raise TypeError(
                "CSR.to: the matrix is made of NumPy arrays; astype changes their type, with_data takes tensors"
            )
        data = self._data.to(*args, **kwargs)
        if dtype_name(data.dtype) not in FLOATS:
            raise TypeError(f"CSR.to: a matrix is float64, float32, float16 or bfloat16, got {dtype_name(data.dtype)}")
        return CSR._of(data, self._pattern.to(data.device))

    def astype(self, dtype: Any) -> CSR:
        """Of another float type, rounded to nearest; a name or a type of either library. Differentiable."""
        name = float_name(dtype)
        if name not in FLOATS:
            raise TypeError(f"CSR.astype: dtype must be float64, float32, float16 or bfloat16, got {name}")
        if is_tensor(self._data):
            import torch

            return CSR._of(self._data.to(getattr(torch, name)), self._pattern)
        if name == "bfloat16":
            import ml_dtypes

            return CSR._of(self._data.astype(ml_dtypes.bfloat16), self._pattern)
        return CSR._of(self._data.astype(name), self._pattern)

    def detach(self) -> CSR:
        """The same values outside the graph, in the same memory, as ``torch.Tensor.detach``."""
        return CSR._of(self._data.detach() if is_tensor(self._data) else self._data, self._pattern)

    def to_dense(self) -> Array:
        """The dense matrix, an array or a tensor; differentiable with respect to data. rows × cols elements are written."""
        p = self._pattern
        if is_tensor(self._data) and self._data.device.type not in ("cpu", "meta"):
            places = p.rows(), p.indices.long()
            return self._data.new_zeros(p.shape).index_put(places, self._data, accumulate=True)
        return called("CSR.to_dense", csr_dense, self._data, p.indices, p.indptr, p.shape[1])

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.csr_array`` of copies; repeated places stay. SciPy has no 16-bit floats (TypeError)."""
        import scipy.sparse

        if dtype_name(self.dtype) not in ("float32", "float64"):
            raise TypeError(f"CSR.to_scipy: SciPy has no matrices of {dtype_name(self.dtype)}")
        parts = (self._data, self._pattern.indices, self._pattern.indptr)
        if not isinstance(self._data, np.ndarray):
            if self._data.device.type == "meta":
                raise ValueError("CSR.to_scipy: the matrix is on meta, without values")
            parts = tuple(t.detach().cpu().numpy() for t in parts)
        a = scipy.sparse.csr_array(parts, shape=self.shape, copy=True)
        a.has_sorted_indices = True
        return a

    def to_torch(self) -> Any:
        """A ``torch.sparse_csr_tensor`` of copies; repeated places, which torch does not allow, are added up."""
        import torch

        p = self._pattern.tensors()
        data = self._data if is_tensor(self._data) else tensor_of(self._data)
        columns, offsets = p.indices, p.indptr
        if data.device.type == "meta":
            # torch's own layout has no values to compare either: places are taken as distinct
            return torch.sparse_csr_tensor(offsets, columns, data, self.shape, check_invariants=False)
        row = p.rows()
        fresh = torch.ones(len(columns), dtype=torch.bool, device=columns.device)
        fresh[1:] = (columns[1:] != columns[:-1]) | (row[1:] != row[:-1])
        if not bool(fresh.all()):
            group = fresh.long().cumsum(0) - 1
            data = data.new_zeros(int(group[-1]) + 1).index_add(0, group, data)
            columns = columns[fresh]
            counts = torch.bincount(row[fresh], minlength=self.shape[0])
            offsets = torch.cat([offsets[:1], counts.cumsum(0).to(offsets.dtype)])
        else:
            data = data.clone()
        return torch.sparse_csr_tensor(offsets.clone(), columns.clone(), data, self.shape, check_invariants=True)


def _given_out(x: Array) -> Array:
    """A copy, read-only where there is such a thing: read-only views can be written to through other libraries."""
    if is_tensor(x):
        return x.clone()
    x = x.copy()
    x.flags.writeable = False
    return x
