"""What neighbourhoods have in common. The one rule: N(u) is a set, the columns of row u: a repeated edge counts once, and a
loop puts u into its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import INTEGERS, Array, dtype_name, is_tensor
from tersor._host import answer, held
from tersor._matrix import KINDS
from tersor._values import check_values
from tersor.graph._operators import _meet_count, _meet_fill, _row_dots
from tersor.graph._places import real
from tersor.graph.adjacency import matrix

BOTH, FIRST, SECOND = 0, 1, 2


class NeighborIds(NamedTuple):
    """The members of pair i are ``ids[indptr[i]:indptr[i + 1]]``, ascending."""

    ids: Any
    indptr: Any


class _Pairs:
    """Pairs of nodes of a graph, as the kernels take them."""

    def __init__(self, who: str, graph: Any, u: Any, v: Any, *, square: bool = True) -> None:
        a = matrix(who, graph) if square else _rows(who, graph)
        p = a._pattern
        self.values, self.n = a._data, a.shape[0]
        self.indices, self.indptr = (held(who, "A", x, INTEGERS) for x in (p.indices, p.indptr))
        self.u, self.v = (self._nodes(who, name, x) for name, x in (("u", u), ("v", v)))
        if len(self.u) != len(self.v):
            raise ValueError(f"{who}: u has {len(self.u)} nodes, v {len(self.v)}")

    def _nodes(self, who: str, name: str, x: Any) -> np.ndarray:
        nodes = held(who, name, x, INTEGERS)
        if nodes.ndim != 1:
            raise ValueError(f"{who}: {name} must have one axis, got shape {nodes.shape}")
        bad = np.flatnonzero((nodes < 0) | (nodes >= self.n))
        if len(bad):
            raise ValueError(f"{who}: {name}[{bad[0]}] = {nodes[bad[0]]} is outside 0..{self.n - 1} ({self.n} nodes)")
        return nodes.astype(self.indptr.dtype)

    def offsets(self, kind: int) -> np.ndarray:
        return np.asarray(_meet_count(self.u, self.v, self.indices, self.indptr, kind))

    def and_itself(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs, and each node with itself after them: its row is read once for all pairs that name it."""
        every = np.arange(self.n, dtype=self.indptr.dtype)
        return np.concatenate([self.u, every]), np.concatenate([self.v, every])

    def ids(self, kind: int) -> tuple[np.ndarray, np.ndarray]:
        offsets = self.offsets(kind)
        return _meet_fill(self.u, self.v, self.indices, self.indptr, kind, int(offsets[-1])), offsets


def _rows(who: str, S: Any) -> Any:
    """Rows of features, of any shape."""
    if hasattr(S, "tocsr"):
        s = S.tocsr()
        real(who, "S", s.data)
        kind = s.data.dtype if s.data.dtype in (np.float32, np.float64) else np.float64
        return KINDS["CSR"](s.data.astype(kind), s.indices, s.indptr, s.shape)
    if hasattr(S, "_pattern"):
        return S
    return matrix(who, S)


def common_neighbors(A: Any, u: Any, v: Any) -> Array:
    r"""How many neighbours two nodes have in common, :math:`|N(u) \cap N(v)|`, of each pair.

    Parameters
    ----------
    A : as of `adjacency`
    u, v : array or tensor of integers [p]
        Pairs of nodes.

    Returns
    -------
    int64 array or tensor [p]

    Raises
    ------
    TypeError
        If nodes are no integers, or A is no graph.
    ValueError
        If a number names no node, or u and v are of different lengths.

    Notes
    -----
    O(nnz + Σ min(deg)) where pairs share their longer row, which is marked in a map of n bits once for all of them; else
    O(Σ deg), or O(Σ min(deg) log) where one row is much longer than the other.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> square = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
    >>> a = graph.adjacency(square, undirected=True)
    >>> graph.common_neighbors(a, np.array([0, 0]), np.array([2, 1]))
    array([2, 0])
    """
    return answer(np.diff(_Pairs("common_neighbors", A, u, v).offsets(BOTH)), u)


