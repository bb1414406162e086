"""The ways into a sparse matrix: from dense ones, from SciPy, from torch. The one rule: all end in a checked `CSR`."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np

from tersor._arrays import Kept, dtype_name, is_tensor
from tersor._matrix import READERS
from tersor._values import called, check_dense, check_values
from tersor.sparse._check import checked_shape
from tersor.sparse._csr import CSR
from tersor.sparse._edges import from_coo
from tersor.sparse._formats import BSR, COO, CSC
from tersor.sparse._operators import csr_count, csr_fill
from tersor.sparse._pattern import Pattern
from tersor.sparse._structure import LONGEST, beside, taken

Array = Any


def from_dense(w: Array, mask: Kept = None) -> CSR:
    """The sparse matrix of a dense one.

    Parameters
    ----------
    w : array or tensor [rows, cols], float64, float32, float16 or bfloat16
        Its elements other than 0 are stored (NaN is one of them). A tensor that requires a gradient gets it through the
        values.
    mask : array or tensor [rows, cols], bool, or its bits (`tersor.prune.pack_mask`)
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
    tensor = is_tensor(w)
    if tensor and (where := _seen().nowhere(w, mask)) is not None:
        raise TypeError(
            f"from_dense: w must have values that can be read, got a tensor {where}: how many entries there are is not known; "
            "make the matrix before, and give it its values by with_data"
        )
    if w.ndim != 2:
        raise ValueError(f"from_dense: w must have two axes, got shape {tuple(w.shape)}")
    if mask is not None:
        if isinstance(mask, np.ma.MaskedArray):
            raise TypeError("from_dense: mask must be a plain array, got a masked one")
        if type(mask) is not type(w) and (is_tensor(mask) != is_tensor(w) or not hasattr(mask, "dtype")):
            raise TypeError(f"from_dense: mask must be of the same library as w, got {type(mask).__name__}")
        if is_tensor(mask):
            check_dense("from_dense", "mask", mask)
            if mask.device != w.device:
                raise ValueError(f"from_dense: mask is on {mask.device}, w on {w.device}")
        if dtype_name(mask.dtype) != "bool":
            raise TypeError(f"from_dense: mask must be bool, got {dtype_name(mask.dtype)}")
        if tuple(mask.shape) != tuple(w.shape):
            raise ValueError(f"from_dense: mask has shape {tuple(mask.shape)}, w {tuple(w.shape)}")
    rows, cols = (int(n) for n in w.shape)
    values = w.detach() if tensor else w
    if tensor and (w.device.type != "cpu" or _seen().batched(w)):
        places = (values != 0 if mask is None else mask).nonzero()
        return _from_places(w, places[:, 0], places[:, 1])
    if mask is not None:
        kind = sys.modules["torch"].uint8 if tensor else np.uint8
        mask = (mask.contiguous() if tensor else np.ascontiguousarray(mask)).view(kind)
    wide = rows * cols > LONGEST or max(rows, cols) > LONGEST
    indptr = called("from_dense", csr_count, values, mask, wide)
    entries = int(indptr[-1])
    data, indices = called("from_dense", csr_fill, values, indptr, mask, entries)
    if wide and max(rows, cols, entries) <= LONGEST:
        narrow = np.int32 if not tensor else sys.modules["torch"].int32
        cast = (lambda x: x.to(narrow)) if tensor else (lambda x: x.astype(narrow))
        indptr, indices = cast(indptr), cast(indices)
    pattern = Pattern.distinct(indices, indptr, (rows, cols))
    if tensor and w.requires_grad:
        data = w.reshape(-1)[pattern.rows() * cols + indices]
    return CSR._of(data, pattern)


def _seen() -> Any:
    from tersor.sparse import _seen

    return _seen


def _from_places(w: Any, row: Any, column: Any) -> CSR:
    """Of a tensor on any device, by places in order."""
    import torch

    rows, cols = (int(n) for n in w.shape)
    kind = torch.int64 if max(rows, cols, len(row)) > LONGEST else torch.int32
    counts = torch.bincount(row, minlength=rows)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(kind)
    return CSR._of(w[row, column], Pattern.distinct(column.to(kind), indptr, (rows, cols)))


