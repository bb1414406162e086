"""Losses of rows of logits. The one rule: labels are looked at on the CPU, before anything is made of them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tersor._arrays import FLOATS, Array, Integers, Weight, as_type, dtype_name, is_tensor, torch_module, whole
from tersor._reference import wide
from tersor._values import check_values, number
from tersor.loss._entropy import _cross_entropy
from tersor.loss._reduced import checked_reduction, reduced


def cross_entropy(
    logits: Array,
    target: Integers,
    *,
    weight: Weight | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Array:
    r"""Cross entropy of rows of logits with labels, smoothed, weighted and focal where that is asked for.

    .. math::
        \ell = (1 - p_t)^\gamma \Big({-(1 - \epsilon)}\, w_t \log p_t - \frac{\epsilon}{C} \sum_c w_c \log p_c\Big),
        \qquad p = \operatorname{softmax} x

    Parameters
    ----------
    logits : array or tensor [..., C], float64, float32, float16 or bfloat16
        x, a row for each label.
    target : array or tensor of integers [...]
        t, the class of each row, or `ignore_index`.
    weight : array or tensor [C], of the type of logits, or float32 beside 16 bits, optional
        w, what each class counts; 1 if absent.
    ignore_index : int
        Rows of this label have the loss 0 and no gradient, whatever they hold, and are not counted.
    label_smoothing : float
        ε, from 0 to 1: that much of a label is spread over all classes.
    gamma : float
        γ, not negative: above 0 rows that are right already count for less (focal loss).
    reduction : "mean", "sum" or "none"
        Over all rows; the mean is that of torch, over :math:`\sum w_t` of the rows that count, and 0 if none does (where
        torch says NaN).

    Returns
    -------
    array or tensor of 0 axes, or [...] of reduction "none"
        float64 for float64, else float32. Differentiable, twice too, with respect to logits and weight.

    Raises
    ------
    TypeError
        If logits are of no float type, weight is of another, or target is not of integers.
    ValueError
        If a label is neither a class nor `ignore_index` (a row of NaN on a GPU, which would have to be waited for), shapes do
        not go together, a word is unknown, or ε or γ is out of range.

    Notes
    -----
    A row is read to its largest logit m, then to :math:`\sum e^{x - m}`, in float64; nothing of its size is kept, and the
    gradient is one more read and a write. :math:`1 - p_t` is the sum over the other classes, so that a loss far below the
    rounding of the logits keeps its digits, and so does its gradient; a loss within the type comes where differences of logits,
    or sums of losses, are beyond it. O(C) a row; the same bits for any number of threads. A row with NaN, with +∞ or of -∞
    alone is NaN, as in torch. A class at -∞ has no share and, of smoothing, an infinite loss; but where γ > 0 and all other
    classes are there, the row is right for sure and counts for nothing. Lin, Goyal, Girshick, He and Dollár, "Focal loss for
    dense object detection" (2017), equation 5; Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the inception
    architecture" (2016), section 7.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import loss
    >>> x = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    >>> loss.cross_entropy(x, np.array([0, 1]), reduction="none").round(4)
    array([0.1698, 0.5514])
    >>> float(loss.cross_entropy(x, np.array([0, -100]), label_smoothing=0.1, gamma=2.0).round(4))
    0.0082
    """
    who = "cross_entropy"
    checked_reduction(who, reduction)
    check_values(who, "logits", logits)
    smoothing, gamma = number(who, "label_smoothing", label_smoothing), number(who, "gamma", gamma)
    if not 0 <= smoothing <= 1:  # compared: of a symbol of torch.compile math.isfinite makes no number
        raise ValueError(f"{who}: label_smoothing must be at least 0 and at most 1, got {smoothing}")
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"{who}: gamma must be finite and not negative, got {gamma}")
    ignore = whole(f"{who}: ignore_index", ignore_index)
    own, kind = dtype_name(logits.dtype), dtype_name(weight.dtype) if weight is not None else ""
    if kind not in ("", own) and (kind != "float32" or own not in FLOATS[2:]):
        raise TypeError(f"{who}: weight is {kind}, logits are {own}; tersor does not convert silently")
    target = as_type(target, "int64") if dtype_name(target.dtype) not in ("int64", "int32") else target
    rows: Any = _cross_entropy(logits, target, weight, ignore, smoothing, gamma)
    return reduced(rows, reduction, _counted(target, weight, ignore) if reduction == "mean" else None)


def _counted(target: Array, weight: Array | None, ignore: int) -> Array:
    """The weights of the rows that count, in all; 1 if there is no such row."""
    lib: Any = torch_module() if is_tensor(target) else np
    live: Any = target != ignore
    if weight is None or not weight.shape[0]:
        count = live.sum()
    else:
        # on a GPU nobody has looked at the labels
        inside = live & (target >= 0) & (target < weight.shape[0])
        count = lib.where(inside, wide(weight)[lib.where(inside, target, 0)], 0.0).sum()
    return lib.where(live.any(), count, lib.ones_like(count))
