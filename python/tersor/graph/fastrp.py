"""FastRP: nodes as sums of random vectors of those around them. The one rule: the first hop is a sparse projection, whose
matrix is a function of seed and node: nothing random is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from tersor._arrays import INTEGERS, whole
from tersor._host import held
from tersor._matrix import KINDS, SparseMatrix
from tersor.graph._ranks import ALONE, Alone, Ranks
from tersor.graph.adjacency import matrix, power
from tersor.random import TAGS, draws

Array = Any

#: numbers of the rows that are worked on at a time: they stay in the cache
BLOCK = 1 << 16


def fastrp(
    A: Any,
    dim: int,
    weights: Sequence[float] | None = None,
    *,
    alpha: float | None = None,
    s: float | None = None,
    variant: Literal["paper", "gds"] = "paper",
    normalize: bool = True,
    scale: bool | None = None,
    norm: Literal["row", "none"] = "row",
    self_influence: float = 0.0,
    properties: Array = None,
    property_ratio: float = 0.0,
    node_keys: Any = None,
    seed: int = 0,
    group: Any = None,
) -> Array:
    r"""Embeds the nodes of a graph, :math:`\sum_i w_i\,\nu(\hat A^i E)` with sparse random :math:`E`.

    Parameters
    ----------
    A : as of `adjacency`
        Edges are walked from source to target: a node takes from those that it points to. Weights must not be negative.
    dim : int
        Numbers of a node.
    weights : sequence of numbers
        :math:`w_1, w_2, \ldots`, of the hops. Absent, three hops of the paper stand side by side (``[n, 3 dim]``), and those of
        GDS have 0, 1, 1.
    alpha : float
        Nodes send :math:`d^\alpha` of what they are, d the sum of their weights (GDS: their count); 0 of d = 0 (GDS: 1).
    s : float in [1, 2^31]
        One number in s of E is not 0. Absent, :math:`\sqrt n`; of GDS 3.
    variant : "paper" or "gds"
        :math:`\hat A = D^{-1} A` and columns standardised at the end; or Neo4j's: weighted sums over the count of edges.
    normalize : bool
        Whether rows of each hop have length 1 where they are added (:math:`\nu`); GDS always does.
    scale : bool
        Whether columns have mean 0 and deviation 1 at the end; absent, if the variant is the paper's and hops are added.
    norm : "row" or "none"
        Of the paper: whether hops take means or sums.
    self_influence : float
        :math:`w_0`, what a node has of its own vector.
    properties : array or tensor [n, f]
        Features of the nodes, whose projection takes the last ``int(dim * property_ratio)`` numbers of E.
    property_ratio : float in [0, 1]
    node_keys : integers [n]
        What the random vectors belong to, in place of the numbers of nodes: a node with a key keeps its vector when others come
        and go.
    seed : int in [0, 2^64)
    group : torch.distributed group, or True for all processes
        A is the CSR of the rows of this rank's nodes, in the order of ranks, with columns for all.

    Returns
    -------
    array, or tensor where A is of tensors [n, dim], float32

    Raises
    ------
    TypeError
        If A is no graph, or an argument of another type.
    ValueError
        If a weight of an edge is negative or not finite, dim or s is out of range, what a node sends leaves float32, a word is
        unknown, lengths disagree, or there are properties without a share or a share without properties.

    Notes
    -----
    m·dim/s additions for the first hop, 2·m·dim operations for each other. The matrix is as the contract of random bits says,
    tag "sparse", with the number or key of a node as its column. The same bits for any number of threads; with node_keys or a
    group equal up to rounding. A node without edges has zeros (before columns are standardised), unless of its own influence.
    With a group a rank holds the vectors of all nodes, n·dim numbers, in a hop. Chen et al., "Fast and accurate
    network embeddings via very sparse random projection" (2019); Neo4j Graph Data Science (2026).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> ring = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
    >>> graph.fastrp(ring, 8, [1, 1], s=1, variant="gds").shape
    (4, 8)
    """
    gds = _word("variant", variant, ("paper", "gds")) == "gds"
    _word("norm", norm, ("row", "none"))
    k = whole("fastrp: dim", dim)
    if k < 1:
        raise ValueError(f"fastrp: dim must be positive, got {k}")
    if not 0 <= property_ratio <= 1:
        raise ValueError(f"fastrp: property_ratio must be between 0 and 1, got {property_ratio}")
    for name, value in (("alpha", alpha), ("self_influence", self_influence)):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"fastrp: {name} must be finite, got {value}")
    if properties is None and property_ratio:
        raise ValueError(f"fastrp: property_ratio is {property_ratio}, and there are no properties")
    hops = _hops(weights, gds)
    a = (
        matrix("fastrp", A, "float32" if not isinstance(A, SparseMatrix) else None, flow="target_to_source")
        if group is None
        else A
    )
    if not isinstance(a, SparseMatrix):
        raise TypeError(f"fastrp: with a group A must be a CSR, the rows of this rank, got {type(A).__name__}")
    ranks = ALONE if group is None else Ranks("fastrp", group, a.shape[0])
    of = a._data
    a = _single(a)
    n = a.shape[1]
    rows = a.shape[0]
    bad = np.flatnonzero(~((a._data >= 0) & (a._data < math.inf)))
    if len(bad):
        raise ValueError(f"fastrp: weights must be finite and not negative, got {a._data[bad[0]]} (entry {bad[0]})")
    if not n:
        parts_of_none = 1 if hops is not None else 3 + (self_influence != 0)
        empty = np.zeros((0, parts_of_none * k), np.float32)
        return empty if isinstance(of, np.ndarray) else _tensor(empty, of)
    degree = _degrees(a, gds)
    start = E = None
    base = k - int(k * property_ratio) if properties is not None else k
    random = KINDS["Projection"](
        n, k, "sparse", seed=seed, s=s if s is not None else 3.0 if gds else max(math.sqrt(n), 1.0)
    )
    send = np.ones(n, np.float32)
    if alpha is not None:
        d = ranks.gather(degree)
        with np.errstate(over="ignore"):
            send = power("fastrp", d, float(alpha), "node")
        if not np.isfinite(send).all():
            at = int(np.flatnonzero(~np.isfinite(send))[0])
            raise ValueError(
                f"fastrp: alpha = {alpha:g} of node {at}, whose weights add up to {d[at]:g}, leaves float32"
            )
        send = np.where(d == 0, 1, send) if gds else send
    per = power("fastrp", degree, -1.0, "node") if gds or norm == "row" else None
    hop = a if per is None else a.with_data(a._data * per[a._pattern.rows()])
    keys = _keys(node_keys, n)
    if self_influence or properties is not None or keys is not None:
        E = _start(random, n, base, keys, send, properties, seed)
        start = E[ranks.start : ranks.start + rows]
    total = self_influence * _unit(start) if self_influence and start is not None else None
    h, parts = None, []
    for i, w in enumerate(hops if hops is not None else (1.0, 1.0, 1.0)):
        if h is not None:
            h = hop @ ranks.gather(h)
        elif E is not None:
            h = hop @ E
        else:
            h = random(hop.with_data(hop._data * send[hop._pattern.indices]))
        if hops is None:
            parts.append(_unit(h) if normalize else h)
        elif w:
            total = _add(total, h, float(w), gds or normalize, last=i + 1 == len(hops))
    if hops is None:
        total = np.concatenate(([total] if total is not None else []) + parts, 1)
    elif total is None:
        total = np.zeros((rows, k), np.float32)
    if scale if scale is not None else (not gds and hops is not None):
        _standardise(total, ranks)
    return total if isinstance(of, np.ndarray) else _tensor(total, of)


def _tensor(x: np.ndarray, like: Any) -> Any:
    import torch

    return torch.from_numpy(x).to(like.device)


def _word(name: str, word: str, words: tuple[str, ...]) -> str:
    if word not in words:
        raise ValueError(f"fastrp: {name} must be one of {list(words)}, got {word!r}")
    return word


def _hops(weights: Any, gds: bool) -> list[float] | None:
    if weights is None:
        return [0.0, 1.0, 1.0] if gds else None
    try:
        hops = [float(w) for w in weights]
    except (TypeError, ValueError):
        raise TypeError(f"fastrp: weights must be a sequence of numbers, got {weights!r}") from None
    if not hops or not np.isfinite(hops).all():
        raise ValueError(f"fastrp: weights must be one finite number for each hop, got {hops}")
    return hops


def _single(a: Any) -> Any:
    """The matrix in NumPy's float32."""
    data = a._data
    if isinstance(data, np.ndarray):
        return a if data.dtype == np.float32 else a.astype("float32")
    indices, indptr = (held("fastrp", "A", v, INTEGERS) for v in (a._pattern.indices, a._pattern.indptr))
    return KINDS["CSR"](held("fastrp", "A", data.detach().float()), indices, indptr, a.shape)


