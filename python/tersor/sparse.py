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
from typing import Any

import numpy as np

from tersor import _csr_sample
from tersor._arrays import is_tensor
from tersor._csr import CSR
from tersor._csr_make import from_dense, from_scipy, from_torch
from tersor._csr_ops import SUMS
from tersor._csr_pattern import Pattern
from tersor._csr_sample import add_at, chain, rows_of
from tersor._op import op
from tersor._values import check_dense, check_values, tensor_of, watched

__all__ = ["CSR", "from_dense", "from_scipy", "from_torch", "sddmm", "spmm"]

Array = Any

# the bits of `needs`: which gradients are wanted, in the order of the outputs
_DATA, _X, _BIAS = 1, 2, 4
_ACTIVATIONS = {None: (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


@op(sample=_csr_sample.spmm, tolerance=SUMS)
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
) -> Array:
    """clamp(A x + bias, lo, hi); ``perm, t_indices, t_indptr`` are for the backward alone."""
    return chain(data, indices, indptr, x, bias, lo, hi)


@op(sample=_csr_sample.spmm_bwd, tolerance=SUMS)
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
    needs: int = 7,
) -> tuple[Array, Array, Array]:
    r"""Gradient of `spmm`, 0 where the clamp holds: :math:`(G X^\top)_{ik}` on the pattern, :math:`A^\top G`, row sums of G."""
    g = np.where((y <= lo) | (y >= hi), 0, g)
    row = rows_of(indptr)
    ddata, dx, dbias = np.zeros(0), np.zeros(0), np.zeros(0)
    if needs & _DATA:
        ddata = np.sum(g[..., row, :] * x[..., indices, :], (*range(g.ndim - 2), -1))
    if needs & _X:
        dx = np.zeros(x.shape)
        add_at(dx, (..., indices, slice(None)), data[:, None] * g[..., row, :])
    if needs & _BIAS:
        dbias = np.sum(g, (*range(g.ndim - 2), -1))
    return ddata, dx, dbias


@op(sample=_csr_sample.sddmm, tolerance=SUMS)
def _sddmm(
    a: Array,
    b: Array,
    indices: Array,
    indptr: Array,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
) -> Array:
    """Inner products of rows of a and b at the stored places, added over leading axes."""
    return np.sum(a[..., rows_of(indptr), :] * b[..., indices, :], (*range(a.ndim - 2), -1))


@op(sample=_csr_sample.sddmm_bwd, tolerance=SUMS)
def _sddmm_bwd(
    g: Array,
    a: Array,
    b: Array,
    indices: Array,
    indptr: Array,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    needs: int = 3,
) -> tuple[Array, Array]:
    r"""Gradient of `sddmm`: :math:`S b` and :math:`S^\top a`, S the matrix with the values g."""
    row = rows_of(indptr)
    da, db = np.zeros(0), np.zeros(0)
    if needs & 1:
        da = np.zeros(a.shape)
        add_at(da, (..., row, slice(None)), g[:, None] * b[..., indices, :])
    if needs & 2:
        db = np.zeros(b.shape)
        add_at(db, (..., indices, slice(None)), g[:, None] * a[..., row, :])
    return da, db


def _operands(who: str, a: Any, *xs: tuple[str, Any]) -> tuple[Any, Pattern]:
    """The values and the pattern in the library of the dense operands, which are all of one."""
    if not isinstance(a, CSR):
        raise TypeError(f"{who}: the first argument must be a CSR, got {type(a).__name__}")
    data, pattern = a._data, a._pattern
    tensor = is_tensor(xs[0][1])
    for name, x in xs:
        check_values(who, name, x)
        if is_tensor(x) != tensor:
            raise TypeError(f"{who}: {name} is a {type(x).__name__}, {xs[0][0]} is not")
    if tensor and isinstance(data, np.ndarray):
        return tensor_of(data), pattern.tensors()
    if not tensor and not isinstance(data, np.ndarray):
        raise TypeError(f"{who}: {xs[0][0]} is a NumPy array, the matrix is made of tensors")
    return data, pattern


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
    if is_tensor(x) and is_tensor(out):
        check_dense("spmm", "out", out)
        if out.device != x.device:
            raise ValueError(f"spmm: out is on {out.device}, x on {x.device}")
    if act not in _ACTIVATIONS:
        raise ValueError(f"spmm: act must be None, 'relu' or 'relu6', got {act!r}")
    lo, hi = _ACTIVATIONS[act]
    vector = x.ndim == 1
    if vector:
        x = x[:, None]
    transposed = p.transposed() if watched(x) else (None, None, None)
    args = (data, p.indices, p.indptr, x, bias, *transposed, lo, hi)
    if out is None:
        y = _spmm(*args)
        return y[:, 0] if vector else y
    if vector:
        if getattr(out, "ndim", None) != 1:
            raise ValueError("spmm: out must have one axis, as x")
        _spmm(*args, out=out[:, None])
    else:
        _spmm(*args, out=out)
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
    2·nnz·D·B operations. The adjoint of `spmm`: :math:`\langle A X, Y\rangle = \langle A, S(Y, X)\rangle`. Sums are cut into
    chunks of 1024 terms, in sixteen lanes (float64: eight), so their order follows from D alone.
    """
    _, p = _operands("sddmm", pattern, ("a", a), ("b", b))
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
