"""The sparse matrix and the ways into it: checked where it is made, from then on its own.

The rule of this file: what two threads may make at once is a function of the structure and is set in one assignment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, dtype_name
from tersor._csr_ops import csr_count, csr_dense, csr_fill, csr_sort, csr_transpose

Array = Any

#: the largest size that int32 indices serve
LONGEST = 2**31 - 1


class Pattern:
    """The places of a matrix's entries, shared by all matrices with the same; what is derived from them is kept here."""

    __slots__ = ("_transposed", "_twin", "indices", "indptr", "shape")

    def __init__(self, indices: Array, indptr: Array, shape: tuple[int, int]) -> None:
        self.indices = indices
        self.indptr = indptr
        self.shape = shape
        # both are functions of the structure, set in one assignment: two threads may make them, either is right
        self._transposed: tuple[Any, Any, Any] | None = None
        self._twin: Pattern | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Pattern, (self.indices, self.indptr, self.shape)

    def transposed(self) -> tuple[Any, Any, Any]:
        """Where each entry of the transpose stands here, its indices, its offsets."""
        done = self._transposed
        if done is None:
            indices, indptr, cols = self.indices, self.indptr, self.shape[1]
            if isinstance(indices, np.ndarray) or indices.device.type in ("cpu", "meta"):
                rows, offsets, perm = csr_transpose(indices, indptr, cols)
            else:
                on = indices.device
                rows, offsets, perm = (t.to(on) for t in csr_transpose(indices.cpu(), indptr.cpu(), cols))
            done = perm, rows, offsets
            if isinstance(indices, np.ndarray) or not _compiling():
                self._transposed = done
        return done

    def rows(self) -> Any:
        """The row of each entry, of a pattern in tensors."""
        import torch

        lengths = (self.indptr[1:] - self.indptr[:-1]).long()
        return torch.repeat_interleave(torch.arange(self.shape[0], device=lengths.device), lengths)

    def tensors(self) -> Pattern:
        """The same pattern in tensors on the CPU."""
        if not isinstance(self.indices, np.ndarray):
            return self
        twin = self._twin
        if twin is None:
            import torch

            twin = Pattern(torch.from_numpy(self.indices), torch.from_numpy(self.indptr), self.shape)
            if not _compiling():
                self._twin = twin
        return twin


def _compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


