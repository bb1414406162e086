"""Attention of nodes to their neighbours. The one rule: an edge has its score while its row is walked, and no array has it."""

from __future__ import annotations

import math
from typing import Any

from tersor._arrays import Array, is_tensor
from tersor._values import called, check_values, watched
from tersor.graph._operators import _edge_attention
from tersor.graph.adjacency import matrix


def edge_attention(A: Any, q: Array, k: Array, v: Array, *, clamp: float = 5.0, eps: float = 1e-6) -> Array:
    r"""Attention along edges, :math:`y_i = \sum_j w_{ij} v_j / (\sum_j w_{ij} + \epsilon)`.

    .. math:: w_{ij} = \exp\operatorname{clamp}(\langle q_i, k_j\rangle/\sqrt d, -b, b)

    Parameters
    ----------
    A : as of `adjacency`
        Node i attends to the nodes that it takes from; weights of edges play no part, a repeated edge counts twice.
    q, k : array or tensor [n, d] or [n, heads, d], float64, float32, float16 or bfloat16
        Queries and keys.
    v : array or tensor [n, e] or [n, heads, e], of the type of q
        Values.
    clamp : float
        b, positive; infinite for none.
    eps : float
        :math:`\epsilon`, not negative. A node without edges gets 0.

    Returns
    -------
    array or tensor [n, e] or [n, heads, e]
        Differentiable, twice too, with respect to q, k and v; a score beyond the bounds sends nothing.

    Raises
    ------
    TypeError
        If q, k and v are not of one float type, or A is no graph.
    ValueError
        If shapes do not go together, or clamp or eps is out of range.

    Notes
    -----
    2·m·heads·(d + e) operations forward, three times as many backward; sums are in float64, and no array of all edges is made.
    Backward walks the rows once and the columns once. Dwivedi, Bresson, "A generalization of transformer networks to graphs"
    (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> graph.edge_attention(np.array([[1, 2], [0, 0]]), np.zeros((3, 1)), x, x, eps=0.0)
    array([[2.],
           [0.],
           [0.]])
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_values("edge_attention", name, x)
    if not clamp > 0:
        raise ValueError(f"edge_attention: clamp must be positive, got {clamp}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"edge_attention: eps must be finite and not negative, got {eps}")
    shapes = [tuple(x.shape) for x in (q, k, v)]
    one = q.ndim == 2
    if len({x.ndim for x in (q, k, v)}) > 1 or q.ndim not in (2, 3):
        raise ValueError(f"edge_attention: q, k and v must have two axes or three, got {shapes}")
    a = matrix("edge_attention", A)
    p = a._pattern
    if is_tensor(q):
        p = p.tensors().to(q.device)
    elif is_tensor(p.indices):
        raise TypeError("edge_attention: q is a NumPy array, the graph is made of tensors")
    if (
        any(x.shape[0] != a.shape[0] for x in (q, k, v))
        or q.shape[-1] != k.shape[-1]
        or len({s[1:-1] for s in shapes}) > 1
    ):
        raise ValueError(f"edge_attention: shapes do not go together: {shapes} beside {a.shape[0]} nodes")
    if one:
        q, k, v = (x[:, None] for x in (q, k, v))
    turned = p.transposed()[1:] if is_tensor(q) and watched(k, v) else (None, None)
    y = called("edge_attention", _edge_attention, q, k, v, p.indices, p.indptr, *turned, float(clamp), float(eps))
    return y[:, 0] if one else y
