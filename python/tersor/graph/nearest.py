"""The nearest rows. The one rule: every distance is computed, none is stored, and of equals the lowest row is chosen."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from tersor._arrays import Array, is_tensor, whole
from tersor._host import LABELS, held
from tersor._reference import quiet, scaled
from tersor._values import called, check_curvature, check_values
from tersor.graph._near import METRICS, _nearest
from tersor.graph._powers import near_one


class Neighbors(NamedTuple):
    """Rows and their distances, the nearest first; -1, at NaN or -1, where there are fewer than k."""

    ids: Any
    distances: Any


def _k(who: str, k: Any) -> int:
    k = whole(f"{who}: k", k)
    if k < 0:
        raise ValueError(f"{who}: k must not be negative, got {k}")
    return k


def knn(
    x: Array,
    k: int,
    metric: Literal["l2", "inner", "cosine", "hyperbolic"] = "l2",
    *,
    queries: Array = None,
    filter: Any = None,
    c: float = 1.0,
) -> Neighbors:
    r"""The k nearest rows of x to each query, by computing every distance.

    Parameters
    ----------
    x : array or tensor [m, d], float64, float32, float16 or bfloat16
    k : int
        How many; there may be fewer.
    metric : "l2", "inner", "cosine" or "hyperbolic"
        :math:`|q - x|`; the largest :math:`\langle q, x\rangle`; :math:`1 - \cos(q, x)`, 1 with a row of zeros; the distance in
        the ball of curvature -c.
    queries : array or tensor [n, d], of the type of x
        If absent, the rows of x, none of which is its own neighbour.
    filter : bool [m], or two lists of labels [n] and [m]
        Which rows count: those where it is True; or those whose label is that of the query.
    c : float
        Finite, not negative.

    Returns
    -------
    ids : int64 [n, k]
        -1 where fewer than k rows count, or their distance is no number.
    distances : [n, k], of the type of x
        Ascending (inner products descending); NaN at -1.

    Raises
    ------
    TypeError
        If x is not of a float type, or the filter neither of bools nor of integers.
    ValueError
        If shapes do not go together, k is negative, c no curvature, or the metric unknown.

    Notes
    -----
    2·n·m·d operations, no array of n·m numbers; scores are float64 and compared before they are rounded. Rows may have any size
    on the CPU; on a GPU, and of points of the ball, squares are within float64. No gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> graph.knn(x, 1).ids.T
    array([[1, 0, 1]])
    >>> graph.knn(x, 2, queries=x[:1], filter=np.array([False, True, False]))
    Neighbors(ids=array([[ 1, -1]]), distances=array([[ 1., nan]]))
    """
    return _found("knn", x, k, metric, c, queries, filter)


def _found(
    who: str, x: Array, k: int, metric: str, c: float = 1.0, queries: Array = None, filter: Any = None
) -> Neighbors:
    """`knn` in the name of another."""
    check_values(who, "x", x)
    if metric not in METRICS:
        raise ValueError(f"{who}: metric must be one of {list(METRICS)}, got {metric!r}")
    k = _k(who, k)
    q = x if queries is None else queries
    if x.ndim != 2 or q.ndim != 2 or q.shape[1] != x.shape[1]:
        raise ValueError(f"{who}: x and queries must be [m, d] and [n, d], got {tuple(x.shape)} and {tuple(q.shape)}")
    check_curvature(who, c)
    if is_tensor(x):
        x, q = x.detach(), q.detach()
    labels = _filter(filter, q, x)
    q, x, back = near_one(metric, q, x)
    d, ids = called(who, _nearest, q, x, float(c), *labels, METRICS.index(metric), k, queries is None)
    if metric == "cosine":
        return Neighbors(ids, 1 - d)
    with quiet(d):  # a score may be beyond the type, as it is
        return Neighbors(ids, scaled(d, back))


def _filter(given: Any, q: Array, x: Array) -> tuple[Array, Array]:
    if given is None:
        return None, None
    n, m = q.shape[0], x.shape[0]
    if isinstance(given, (tuple, list)):
        if len(given) != 2:
            raise ValueError(f"knn: filter must be a mask or the labels of queries and rows, got {len(given)} lists")
        lists = [held("knn", "filter", v, LABELS).astype(np.int64) for v in given]
    else:
        mask = held("knn", "filter", given, ("bool",))
        lists = [np.ones(n, np.int64), mask.astype(np.int64)]
    for v, size in zip(lists, (n, m), strict=True):
        if v.shape != (size,):
            raise ValueError(f"knn: filter must have one element for each row, {size}, got shape {v.shape}")
    if isinstance(x, np.ndarray):
        return lists[0], lists[1]
    import torch

    return tuple(torch.from_numpy(v).to(x.device) for v in lists)


def knn_edges(
    x: Array, k: int, metric: Literal["l2", "inner", "cosine", "hyperbolic"] = "cosine", *, c: float = 1.0
) -> Array:
    r"""The graph of nearest rows: an edge to each row from its k nearest others.

    Parameters
    ----------
    x, k, metric, c : as of `knn`

    Returns
    -------
    int64 array or tensor [2, edges]
        Sources and targets, as torch_geometric has them, by target; `adjacency` makes the matrix.

    Raises
    ------
    TypeError, ValueError
        As `knn`.

    Notes
    -----
    As `knn`: nothing of size n·n is made.
    """
    ids = _found("knn_edges", x, k, metric, c).ids
    if isinstance(ids, np.ndarray):
        target, at = np.nonzero(ids >= 0)
        return np.stack([ids[target, at], target])
    import torch

    target, at = (ids >= 0).nonzero(as_tuple=True)
    return torch.stack([ids[target, at], target])
