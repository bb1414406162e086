"""What a layer loses by every amount of pruning. The one rule: all amounts come of one ranking, and each is that of the exact
mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import Number, is_tensor
from tersor._reference import wide, xp
from tersor._values import readable
from tersor.prune._rank import share

Array = Any


def rd_curve(w: Array, amounts: Sequence[float], *, hessian: Number | None = None) -> Array:
    r"""The squared error of a layer for each of many sparsities: a row of the table that `budget_allocate` takes.

    .. math:: D(s) = \sum_{i \in P(s)} w_i^2 \quad\text{or}\quad D(s) = \operatorname{tr}(\Delta_s H \Delta_s^\top),
              \quad \Delta_s = w\,1[P(s)]

    with P(s) the first round(s n) weights in the order of selection, as `global_masks` prunes them.

    Parameters
    ----------
    w : array or tensor, float64, float32, float16 or bfloat16
        [out, in] with a Hessian, else of any shape.
    amounts : sequence of float between 0 and 1
        In any order.
    hessian : float64 or float32 array or tensor [in, in], optional
        `tersor.quant.hessian` of the inputs, the mean of 2 x xᵀ over tokens: D is then twice the mean squared
        error of the output.

    Returns
    -------
    float64 array or tensor [amounts]

    Raises
    ------
    TypeError
        If an array is not of a float type, or an amount no number.
    ValueError
        If shapes differ, an amount is out of range, or numbers are not finite.

    See Also
    --------
    budget_allocate, global_masks

    Notes
    -----
    One stable sort for all amounts, where masks made one by one take one selection each. Without a Hessian one sum of squares
    after it; with one a product [out, in] × [in, in] in float64 for each amount, of the weights that it adds. Xu et al.,
    "Efficient Joint Optimization of Layer-Adaptive Weight Pruning in Deep Neural Networks" (2023), who run the model for each
    amount.

    Examples
    --------
    >>> import numpy as np
    >>> rd_curve(np.array([3.0, -1.0, 2.0, 0.0]), [0, 0.5, 1])
    array([ 0.,  1., 14.])
    """
    who = "rd_curve"
    if isinstance(amounts, (str, bytes)) or not (isinstance(amounts, Sequence) or getattr(amounts, "ndim", 0) == 1):
        raise TypeError(f"{who}: amounts must be a sequence of numbers, got {type(amounts).__name__}")
    readable(who, w=w, hessian=hessian)
    v = wide(w.detach() if is_tensor(w) else w)
    n = int(np.prod(v.shape, dtype=np.int64))
    if not bool(xp.isfinite(v).all()):
        raise ValueError(f"{who}: w holds non-finite values")
    counts = [share(float(s) if hasattr(s, "item") else s, n, name=f"amounts[{i}]") for i, s in enumerate(amounts)]
    if hessian is not None and (v.ndim != 2 or tuple(getattr(hessian, "shape", ())) != (v.shape[1],) * 2):
        shape = tuple(getattr(hessian, "shape", ()))
        raise ValueError(f"{who}: hessian must be [in, in] of w [out, in], got {shape} and {tuple(v.shape)}")
    flat = v.reshape(-1)
    # the first to go come first: of equals the highest index
    order = _order(flat)
    if hessian is None:
        square = flat[order] ** 2
        total = xp.cumsum(square, 0)
        found = [float(total[k - 1]) if k else 0.0 for k in counts]
    else:
        h = wide(hessian.detach() if is_tensor(hessian) else hessian)
        if not bool(xp.isfinite(h).all()):
            raise ValueError(f"{who}: hessian holds non-finite values")
        found = _through(v, h, order, counts)
    return v.new_tensor(found) if is_tensor(v) else np.array(found)


def _order(v: Array) -> Array:
    if is_tensor(v):
        return v.abs().flip(0).argsort(stable=True).neg() + (len(v) - 1)
    return len(v) - 1 - np.argsort(np.abs(v)[::-1], kind="stable")


def _through(v: Array, h: Array, order: Array, counts: list[int]) -> list[float]:
    """tr(Δ H Δᵀ) of each count, from one count to the next: what is added meets itself and twice what was there."""
    flat = v.reshape(-1)
    moved = 0 * v  # Δ H
    at, loss, by = 0, 0.0, {0: 0.0}
    for k in sorted(set(counts)):
        if k > at:
            new = 0 * flat
            new[order[at:k]] = flat[order[at:k]]
            new = new.reshape(v.shape)
            more = new @ h
            loss += float((new * (moved + moved)).sum()) + float((new * more).sum())
            moved, at = moved + more, k
        by[k] = loss
    return [by[k] for k in counts]
