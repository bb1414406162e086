"""The operators of two sparse matrices, and of the entries of rows. The one rule: places first, then values at known places.

The places of a product need not be all of it: what is elsewhere is not asked for, and sends nothing back.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tersor._op import op
from tersor.sparse import _sample
from tersor.sparse._operators import SUMS
from tersor.sparse._sample import add_at, rows_of

Array = Any


def _opened(data: Array, indices: Array, indptr: Array, cols: int) -> np.ndarray:
    """The dense matrix, in float64."""
    w = np.zeros((len(indptr) - 1, cols))
    add_at(w, (rows_of(indptr), indices), np.asarray(data, np.float64))
    return w


def _reached(a_indices: Array, a_indptr: Array, b_indices: Array, b_indptr: Array, cols: int) -> np.ndarray:
    """Where entries of both meet."""
    a = _opened(np.ones(len(a_indices)), a_indices, a_indptr, len(b_indptr) - 1)
    return a @ _opened(np.ones(len(b_indices)), b_indices, b_indptr, cols) > 0


@op(sample=_sample.matmul_count, integer=True)
def csr_matmul_count(a_indices: Array, a_indptr: Array, b_indices: Array, b_indptr: Array, cols: int) -> Array:
    """Where the rows of a product of two sparse matrices begin, each place once; ``cols`` are those of the second."""
    reached = _reached(a_indices, a_indptr, b_indices, b_indptr, cols)
    return np.concatenate([[0], np.cumsum(reached.sum(1))]).astype(np.int64)


@op(sample=_sample.matmul_places, integer=True)
def csr_matmul_places(
    a_indices: Array, a_indptr: Array, b_indices: Array, b_indptr: Array, indptr: Array, cols: int, entries: int
) -> Array:
    """The columns of a product in the rows that `csr_matmul_count` found, in ascending order."""
    return np.nonzero(_reached(a_indices, a_indptr, b_indices, b_indptr, cols))[1].astype(indptr.dtype)


@op(sample=_sample.matmul, tolerance=SUMS)
def csr_matmul(
    a_data: Array,
    a_indices: Array,
    a_indptr: Array,
    b_data: Array,
    b_indices: Array,
    b_indptr: Array,
    indices: Array,
    indptr: Array,
    cols: int,
) -> Array:
    """The values of a product of two sparse matrices at given places."""
    a = _opened(a_data, a_indices, a_indptr, len(b_indptr) - 1)
    return (a @ _opened(b_data, b_indices, b_indptr, cols))[rows_of(indptr), indices]


@op(sample=_sample.matmul_bwd, tolerance=SUMS)
def csr_matmul_bwd(
    g: Array,
    a_data: Array,
    a_indices: Array,
    a_indptr: Array,
    b_data: Array,
    b_indices: Array,
    b_indptr: Array,
    indices: Array,
    indptr: Array,
    cols: int,
    needs: int = 3,
) -> tuple[Array, Array]:
    r"""Gradient of `csr_matmul`: :math:`G B^\top` at the places of the first matrix, :math:`A^\top G` of the second."""
    at, da, db = _opened(g, indices, indptr, cols), np.zeros(0), np.zeros(0)
    if needs & 1:
        da = (at @ _opened(b_data, b_indices, b_indptr, cols).T)[rows_of(a_indptr), a_indices]
    if needs & 2:
        db = (_opened(a_data, a_indices, a_indptr, len(b_indptr) - 1).T @ at)[rows_of(b_indptr), b_indices]
    return da, db


@op(sample=_sample.softmax)
def csr_softmax(data: Array, indptr: Array) -> Array:
    """Softmax over the entries of each row."""
    y = np.zeros(len(data))
    for start, stop in itertools.pairwise(indptr):
        if stop > start:
            e = np.exp(data[start:stop] - np.max(data[start:stop]))
            y[start:stop] = e / e.sum()
    return y


@op(sample=_sample.softmax_bwd)
def csr_softmax_bwd(g: Array, y: Array, indptr: Array) -> Array:
    r"""Gradient of `csr_softmax`: :math:`y_e (g_e - \sum_k g_k y_k)` over the entries k of the row."""
    row, mean = rows_of(indptr), np.zeros(len(indptr) - 1)
    add_at(mean, row, g * y)
    return y * (g - mean[row])
