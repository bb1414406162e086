"""A graph as it is given, by its edges: which row takes from which column, and how much. The one rule: all that was given is
taken, repeated edges and loops included, and what names no node is refused with its place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, INTEGERS, check_order, dtype_name, integer, is_tensor, ordinary
from tersor._host import held
from tersor._matrix import SparseMatrix

Array = Any

FLOWS = ("source_to_target", "target_to_source")


class Places(NamedTuple):
    """Edges in the order given: row, column, and weight of each (None: 1), and how many nodes there are."""

    rows: np.ndarray
    cols: np.ndarray
    weights: Array
    n: int


def places(who: str, graph: Any, n: int | None, weights: Array, flow: str) -> Places:
    """The edges of whatever a graph is given as; a matrix says itself who takes from whom."""
    if flow not in FLOWS:
        raise ValueError(f"{who}: flow must be one of {list(FLOWS)}, got {flow!r}")
    if n is not None and (not integer(n) or n < 0):
        kind, got = (ValueError, n) if integer(n) else (TypeError, type(n).__name__)
        raise kind(f"{who}: n must be an integer and not negative, got {got}")
    if _network(graph):
        found = _of_network(who, graph, weights, flow)
    elif isinstance(graph, SparseMatrix) or hasattr(graph, "tocsr") or _layout(graph) not in (None, "strided"):
        if weights is not None:
            raise ValueError(f"{who}: weights are those of edges, and a matrix has its own")
        found = _of_matrix(who, graph)
    elif isinstance(graph, (tuple, list)) and len(graph) == 3:
        found = _of_rows(who, graph, weights, flow)
    else:
        found = _of_edges(who, graph, n, weights, flow)
    if n is not None and n != found.n:
        raise ValueError(f"{who}: n is {n}, the graph has {found.n} nodes")
    return found


def _network(graph: Any) -> bool:
    networkx = sys.modules.get("networkx")
    return networkx is not None and isinstance(graph, networkx.Graph)


def _layout(graph: Any) -> str | None:
    return str(graph.layout).removeprefix("torch.") if is_tensor(graph) else None


def _square(who: str, shape: Sequence[int]) -> int:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{who}: the matrix of a graph is square, got shape {tuple(shape)}")
    return int(shape[0])


def _of_matrix(who: str, graph: Any) -> Places:
    """CSR, SciPy's and torch's sparse matrices, as they stand."""
    n = _square(who, graph.shape)
    if isinstance(graph, SparseMatrix):
        p = graph._pattern
        indptr, cols = (held(who, "A", v, INTEGERS) for v in (p.indptr, p.indices))
        return Places(np.repeat(np.arange(n), np.diff(indptr)), cols, graph._data, n)
    if hasattr(graph, "tocsr"):
        a = graph.tocoo()
        real(who, "A", a.data)
        return Places(np.asarray(a.row, np.int64), np.asarray(a.col, np.int64), a.data, n)
    if graph.dense_dim():
        raise ValueError(
            f"{who}: the matrix of a graph has two sparse axes, got a tensor of shape {tuple(graph.shape)}"
        )
    a = graph.to_sparse_coo()
    real(who, "A", a)
    rows, cols = held(who, "A", a._indices(), INTEGERS)
    return Places(rows, cols, a._values(), n)


def _of_network(who: str, graph: Any, weights: Any, flow: str) -> Places:
    """A graph of networkx, nodes in its order; ``weights`` is the attribute of the edges that says theirs."""
    if weights is not None and not isinstance(weights, str):
        raise TypeError(
            f"{who}: weights of a networkx graph must be the name of an attribute, got {type(weights).__name__}"
        )
    number = {node: i for i, node in enumerate(graph)}
    listed = [(number[u], number[v]) for u, v in graph.edges()]
    source, target = (np.array([e[i] for e in listed], np.int64) for i in (0, 1))
    values = None if weights is None else np.array(_attributes(who, graph, weights), np.float64)
    rows, cols = (target, source) if flow == FLOWS[0] else (source, target)
    found = Places(rows, cols, values, len(number))
    return found if graph.is_directed() else both_ways(found)


def _attributes(who: str, graph: Any, name: str) -> list[float]:
    """An attribute of every edge, 1 where it has none."""
    values = []
    for u, v, value in graph.edges(data=name, default=1):
        try:
            values.append(float(value))
        except (TypeError, ValueError):
            raise TypeError(
                f"{who}: weights: {name!r} of the edge {(u, v)!r} must be a number, got {value!r}"
            ) from None
    return values


def _of_rows(who: str, graph: Any, weights: Array, flow: str) -> Places:
    """DGL's CSR: where the edges of each source begin, their targets, and the number of each edge (empty: as they stand)."""
    indptr, indices, numbers = (
        held(who, k, v, INTEGERS) for k, v in zip(("indptr", "indices", "edge ids"), graph, strict=True)
    )
    if any(v.ndim != 1 for v in (indptr, indices, numbers)) or len(numbers) not in (0, len(indices)):
        shapes = [v.shape for v in (indptr, indices, numbers)]
        raise ValueError(
            f"{who}: indptr, indices and edge ids must have one axis, and an id for each edge or none, got {shapes}"
        )
    falls = np.flatnonzero(np.diff(indptr.astype(np.int64)) < 0)
    if not len(indptr) or indptr[0] != 0 or len(falls) or indptr[-1] != len(indices):
        raise ValueError(f"{who}: indptr must ascend from 0 to the {len(indices)} edges, got {_ends(indptr, falls)}")
    n = len(indptr) - 1
    source = np.repeat(np.arange(n), np.diff(indptr))
    _within(who, "indices", indices, n)
    if weights is not None and len(numbers):
        _within(who, "edge ids", numbers, len(_weights(who, weights, len(indices))))
        weights = weights[numbers] if isinstance(weights, np.ndarray) else weights[weights.new_tensor(numbers).long()]
    rows, cols = (indices, source) if flow == FLOWS[0] else (source, indices)
    return Places(rows, cols, _weights(who, weights, len(indices)), n)