def from_scipy(a: Any) -> CSR:
    """The matrix of any ``scipy.sparse`` matrix or array with two axes; values must be of a float type. One copy.

    TypeError for what is no such matrix, or not of floats; ValueError for another number of axes.
    """
    if not hasattr(a, "tocsr"):
        raise TypeError(f"from_scipy: expected a scipy.sparse matrix, got {type(a).__name__}")
    a = a.tocsr()
    if len(a.shape) != 2:
        raise ValueError(f"from_scipy: a must have two axes, got shape {a.shape}")
    n = int(a.indptr[-1]) if len(a.indptr) else 0
    return CSR(a.data[:n], a.indices[:n], a.indptr, a.shape)


def from_torch(t: Any) -> CSR:
    """The matrix of a sparse torch tensor with two axes, in CSR, CSC, COO or BSR layout. One copy; gradients go to its values.

    Of blocks every element is stored, zeros too. TypeError for other tensors, or not of floats; ValueError for another number
    of axes.
    """
    import torch

    if not isinstance(t, torch.Tensor):
        raise TypeError(f"from_torch: expected a sparse torch tensor, got {type(t).__name__}")
    if t.layout not in (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo, torch.sparse_bsr):
        hint = "; from_dense takes it" if t.layout == torch.strided else ""
        raise TypeError(f"from_torch: the layout must be CSR, CSC, COO or BSR, got {t.layout}{hint}")
    if t.ndim != 2 or t.dense_dim():
        raise ValueError(f"from_torch: the tensor must have two sparse axes, got shape {tuple(t.shape)}")
    rows, cols = (int(n) for n in t.shape)
    if t.layout == torch.sparse_coo:
        t = t.coalesce()
        row, column = t.indices()
        return from_coo(t.values(), row, column, (rows, cols))
    if t.layout == torch.sparse_csc:
        return _of_columns("from_torch", CSC(t.values(), t.row_indices(), t.ccol_indices(), (rows, cols)))
    if t.layout == torch.sparse_bsr:
        return _of_blocks("from_torch", BSR(t.values(), t.col_indices(), t.crow_indices(), (rows, cols)))
    return CSR(t.values(), t.col_indices(), t.crow_indices(), t.shape)


def _of_columns(who: str, a: CSC) -> CSR:
    rows, cols = checked_shape(a.shape, who)
    try:
        made: CSR = CSR(a.data, a.indices, a.indptr, (cols, rows)).T
    except (TypeError, ValueError) as e:
        raise type(e)(f"{who}: by columns, which are the rows here: {str(e).removeprefix('CSR: ')}") from None
    return made


def _of_blocks(who: str, a: BSR) -> CSR:
    rows, cols = checked_shape(a.shape, who)
    check_values(who, "data", a.data)
    if a.data.ndim != 3:
        raise ValueError(f"{who}: data must be [blocks, r, c], got shape {tuple(a.data.shape)}")
    n, r, c = (int(k) for k in a.data.shape)
    if not r or not c or rows % r or cols % c:
        raise ValueError(f"{who}: blocks of {r}×{c} do not divide a matrix of {rows}×{cols}")
    try:
        p = CSR(np.zeros(n, np.float32), a.indices, a.indptr, (rows // r, cols // c))
    except (TypeError, ValueError) as e:
        raise type(e)(f"{who}: in blocks: {str(e).removeprefix('CSR: ')}") from None
    row, column = p._pattern.rows().astype(np.int64), p._pattern.indices.astype(np.int64)
    row = row[:, None, None] * r + np.arange(r)[:, None]
    column = column[:, None, None] * c + np.arange(c)
    row, column = (np.broadcast_to(x, (n, r, c)).reshape(-1) for x in (row, column))
    data = a.data
    if p._pattern.perm is not None:
        data = taken(data, beside(data, p._pattern).perm)
    return from_coo(data.reshape(-1), row, column, (rows, cols))


def _read(who: str, name: str, x: Any) -> CSR | None:
    """A matrix of another library or layout, for `matrix_of`; None if it is none."""
    try:
        if isinstance(x, CSC):
            return _of_columns(who, x)
        if isinstance(x, COO):
            return from_coo(x.data, x.rows, x.cols, x.shape)
        if isinstance(x, BSR):
            return _of_blocks(who, x)
        if hasattr(x, "tocsr"):
            return from_scipy(x)
        if is_tensor(x) and str(x.layout).startswith("torch.sparse_"):
            return from_torch(x)
    except (TypeError, ValueError) as e:
        text = re.sub(rf"^(CSR|from_coo|from_scipy|from_torch|{re.escape(who)}): ", "", str(e))
        raise type(e)(f"{who}: {name + ': ' if name else ''}{text}") from None
    return None


READERS.append(_read)