def common_neighbor_ids(A: Any, u: Any, v: Any, which: str = "both") -> NeighborIds:
    r"""Which neighbours two nodes have in common, or one of them alone.

    Parameters
    ----------
    A, u, v : as of `common_neighbors`
    which : "both", "u" or "v"
        :math:`N(u) \cap N(v)`, :math:`N(u) \setminus N(v)` or :math:`N(v) \setminus N(u)`.

    Returns
    -------
    NeighborIds
        ``ids``, int64 [total], ascending within a pair, and ``indptr``, int64 [p + 1].

    Raises
    ------
    TypeError, ValueError
        As `common_neighbors`; ValueError for another word.
    """
    if which not in ("both", "u", "v"):
        raise ValueError(f"common_neighbor_ids: which must be 'both', 'u' or 'v', got {which!r}")
    ids, offsets = _Pairs("common_neighbor_ids", A, u, v).ids(("both", "u", "v").index(which))
    return NeighborIds(answer(ids, u), answer(offsets, u))


def cn_pool(A: Any, u: Any, v: Any, X: Array, *, complete: Callable[[Any, Any], Any] | None = None) -> Array:
    r"""Features of common neighbours, :math:`\sum_{w \in N(u) \cap N(v)} x_w` of each pair (NCN).

    Parameters
    ----------
    A, u, v : as of `common_neighbors`
    X : array or tensor [n, d], float64, float32, float16 or bfloat16
    complete : function of two lists of nodes
        NCNC's: how probable the edges between them are. Neighbours of u alone are added with ``complete(v, w)``, those of v
        alone with ``complete(u, w)``; `ncnc_weights` makes weights of scores.

    Returns
    -------
    array or tensor [p, d]
        Differentiable with respect to X and what ``complete`` gives.

    Raises
    ------
    TypeError, ValueError
        As `common_neighbors`; ValueError if X has not a row for each node, or complete gives another number of weights.

    Notes
    -----
    2·d operations for each common neighbour. Wang, Yang, Zhang, "Neural common neighbor with completion" (2024).
    """
    check_values("cn_pool", "X", X)
    pairs = _Pairs("cn_pool", A, u, v)
    if X.ndim != 2 or X.shape[0] != pairs.n:
        raise ValueError(f"cn_pool: X must be [{pairs.n}, d], got shape {tuple(X.shape)}")
    y = _pooled(*pairs.ids(BOTH), None, X)
    if complete is None:
        return y
    for kind, other in ((FIRST, pairs.v), (SECOND, pairs.u)):
        ids, offsets = pairs.ids(kind)
        ends = np.repeat(other.astype(np.int64), np.diff(offsets))
        w = complete(*(answer(x, X) for x in (ends, ids)))
        check_values("cn_pool", "what complete gives", w)
        if is_tensor(w) != is_tensor(X) or w.dtype != X.dtype:
            raise TypeError(
                f"cn_pool: complete must give a {type(answer(ids, X)).__name__} of {dtype_name(X.dtype)} like X, "
                f"got a {type(w).__name__} of {dtype_name(w.dtype)}"
            )
        if tuple(w.shape) != (len(ids),):
            raise ValueError(f"cn_pool: complete must give {len(ids)} weights, got shape {tuple(w.shape)}")
        y = y + _pooled(ids, offsets, w, X)
    return y


def _pooled(ids: np.ndarray, offsets: np.ndarray, weights: Array, X: Array) -> Array:
    if weights is None:
        weights = np.ones(len(ids), X.dtype) if isinstance(X, np.ndarray) else X.new_ones(len(ids))
    return KINDS["CSR"](weights, ids, offsets, (len(offsets) - 1, X.shape[0])) @ X


