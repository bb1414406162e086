"""The matrix of a graph, its loops and its norm. The one rule: row i holds what node i takes, so that a hop is a product."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tersor._arrays import FLOATS, INTEGERS, as_type, dtype_name, is_tensor, ones_of
from tersor._host import held
from tersor._matrix import KINDS, SparseMatrix, matrix_of
from tersor._values import at_hand, float_name, tensor_of
from tersor.graph._places import both_ways, kind_of, places
from tersor.graph._ranks import ALONE, Alone

Array = Any
Norm = str | tuple[float, float]

#: exponents of the sums of rows and of columns
NORMS = {"none": (0.0, 0.0), "row": (-1.0, 0.0), "col": (0.0, -1.0)}


def adjacency(
    A: Any,
    *,
    n: int | None = None,
    weights: Any = None,
    flow: Literal["source_to_target", "target_to_source"] = "source_to_target",
    undirected: bool = False,
    dtype: Any = None,
) -> Any:
    r"""The matrix of a graph: :math:`A_{ij}` is what node i takes from node j.

    Parameters
    ----------
    A : CSR, SciPy sparse matrix, sparse tensor, networkx graph, edges, or triple
        A square matrix is used as it stands. Edges are integers ``[2, m]``, sources and targets (torch_geometric's
        ``edge_index``); a triple is ``(indptr, indices, edge ids)``, the targets of each source (DGL's
        ``g.adj_tensors("csr")``). Repeated edges add up, loops stay.
    n : int
        How many nodes there are; of edges the largest number and one more if absent.
    weights : array or tensor [m], or str
        Of each edge, 1 if absent: numbers of any type; of a networkx graph the name of the attribute.
    flow : "source_to_target" or "target_to_source"
        Whether targets take from sources, as in torch_geometric, or sources from targets, as in a walk along the edges.
    undirected : bool
        Whether every edge that is no loop stands for its reverse too.
    dtype : dtype or name
        Of the values: that of the weights if absent, float32 of whole numbers and of none.

    Returns
    -------
    CSR [n, n]
        Of tensors where the graph or its weights are tensors; differentiable with respect to weights.

    Raises
    ------
    TypeError
        If A is no graph, or numbers of nodes are no integers.
    ValueError
        If a matrix is not square, a number names no node, lengths disagree, or a word is unknown.

    Notes
    -----
    O(m log m), once: functions of this family take the matrix itself in place of the graph.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> graph.adjacency(np.array([[0, 0, 1], [1, 2, 2]])).to_dense()
    array([[0., 0., 0.],
           [1., 0., 0.],
           [1., 1., 0.]], dtype=float32)
    """
    if dtype is not None and float_name(dtype) not in FLOATS:
        raise TypeError(f"adjacency: dtype must be float64, float32, float16 or bfloat16, got {float_name(dtype)}")
    return matrix("adjacency", A, dtype, n=n, weights=weights, flow=flow, undirected=undirected)


def matrix(
    who: str,
    graph: Any,
    dtype: Any = None,
    *,
    n: int | None = None,
    weights: Any = None,
    flow: str = "source_to_target",
    undirected: bool = False,
) -> Any:
    """`adjacency` in the name of another; a CSR is itself."""
    if isinstance(graph, SparseMatrix) and not undirected and weights is None and n in (None, graph.shape[0]):
        if graph.shape[0] != graph.shape[1]:
            raise ValueError(f"{who}: the matrix of a graph is square, got shape {graph.shape}")
        return graph if dtype is None or dtype_name(graph._data.dtype) == float_name(dtype) else graph.astype(dtype)  # type: ignore[attr-defined]
    p = places(who, graph, n, weights, flow)
    if undirected:
        p = both_ways(p)
    kind = float_name(dtype) if dtype is not None else kind_of(p.weights)
    values = _values(p.weights, len(p.rows), kind, graph)
    return matrix_of(who, "A", KINDS["COO"](values, p.rows.astype(np.int64), p.cols.astype(np.int64), (p.n, p.n)))


def _values(weights: Array, m: int, kind: str, graph: Any) -> Array:
    """The weights of edges in a float type, ones if there are none; tensors where the graph is one."""
    tensor = next(
        (t for t in (weights, *(graph if isinstance(graph, (tuple, list)) else [graph])) if is_tensor(t)), None
    )
    if weights is None:
        return ones_of(m, kind, tensor)
    return as_type(tensor_of(weights) if tensor is not None and isinstance(weights, np.ndarray) else weights, kind)


def beside(who: str, graph: Any, x: Array) -> Any:
    """The matrix of a graph in the library, the type and the place of x. A CSR says its own type, which must be that of x."""
    name = dtype_name(x.dtype)
    a = graph
    if isinstance(a, SparseMatrix) and is_tensor(x) and isinstance(a._data, np.ndarray):
        a = a.with_data(tensor_of(a._data))  # type: ignore[attr-defined]
    if isinstance(a, SparseMatrix) and dtype_name(a._data.dtype) != name:
        raise TypeError(
            f"{who}: X is {name}, the matrix is {dtype_name(a._data.dtype)}; tersor does not convert silently"
        )
    a = matrix(who, a, name)
    if is_tensor(x) and isinstance(a._data, np.ndarray):
        a = a.with_data(tensor_of(a._data))
    if not is_tensor(x) and is_tensor(a._data):
        raise TypeError(f"{who}: X is a NumPy array, the graph is made of tensors")
    return a.to(x.device) if is_tensor(x) and a._data.device != x.device else a


def exponents(who: str, norm: Any) -> tuple[float, float] | None:
    """The exponents of a norm; None is the symmetric one, in which both sides have the sums of rows."""
    if isinstance(norm, str):
        if norm == "sym":
            return None
        if norm not in NORMS:
            raise ValueError(f"{who}: norm must be 'sym', 'row', 'col', 'none' or two exponents, got {norm!r}")
        return NORMS[norm]
    try:
        a, b = (float(v) for v in norm)
    except (TypeError, ValueError):
        raise TypeError(f"{who}: norm must be 'sym', 'row', 'col', 'none' or two exponents, got {norm!r}") from None
    if not np.isfinite([a, b]).all():
        raise ValueError(f"{who}: exponents must be finite, got {norm!r}")
    return a, b


def check_loops(who: str, self_loops: Any) -> None:
    if self_loops not in (False, True, "remaining"):
        raise ValueError(f"{who}: self_loops must be False, True or 'remaining', got {self_loops!r}")


def normalized_adjacency(A: Any, norm: Norm = "sym", *, self_loops: bool | str = False) -> Any:
    r"""The matrix of a graph with loops added and its rows and columns scaled, :math:`D_r^a A D_c^b`.

    Parameters
    ----------
    A : as of `adjacency`
    norm : "sym", "row", "col", "none" or (a, b)
        :math:`D^{-1/2} A D^{-1/2}` with the sums D of the rows on both sides, :math:`D_r^{-1} A`, :math:`A D_c^{-1}`, A; or
        the exponents of the sums of rows and of columns, ``(-0.5, -0.5)`` for directed graphs. A power of the sum 0 is 0.
    self_loops : bool or "remaining"
        Whether A + I stands for A, which adds 1 to a loop that is there; "remaining" adds 1 where there is none.

    Returns
    -------
    CSR [n, n]
        Differentiable with respect to its values.

    Raises
    ------
    TypeError, ValueError
        As `adjacency`; ValueError for an unknown norm, and where a sum is negative and its power no number.

    Notes
    -----
    O(m). Made once, it serves all layers: ``propagate(..., norm="none")``.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> graph.normalized_adjacency(np.array([[0, 1], [1, 0]]), "row", self_loops=True).to_dense()
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    return scaled("normalized_adjacency", matrix("normalized_adjacency", A), norm, self_loops)