def _ends(indptr: np.ndarray, falls: np.ndarray) -> str:
    if len(falls):
        return f"{indptr[falls[0]]} and then {indptr[falls[0] + 1]} at row {falls[0]}"
    return f"{indptr[0]} to {indptr[-1]}" if len(indptr) else "none"


def _of_edges(who: str, graph: Any, n: int | None, weights: Array, flow: str) -> Places:
    """Two rows: the source of each edge and its target, as torch_geometric has them."""
    if not isinstance(graph, np.ndarray) and not is_tensor(graph):
        raise TypeError(
            f"{who}: A must be a CSR, a sparse matrix of SciPy or torch, a networkx graph, edges [2, m], or (indptr, indices, "
            f"edge ids), got {type(graph).__name__}"
        )
    kind = dtype_name(graph.dtype)
    if kind in (*FLOATS, "bool"):
        raise TypeError(
            f"{who}: A is an array of {kind}, edges are integers [2, m]; sparse.from_dense makes a matrix of one"
        )
    edges = held(who, "A", graph, INTEGERS)
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(f"{who}: edges must have shape [2, m], sources and targets, got {tuple(edges.shape)}")
    least = int(edges.max()) + 1 if edges.size else 0
    n = least if n is None else int(n)
    _within(who, "edges", edges, n)
    target, source = edges[1], edges[0]
    rows, cols = (target, source) if flow == FLOWS[0] else (source, target)
    return Places(rows, cols, _weights(who, weights, edges.shape[1]), n)


def _within(who: str, name: str, numbers: np.ndarray, n: int) -> None:
    bad = np.argwhere((numbers < 0) | (numbers >= n))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{who}: {name}[{', '.join(map(str, at))}] = {numbers[at]} is outside 0..{n - 1} ({n} of them)"
        )


def _weights(who: str, weights: Array, edges: int) -> Array:
    if weights is None:
        return None
    if not isinstance(weights, np.ndarray) and not is_tensor(weights):
        raise TypeError(f"{who}: weights must be a NumPy array or a torch tensor, got {type(weights).__name__}")
    ordinary(who, ": weights", weights)
    check_order(who, "weights", weights)
    real(who, "weights", weights)
    if tuple(weights.shape) != (edges,):
        raise ValueError(f"{who}: weights must have shape ({edges},), one of each edge, got {tuple(weights.shape)}")
    return weights


def real(who: str, name: str, x: Array) -> None:
    """Numbers with one part; that of another would be lost."""
    if x.is_complex() if is_tensor(x) else x.dtype.kind in "cOSUmM":
        raise TypeError(f"{who}: {name} must be real numbers, got {dtype_name(x.dtype)}")


def both_ways(p: Places) -> Places:
    """Every edge and its reverse; a loop has none."""
    other = np.flatnonzero(p.rows != p.cols)
    rows, cols = np.concatenate([p.rows, p.cols[other]]), np.concatenate([p.cols, p.rows[other]])
    if p.weights is None:
        return Places(rows, cols, None, p.n)
    if isinstance(p.weights, np.ndarray):
        return Places(rows, cols, np.concatenate([p.weights, p.weights[other]]), p.n)
    import torch

    return Places(rows, cols, torch.cat([p.weights, p.weights[torch.from_numpy(other).to(p.weights.device)]]), p.n)


def kind_of(weights: Array) -> str:
    """The float type of weights; of whole numbers, and of none, float32."""
    name = "float32" if weights is None else dtype_name(weights.dtype)
    return name if "float" in name else "float32"
