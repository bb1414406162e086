"""What the operators of sparse matrices are tried on, and the plain NumPy that their references share.

The rule of this file: empty rows, repeated columns and absent arguments turn up in every few draws.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tersor._acts import activated
from tersor._sample import Draw

Array = Any
Sample = tuple[list[Any], dict[str, Any]]

#: rows side by side, and rows that are put in order together, as in `lanes.rs`
ACROSS, WINDOW = 16, 1024


def rows_of(indptr: Array) -> np.ndarray:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def add_at(y: np.ndarray, places: Any, terms: Array) -> None:
    """Adds, at places that may repeat."""
    np.add.at(y, places, terms)


def transposed(indices: Array, indptr: Array, cols: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    perm = np.argsort(indices, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(indices, minlength=cols))])
    kind = np.asarray(indices).dtype
    return rows_of(indptr)[perm].astype(kind), offsets.astype(kind), perm.astype(kind)


def chain(data: Array, indices: Array, indptr: Array, x: Array, bias: Array, lo: float, hi: float) -> np.ndarray:
    x = np.asarray(x, np.float64)
    y = np.zeros((*x.shape[:-2], len(indptr) - 1, x.shape[-1]))
    if bias is not None and np.size(bias):
        y += np.asarray(bias, np.float64)[:, None]
    terms = np.asarray(data, np.float64)[:, None] * x[..., indices, :]
    add_at(y, (..., rows_of(indptr), slice(None)), terms)
    return np.clip(y, lo, hi)


def rowwise(data: Array, indices: Array, indptr: Array, x: Array, bias: Array) -> np.ndarray:
    """`chain` for x that lies as rows."""
    return chain(data, indices, indptr, np.asarray(x)[..., None], bias, -math.inf, math.inf)[..., 0]


def laned(indices: Array, indptr: Array, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of sixteen rows side by side, and the order of the rows: the longest of a window first."""
    lengths = np.diff(indptr)
    starts = range(0, len(lengths), WINDOW)
    order = [i + np.argsort(-lengths[i : i + WINDOW], kind="stable") for i in starts]
    rows = np.concatenate([np.zeros(0, int), *order])
    places = [
        indices[indptr[row] + t]
        for c in range(0, len(rows), ACROSS)
        for t in range(lengths[rows[c]])
        for row in rows[c : c + ACROSS]
        if t < lengths[row]
    ]
    small = np.array(places, np.int64).astype(np.uint16).view(np.int16)
    return small if cols < 65537 else np.array(places, np.int32), rows.astype(np.asarray(indices).dtype)


def unlaned(places: Array, rows: Array, indptr: Array) -> np.ndarray:
    """The columns in the order of the pattern again."""
    indices, lengths, at = np.zeros(len(places), np.int64), np.diff(indptr), 0
    for c in range(0, len(rows), ACROSS):
        for t in range(lengths[rows[c]]):
            for row in rows[c : c + ACROSS]:
                if t < lengths[row]:
                    indices[indptr[row] + t] = places[at]
                    at += 1
    return indices & 0xFFFF if places.dtype == np.int16 else indices