class CSR:
    r"""A sparse matrix by rows: row i has its entries at ``indptr[i]:indptr[i + 1]`` of ``data`` and ``indices``.

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
    data, indices, indptr : the matrix in order (NumPy arrays are read-only); indices are int32 where everything fits
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
    without what was derived from it.
    """

    __slots__ = ("__weakref__", "_data", "_pattern")

    def __init__(self, data: Array, indices: Array, indptr: Array, shape: Sequence[int]) -> None:
        rows, cols = _shape(shape)
        tensor = is_tensor(data)
        check_values("CSR", "data", data)
        columns, offsets = _indices("indices", indices), _indices("indptr", indptr)
        if len(offsets) != rows + 1:
            raise ValueError(f"CSR: indptr has {len(offsets)} elements, a matrix of {rows} rows needs {rows + 1}")
        if data.ndim != 1 or len(data) != len(columns):
            raise ValueError(f"CSR: data has shape {tuple(data.shape)}, indices {len(columns)} elements")
        if columns.dtype != offsets.dtype:
            columns, offsets = columns.astype(np.int64), offsets.astype(np.int64)
        wide = max(rows, cols, len(columns)) > LONGEST
        columns, offsets, perm = csr_sort(columns, offsets, cols, wide)
        ordered = bool((perm[1:] > perm[:-1]).all())
        if tensor:
            import torch

            columns, offsets = (torch.from_numpy(i).to(data.device) for i in (columns, offsets))
            if not ordered:
                data = data[torch.from_numpy(perm).to(data.device)]
            elif not data.requires_grad:
                data = data.clone()
            data = data.contiguous()
        else:
            data = np.array(data, order="C") if ordered else np.ascontiguousarray(data)[perm]
        self._data = data
        self._pattern = Pattern(columns, offsets, (rows, cols))

    @classmethod
    def _of(cls, data: Array, pattern: Pattern) -> CSR:
        a = cls.__new__(cls)
        a._data = data
        a._pattern = pattern
        return a

    def __reduce__(self) -> tuple[Any, ...]:
        return CSR._of, (self._data, self._pattern)

    @property
    def data(self) -> Array:
        return _frozen(self._data)

    @property
    def indices(self) -> Array:
        return _frozen(self._pattern.indices)

    @property
    def indptr(self) -> Array:
        return _frozen(self._pattern.indptr)

    @property
    def shape(self) -> tuple[int, int]:
        return self._pattern.shape

    @property
    def dtype(self) -> Any:
        return self._data.dtype

    @property
    def nnz(self) -> int:
        """Stored entries, explicit zeros and repeated places among them."""
        return int(self._data.shape[0])

    @property
    def T(self) -> CSR:
        """The transpose. One pass; its structure is made once, and ``a.T.T`` is a again."""
        perm, rows, offsets = self._pattern.transposed()
        return CSR._of(self._data[perm], Pattern(rows, offsets, self.shape[::-1]))

    def __repr__(self) -> str:
        rows, cols = self.shape
        where = "NumPy" if isinstance(self._data, np.ndarray) else f"torch, {self._data.device}"
        return f"CSR({rows}×{cols}, {self.nnz} entries of {dtype_name(self.dtype)}, {where})"

    def __matmul__(self, x: Array) -> Array:
        from tersor.sparse import spmm

        return spmm(self, x)

    def with_data(self, data: Array) -> CSR:
        """The same places with other values, in the order of ``self.data``; what was derived from the structure is shared.

        A tensor is used itself, so that a parameter can be passed anew in every step; an array is copied.
        """
        check_values("CSR.with_data", "data", data)
        if data.ndim != 1 or data.shape[0] != self.nnz:
            raise ValueError(f"CSR.with_data: data has shape {tuple(data.shape)}, {self.nnz} entries are stored")
        if not is_tensor(data):
            if not isinstance(self._data, np.ndarray):
                raise TypeError("CSR.with_data: data is a NumPy array, the matrix is made of tensors")
            return CSR._of(np.array(data, order="C"), self._pattern)
        pattern = self._pattern.tensors()
        if pattern.indices.device != data.device:
            raise ValueError(f"CSR.with_data: data is on {data.device}, the matrix on {pattern.indices.device}")
        return CSR._of(data.contiguous(), pattern)

    def to_dense(self) -> Array:
        """The dense matrix, an array or a tensor; differentiable with respect to data. rows × cols elements are written."""
        p = self._pattern
        if is_tensor(self._data) and self._data.device.type != "cpu":
            places = p.rows(), p.indices.long()
            return self._data.new_zeros(p.shape).index_put(places, self._data, accumulate=True)
        return csr_dense(self._data, p.indices, p.indptr, p.shape[1])

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.csr_array`` of copies; repeated places stay. SciPy has no 16-bit floats (TypeError)."""
        import scipy.sparse

        if dtype_name(self.dtype) not in ("float32", "float64"):
            raise TypeError(f"CSR.to_scipy: SciPy has no matrices of {dtype_name(self.dtype)}")
        parts = (self._data, self._pattern.indices, self._pattern.indptr)
        if not isinstance(self._data, np.ndarray):
            parts = tuple(t.detach().cpu().numpy() for t in parts)
        a = scipy.sparse.csr_array(parts, shape=self.shape, copy=True)
        a.has_sorted_indices = True
        return a

    def to_torch(self) -> Any:
        """A ``torch.sparse_csr_tensor``; repeated places, which torch does not allow, are added up."""
        import torch

        p = self._pattern.tensors()
        data = self._data if is_tensor(self._data) else tensor_of(self._data)
        columns, offsets, row = p.indices, p.indptr, p.rows()
        fresh = torch.ones(len(columns), dtype=torch.bool, device=columns.device)
        fresh[1:] = (columns[1:] != columns[:-1]) | (row[1:] != row[:-1])
        if not bool(fresh.all()):
            group = fresh.long().cumsum(0) - 1
            data = data.new_zeros(int(group[-1]) + 1).index_add(0, group, data)
            columns = columns[fresh]
            counts = torch.bincount(row[fresh], minlength=self.shape[0])
            offsets = torch.cat([offsets[:1], counts.cumsum(0).to(offsets.dtype)])
        elif data is self._data and not data.requires_grad:
            data = data.clone()
        return torch.sparse_csr_tensor(offsets.clone(), columns.clone(), data, self.shape, check_invariants=True)


def is_tensor(x: Any) -> bool:
    return not isinstance(x, np.ndarray) and hasattr(x, "requires_grad")


def tensor_of(x: np.ndarray) -> Any:
    import torch

    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def _frozen(x: Array) -> Array:
    if isinstance(x, np.ndarray):
        x = x.view()
        x.flags.writeable = False
    return x


def _shape(shape: Sequence[int]) -> tuple[int, int]:
    try:
        rows, cols = (int(n.__index__()) for n in shape)
    except (TypeError, AttributeError, ValueError):
        raise TypeError(f"CSR: shape must be two integers, got {shape!r}") from None
    if not (0 <= rows < 2**63 - 1 and 0 <= cols < 2**63 - 1):
        raise ValueError(f"CSR: shape must not be negative or beyond 2^63, got {shape!r}")
    return rows, cols


def check_values(who: str, name: str, x: Any) -> None:
    if not isinstance(x, np.ndarray) and not is_tensor(x):
        raise TypeError(f"{who}: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{who}: {name} must be float64, float32, float16 or bfloat16, got {dtype_name(x.dtype)}")
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        raise TypeError(f"{who}: {name} has byte order {x.dtype.byteorder!r}; convert it to native first")


def _indices(name: str, x: Any) -> np.ndarray:
    if is_tensor(x):
        x = x.detach().cpu().numpy()
    if not isinstance(x, np.ndarray):
        raise TypeError(f"CSR: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if x.dtype.name not in ("int32", "int64"):
        raise TypeError(f"CSR: {name} must be int32 or int64, got {x.dtype.name}")
    if x.ndim != 1:
        raise ValueError(f"CSR: {name} must have one axis, got shape {x.shape}")
    return x


def from_dense(w: Array, mask: Array = None) -> CSR:
    """The sparse matrix of a dense one.

    Parameters
    ----------
    w : array or tensor [rows, cols], float64, float32, float16 or bfloat16
        Its elements other than 0 are stored (NaN is one of them). A tensor that requires a gradient gets it through the
        values.
    mask : array or tensor [rows, cols], bool
        If given, stored are the elements where it is True, zeros too.

    Returns
    -------
    CSR
        Of the same library as w.

    Raises
    ------
    TypeError
        If w is not of a float type, or mask is not bool.
    ValueError
        If w does not have two axes, or mask another shape.

    Notes
    -----
    Two reads of w.
    """
    check_values("from_dense", "w", w)
    if w.ndim != 2:
        raise ValueError(f"from_dense: w must have two axes, got shape {tuple(w.shape)}")
    if mask is not None:
        if type(mask) is not type(w) and (is_tensor(mask) != is_tensor(w) or not hasattr(mask, "dtype")):
            raise TypeError(f"from_dense: mask must be of the same library as w, got {type(mask).__name__}")
        if dtype_name(mask.dtype) != "bool":
            raise TypeError(f"from_dense: mask must be bool, got {dtype_name(mask.dtype)}")
        if tuple(mask.shape) != tuple(w.shape):
            raise ValueError(f"from_dense: mask has shape {tuple(mask.shape)}, w {tuple(w.shape)}")
    rows, cols = (int(n) for n in w.shape)
    tensor = is_tensor(w)
    values = w.detach() if tensor else w
    if tensor and w.device.type != "cpu":
        places = (values != 0 if mask is None else mask).nonzero()
        return _from_places(w, places[:, 0], places[:, 1])
    if mask is not None:
        kind = sys.modules["torch"].uint8 if tensor else np.uint8
        mask = (mask.contiguous() if tensor else np.ascontiguousarray(mask)).view(kind)
    wide = rows * cols > LONGEST or max(rows, cols) > LONGEST
    indptr = csr_count(values, mask, wide)
    entries = int(indptr[-1])
    data, indices = csr_fill(values, indptr, mask, entries)
    if wide and max(rows, cols, entries) <= LONGEST:
        narrow = np.int32 if not tensor else sys.modules["torch"].int32
        cast = (lambda x: x.to(narrow)) if tensor else (lambda x: x.astype(narrow))
        indptr, indices = cast(indptr), cast(indices)
    pattern = Pattern(indices, indptr, (rows, cols))
    if tensor and w.requires_grad:
        data = w.reshape(-1)[pattern.rows() * cols + indices]
    return CSR._of(data, pattern)


def _from_places(w: Any, row: Any, column: Any) -> CSR:
    """Of a tensor on any device, by places in order."""
    import torch

    rows, cols = (int(n) for n in w.shape)
    kind = torch.int64 if max(rows, cols, len(row)) > LONGEST else torch.int32
    counts = torch.bincount(row, minlength=rows)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(kind)
    return CSR._of(w[row, column], Pattern(column.to(kind), indptr, (rows, cols)))


def from_scipy(a: Any) -> CSR:
    """The matrix of any ``scipy.sparse`` matrix or array with two axes; values must be of a float type. One copy."""
    if not hasattr(a, "tocsr"):
        raise TypeError(f"from_scipy: expected a scipy.sparse matrix, got {type(a).__name__}")
    a = a.tocsr()
    if len(a.shape) != 2:
        raise ValueError(f"from_scipy: a must have two axes, got shape {a.shape}")
    n = int(a.indptr[-1]) if len(a.indptr) else 0
    return CSR(a.data[:n], a.indices[:n], a.indptr, a.shape)


def from_torch(t: Any) -> CSR:
    """The matrix of a sparse torch tensor with two axes, in CSR, CSC or COO layout (TypeError for others). One copy."""
    import torch

    if not isinstance(t, torch.Tensor):
        raise TypeError(f"from_torch: expected a sparse torch tensor, got {type(t).__name__}")
    if t.layout not in (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo):
        hint = "; from_dense takes it" if t.layout == torch.strided else ""
        raise TypeError(f"from_torch: the layout must be CSR, CSC or COO, got {t.layout}{hint}")
    if t.ndim != 2 or t.dense_dim():
        raise ValueError(f"from_torch: the tensor must have two sparse axes, got shape {tuple(t.shape)}")
    t = (t.coalesce() if t.layout == torch.sparse_coo else t).to_sparse_csr()
    return CSR(t.values(), t.col_indices(), t.crow_indices(), t.shape)
