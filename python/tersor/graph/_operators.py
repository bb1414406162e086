"""The operators of graphs: attention along edges, what rows have in common. The one rule: places are int32 or int64, all of one
type; who calls has chosen which."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._op import op
from tersor._reference import xp
from tersor._sample import Draw

Array = Any
Sample = tuple[list[Any], dict[str, Any]]

#: sums of up to some hundred terms
SUMS = {"float64": 4000, "float32": 64, "float16": 4, "bfloat16": 4}


def _places(draw: Draw, rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns in order, empty rows and repeated columns among them."""
    counts = draw.rng.integers(0, 6, rows) * (draw.rng.random(rows) < 0.8) * (cols > 0)
    index = (np.int32, np.int64)[draw.seed % 2]
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(index)
    columns = [np.sort(draw.rng.integers(0, max(cols, 1), c)) for c in counts]
    return np.concatenate([np.zeros(0, np.int64), *columns]).astype(index), indptr


def _attention(gradient: bool) -> Any:
    def sample(draw: Draw) -> Sample:
        n, m, heads, e = math.prod(draw.lead), 1 + draw.seed % 5, 1 + draw.seed % 2, 1 + draw.seed % 7
        size = min(draw.scale, 3.0)
        shapes = [(n, heads, e)] * gradient + [(n, heads, draw.d), (m, heads, draw.d), (m, heads, e)]
        arrays = [draw.cast(draw.rng.standard_normal(s) * size) for s in shapes]
        # away from the bounds, where the gradient has a step
        return [*arrays, *_places(draw, n, m), None, None], {"clamp": 50.0, "eps": 1e-6} | (
            {"needs": 7} if gradient else {}
        )

    return sample


def _listed(indices: Array, indptr: Array) -> tuple[Array, Array]:
    """Row and column of each edge."""
    if isinstance(indptr, np.ndarray):
        return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indices
    import torch

    rows = torch.arange(len(indptr) - 1, device=indptr.device)
    return torch.repeat_interleave(rows, (indptr[1:] - indptr[:-1]).long()), indices.long()


def _summed(terms: Array, at: Array, n: int) -> Array:
    if isinstance(terms, np.ndarray):
        out = np.zeros((n, *terms.shape[1:]), terms.dtype)
        np.add.at(out, at, terms)
        return out
    return terms.new_zeros((n, *terms.shape[1:])).index_add(0, at, terms)


def _shares(q: Array, k: Array, rows: Array, cols: Array, clamp: float, eps: float) -> tuple[Array, Array, Array]:
    """The scores of edges, their weights, and one over the sum of each row."""
    s = (q[rows] * k[cols]).sum(-1) / math.sqrt(max(q.shape[-1], 1))
    w = xp.exp(xp.clip(s, -clamp, clamp))
    z = _summed(w, rows, q.shape[0]) + eps
    return s, w, xp.where(z == 0, 0.0, 1 / xp.where(z == 0, 1.0, z))


@op(sample=_attention(False), tolerance=SUMS)
def _edge_attention(
    q: Array,
    k: Array,
    v: Array,
    indices: Array,
    indptr: Array,
    t_indices: Array = None,
    t_indptr: Array = None,
    clamp: float = 5.0,
    eps: float = 1e-6,
) -> Array:
    """Mixtures of the values of neighbours; ``t_indices, t_indptr`` are for the backward alone."""
    rows, cols = _listed(indices, indptr)
    _, w, z = _shares(q, k, rows, cols, clamp, eps)
    return _summed(w[..., None] * v[cols], rows, q.shape[0]) * z[..., None]


@op(sample=_attention(True), tolerance=SUMS, tensors=True)
def _edge_attention_bwd(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    indices: Array,
    indptr: Array,
    t_indices: Array = None,
    t_indptr: Array = None,
    clamp: float = 5.0,
    eps: float = 1e-6,
    needs: int = 7,
) -> tuple[Array, Array, Array]:
    r"""Gradient of `edge_attention`: an edge sends :math:`w (\langle g, v\rangle - t)/z`, t the mean of these over the row."""
    rows, cols = _listed(indices, indptr)
    s, w, z = _shares(q, k, rows, cols, clamp, eps)
    a = (g[rows] * v[cols]).sum(-1)
    t = _summed(w * a, rows, q.shape[0]) * z
    sent = w * (a - t[rows]) * z[rows] / math.sqrt(max(q.shape[-1], 1))
    sent = xp.where(abs(s) <= clamp, sent, 0.0)[..., None]
    nothing = q.reshape(-1)[:0]
    return (
        _summed(sent * k[cols], rows, q.shape[0]) if needs & 1 else nothing,
        _summed(sent * q[rows], cols, k.shape[0]) if needs & 2 else nothing,
        _summed((w * z[rows])[..., None] * g[rows], cols, v.shape[0]) if needs & 4 else nothing,
    )


def _pairs(draw: Draw) -> list[np.ndarray]:
    n, p = math.prod(draw.lead), draw.d
    indices, indptr = _places(draw, n, max(n, 4))
    p = p if n else 0
    return [*(draw.rng.integers(0, max(n, 1), p).astype(indptr.dtype) for _ in "uv"), indices, indptr]


def _members(u: int, v: int, indices: Array, indptr: Array, kind: int) -> np.ndarray:
    a, b = (np.unique(indices[indptr[i] : indptr[i + 1]]) for i in (u, v))
    return np.intersect1d(a, b) if kind == 0 else np.setdiff1d(a, b) if kind == 1 else np.setdiff1d(b, a)


def _sample_count(draw: Draw) -> Sample:
    return _pairs(draw), {"kind": draw.seed % 3}


@op(sample=_sample_count, integer=True, dtypes=("int32", "int64"), any_dtype=True)
def _meet_count(u: Array, v: Array, indices: Array, indptr: Array, kind: int = 0) -> Array:
    """Where the members of each pair begin: of both rows (kind 0), of the first alone (1), of the second alone (2)."""
    sizes = [len(_members(a, b, indices, indptr, kind)) for a, b in zip(u, v, strict=True)]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _sample_fill(draw: Draw) -> Sample:
    arrays, kind = _pairs(draw), draw.seed % 3
    return arrays, {"kind": kind, "total": int(_meet_count.op.reference(*arrays, kind)[-1])}  # type: ignore[attr-defined]


@op(sample=_sample_fill, integer=True, dtypes=("int32", "int64"), any_dtype=True)
def _meet_fill(u: Array, v: Array, indices: Array, indptr: Array, kind: int = 0, total: int = 0) -> Array:
    """The members that `meet_count` counted, ascending in each pair."""
    found = [_members(a, b, indices, indptr, kind) for a, b in zip(u, v, strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)


def _sample_dots(draw: Draw) -> Sample:
    u, v, indices, indptr = _pairs(draw)
    return [draw.normal(len(indices)), indices, indptr, u, v], {}


@op(sample=_sample_dots, tolerance=SUMS)
def _row_dots(data: Array, indices: Array, indptr: Array, u: Array, v: Array) -> Array:
    """Inner products of the rows of pairs; what stands in one place is added first."""
    s = np.zeros((len(indptr) - 1, int(np.max(indices, initial=-1)) + 1))
    np.add.at(s, (np.repeat(np.arange(len(s)), np.diff(indptr)), indices), data)
    return (s[u] * s[v]).sum(-1)