def _degrees(a: Any, count: bool) -> np.ndarray:
    if count:
        return np.diff(a._pattern.indptr).astype(np.float32)
    return a @ np.ones(a.shape[1], np.float32)


def _keys(keys: Any, n: int) -> np.ndarray | None:
    if keys is None:
        return None
    found = held("fastrp", "node_keys", keys, INTEGERS)
    if found.shape != (n,):
        raise ValueError(f"fastrp: node_keys must have shape ({n},), got {found.shape}")
    return found.astype(np.int64).view(np.uint64)


def _start(
    random: Any, n: int, base: int, keys: np.ndarray | None, send: np.ndarray, properties: Any, seed: int
) -> np.ndarray:
    """E: the vectors of all nodes, times what they send, and their properties projected."""
    E = np.zeros((n, random.k), np.float32)
    threshold, size = random._number()
    for part in _blocks(n, base):
        of = np.arange(part.start, part.stop, dtype=np.uint64) if keys is None else keys[part]
        w = draws(seed, TAGS["sparse"], 0, of, base)
        sign = np.where(w >> np.uint32(31), np.float32(-size), np.float32(size))
        E[part, :base] = np.where((w & np.uint32(0x7FFFFFFF)) < threshold, sign, 0) * send[part, None]
    if properties is not None:
        f = held("fastrp", "properties", properties)
        if f.ndim != 2 or len(f) != n:
            raise ValueError(f"fastrp: properties must have shape [{n}, f], got {f.shape}")
        if not np.isfinite(f).all():
            raise ValueError("fastrp: properties hold non-finite values")
        if base == random.k:
            raise ValueError(f"fastrp: property_ratio must leave properties one of the {base} numbers or more")
        if f.shape[1]:
            mixed = KINDS["Projection"](f.shape[1], random.k, "sparse", seed=seed, stream=1, s=3.0).rows(base, random.k)
            E[:, base:] = mixed(np.ascontiguousarray(f, np.float32))
    return E


