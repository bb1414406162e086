"""What a token leaves out. The one rule: what is not selected is neither read nor multiplied.

Activations that are kept are a sparse matrix [tokens, activations], whose product reads their rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tersor._acts import act_number, applied
from tersor._arrays import Mask, dtype_name, fits, is_tensor, sizes
from tersor._matrix import KINDS, SparseMatrix
from tersor._values import at_hand, check_dense, lasting
from tersor.prune._run import integer
from tersor.prune.topk import topk_rows

Array = Any


def topk_ffn(
    x: Array, w1: Array, w2: Array, k: int, *, b1: Array = None, b2: Array = None, act: str | None = "relu"
) -> Array:
    r"""A feed-forward block of the k largest activations of each token, :math:`\mathrm{top}_k(f(x W_1^\top + b_1))\,W_2 + b_2`.

    Parameters
    ----------
    x : array or tensor [..., D], float64, float32, float16 or bfloat16
        Tokens.
    w1 : array or tensor [H, D], of the type of x
    w2 : array or tensor [H, O]
        The row of an activation lies together: the transpose of the weight of a ``torch.nn.Linear``.
    k : int
        Activations that are kept, from 0 to H; of equal ones the first.
    b1, b2 : arrays or tensors [H] and [O]
    act : None, "relu", "relu6", "gelu" or "silu"
        f.

    Returns
    -------
    array or tensor [..., O], of the type of x
        Differentiable with respect to all arrays; gradients go to the kept activations alone.

    Raises
    ------
    TypeError
        If types or libraries differ.
    ValueError
        If shapes do not match, k is out of range, act is unknown, or an activation is not finite.

    Notes
    -----
    2·H·D operations a token for the first product, which is the library's own (16-bit arrays of NumPy in float32), O(H) for the
    selection and 2·k·O for the second product, which reads k rows of w2: tiles of its columns stay in the cache while tokens go
    through. Li et al., "The Lazy Neuron Phenomenon" (2023), section 4: 3 % of the activations of T5 are not zero.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> w1 = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> w2 = np.array([[1.0, 0.0], [0.0, 1.0], [10.0, 20.0]])
    >>> sparse.topk_ffn(np.array([[1.0, 2.0], [2.0, -1.0]]), w1, w2, 1)
    array([[30., 60.],
           [ 2.,  0.]])
    """
    who = "topk_ffn"
    if not x.ndim:
        raise ValueError(f"{who}: x needs a last axis, got a 0-d array")
    _sized(who, "w1", w1, (None, x.shape[-1]))
    hidden = w1.shape[0]
    _sized(who, "w2", w2, (hidden, None))
    for name, b, n in (("b1", b1, hidden), ("b2", b2, w2.shape[1])):
        if b is not None:
            _sized(who, name, b, (n,))
    _beside(who, x, w1=w1, w2=w2, b1=b1, b2=b2)
    act_number(who, act)
    return kept_product(who, applied(act, _dense(x, w1, b1)), k, w2, b2)


def kept_product(who: str, h: Array, k: int, w: Array, bias: Array) -> Array:
    """The k largest activations of each token times the rows of w that are theirs."""
    lead, hidden = h.shape[:-1], h.shape[-1]
    k = integer("k", k)
    if k > hidden:
        raise ValueError(f"{who}: k must be between 0 and {hidden}, got {k}")
    values, places = _largest(who, "activations", h.reshape(_count(lead), hidden), k)
    y = KINDS["CSR"]._selected(values, places, hidden) @ w
    y = y if bias is None else y + bias
    return y.reshape(*lead, w.shape[1])


def _largest(who: str, what: str, x: Array, k: int) -> tuple[Array, Array]:
    """`topk_rows` in the name of another; with gradients the operator speaks, and has its own."""
    try:
        values, places = topk_rows(x, k)
    except ValueError as e:
        said = str(e).partition(": ")[2].replace("values in x", what)
        raise ValueError(f"{who}: {said}") from None
    return values, places


def _sized(who: str, name: str, x: Array, want: tuple[int | None, ...]) -> None:
    if x.ndim != len(want) or any(n is not None and n != m for n, m in zip(want, x.shape, strict=True)):
        shape = ", ".join("any" if n is None else str(n) for n in sizes(want))
        raise ValueError(f"{who}: {name} must have shape ({shape}), got {sizes(x.shape)}")


def _beside(who: str, x: Array, **others: Array) -> None:
    """Refuses what is on another device, of which torch's linear, on meta, makes numbers that nobody computed."""
    for name, y in others.items() if is_tensor(x) else ():
        if y is not None and y.device != x.device:
            raise ValueError(f"{who}: {name} is on {y.device}, x on {x.device}")


