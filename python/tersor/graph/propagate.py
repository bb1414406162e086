"""Features carried along edges. The one rule: a hop is one sparse product, and K hops have the bits of K single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tersor._arrays import FLOATS, Array, as_type, dtype_name, into, is_tensor, whole
from tersor._matrix import SparseMatrix
from tersor._reference import quiet
from tersor._values import check_values, float_name, one_of, out_of_range, tensor_of
from tersor.graph._ranks import ALONE, Ranks
from tersor.graph.adjacency import Norm, beside, check_loops, exponents, scaled, times

KEEP = ("last", "stack", "sum")


def propagate(
    A: Any,
    X: Array,
    K: int,
    norm: Norm = "sym",
    *,
    self_loops: bool | str = False,
    keep: Literal["last", "stack", "sum"] = "last",
    weights: Any = None,
    gate: Any = None,
    teleport: float = 0.0,
    storage: Any = None,
    group: Any = None,
    compat: str | None = None,
    out: Array = None,
) -> Array:
    r"""K hops of features over a graph, :math:`H_0 = X`, :math:`H_{k+1} = (1 - \alpha)\,\hat A H_k + \alpha X`.

    Parameters
    ----------
    A : as of `adjacency`
        A CSR must be of the type of X; weights of other graphs are taken in it.
    X : array or tensor [n], [n, d] or [b, n, d], float64, float32, float16 or bfloat16
    K : int
        How many hops, 0 or more.
    norm, self_loops : as of `normalized_adjacency`
    keep : "last", "stack" or "sum"
        :math:`H_K` (SGC, and APPNP with ``teleport``); all :math:`H_0, \ldots, H_K` along a new first axis (SIGN); or
        :math:`\sum_k \theta_k H_k`.
    weights : sequence, array or tensor [K + 1]
        :math:`\theta`, of the sum; ones if absent.
    gate : (w [d], b) or (w [2 d], b)
        DAGNN's: of the sum, node i has :math:`\theta_{ik} = \sigma(\langle w, H_k[i]\rangle + b)`; or AIR's, of twice as many
        numbers, :math:`\theta_{i\cdot} = \operatorname{softmax}_k\,\sigma(\langle w, [H_0[i] \mid H_k[i]]\rangle + b)`; b is
        one number.
    teleport : float in [0, 1]
        :math:`\alpha`.
    storage : dtype or name
        To this type :math:`H_k` are rounded before a hop takes them, and in it a stack keeps them; sums run in the type of X.
    group : torch.distributed group, or True for all processes
        A and X are the rows of this rank's nodes, in the order of ranks; A a CSR, or anything with rows and all n columns.
    compat : None or "air"
        As AIR's published code has it: the term of :math:`H_K` is left out of the sum, and stays in the softmax. The sum begins
        with :math:`H_0`, which is all there is without a hop.
    out : array or tensor
        Where the result goes; C-contiguous. Not with gradients.

    Returns
    -------
    array or tensor, of the shape of X; [K + 1, ...] of a stack
        Differentiable with respect to X, the values of A, weights and gate, through the transpose of the matrix.

    Raises
    ------
    TypeError
        If X is not of a float type, or A is no graph.
    ValueError
        If X has not a row for each node, K is negative, teleport is not within 0 and 1, or weights, gate and keep do not go
        together.

    Notes
    -----
    2·K·m·d operations. Without gradients a sum or a gate keeps two arrays of the size of X beside itself, and no stack. A node
    without edges gets 0. Within ``torch.compile`` and ``torch.func`` loops are those of a matrix that was made before
    (`normalized_adjacency`). With a group a hop gathers the features of all nodes, n·d numbers a rank, each with the bits that
    one process gives. Wu et al. (SGC, 2019); Klicpera et al. (APPNP, 2019); Frasca et al. (SIGN, 2020); Liu, Gao, Ji (DAGNN,
    2020); Zhang et al. (AIR, 2022), whose published code leaves out the term of :math:`H_K` (``compat``).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> path = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> graph.propagate(path, np.array([1.0, 0.0, 0.0]), 2, "row", keep="stack")
    array([[1. , 0. , 0. ],
           [0. , 0.5, 0. ],
           [0.5, 0. , 0.5]])
    """
    check_values("propagate", "X", X)
    hops = whole("propagate: K", K)
    if not 0 <= hops < 2**31:
        raise (
            ValueError(f"propagate: K must not be negative, got {hops}")
            if hops < 0
            else out_of_range("propagate", "K", hops)
        )
    if keep not in KEEP:
        raise ValueError(f"propagate: keep must be one of {list(KEEP)}, got {keep!r}")
    check_hops("propagate", norm, self_loops, teleport, storage)
    if (weights is not None or gate is not None) and (keep != "sum" or (weights is not None and gate is not None)):
        raise ValueError("propagate: weights and gate are of keep='sum', one or the other")
    if compat is not None:
        one_of("propagate: compat", compat, ("air",))
    if not 1 <= X.ndim <= 3:
        raise ValueError(f"propagate: X must be [n], [n, d] or [b, n, d], got shape {tuple(X.shape)}")
    rows = X.shape[-2 if X.ndim > 1 else 0]
    ranks = ALONE if group is None else Ranks("propagate", group, rows)
    a = _rows_of_rank(A, X, ranks.n) if isinstance(ranks, Ranks) else beside("propagate", A, X)
    if a.shape[0] != rows:
        raise ValueError(f"propagate: X has shape {tuple(X.shape)}, the graph {a.shape[0]} nodes")
    a = scaled("propagate", a, norm, self_loops, ranks)
    if teleport:
        a = a.with_data(times(a._data, 1 - teleport))
    rest = times(X, teleport) if teleport else None
    own = dtype_name(X.dtype)
    stored = own if storage is None else float_name(storage)
    share = _shares(X, hops, weights, gate) if keep == "sum" else None
    if compat and (gate is None or gate[0].shape[0] != 2 * X.shape[-1]):
        raise ValueError("propagate: compat='air' is of AIR's gate, (w [2 d], b)")
    h, total, every = X, None, []
    shared: Any = None  # of a softmax, the sum of what its terms are divided by
    for k in range(hops + 1):
        if k:
            h = a @ ranks.gather(h)
            h = h if rest is None else h + rest
        kept = _cast(h, stored)
        h = _cast(kept, own)
        if keep == "stack":
            every.append(kept)
        if share is not None:
            weight, softmax = share(k, h)
            if softmax:
                shared = weight if shared is None else shared + weight
            if compat and k and k == hops:
                break
            term = h if weight is None else times(h, weight) if isinstance(weight, float) else h * weight
            total = term if total is None else total + term
    total = total if shared is None else total / shared
    y = _stack(every) if keep == "stack" else h if total is None else total
    if y is X:
        y = X.clone() if is_tensor(X) else X.copy()
    if out is None:
        return y
    into("propagate", (out,), (y,))
    return out


def _rows_of_rank(A: Any, X: Array, n: int) -> Any:
    """The rows of a rank: a CSR with a column for each node of all ranks."""
    if not isinstance(A, SparseMatrix):
        raise TypeError(f"propagate: with a group A must be a CSR, the rows of this rank, got {type(A).__name__}")
    if A.shape[1] != n:
        raise ValueError(f"propagate: A has {A.shape[1]} columns, the ranks have {n} nodes")
    if dtype_name(A._data.dtype) != dtype_name(X.dtype):
        raise TypeError(f"propagate: X is {dtype_name(X.dtype)}, the matrix is {dtype_name(A._data.dtype)}")
    return A.with_data(tensor_of(A._data)) if is_tensor(X) and not is_tensor(A._data) else A  # type: ignore[attr-defined]


def check_hops(who: str, norm: Any, self_loops: Any, teleport: Any, storage: Any) -> None:
    """Refuses what no hop is made with."""
    exponents(who, norm)
    check_loops(who, self_loops)
    if not 0 <= teleport <= 1:
        raise ValueError(f"{who}: teleport must be between 0 and 1, got {teleport}")
    if storage is not None and (name := float_name(storage)) not in FLOATS:
        raise TypeError(f"{who}: storage must be a float type, got {name}")


def _cast(x: Array, name: str) -> Array:
    if dtype_name(x.dtype) == name:
        return x
    return as_type(x, name)


def _stack(every: list[Array]) -> Array:
    if not is_tensor(every[0]):
        return np.stack(every)
    import torch

    return torch.stack(every)


def _shares(X: Array, hops: int, weights: Any, gate: Any) -> Any:
    """Of H_k its weight in the sum (None: 1), and whether the sum is divided by that of the weights."""
    if gate is not None:
        return _gated(X, gate)
    if weights is None:
        return lambda k, h: (None, False)
    if isinstance(weights, (str, bytes)) or not (hasattr(weights, "shape") or isinstance(weights, Sequence)):
        raise TypeError(f"propagate: weights must be a sequence or an array of numbers, got {type(weights).__name__}")
    shape = tuple(weights.shape) if hasattr(weights, "shape") else (len(weights),)
    if shape != (hops + 1,):
        raise ValueError(
            f"propagate: weights must have shape ({hops + 1},), one of each of H_0 to H_{hops}, got {shape}"
        )
    if is_tensor(weights) and not is_tensor(X):
        raise TypeError("propagate: weights are a tensor, X is a NumPy array")
    return lambda k, h: (weights[k] if is_tensor(weights) else float(weights[k]), False)


def _gated(X: Array, gate: Any) -> Any:
    try:
        w, b = gate
    except (TypeError, ValueError):
        raise TypeError(f"propagate: gate must be (w, b), got {type(gate).__name__}") from None
    check_values("propagate", "the gate's w", w)
    if is_tensor(w) != is_tensor(X) or w.dtype != X.dtype:
        raise TypeError(
            f"propagate: the gate's w is {type(w).__name__} of {dtype_name(w.dtype)}, X {dtype_name(X.dtype)}"
        )
    d = X.shape[-1] if X.ndim > 1 else 0
    if X.ndim < 2 or w.ndim != 1 or w.shape[0] not in (d, 2 * d):
        raise ValueError(
            f"propagate: the gate's w must have shape [d] or [2 d], got {tuple(w.shape)} beside X {tuple(X.shape)}"
        )
    if hasattr(b, "reshape"):
        if b.size != 1 if isinstance(b, np.ndarray) else b.numel() != 1:
            raise ValueError(f"propagate: the gate's b must be one number, got shape {tuple(b.shape)}")
        if is_tensor(b) and not is_tensor(X):
            raise TypeError("propagate: the gate's b is a tensor, X is a NumPy array")
        b = b.reshape(())
    elif isinstance(b, (str, bytes)) or not hasattr(b, "__float__"):
        raise TypeError(f"propagate: the gate's b must be a number, got {type(b).__name__}")
    softmax = w.shape[0] != d
    base = b
    if softmax:
        base, w = _inner(X, w[:d]) + b, w[d:]

    def share(_: int, h: Array) -> tuple[Array, bool]:
        z = _inner(h, w) + base
        if is_tensor(h):
            g = z.sigmoid()
            return (g.exp() if softmax else g).to(h.dtype)[..., None], softmax
        with np.errstate(over="ignore"):
            g = 1 / (1 + np.exp(-z))
        return (np.exp(g) if softmax else g).astype(h.dtype)[..., None], softmax

    return share


def _inner(h: Array, w: Array) -> Array:
    with quiet(h):
        return (h * w).sum(-1)