def _blocks(n: int, width: int) -> Iterator[slice]:
    each = max(BLOCK // max(width, 1), 1)
    for i in range(0, n, each):
        yield slice(i, min(i + each, n))


def _lengths(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return np.sqrt(np.einsum("ij,ij->i", wide, wide))


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of zeros stay."""
    y = np.empty_like(x)
    for part in _blocks(*x.shape):
        length = _lengths(x[part])
        y[part] = x[part] * np.where(length > 0, 1 / np.where(length > 0, length, 1), 0)[:, None]
    return y


def _add(total: np.ndarray | None, h: np.ndarray, w: float, unit: bool, last: bool) -> np.ndarray:
    """total + w ν(h), in place; the last hop may become the total."""
    into = total if total is not None else h if last else np.empty_like(h)
    for part in _blocks(*h.shape):
        factor = np.full(len(h[part]), w)
        if unit:
            length = _lengths(h[part])
            factor = np.where(length > 0, w / np.where(length > 0, length, 1), 0)
        term = h[part] * factor.astype(np.float32)[:, None]
        into[part] = term if total is None else total[part] + term
    return into


def _standardise(x: np.ndarray, ranks: Alone) -> None:
    """Columns of mean 0 and deviation 1, in place; constant ones become 0."""
    sums = np.zeros((2, x.shape[1]))
    counts = ranks.total(np.array([float(len(x))]))[0]
    for part in _blocks(*x.shape):
        sums[0] += x[part].sum(0, dtype=np.float64)
    mean = ranks.total(sums[0]) / max(counts, 1)
    for part in _blocks(*x.shape):
        sums[1] += np.square(x[part] - mean).sum(0)
    deviation = np.sqrt(ranks.total(sums[1]) / max(counts, 1))
    deviation = np.where(deviation > 10 * np.finfo(np.float32).eps * np.abs(mean), deviation, 1)
    for part in _blocks(*x.shape):
        x[part] = (x[part] - mean) / deviation
