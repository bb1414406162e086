"""Sums, moments and extremes of segments. The one rule: an empty segment says so, and what is not finite stays in its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import Array, Labels, Number, Values, cast, dtype_name, is_tensor, torch_module
from tersor._reference import quiet, xp
from tersor._segments import Moments, rounded_to, segments
from tersor.reduce._deviations import freed, roots
from tersor.reduce._ops import _segment_extreme, _segment_logsumexp, _segment_moments, _segment_sum, _segment_whole

OPS = ("sum", "mean", "var", "std", "min", "max", "count", "logsumexp")


def segment_reduce(
    x: Values,
    op: str = "sum",
    *,
    dim: int | Sequence[int] | None = None,
    labels: Labels = None,
    num_segments: int | None = None,
    offsets: Labels = None,
    weight: Number = None,
    correction: float = 0,
) -> Any:
    r"""A reduction over segments.

    With weights w (1 if there are none) and :math:`W = \sum w`: "sum" :math:`\sum wx`, "mean" :math:`\mu = \sum wx/W`, "var"
    :math:`\sum w(x - \mu)^2/(W - c)`, "std" its root, "min", "max", "count" of elements, and "logsumexp".

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16; integers for "sum", "min", "max" and "count"
    op : str
    dim : int, several or None
        The axes that are summed over, all if None; the others are kept.
    labels : int64, int32, uint8 or bool, optional
        To which segment an element belongs, along the one dim or broadcasting to x; -1 is in none.
    num_segments : int, optional
        The largest label and one, if it is not said; under ``torch.compile`` it must be.
    offsets : int64 or int32 ``[S + 1]``, optional
        Runs of the one dim instead of labels: from 0 to its size, never falling.
    weight : floats that broadcast to x, or along the one dim, optional
        Finite and not negative; not of "min", "max", "count" and "logsumexp".
    correction : float
        c of "var" and "std"; NaN where nothing is left.

    Returns
    -------
    array or tensor [S, *kept], without S if there are neither labels nor offsets
        Of x's type, counts and sums of integers int64. Of an empty segment 0 for "count" and "sum", NaN for "mean", "var" and
        "std", the far end for "min" and "max", -inf for "logsumexp". Differentiable with respect to x and weight; "min" and
        "max" send everything to the first that was selected.

    Raises
    ------
    TypeError
        If types do not fit.
    ValueError
        If shapes do not go together, a label is outside, a weight is negative or not finite, a sum of integers leaves int64, or
        ``op`` is unknown.

    Notes
    -----
    Sums of float32 and 16 bits are taken in float64, of float64 in twice its precision, of products with weights that are
    rounded before; moments about a number of the segment itself. Deviations whose squares leave float64 have no variance but
    inf or 0; "std" of such a segment is right where numbers can be looked at (of arrays, and of tensors on the CPU outside of
    traces and transforms). Bits do not depend on the number of threads. One read; tables of segments, no sort.

    Examples
    --------
    >>> import numpy as np
    >>> segment_reduce(np.array([1.0, 2.0, 4.0]), "mean", labels=np.array([0, 2, 0]))
    array([2.5, nan, 2. ])
    """
    if op not in OPS:
        raise ValueError(f"segment_reduce: op must be one of {', '.join(OPS)}, got {op!r}")
    if weight is not None and op not in ("sum", "mean", "var", "std"):
        raise ValueError(f"segment_reduce: op {op!r} takes no weight")
    if correction and op not in ("var", "std"):
        raise ValueError(f"segment_reduce: a correction is of 'var' and 'std', got correction={correction} for {op!r}")
    whole = dtype_name(x.dtype) in ("int64", "int32", "int16", "int8", "uint8")
    if whole and op not in ("sum", "min", "max", "count"):
        raise TypeError(f"segment_reduce: op {op!r} is of floats, got x of {dtype_name(x.dtype)}")
    if whole and weight is not None:
        raise TypeError(f"segment_reduce: integers have no weight, got x of {dtype_name(x.dtype)}")
    seg = segments("segment_reduce", x, dim, labels, num_segments, offsets, weight)
    at = (seg.kept, seg.groups)
    if op == "count" or (op == "sum" and whole):
        # a count sees shapes alone, whatever x holds
        x = x.detach() if is_tensor(x) else x
        counted = x if whole else cast(torch_module() if is_tensor(x) else _numpy(), x != x, "uint8")
        return _segment_whole(counted, seg.labels, *at, int(op == "count")).reshape(seg.shape)
    if op == "sum":
        return _segment_sum(x, seg.labels, seg.weight, *at).reshape(seg.shape)
    if op in ("min", "max"):
        end: Any = _segment_extreme(x, seg.labels, *at, op == "max")
        return end.reshape(seg.shape)
    if op == "logsumexp":
        total: Any = _segment_logsumexp(x, seg.labels, *at)
        return total.reshape(seg.shape)
    count, mean, var = _segment_moments(x, seg.labels, seg.weight, *at)
    if op == "std":
        with quiet(x):
            return rounded_to(roots(x, seg, count, var, correction), x).reshape(seg.shape)
    return rounded_to(mean if op == "mean" else freed(count, var, correction), x).reshape(seg.shape)


def _numpy() -> Any:

    return np


def segment_moments(
    x: Array,
    *,
    dim: int | Sequence[int] | None = None,
    labels: Labels = None,
    num_segments: int | None = None,
    offsets: Labels = None,
    weight: Number = None,
) -> Moments:
    r"""Weight, mean and population variance of segments, in one read.

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16
    dim, labels, num_segments, offsets, weight
        As of `segment_reduce`.

    Returns
    -------
    Moments
        count :math:`W = \sum w`, mean and var :math:`\sum w(x - \mu)^2/W`, of float64 and shape [S, *kept]; NaN where W is 0.
        Differentiable, twice too, with respect to x and weight.

    Raises
    ------
    TypeError, ValueError
        As of `segment_reduce`.

    Notes
    -----
    A constant segment has exactly its value for a mean and variance 0. Means of parts are
    rounded to float64: where these lie δ apart, a variance has an error of 2⁻⁵² μδ. Moments of parts join by `merge_moments`.

    Examples
    --------
    >>> import numpy as np
    >>> segment_moments(np.array([[1.0, 3.0], [5.0, 5.0]]), dim=1).var
    array([1., 0.])
    """
    seg = segments("segment_moments", x, dim, labels, num_segments, offsets, weight)
    found = _segment_moments(x, seg.labels, seg.weight, seg.kept, seg.groups)
    return Moments(*(v.reshape(seg.shape) for v in found))


def merge_moments(a: Moments, b: Moments) -> Moments:
    r"""The moments of two parts together.

    Parameters
    ----------
    a, b : Moments
        Of one shape and library, as `segment_moments` gives them.

    Returns
    -------
    Moments
        :math:`W = W_a + W_b`, :math:`\mu = \mu_a + \delta W_b/W`, :math:`M = M_a + M_b + \delta^2 W_a W_b/W`; a part without
        weight changes nothing.

    Raises
    ------
    TypeError, ValueError
        If they are no moments, or of different shapes.

    Notes
    -----
    Chan, Golub and LeVeque (1979).

    Examples
    --------
    >>> import numpy as np
    >>> parts = (segment_moments(np.array(v)) for v in ([1.0, 3.0], [5.0]))
    >>> [float(v) for v in merge_moments(*parts)]
    [3.0, 3.0, 2.6666666666666665]
    """
    for name, m in (("a", a), ("b", b)):
        if not isinstance(m, Moments):
            raise TypeError(f"merge_moments: {name} must be Moments, got {type(m).__name__}")
        for field, v in zip(m._fields, m, strict=True):
            if is_tensor(v) != is_tensor(a.count) or not hasattr(v, "dtype"):
                like = f"{'a torch tensor' if is_tensor(a.count) else 'a NumPy array'} like a.count"
                raise TypeError(f"merge_moments: {name}.{field} must be {like}, got {type(v).__name__}")
            if tuple(v.shape) != tuple(m.count.shape):
                raise ValueError(
                    f"merge_moments: {name}.{field} is of shape {tuple(v.shape)}, {name}.count of {tuple(m.count.shape)}"
                )
    if tuple(a.count.shape) != tuple(b.count.shape):
        raise ValueError(f"merge_moments: a is of shape {tuple(a.count.shape)}, b of {tuple(b.count.shape)}")
    with quiet(a.count):
        return _merged(a, b)


def _merged(a: Moments, b: Moments) -> Moments:
    """Of moments that fit; what is infinite is none of NumPy's business."""
    w = a.count + b.count
    safe = xp.where(w > 0, w, w * float("nan"))
    share = b.count / safe
    delta = b.mean - a.mean
    # from what is infinite no step leads on
    mean = xp.where(xp.isfinite(a.mean), a.mean + delta * share, a.mean + b.mean)
    var = (a.var * a.count + b.var * b.count + delta * delta * (a.count * share)) / safe
    only_a, only_b = b.count == 0, a.count == 0
    mean = xp.where(only_a, a.mean, xp.where(only_b, b.mean, mean))
    var = xp.where(only_a, a.var, xp.where(only_b, b.var, var))
    return Moments(w, mean, var)
