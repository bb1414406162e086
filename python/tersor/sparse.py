r"""Sparse matrices by rows (CSR), and their products with dense ones.

A `CSR` owns a checked copy of its structure, columns ascending in each row: entries given out of order give the same bits
as sorted ones, entries of equal place are kept and add up. What makes products fast (the transpose that a gradient
wants, the tensors of a NumPy matrix) is made when first needed and kept with the structure.

Every element of a product is one chain of fused multiply-adds over the columns in ascending order. Its bits depend neither
on threads, instruction set and alignment nor on the other columns, and for terms :math:`w_k x_k` the error is at most
:math:`\gamma_{n+1} (\sum_k |w_k x_k| + |b|)`. float16 and bfloat16 are computed in float32 and rounded once. Only stored
entries take part: NaN and infinities in x reach the rows that have an entry for them, explicit zeros included.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor import _csr_sample
from tersor._csr_sample import chain, rows_of, transposed
from tersor._op import FLOATS, dtype_name, op

__all__ = ["CSR", "from_dense", "from_scipy", "from_torch", "sddmm", "spmm"]

Array = Any

_WIDE = 2**31 - 1
_DATA, _X, _BIAS = 1, 2, 4
_ACTIVATIONS = {None: (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


# --- operators --------------------------------------------------------------------------------------------------------


def _index(wide: bool) -> str:
    return "int64" if wide else "int32"


#: sums of up to some hundred terms; the reference runs in float64 itself
_SUMS = {"float64": 4000, "float32": 400, "float16": 4, "bfloat16": 4}


@op(
    meta=lambda indices, indptr, cols, wide: [
        (tuple(indices.shape), _index(wide)),
        (tuple(indptr.shape), _index(wide)),
        (tuple(indices.shape), _index(wide)),
    ],
    sample=_csr_sample.sort,
    integer=True,
)
def _csr_sort(indices: Array, indptr: Array, cols: int, wide: bool = False) -> tuple[Array, ...]:
    """A structure checked and its rows sorted by column, stably; ``data[perm]`` are the values in that order."""
    perm = np.lexsort((indices, rows_of(indptr)))
    kind = _index(wide)
    return indices[perm].astype(kind), indptr.astype(kind), perm.astype(kind)


@op(
    meta=lambda indices, indptr, cols: [
        (tuple(indices.shape), indices.dtype),
        ((cols + 1,), indices.dtype),
        (tuple(indices.shape), indices.dtype),
    ],
    sample=_csr_sample.transpose,
    integer=True,
)
def _csr_transpose(indices: Array, indptr: Array, cols: int) -> tuple[Array, ...]:
    """The structure of the transpose: its indices and offsets, and where each of its entries stands here."""
    return transposed(indices, indptr, cols)


@op(
    meta=lambda w, mask, wide: [((w.shape[0] + 1,) if len(w.shape) else (1,), _index(wide))],
    sample=_csr_sample.count,
    integer=True,
    native=True,
)
def _csr_count(w: Array, mask: Array = None, wide: bool = False) -> Array:
    """Where the rows of a dense matrix begin, of whose elements those are stored that are not 0, or that the mask names."""
    kept = w != 0 if mask is None or not mask.size else mask != 0
    return np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(_index(wide))


@op(
    meta=lambda w, indptr, mask, entries: [((entries,), w.dtype), ((entries,), indptr.dtype)],
    sample=_csr_sample.fill,
    integer=True,
    native=True,
)
def _csr_fill(w: Array, indptr: Array, mask: Array = None, entries: int = 0) -> tuple[Array, Array]:
    """The values and columns of a dense matrix in the rows that `csr_count` found."""
    rows, columns = np.nonzero(w != 0 if mask is None or not mask.size else mask)
    return w[rows, columns], columns.astype(indptr.dtype)


@op(
    meta=lambda data, indices, indptr, cols: [((indptr.shape[0] - 1, cols), data.dtype)],
    sample=_csr_sample.dense,
    tolerance=_SUMS,
)
def _csr_dense(data: Array, indices: Array, indptr: Array, cols: int) -> Array:
    """The dense matrix; entries of equal place are added."""
    w = np.zeros((len(indptr) - 1, cols))
    np.add.at(w, (rows_of(indptr), indices), data)
    return w


@op(
    outputs=("ddata",),
    meta=lambda g, indices, indptr: [(tuple(indices.shape), g.dtype)],
    sample=_csr_sample.dense_bwd,
)
def _csr_dense_bwd(g: Array, indices: Array, indptr: Array) -> Array:
    """Gradient of `csr_dense`: the elements at the stored places."""
    return g[rows_of(indptr), indices]


def _product_shape(name: str, x: Array, indptr: Array) -> tuple[int, ...]:
    if len(x.shape) < 2:
        raise ValueError(f"{name}: x needs two axes or more, got shape {tuple(x.shape)}")
    return (*x.shape[:-2], indptr.shape[0] - 1, x.shape[-1])


@op(
    meta=lambda data, indices, indptr, x, *rest, **scalars: [(_product_shape("spmm", x, indptr), data.dtype)],
    sample=_csr_sample.spmm,
    tolerance=_SUMS,
)
def _spmm(
    data: Array,
    indices: Array,
    indptr: Array,
    x: Array,
    bias: Array = None,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    lo: float = -math.inf,
    hi: float = math.inf,
    grads: int = 7,
) -> Array:
    """clamp(A x + bias, lo, hi); ``perm, t_indices, t_indptr`` and ``grads`` are for the backward alone."""
    return chain(data, indices, indptr, x, bias, lo, hi)


@op(
    outputs=("ddata", "dx", "dbias"),
    meta=lambda g, data, indices, indptr, x, *rest, grads, **scalars: [
        (tuple(data.shape) if grads & _DATA else (0,), data.dtype),
        (tuple(x.shape) if grads & _X else (0,), data.dtype),
        ((indptr.shape[0] - 1,) if grads & _BIAS else (0,), data.dtype),
    ],
    sample=_csr_sample.spmm_bwd,
    tolerance=_SUMS,
)
def _spmm_bwd(
    g: Array,
    data: Array,
    indices: Array,
    indptr: Array,
    x: Array,
    y: Array,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    lo: float = -math.inf,
    hi: float = math.inf,
    grads: int = 7,
) -> tuple[Array, Array, Array]:
    r"""Gradient of `spmm`, 0 where the clamp holds: :math:`(G X^\top)_{ik}` on the pattern, :math:`A^\top G`, row sums of G."""
    g = np.where((y <= lo) | (y >= hi), 0, g)
    row = rows_of(indptr)
    ddata, dx, dbias = np.zeros(0), np.zeros(0), np.zeros(0)
    if grads & _DATA:
        ddata = np.sum(g[..., row, :] * x[..., indices, :], (*range(g.ndim - 2), -1))
    if grads & _X:
        dx = np.zeros(x.shape)
        np.add.at(dx, (..., indices, slice(None)), data[:, None] * g[..., row, :])
    if grads & _BIAS:
        dbias = np.sum(g, (*range(g.ndim - 2), -1))
    return ddata, dx, dbias


@op(
    meta=lambda a, b, indices, *rest, **scalars: [(tuple(indices.shape), a.dtype)],
    sample=_csr_sample.sddmm,
    tolerance=_SUMS,
)
def _sddmm(
    a: Array,
    b: Array,
    indices: Array,
    indptr: Array,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    grads: int = 3,
) -> Array:
    """Inner products of rows of a and b at the stored places, added over leading axes."""
    return np.sum(a[..., rows_of(indptr), :] * b[..., indices, :], (*range(a.ndim - 2), -1))


@op(
    outputs=("da", "db"),
    meta=lambda g, a, b, *rest, grads: [
        (tuple(a.shape) if grads & 1 else (0,), a.dtype),
        (tuple(b.shape) if grads & 2 else (0,), a.dtype),
    ],
    sample=_csr_sample.sddmm_bwd,
    tolerance=_SUMS,
)
def _sddmm_bwd(
    g: Array,
    a: Array,
    b: Array,
    indices: Array,
    indptr: Array,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    grads: int = 3,
) -> tuple[Array, Array]:
    r"""Gradient of `sddmm`: :math:`S b` and :math:`S^\top a`, S the matrix with the values g."""
    row = rows_of(indptr)
    da, db = np.zeros(0), np.zeros(0)
    if grads & 1:
        da = np.zeros(a.shape)
        np.add.at(da, (..., row, slice(None)), g[:, None] * b[..., indices, :])
    if grads & 2:
        db = np.zeros(b.shape)
        np.add.at(db, (..., indices, slice(None)), g[:, None] * a[..., row, :])
    return da, db


# --- matrices ---------------------------------------------------------------------------------------------------------


class _Pattern:
    """The places of a matrix's entries, shared by all matrices with the same; what is derived from them is kept here."""

    __slots__ = ("_transposed", "_twin", "indices", "indptr", "shape")

    def __init__(self, indices: Array, indptr: Array, shape: tuple[int, int]) -> None:
        self.indices = indices
        self.indptr = indptr
        self.shape = shape
        # both are functions of the structure, set in one assignment: two threads may make them, either is right
        self._transposed: tuple[Any, Any, Any] | None = None
        self._twin: _Pattern | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Pattern, (self.indices, self.indptr, self.shape)

    def transposed(self) -> tuple[Any, Any, Any]:
        """Where each entry of the transpose stands here, its indices, its offsets."""
        done = self._transposed
        if done is None:
            indices, indptr, cols = self.indices, self.indptr, self.shape[1]
            if isinstance(indices, np.ndarray) or indices.device.type in ("cpu", "meta"):
                rows, offsets, perm = _csr_transpose(indices, indptr, cols)
            else:
                on = indices.device
                rows, offsets, perm = (t.to(on) for t in _csr_transpose(indices.cpu(), indptr.cpu(), cols))
            done = perm, rows, offsets
            if isinstance(indices, np.ndarray) or not _compiling():
                self._transposed = done
        return done

    def rows(self) -> Any:
        """The row of each entry, of a pattern in tensors."""
        import torch

        lengths = (self.indptr[1:] - self.indptr[:-1]).long()
        return torch.repeat_interleave(torch.arange(self.shape[0], device=lengths.device), lengths)

    def tensors(self) -> _Pattern:
        """The same pattern in tensors on the CPU."""
        if not isinstance(self.indices, np.ndarray):
            return self
        twin = self._twin
        if twin is None:
            import torch

            twin = _Pattern(torch.from_numpy(self.indices), torch.from_numpy(self.indptr), self.shape)
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
        tensor = _is_tensor(data)
        _values("CSR", "data", data)
        columns, offsets = _indices("indices", indices), _indices("indptr", indptr)
        if len(offsets) != rows + 1:
            raise ValueError(f"CSR: indptr has {len(offsets)} elements, a matrix of {rows} rows needs {rows + 1}")
        if data.ndim != 1 or len(data) != len(columns):
            raise ValueError(f"CSR: data has shape {tuple(data.shape)}, indices {len(columns)} elements")
        if columns.dtype != offsets.dtype:
            columns, offsets = columns.astype(np.int64), offsets.astype(np.int64)
        wide = max(rows, cols, len(columns)) > _WIDE
        columns, offsets, perm = _csr_sort(columns, offsets, cols, wide)
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
        self._pattern = _Pattern(columns, offsets, (rows, cols))

    @classmethod
    def _of(cls, data: Array, pattern: _Pattern) -> CSR:
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
        return CSR._of(self._data[perm], _Pattern(rows, offsets, self.shape[::-1]))

    def __repr__(self) -> str:
        rows, cols = self.shape
        where = "NumPy" if isinstance(self._data, np.ndarray) else f"torch, {self._data.device}"
        return f"CSR({rows}×{cols}, {self.nnz} entries of {dtype_name(self.dtype)}, {where})"

    def __matmul__(self, x: Array) -> Array:
        return spmm(self, x)

    def with_data(self, data: Array) -> CSR:
        """The same places with other values, in the order of ``self.data``; what was derived from the structure is shared.

        A tensor is used itself, so that a parameter can be passed anew in every step; an array is copied.
        """
        _values("CSR.with_data", "data", data)
        if data.ndim != 1 or data.shape[0] != self.nnz:
            raise ValueError(f"CSR.with_data: data has shape {tuple(data.shape)}, {self.nnz} entries are stored")
        if not _is_tensor(data):
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
        if _is_tensor(self._data) and self._data.device.type != "cpu":
            places = p.rows(), p.indices.long()
            return self._data.new_zeros(p.shape).index_put(places, self._data, accumulate=True)
        return _csr_dense(self._data, p.indices, p.indptr, p.shape[1])

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.csr_array`` of copies; repeated places stay. SciPy has no 16-bit floats (TypeError)."""
        import scipy.sparse

        if dtype_name(self.dtype) not in ("float32", "float64"):
            raise TypeError(f"CSR.to_scipy: SciPy has no matrices of {dtype_name(self.dtype)}")
        parts = (self._data, self._pattern.indices, self._pattern.indptr)
        if not isinstance(self._data, np.ndarray):
            parts = tuple(t.detach().cpu().numpy() for t in parts)  # type: ignore[assignment]
        a = scipy.sparse.csr_array(parts, shape=self.shape, copy=True)
        a.has_sorted_indices = True
        return a

    def to_torch(self) -> Any:
        """A ``torch.sparse_csr_tensor``; repeated places, which torch does not allow, are added up."""
        import torch

        p = self._pattern.tensors()
        data = self._data if _is_tensor(self._data) else _tensor_of(self._data)
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


def _is_tensor(x: Any) -> bool:
    return not isinstance(x, np.ndarray) and hasattr(x, "requires_grad")


def _tensor_of(x: np.ndarray) -> Any:
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


def _values(who: str, name: str, x: Any) -> None:
    if not isinstance(x, np.ndarray) and not _is_tensor(x):
        raise TypeError(f"{who}: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{who}: {name} must be float64, float32, float16 or bfloat16, got {dtype_name(x.dtype)}")
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        raise TypeError(f"{who}: {name} has byte order {x.dtype.byteorder!r}; convert it to native first")


def _indices(name: str, x: Any) -> np.ndarray:
    if _is_tensor(x):
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
    _values("from_dense", "w", w)
    if w.ndim != 2:
        raise ValueError(f"from_dense: w must have two axes, got shape {tuple(w.shape)}")
    if mask is not None:
        if type(mask) is not type(w) and (_is_tensor(mask) != _is_tensor(w) or not hasattr(mask, "dtype")):
            raise TypeError(f"from_dense: mask must be of the same library as w, got {type(mask).__name__}")
        if dtype_name(mask.dtype) != "bool":
            raise TypeError(f"from_dense: mask must be bool, got {dtype_name(mask.dtype)}")
        if tuple(mask.shape) != tuple(w.shape):
            raise ValueError(f"from_dense: mask has shape {tuple(mask.shape)}, w {tuple(w.shape)}")
    rows, cols = (int(n) for n in w.shape)
    tensor = _is_tensor(w)
    values = w.detach() if tensor else w
    if tensor and w.device.type != "cpu":
        places = (values != 0 if mask is None else mask).nonzero()
        return _from_places(w, places[:, 0], places[:, 1])
    if mask is not None:
        kind = sys.modules["torch"].uint8 if tensor else np.uint8
        mask = (mask.contiguous() if tensor else np.ascontiguousarray(mask)).view(kind)
    wide = rows * cols > _WIDE or max(rows, cols) > _WIDE
    indptr = _csr_count(values, mask, wide)
    entries = int(indptr[-1])
    data, indices = _csr_fill(values, indptr, mask, entries)
    if wide and max(rows, cols, entries) <= _WIDE:
        narrow = np.int32 if not tensor else sys.modules["torch"].int32
        cast = (lambda x: x.to(narrow)) if tensor else (lambda x: x.astype(narrow))
        indptr, indices = cast(indptr), cast(indices)
    pattern = _Pattern(indices, indptr, (rows, cols))
    if tensor and w.requires_grad:
        data = w.reshape(-1)[pattern.rows() * cols + indices]
    return CSR._of(data, pattern)


def _from_places(w: Any, row: Any, column: Any) -> CSR:
    """Of a tensor on any device, by places in order."""
    import torch

    rows, cols = (int(n) for n in w.shape)
    kind = torch.int64 if max(rows, cols, len(row)) > _WIDE else torch.int32
    counts = torch.bincount(row, minlength=rows)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(kind)
    return CSR._of(w[row, column], _Pattern(column.to(kind), indptr, (rows, cols)))


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


# --- products ---------------------------------------------------------------------------------------------------------


def _operands(who: str, a: Any, *xs: tuple[str, Any]) -> tuple[Any, _Pattern]:
    """The values and the pattern in the library of the dense operands, which are all of one."""
    if not isinstance(a, CSR):
        raise TypeError(f"{who}: the first argument must be a CSR, got {type(a).__name__}")
    data, pattern = a._data, a._pattern
    tensor = _is_tensor(xs[0][1])
    for name, x in xs:
        _values(who, name, x)
        if _is_tensor(x) != tensor:
            raise TypeError(f"{who}: {name} is a {type(x).__name__}, {xs[0][0]} is not")
    if tensor and isinstance(data, np.ndarray):
        return _tensor_of(data), pattern.tensors()
    if not tensor and not isinstance(data, np.ndarray):
        raise TypeError(f"{who}: {xs[0][0]} is a NumPy array, the matrix is made of tensors")
    return data, pattern


def _wanted(*xs: Any) -> int:
    """A bit for each tensor whose gradient will be asked for."""
    import torch

    if not torch.is_grad_enabled():
        return 0
    return sum(1 << i for i, x in enumerate(xs) if x is not None and x.requires_grad)


def spmm(a: CSR, x: Array, *, bias: Array = None, act: str | None = None, out: Array = None) -> Array:
    r"""Sparse times dense, :math:`Y = \mathrm{act}(A X + b\,1^\top)`.

    Parameters
    ----------
    a : CSR [M, K]
        The matrix; one made of NumPy arrays multiplies tensors too, as a constant.
    x : array or tensor [K], [K, N] or [B, K, N], of the dtype of a
        The dense operand.
    bias : array or tensor [M]
        Added to every column.
    act : None, "relu" or "relu6"
        Applied to the sums before they are stored; its gradient is 0 at and beyond the bounds.
    out : array or tensor
        Where the result goes; C-contiguous, of its shape and dtype. Not with gradients.

    Returns
    -------
    array or tensor [M], [M, N] or [B, M, N]
        Differentiable once with respect to x, bias and ``a.data``. With G the gradient, :math:`dX = A^\top G` by the kept
        transpose, :math:`da_e = (G X^\top)_{ik}` for each entry e at (i, k), the full value at each of several in one place.

    Raises
    ------
    TypeError
        If dtypes or libraries differ, or a is no CSR.
    ValueError
        If shapes do not match, or act is unknown.

    Notes
    -----
    2·nnz·N operations; every entry reads one row of x, from a panel of columns copied into the L2 cache. The plan follows
    XNNPACK's for sparse 1×1 convolutions (Elsen, Dukhan, Gale, Simonyan, "Fast Sparse ConvNets", 2020).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.0], [0.0, 0.0], [1.0, -1.0]]))
    >>> sparse.spmm(a, np.array([[1.0, 2.0], [3.0, 4.0]]), act="relu")
    array([[6., 8.],
           [0., 0.],
           [0., 0.]])
    """
    data, p = _operands("spmm", a, ("x", x), *([] if bias is None else [("bias", bias)]))
    if not 1 <= x.ndim <= 3:
        raise ValueError(f"spmm: x must be [K], [K, N] or [B, K, N], got shape {tuple(x.shape)}")
    rows, cols = p.shape
    if x.shape[-2 if x.ndim > 1 else 0] != cols:
        raise ValueError(f"spmm: x has shape {tuple(x.shape)}, the matrix {cols} columns")
    if bias is not None and tuple(bias.shape) != (rows,):
        raise ValueError(f"spmm: bias has shape {tuple(bias.shape)}, the matrix {rows} rows")
    if act not in _ACTIVATIONS:
        raise ValueError(f"spmm: act must be None, 'relu' or 'relu6', got {act!r}")
    lo, hi = _ACTIVATIONS[act]
    vector = x.ndim == 1
    if vector:
        x = x[:, None]
    grads, transposed = 0, (None, None, None)
    if _is_tensor(x):
        grads = _wanted(data, x, bias)
        if grads & _X:
            transposed = p.transposed()
    args = (data, p.indices, p.indptr, x, bias, *transposed, lo, hi, grads)
    if out is None:
        y = _spmm(*args)
        return y[:, 0] if vector else y
    if vector:
        if getattr(out, "ndim", None) != 1:
            raise ValueError("spmm: out must have one axis, as x")
        _spmm(*args, out=out[:, None])  # type: ignore[call-arg]
    else:
        _spmm(*args, out=out)  # type: ignore[call-arg]
    return out


def sddmm(pattern: CSR, a: Array, b: Array) -> CSR:
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
    2·nnz·D·B operations. The adjoint of `spmm`: :math:`\langle A X, Y\rangle = \langle A, S(Y, X)\rangle`. Sums are cut into chunks
    of 1024 terms, in sixteen lanes (float64: eight), so their order follows from D alone.
    """
    _, p = _operands("sddmm", pattern, ("a", a), ("b", b))
    rows, cols = p.shape
    if not 2 <= a.ndim <= 3 or a.ndim != b.ndim:
        raise ValueError(f"sddmm: a and b must have two axes or three, got {tuple(a.shape)} and {tuple(b.shape)}")
    want = (*a.shape[:-2], cols, a.shape[-1])
    if a.shape[-2] != rows or tuple(b.shape) != tuple(want):
        raise ValueError(f"sddmm: a has shape {tuple(a.shape)}, b {tuple(b.shape)}, the pattern {p.shape}")
    grads, transposed = 0, (None, None, None)
    if _is_tensor(a):
        grads = _wanted(a, b)
        if grads & 2:
            transposed = p.transposed()
    return CSR._of(_sddmm(a, b, p.indices, p.indptr, *transposed, grads), p)
