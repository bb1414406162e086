"""The operators of two sparse matrices, and of the entries of rows. The one rule: places first, then values at known places.

The places of a product need not be all of it: what is elsewhere is not asked for, and sends nothing back.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tersor._op import op
from tersor._values import tensor_of
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


def _met(*parts: Array, cols: int) -> tuple[np.ndarray, ...]:
    """The terms of a product at its stored places: the entry of either matrix, and the number of the place; and which of these
    every entry of the product has. Arguments and order are those of the operators."""
    ia, pa, ib, pb, ic, pc = map(_places, parts)
    each, starts = np.diff(pb)[ia], pb[:-1][ia]
    of_a = np.repeat(np.arange(len(ia)), each)
    of_b = np.arange(len(of_a)) - np.repeat(np.cumsum(each) - each, each) + np.repeat(starts, each)
    reached = rows_of(pa)[of_a].astype(np.int64) * cols + ib[of_b]
    places, number = np.unique(rows_of(pc).astype(np.int64) * cols + ic, return_inverse=True)
    at = np.searchsorted(places, reached)
    there = np.flatnonzero(np.append(places, -1)[at] == reached)
    return of_a[there], of_b[there], at[there], number


def _places(x: Array) -> np.ndarray:
    """Places as NumPy reads them; those of a transform of torch.func are those outside."""
    if isinstance(x, np.ndarray):
        return x
    from tersor.sparse._seen import read

    found: np.ndarray = read("spgemm", "a matrix", x)
    return found


def _added(n: int, at: Array, terms: Array) -> Array:
    """Terms added up by what they belong to."""
    if isinstance(terms, np.ndarray):
        out = np.zeros(n)
        add_at(out, at, terms)
        return out
    return terms.new_zeros(n).index_add(0, tensor_of(at), terms)


@op(sample=_sample.matmul_bwd, tolerance=SUMS, tensors=True)
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
    of_a, of_b, at, number = _met(a_indices, a_indptr, b_indices, b_indptr, indices, indptr, cols=cols)
    sent, none = _added(len(g), number, g)[at], g[:0]
    return (
        _added(len(a_data), of_a, sent * b_data[of_b]) if needs & 1 else none,
        _added(len(b_data), of_b, sent * a_data[of_a]) if needs & 2 else none,
    )


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