def _count(lead: Any) -> int:
    return math.prod(lead)


def _dense(x: Array, w: Array, b: Array) -> Array:
    """x Wᵀ + b by the library's own product; 16 bits of NumPy are rounded once."""
    if is_tensor(x):
        import torch

        return torch.nn.functional.linear(x, w, b)
    wide = np.float64 if x.dtype == np.float64 else np.float32
    with np.errstate(all="ignore"):
        y = x.astype(wide, copy=False) @ w.astype(wide, copy=False).T
        return (y if b is None else y + b.astype(wide, copy=False)).astype(x.dtype, copy=False)


def sub_dimensions(scores: Array, k: int, width: int, *, shared: int = 0, scale: bool = True) -> SparseMatrix:
    r"""The hidden dimensions that each token takes: some serve all, of the others the k groups that a router ranks first.

    Parameters
    ----------
    scores : array or tensor [..., G], float64, float32, float16 or bfloat16
        What the router says of each group of dimensions, a softmax over the groups as published.
    k : int
        Groups that a token takes, from 0 to G; of equal ones the first.
    width : int
        Dimensions of a group.
    shared : int
        Dimensions that every token takes; they come first.
    scale : bool
        Scores times G / k, so that a router that knows nothing weighs what is taken as all groups weigh together.

    Returns
    -------
    CSR [tokens, shared + G·width]
        Stored are the dimensions that a token takes, ascending: 1 for what is shared, the score of its group for the others.
        Differentiable with respect to the scores, through its ``data``.

    Raises
    ------
    TypeError
        If scores are not floats.
    ValueError
        If k, width or shared is out of range, or a score is not finite.
    MemoryError
        If the entries do not fit.

    Notes
    -----
    O(G) for a token, and shared + k·width entries. Products then are `sddmm` into the dimensions and `spmm` out of them, so
    that neither weights nor activations of others are read; see Examples. Chen et al., "Mixture of Hidden-Dimensions
    Transformer" (2024): sub-dimensions and their scaling; no code is published, and what it calls group fusion is the product
    that follows.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> odds = np.array([[0.75, 0.25], [0.25, 0.75]])
    >>> taken = sparse.sub_dimensions(odds, 1, 2, shared=1)
    >>> taken.to_dense()
    array([[1. , 1.5, 1.5, 0. , 0. ],
           [1. , 0. , 0. , 1.5, 1.5]])
    >>> x, up, down = np.ones((2, 3)), np.ones((5, 3)), np.ones((5, 4))
    >>> hidden = sparse.sddmm(taken, x, up)  # only where they are taken
    >>> (hidden.with_data(np.maximum(hidden.data, 0) * taken.data) @ down).shape
    (2, 4)
    """
    who = "sub_dimensions"
    if is_tensor(scores):
        check_dense(who, "scores", scores)
    if not scores.ndim:
        raise ValueError(f"{who}: scores needs a last axis, got a 0-d array")
    k, width, shared = integer("k", k), integer("width", width), integer("shared", shared)
    groups = scores.shape[-1]
    if k > groups:
        raise ValueError(f"{who}: k must be between 0 and {groups}, got {k}")
    tokens, cols = _count(scores.shape[:-1]), shared + groups * width
    if cols >= 2**63:
        raise ValueError(f"{who}: {shared} + {groups} · {width} dimensions are more than 64 bits number")
    if not is_tensor(scores) or (lasting(scores) and scores.device.type == "cpu"):
        entries = tokens * (shared + k * width)
        fits(f"{who}: a result of {entries} entries", entries * (8 + scores.dtype.itemsize))
        # without entries there is nothing of it, however wide
        shared, width = (shared if tokens else 0), (width if tokens * k else 0)
    weights, chosen = _largest(who, "scores", scores.reshape(tokens, groups), k)
    if scale and k:
        weights = weights * (groups / k)
    if not is_tensor(scores):
        first = np.broadcast_to(np.arange(shared), (tokens, shared))
        places = shared + chosen[..., None] * width + np.arange(width)
        places = np.concatenate([first, places.reshape(tokens, k * width)], 1)
        ones = np.ones((tokens, shared), scores.dtype)
        values = np.concatenate([ones, np.repeat(weights.astype(scores.dtype), width, 1)], 1)
        return KINDS["CSR"]._selected(values, places, cols)
    import torch

    on = scores.device
    first = torch.arange(shared, device=on).expand(tokens, shared)
    places = shared + chosen[..., None] * width + torch.arange(width, device=on)
    places = torch.cat([first, places.reshape(tokens, k * width)], 1)
    each = weights[..., None].expand(tokens, k, width).reshape(tokens, k * width)
    values = torch.cat([scores.new_ones(tokens, shared), each], 1)
    return KINDS["CSR"]._selected(values, places, cols)


