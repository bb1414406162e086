"""Sparse matrices from lists of places. The one rule: what becomes of places that come twice is said by who calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, is_tensor, ones_of, whole
from tersor._values import check_values, float_name
from tersor.sparse._check import checked_indices, checked_shape
from tersor.sparse._csr import CSR
from tersor.sparse._structure import owned, placed

Array = Any


def from_coo(data: Array, rows: Any, cols: Any, shape: Sequence[int], *, duplicates: str = "keep") -> CSR:
    """The sparse matrix of entries that are given by row and column, in any order.

    Parameters
    ----------
    data : array or tensor [nnz], float64, float32, float16 or bfloat16
        The values. A tensor that requires a gradient gets it, in the order in which it is given.
    rows, cols : arrays or tensors [nnz], int32 or int64
    shape : (int, int)
        Rows and columns.
    duplicates : "keep", "sum" or "refuse"
        Entries of one place are kept, and add up in every use; or are added, in the order given; or are an error.

    Returns
    -------
    CSR
        Unless entries were added, ``perm`` says where each was given, and ``with_data(v, order="given")`` takes other values.

    Raises
    ------
    TypeError
        If data is not of a float type, or rows or cols are not int32 or int64.
    ValueError
        If lengths differ, a place is outside the shape, or one comes twice and that is refused; all are named.

    Notes
    -----
    A stable counting sort by row, and a sort of the rows that need one.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor.sparse import from_coo
    >>> a = from_coo(np.array([5.0, 7.0, 1.0]), np.array([1, 0, 1]), np.array([0, 1, 0]), (2, 2))
    >>> a.to_dense(), a.nnz, a.sum_duplicates().nnz
    (array([[0., 7.],
           [6., 0.]]), 3, 2)
    """
    return _from_places("from_coo", data, rows, cols, checked_shape(shape, "from_coo"), duplicates)


def _from_places(who: str, data: Array, rows: Any, cols: Any, shape: tuple[int, int], duplicates: str) -> CSR:
    if duplicates not in ("keep", "sum", "refuse"):
        raise ValueError(f"{who}: duplicates must be 'keep', 'sum' or 'refuse', got {duplicates!r}")
    check_values(who, "data", data)
    places = [checked_indices(name, x, data, who) for name, x in (("rows", rows), ("cols", cols))]
    for name, x, n in zip(("rows", "cols"), places, shape, strict=True):
        if is_tensor(x) or (is_tensor(data) and type(data).__name__ == "FakeTensor"):
            raise TypeError(f"{who}: {name} must have values, got a tensor without: where entries are is not known")
        if data.ndim != 1 or len(data) != len(x):
            raise ValueError(f"{who}: data has shape {tuple(data.shape)}, {name} {len(x)} elements")
        bad = np.flatnonzero((x < 0) | (x >= n))
        if bad.size:
            room = f"outside 0..{n - 1}" if n else f"outside a matrix without {name}"
            raise ValueError(f"{who}: {name}[{bad[0]}] = {x[bad[0]]} is {room}")
    columns, offsets, order = placed(who, places[0], places[1], shape)
    a: CSR = CSR._of(*owned(data, columns, offsets, shape, order))
    if duplicates == "keep":
        return a
    starts = a._pattern.merged()[1]
    if starts is None:
        return a
    if duplicates == "sum":
        return a.sum_duplicates()
    first, again = sorted(int(order[starts[np.flatnonzero(np.diff(starts) > 1)[0]] + k]) for k in (0, 1))
    raise ValueError(
        f"{who}: entries {first} and {again} are both at ({places[0][first]}, {places[1][first]}); "
        'duplicates="sum" adds them'
    )


def from_edges(
    edges: Any,
    weights: Array = None,
    nodes: int | None = None,
    *,
    undirected: bool = False,
    duplicates: str = "keep",
    dtype: Any = "float32",
) -> CSR:
    """The adjacency matrix of a list of edges: each is an entry in the row of its source, at the column of its target.

    Parameters
    ----------
    edges : array or tensor [2, E], int32 or int64
        Sources and targets, as ``edge_index`` is elsewhere. Sums over incoming edges are products with ``a.T``.
    weights : array or tensor [E], of a float type
        1 if absent, of type ``dtype``. A tensor that requires a gradient gets it, in the order of the edges.
    nodes : int
        How many there are; one more than the largest in ``edges`` if absent.
    undirected : bool
        Whether each edge is stored in both directions; one from a node to itself is stored once.
    duplicates : "keep", "sum" or "refuse"
        As in `from_coo`.
    dtype : str or type of either library
        The type of absent weights.

    Returns
    -------
    CSR [nodes, nodes]
        Of the library of weights, or of edges where these are absent. With ``undirected``, values in the order given are
        those of the edges, then of the edges turned round.

    Raises
    ------
    TypeError
        If edges are not int32 or int64, or weights not of a float type.
    ValueError
        If shapes do not go together, a node is outside, or an edge comes twice and that is refused.
    """
    who = "from_edges"
    if not is_tensor(edges) and not isinstance(edges, np.ndarray):
        raise TypeError(f"{who}: edges must be a NumPy array or a torch tensor, got {type(edges).__name__}")
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(f"{who}: edges must be [2, E], got shape {tuple(edges.shape)}")
    if weights is None:
        weights = _ones(edges, dtype)
    check_values(who, "weights", weights)
    if weights.ndim != 1 or len(weights) != edges.shape[1]:
        raise ValueError(f"{who}: weights have shape {tuple(weights.shape)}, there are {edges.shape[1]} edges")
    source, target = (checked_indices("edges", x, weights, who) for x in edges)
    if is_tensor(source):
        raise TypeError(f"{who}: edges must have values, got a tensor without")
    if nodes is None:
        nodes = 1 + max((int(x.max()) for x in (source, target) if len(x)), default=-1)
    n = whole(f"{who}: nodes", nodes)
    if n < 0:
        raise ValueError(f"{who}: nodes must not be negative, got {n}")
    for name, x in (("0", source), ("1", target)):
        bad = np.flatnonzero((x < 0) | (x >= n))
        if bad.size:
            raise ValueError(f"{who}: edges[{name}, {bad[0]}] = {x[bad[0]]} is no node of {n}")
    if undirected:
        other = np.flatnonzero(source != target)
        source, target = np.append(source, target[other]), np.append(target, source[other])
        if is_tensor(weights):
            import torch

            weights = torch.cat([weights, weights[torch.from_numpy(other).to(weights.device)]])
        else:
            weights = np.append(weights, weights[other])
    return _from_places(who, weights, source, target, (n, n), duplicates)


def _ones(edges: Array, dtype: Any) -> Array:
    name = float_name(dtype)
    if name not in FLOATS:
        raise TypeError(f"from_edges: dtype must be float64, float32, float16 or bfloat16, got {name}")
    return ones_of(edges.shape[1], name, edges)