def scaled(who: str, a: Any, norm: Any, self_loops: Any, ranks: Alone = ALONE) -> Any:
    """`normalized_adjacency` of a matrix, which may hold the rows of one rank alone."""
    powers = exponents(who, norm)
    check_loops(who, self_loops)
    if self_loops:
        a = _looped(a, self_loops == "remaining", ranks.start)
    if powers == (0.0, 0.0):
        return a
    left, right = (-0.5, -0.5) if powers is None else powers
    columns = columns_of(a)
    data, both = a._data, None
    if left or powers is None:
        rows = a @ ones(a, a.shape[1])
        data = data * power(who, rows, left, "row", ranks.start)[a._pattern.rows()]
        both = ranks.gather(rows) if powers is None else None
    if right:
        sums = both if both is not None else ranks.total(a.T @ ones(a, a.shape[0]))
        data = data * power(who, sums, right, "column" if both is None else "row")[columns]
    return a.with_data(data)


def ones(a: Any, n: int) -> Array:
    return np.ones(n, a._data.dtype) if isinstance(a._data, np.ndarray) else a._data.new_ones(n)


def times(x: Array, factor: float) -> Array:
    """A multiple, rounded once: NumPy would round the factor to 16 bits first."""
    if isinstance(x, np.ndarray) and x.dtype.itemsize == 2:
        return (x.astype(np.float32) * factor).astype(x.dtype)
    return x * factor


def columns_of(a: Any) -> Array:
    p = a._pattern
    return p.indices if isinstance(p.indices, np.ndarray) else p.indices.long()


def power(who: str, sums: Array, power: float, what: str, start: int = 0) -> Array:
    """Powers of the sums, 0 of 0; a negative one has none but those of whole numbers."""
    if power != int(power) and (isinstance(sums, np.ndarray) or at_hand(sums)):
        bad = np.flatnonzero(np.asarray(sums if isinstance(sums, np.ndarray) else sums.detach().double()) < 0)
        if len(bad):
            at = int(bad[0])
            raise ValueError(
                f"{who}: the weights of {what} {start + at} add up to {float(sums[at]):g}, which has no power {power}"
            )
    if isinstance(sums, np.ndarray):
        return np.where(sums == 0, 0, np.where(sums == 0, 1, sums) ** power).astype(sums.dtype)
    import torch

    return torch.where(sums == 0, 0.0, torch.where(sums == 0, 1.0, sums) ** power)


def _looped(a: Any, remaining: bool, start: int) -> Any:
    """A with 1 on the diagonal, or where nothing is; row i is node ``start + i``."""
    p, (n, m) = a._pattern, a.shape
    indptr, indices = (held("self_loops", "the places", v, INTEGERS).astype(np.int64) for v in (p.indptr, p.indices))
    rows = np.repeat(np.arange(n), np.diff(indptr))
    new = np.ones(n, bool)
    if remaining:
        new[rows[indices == rows + start]] = False
    shift = np.concatenate([[0], np.cumsum(new)])
    own = np.flatnonzero(new)
    columns, source = np.empty(len(indices) + len(own), np.int64), np.empty(len(indices) + len(own), np.int64)
    at, loops = np.arange(len(indices)) + shift[rows], indptr[own + 1] + shift[own]
    columns[at], columns[loops] = indices, own + start
    source[at], source[loops] = np.arange(len(indices)), len(indices) + np.arange(len(own))
    if isinstance(a._data, np.ndarray):
        data = np.concatenate([a._data, ones(a, len(own))])[source]
    else:
        import torch

        data = torch.cat([a._data, ones(a, len(own))])[tensor_of(source).to(a._data.device)]
    return KINDS["CSR"](data, columns, indptr + shift, (n, m))