def ncnc_weights(p: Array, *, alpha: float = 1.0, scale: float = 5.0, offset: float = 3.0, pt: float = 0.5) -> Array:
    r"""Weights of neighbours that may be missing, :math:`\alpha\, t p_0/(t p_0 + 1 - p_0)`, :math:`p_0 = \sigma(s(p - o))`.

    Parameters
    ----------
    p : array or tensor [...], float64, float32, float16 or bfloat16
        Scores of edges.
    alpha, scale, offset, pt : float
        :math:`\alpha`, s, o and t.

    Returns
    -------
    array or tensor, of the shape of p
        Differentiable with respect to p.

    Raises
    ------
    TypeError
        If p is no array of a float type.
    ValueError
        If pt is not within 0 and 1, or another number not finite.
    """
    check_values("ncnc_weights", "p", p)
    if not 0 <= pt <= 1:
        raise ValueError(f"ncnc_weights: pt must be between 0 and 1, got {pt}")
    for name, value in (("alpha", alpha), ("scale", scale), ("offset", offset)):
        if not is_tensor(value) and not math.isfinite(value):
            raise ValueError(f"ncnc_weights: {name} must be finite, got {value}")
    # t σ(z)/(t σ(z) + 1 - σ(z)) is σ(z + ln t), which loses nothing where σ is near 0 or 1
    t: Any = pt
    shift = t.log() if is_tensor(t) else math.log(t) if t else -math.inf
    if is_tensor(p):
        wide = p.float() if p.dtype.itemsize == 2 else p
        return (alpha * (scale * (wide - offset) + shift).sigmoid()).to(p.dtype)
    z = scale * (p.astype(np.float32 if p.dtype.itemsize == 2 else p.dtype) - offset) + shift
    small = np.exp(-np.abs(z))
    return np.asarray(alpha * np.where(z < 0, small, 1) / (1 + small)).astype(p.dtype)


def edge_jaccard(S: Any, u: Any, v: Any) -> Array:
    r"""How alike two rows are as sets, :math:`|N(u) \cap N(v)|/|N(u) \cup N(v)|`, of each pair; 0 of two empty ones.

    Parameters
    ----------
    S : a graph as of `adjacency`, or a CSR or SciPy sparse matrix of features [n, f]
    u, v : as of `common_neighbors`

    Returns
    -------
    float64 array or tensor [p]

    Raises
    ------
    TypeError, ValueError
        As `common_neighbors`.
    """
    pairs = _Pairs("edge_jaccard", S, u, v, square=False)
    p, (us, vs) = len(pairs.u), pairs.and_itself()
    counts = np.diff(_meet_count(us, vs, pairs.indices, pairs.indptr, BOTH))
    both, sizes = counts[:p], counts[p:]
    every = sizes[pairs.u] + sizes[pairs.v] - both
    return answer(np.where(every > 0, both / np.maximum(every, 1), 0.0), u)


def edge_cosine(S: Any, u: Any, v: Any) -> Array:
    r"""The cosine of two rows of a sparse matrix, of each pair; 0 with a row of zeros.

    Parameters
    ----------
    S : a graph as of `adjacency`, or a CSR or SciPy sparse matrix of features [n, f]
    u, v : as of `common_neighbors`

    Returns
    -------
    float64 array or tensor [p]

    Raises
    ------
    TypeError, ValueError
        As `common_neighbors`.
    """
    pairs = _Pairs("edge_cosine", S, u, v, square=False)
    data = held("edge_cosine", "S", pairs.values).astype(np.float64)
    p, sums = len(pairs.u), _row_dots(_levelled(data, pairs.indptr), pairs.indices, pairs.indptr, *pairs.and_itself())
    dots, norms = sums[:p], np.sqrt(sums[p:])
    size = norms[pairs.u] * norms[pairs.v]
    return answer(np.where(size == 0, 0.0, dots / np.where(size == 0, 1, size)), u)


def _levelled(data: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Rows times powers of two, so that the largest number of each is near 1: no square is too large or too small."""
    sizes = np.diff(indptr)
    most = np.zeros(len(sizes))
    most[sizes > 0] = np.fmax.reduceat(np.abs(data), indptr[:-1][sizes > 0]) if len(data) else 0
    exponents = np.frexp(np.where(np.isfinite(most), most, 0))[1]
    return np.ldexp(data, -np.repeat(exponents, sizes))