def structure(draw: Draw) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Columns in order, empty rows and repeated columns among them."""
    rows, cols = math.prod(draw.lead), draw.d
    counts = draw.rng.integers(0, cols + 1, rows) * (draw.rng.random(rows) < 0.8)
    index = (np.int32, np.int64)[draw.seed % 2]
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(index)
    indices = draw.rng.integers(0, cols, int(indptr[-1])).astype(index)
    return indices[np.lexsort((indices, rows_of(indptr)))], indptr, (rows, cols)


def sort(draw: Draw) -> Sample:
    indices, indptr, (_, cols) = structure(draw)
    mixed = draw.rng.permuted(np.arange(cols)).astype(indices.dtype)[indices]
    return [mixed, indptr], {"cols": cols, "wide": bool(draw.seed % 3)}


def transpose(draw: Draw) -> Sample:
    indices, indptr, (_, cols) = structure(draw)
    return [indices, indptr], {"cols": cols}


def count(draw: Draw) -> Sample:
    w = draw.normal(math.prod(draw.lead), draw.d)
    w[draw.rng.random(w.shape) < 0.5] = 0
    mask = (draw.rng.random(w.shape) < 0.5).astype(np.uint8) if draw.seed % 2 and w.size else None
    return [w, mask], {"wide": bool(draw.seed % 3)}


def fill(draw: Draw) -> Sample:
    (w, mask), scalars = count(draw)
    kept = w != 0 if mask is None else mask != 0
    kind = np.int64 if scalars["wide"] else np.int32
    indptr = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(kind)
    return [w, indptr, mask], {"entries": int(indptr[-1])}


def dense(draw: Draw) -> Sample:
    indices, indptr, (_, cols) = structure(draw)
    return [draw.normal(len(indices)), indices, indptr], {"cols": cols}


def dense_bwd(draw: Draw) -> Sample:
    indices, indptr, shape = structure(draw)
    return [draw.normal(*shape), indices, indptr], {}


def operands(draw: Draw) -> tuple[Any, Any, tuple[int, int], tuple[int, ...], int, tuple[Any, ...]]:
    indices, indptr, (rows, cols) = structure(draw)
    lead = (0,) if draw.seed % 8 == 6 else ((), (2,), (1, 2))[draw.seed % 3]
    rest, offsets, perm = transposed(indices, indptr, cols)
    given = (perm, rest, offsets) if draw.seed % 3 else (None, None, None)
    return indices, indptr, (rows, cols), lead, 1 + draw.seed % 37 * (draw.seed % 5 > 0), given


def spmm(draw: Draw) -> Sample:
    indices, indptr, (rows, cols), lead, n, given = operands(draw)
    bias = draw.normal(rows) if draw.seed % 2 else None
    data, x = draw.normal(len(indices)), draw.normal(*lead, cols, n)
    lo, hi = ((-math.inf, math.inf), (0.0, math.inf), (-0.5, 0.5))[draw.seed % 3]
    return [data, indices, indptr, x, bias, *given], {"lo": lo, "hi": hi}


def spmm_bwd(draw: Draw) -> Sample:
    (data, indices, indptr, x, bias, *given), scalars = spmm(draw)
    y = draw.cast(chain(data, indices, indptr, x, bias, scalars["lo"], scalars["hi"]))
    needs = 3 | (4 if bias is not None else 0)
    return [draw.normal(*y.shape), data, indices, indptr, x, y, *given], {**scalars, "needs": needs}


def sddmm(draw: Draw) -> Sample:
    indices, indptr, (rows, cols), lead, n, given = operands(draw)
    return [draw.normal(*lead, rows, n), draw.normal(*lead, cols, n), indices, indptr, *given], {}


def sddmm_bwd(draw: Draw) -> Sample:
    (a, b, indices, indptr, *given), _ = sddmm(draw)
    return [draw.normal(len(indices)), a, b, indices, indptr, *given], {"needs": 3}


def few(draw: Draw) -> tuple[Any, ...]:
    indices, indptr, (rows, cols) = structure(draw)
    lead = (0,) if draw.seed % 8 == 6 else ((), (2,), (1, 5), (19,))[draw.seed % 4]
    bias = draw.normal(rows) if draw.seed % 2 else None
    return draw.normal(len(indices)), indices, indptr, draw.normal(*lead, cols), bias


def spmv(draw: Draw) -> Sample:
    data, indices, indptr, x, bias = few(draw)
    places, order = laned(indices, indptr, x.shape[-1])
    return [data, places, order, indptr, x, bias], {"act": draw.seed % 5}


def linear(draw: Draw) -> Sample:
    data, indices, indptr, x, bias = few(draw)
    rest, offsets, perm = transposed(indices, indptr, x.shape[-1])
    given = (perm, rest, offsets) if draw.seed % 3 else (None, None, None)
    return [data, indices, indptr, x, bias, *given], {"act": draw.seed % 5}


def linear_bwd(draw: Draw) -> Sample:
    (data, indices, indptr, x, bias, *given), scalars = linear(draw)
    y = draw.cast(activated(scalars["act"], rowwise(data, indices, indptr, x, bias)))
    needs = 3 | (4 if bias is not None else 0)
    return [draw.normal(*y.shape), data, indices, indptr, x, bias, y, *given], {**scalars, "needs": needs}


def coded(draw: Draw) -> tuple[Any, ...]:
    data, indices, indptr, x, bias = few(draw)
    codes = draw.rng.integers(-127, 128, len(data)).astype(np.int8)
    scale = draw.cast(0.01 * draw.rng.random(len(indptr) - 1))
    rest, offsets, perm = transposed(indices, indptr, x.shape[-1])
    given = (perm, rest, offsets) if draw.seed % 3 else (None, None, None)
    return x, codes, scale, indices, indptr, bias, given


def linear8(draw: Draw) -> Sample:
    x, codes, scale, indices, indptr, bias, given = coded(draw)
    lanes = laned(indices, indptr, x.shape[-1]) if draw.seed % 5 < 3 else (None, None)
    return [x, codes, scale, indices, indptr, *lanes, bias, *given], {}


def linear8_bwd(draw: Draw) -> Sample:
    x, codes, scale, indices, indptr, bias, given = coded(draw)
    g = draw.normal(*x.shape[:-1], len(indptr) - 1)
    return [g, x, codes, scale, indices, indptr, bias, *given], {"needs": 3 | (4 if bias is not None else 0)}


def factors(draw: Draw) -> tuple[Any, ...]:
    """Two structures that can be multiplied, the second of another width."""
    indices, indptr, (_, inner) = structure(draw)
    cols = 1 + draw.seed % 9
    counts = draw.rng.integers(0, cols + 1, inner) * (draw.rng.random(inner) < 0.8)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(indptr.dtype)
    places = draw.rng.integers(0, cols, int(starts[-1])).astype(indices.dtype)
    return indices, indptr, places[np.lexsort((places, rows_of(starts)))], starts, cols


def met(a_indices: Array, a_indptr: Array, b_indices: Array, b_indptr: Array) -> list[Array]:
    """The columns that each row of a product reaches."""
    return [
        np.unique(np.concatenate([b_indices[:0], *(b_indices[b_indptr[k] : b_indptr[k + 1]] for k in a_indices[i:j])]))
        for i, j in itertools.pairwise(a_indptr)
    ]


def matmul_count(draw: Draw) -> Sample:
    *parts, cols = factors(draw)
    return parts, {"cols": cols}


def matmul_places(draw: Draw) -> Sample:
    *parts, cols = factors(draw)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in met(*parts)])]).astype(parts[1].dtype)
    return [*parts, indptr], {"cols": cols, "entries": int(indptr[-1])}


def matmul(draw: Draw) -> Sample:
    """Values at all places of the product, at some, or at any."""
    ia, pa, ib, pb, cols = factors(draw)
    rows = met(ia, pa, ib, pb)
    if draw.seed % 3:
        rows = [row[draw.rng.random(len(row)) < 0.6] for row in rows]
    if draw.seed % 3 == 2:
        rows = [np.sort(np.append(row, draw.rng.integers(0, cols, 2))) for row in rows]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(pa.dtype)
    indices = np.concatenate([ia[:0], *rows]).astype(ia.dtype)
    return [draw.normal(len(ia)), ia, pa, draw.normal(len(ib)), ib, pb, indices, indptr], {"cols": cols}


def matmul_bwd(draw: Draw) -> Sample:
    parts, scalars = matmul(draw)
    return [draw.normal(len(parts[-2])), *parts], {**scalars, "needs": 3}


def softmax(draw: Draw) -> Sample:
    indices, indptr, _ = structure(draw)
    return [draw.normal(len(indices)), indptr], {}


def softmax_bwd(draw: Draw) -> Sample:
    (x, indptr), _ = softmax(draw)
    y = np.concatenate([np.zeros(0), *(np.exp(r) / np.exp(r).sum() for r in np.split(x.astype(float), indptr[1:-1]))])
    return [draw.normal(len(x)), draw.cast(y), indptr], {}
