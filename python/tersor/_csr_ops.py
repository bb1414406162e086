"""Operators on the structure of sparse matrices: what `CSR` is made, turned and opened with.

The rule of this file: indices are NumPy's or torch's int32 or int64, all of one type; who calls has chosen which.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor import _csr_sample
from tersor._csr_sample import add_at, rows_of, transposed
from tersor._op import op

Array = Any


def _index(wide: bool) -> str:
    return "int64" if wide else "int32"


#: sums of up to some hundred terms; the reference runs in float64 itself
SUMS = {"float64": 4000, "float32": 400, "float16": 4, "bfloat16": 4}


@op(sample=_csr_sample.sort, integer=True)
def csr_sort(indices: Array, indptr: Array, cols: int, wide: bool = False) -> tuple[Array, ...]:
    """A structure checked and its rows sorted by column, stably; ``data[perm]`` are the values in that order."""
    perm = np.lexsort((indices, rows_of(indptr)))
    kind = _index(wide)
    return indices[perm].astype(kind), indptr.astype(kind), perm.astype(kind)


@op(sample=_csr_sample.transpose, integer=True)
def csr_transpose(indices: Array, indptr: Array, cols: int) -> tuple[Array, ...]:
    """The structure of the transpose: its indices and offsets, and where each of its entries stands here."""
    return transposed(indices, indptr, cols)


@op(sample=_csr_sample.count, integer=True, native=True)
def csr_count(w: Array, mask: Array = None, wide: bool = False) -> Array:
    """Where the rows of a dense matrix begin, of whose elements those are stored that are not 0, or that the mask names."""
    kept = w != 0 if mask is None or not mask.size else mask != 0
    return np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(_index(wide))


@op(sample=_csr_sample.fill, integer=True, native=True)
def csr_fill(w: Array, indptr: Array, mask: Array = None, entries: int = 0) -> tuple[Array, Array]:
    """The values and columns of a dense matrix in the rows that `csr_count` found."""
    rows, columns = np.nonzero(w != 0 if mask is None or not mask.size else mask)
    return w[rows, columns], columns.astype(indptr.dtype)


@op(sample=_csr_sample.dense, tolerance=SUMS)
def csr_dense(data: Array, indices: Array, indptr: Array, cols: int) -> Array:
    """The dense matrix; entries of equal place are added."""
    w = np.zeros((len(indptr) - 1, cols))
    add_at(w, (rows_of(indptr), indices), data)
    return w


@op(sample=_csr_sample.dense_bwd)
def csr_dense_bwd(g: Array, indices: Array, indptr: Array) -> Array:
    """Gradient of `csr_dense`: the elements at the stored places."""
    return g[rows_of(indptr), indices]
