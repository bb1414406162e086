"""The operators of sparse matrices: what `CSR` is made, turned and opened with, and its products with dense ones.

The rule of this file: indices are NumPy's or torch's int32 or int64, all of one type; who calls has chosen which.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._acts import activated, slopes
from tersor._op import op
from tersor.sparse import _sample
from tersor.sparse._sample import add_at, chain, laned, rows_of, rowwise, transposed, unlaned

Array = Any

# the bits of `needs`: which gradients are wanted, in the order of the outputs
_DATA, _X, _BIAS = 1, 2, 4


def _index(wide: bool) -> str:
    return "int64" if wide else "int32"


#: sums of up to some hundred terms; the reference runs in float64 itself
SUMS = {"float64": 4000, "float32": 400, "float16": 4, "bfloat16": 4}


@op(sample=_sample.sort, integer=True)
def csr_sort(indices: Array, indptr: Array, cols: int, wide: bool = False) -> tuple[Array, ...]:
    """A structure checked and its rows sorted by column, stably; ``data[perm]`` are the values in that order."""
    perm = np.lexsort((indices, rows_of(indptr)))
    kind = _index(wide)
    return indices[perm].astype(kind), indptr.astype(kind), perm.astype(kind)


@op(sample=_sample.transpose, integer=True)
def csr_transpose(indices: Array, indptr: Array, cols: int) -> tuple[Array, ...]:
    """The structure of the transpose: its indices and offsets, and where each of its entries stands here."""
    return transposed(indices, indptr, cols)


@op(sample=_sample.count, integer=True, native=True)
def csr_count(w: Array, mask: Array = None, wide: bool = False) -> Array:
    """Where the rows of a dense matrix begin, of whose elements those are stored that are not 0, or that the mask names."""
    kept = w != 0 if mask is None or not mask.size else mask != 0
    return np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(_index(wide))


@op(sample=_sample.fill, integer=True, native=True)
def csr_fill(w: Array, indptr: Array, mask: Array = None, entries: int = 0) -> tuple[Array, Array]:
    """The values and columns of a dense matrix in the rows that `csr_count` found."""
    rows, columns = np.nonzero(w != 0 if mask is None or not mask.size else mask)
    return w[rows, columns], columns.astype(indptr.dtype)


@op(sample=_sample.dense, tolerance=SUMS)
def csr_dense(data: Array, indices: Array, indptr: Array, cols: int) -> Array:
    """The dense matrix; entries of equal place are added."""
    w = np.zeros((len(indptr) - 1, cols))
    add_at(w, (rows_of(indptr), indices), data)
    return w


@op(sample=_sample.dense_bwd)
def csr_dense_bwd(g: Array, indices: Array, indptr: Array) -> Array:
    """Gradient of `csr_dense`: the elements at the stored places."""
    return g[rows_of(indptr), indices]


@op(sample=_sample.spmm, tolerance=SUMS)
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


@op(sample=_sample.spmm_bwd, tolerance=SUMS)
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


@op(sample=_sample.sddmm, tolerance=SUMS)
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


@op(sample=_sample.sddmm_bwd, tolerance=SUMS)
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


@op(sample=_sample.transpose, integer=True)
def csr_lanes(indices: Array, indptr: Array, cols: int) -> tuple[Array, ...]:
    """The columns of a structure as `spmv` reads them, and the order of the rows."""
    return laned(indices, indptr, cols)


@op(sample=_sample.spmv, tolerance=SUMS, gradcheck=False)
def _spmv(data: Array, places: Array, rows: Array, indptr: Array, x: Array, bias: Array = None, act: int = 0) -> Array:
    """act(x Aᵀ + bias) for rows x."""
    return activated(act, rowwise(data, unlaned(places, rows, indptr), indptr, x, bias))


@op(sample=_sample.linear, tolerance=SUMS)
def _linear(
    data: Array,
    indices: Array,
    indptr: Array,
    x: Array,
    bias: Array = None,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    act: int = 0,
) -> Array:
    """act(x Aᵀ + bias) for rows x; ``perm, t_indices, t_indptr`` are for the backward alone."""
    return activated(act, rowwise(data, indices, indptr, x, bias))


@op(sample=_sample.linear_bwd, tolerance=SUMS)
def _linear_bwd(
    g: Array,
    data: Array,
    indices: Array,
    indptr: Array,
    x: Array,
    bias: Array = None,
    y: Array = ...,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    act: int = 0,
    needs: int = 7,
) -> tuple[Array, Array, Array]:
    r"""Gradient of `linear`: with H = G f'(Z), :math:`(H^\top X)_{ik}` on the pattern, H A, sums of the columns of H."""
    if act:
        g = g * slopes(act, rowwise(data, indices, indptr, x, bias), y)
    row, lead = rows_of(indptr), (*range(g.ndim - 1),)
    ddata, dx, dbias = np.zeros(0), np.zeros(0), np.zeros(0)
    if needs & _DATA:
        ddata = np.sum(g[..., row] * x[..., indices], lead)
    if needs & _X:
        dx = np.zeros(x.shape)
        add_at(dx, (..., indices), data * g[..., row])
    if needs & _BIAS:
        dbias = np.sum(g, lead)
    return ddata, dx, dbias


@op(sample=_sample.linear8, tolerance=SUMS, exempt=("scale",))
def _linear8(
    x: Array,
    codes: Array,
    scale: Array,
    indices: Array,
    indptr: Array,
    places: Array = None,
    rows: Array = None,
    bias: Array = None,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
) -> Array:
    """x Qᵀ diag(scale) + bias for rows x and codes Q, in lanes where their places are given; ``perm, t_indices, t_indptr`` are
    for the backward alone."""
    y = rowwise(codes, indices, indptr, x, None) * np.asarray(scale, np.float64)
    return y if bias is None or not np.size(bias) else y + bias


@op(sample=_sample.linear8_bwd, tolerance=SUMS, exempt=("scale",))
def _linear8_bwd(
    g: Array,
    x: Array,
    codes: Array,
    scale: Array,
    indices: Array,
    indptr: Array,
    bias: Array = None,
    perm: Array = None,
    t_indices: Array = None,
    t_indptr: Array = None,
    needs: int = 7,
) -> tuple[Array, Array, Array]:
    r"""Gradient of `linear8`: :math:`G\,\mathrm{diag}(s)\,Q`, sums of the columns of :math:`G \circ X Q^\top` and of G."""
    dx, dscale, dbias = np.zeros(0), np.zeros(0), np.zeros(0)
    lead = (*range(g.ndim - 1),)
    if needs & 1:
        dx = np.zeros(x.shape)
        row = rows_of(indptr)
        add_at(dx, (..., indices), codes.astype(np.float64) * (g * np.asarray(scale, np.float64))[..., row])
    if needs & 2:
        dscale = np.sum(g * rowwise(codes, indices, indptr, x, None), lead)
    if needs & 4:
        dbias = np.sum(g, lead)
    return dx, dscale, dbias