def apply_tokens(f: Callable[[Array], Array], x: Array, keep: Mask) -> Array:
    """A function of some tokens; the others stay as they are, and are not given to it.

    Parameters
    ----------
    f : callable
        Takes tokens as rows [n, D] and gives as many of the same shape and type, each by itself: a feed-forward block with its
        residual, say.
    x : array or tensor [..., D], float64, float32, float16 or bfloat16
    keep : bool array or tensor [...]
        True where f is applied.

    Returns
    -------
    array or tensor [..., D]
        Differentiable with respect to x and what f stands on.

    Raises
    ------
    TypeError
        If x is not a float array, keep not bool, or f gives another type.
    ValueError
        If keep has another shape, or f gives one.

    Notes
    -----
    One gather, f, and one scatter. f is not called where no token is kept. In a trace (``torch.compile``, ``torch.export``,
    ``torch.func``, device "meta"), where nobody knows how many are, it is called on as many rows as there are tokens: the first
    that is kept stands in for the others, and what it gives of those is not taken. Jaiswal et al., "FFN-SkipLLM" (2024),
    section 3, skips the feed-forward blocks of tokens that the one before hardly turned: ``keep`` is where the cosine of a
    token before and after a block is below a threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> sparse.apply_tokens(lambda rows: 10 * rows, x, np.array([False, True]))
    array([[ 1.,  2.],
           [30., 40.]])
    """
    who = "apply_tokens"
    if is_tensor(x):
        check_dense(who, "x", x)
        check_dense(who, "keep", keep)
    if not x.ndim:
        raise ValueError(f"{who}: x needs a last axis, got a 0-d array")
    if tuple(keep.shape) != tuple(x.shape[:-1]):
        raise ValueError(f"{who}: keep must have shape {tuple(x.shape[:-1])}, got {tuple(keep.shape)}")
    _beside(who, x, keep=keep)
    if not is_tensor(x):
        y = np.array(x, order="C")
        if keep.any():
            y[keep] = _given(x[keep], f)
        return y
    import torch

    n = _count(x.shape[:-1])
    rows, at = x.reshape(n, x.shape[-1]), keep.reshape(n)
    if not lasting(x.detach(), keep) or (keep.device.type == "cpu" and not at_hand(keep)) or x.device.type == "meta":
        # of rows that are not kept f may have no slope, which times 0 is no number; and it may write on what it is given
        first = torch.nn.functional.pad(at.byte(), (0, 1)).argmax()
        stand_in = rows.detach().index_select(0, torch.where(at, torch.arange(n, device=at.device), first))
        return torch.where(keep[..., None], _given(torch.where(at[:, None], rows, stand_in), f).reshape(x.shape), x)
    which = at.nonzero()[:, 0]
    y = rows.clone() if not len(which) else rows.index_copy(0, which, _given(rows[which], f))
    return y.reshape(x.shape)


def _given(rows: Array, f: Callable[[Array], Array]) -> Array:
    """What a function gives of rows, of their shape and type."""
    y = f(rows)
    if is_tensor(y) != is_tensor(rows) or not hasattr(y, "dtype"):
        raise TypeError(f"apply_tokens: f must give a {type(rows).__name__}, got {type(y).__name__}")
    if tuple(y.shape) != tuple(rows.shape):
        raise ValueError(f"apply_tokens: f was given shape {tuple(rows.shape)} and gave {tuple(y.shape)}")
    if y.dtype != rows.dtype:
        raise TypeError(f"apply_tokens: f was given {dtype_name(rows.dtype)} and gave {dtype_name(y.dtype)}")
    return y
