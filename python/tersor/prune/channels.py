"""Channels of one width as those of another. The one rule: every channel that is made is the mean of those it covers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor, whole
from tersor._reference import quiet, rounded
from tersor._values import check_dense

Array = Any


def interpolate_channels(x: Array, channels: int, *, axis: int = 1) -> Array:
    r"""Activations of any number of channels, made from those of another number: layers of two widths can be added.

    .. math:: y_o = \frac{1}{e_o - s_o} \sum_{i=s_o}^{e_o - 1} x_i, \qquad
              s_o = \lfloor o I / O \rfloor,\quad e_o = \lceil (o + 1) I / O \rceil

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16
        With I channels along the axis.
    channels : int
        O, 1 or more; fewer than there are, as many, or more.
    axis : int
        Of the channels: 1 in images [batch, channels, height, width], -1 in rows.

    Returns
    -------
    array or tensor
        Of the shape of x with O in place of I, and of its type.

    Raises
    ------
    TypeError
        If x is not a float array, or a DTensor, or a size is no integer.
    ValueError
        If x has no channels, axis is none of its axes, or channels is less than 1.

    Notes
    -----
    Sums in float32 (float64 for float64) from the lowest channel on. Time and memory of :math:`\lceil I/O \rceil + 1` reads of
    the result; differentiable. With the weights of a softmax the sum over several widths is the search of Dong and Yang,
    "Network Pruning via Transformable Architecture Search" (2019); adaptive average pooling along the channels is the same.

    Examples
    --------
    >>> import numpy as np
    >>> interpolate_channels(np.array([[1.0, 2.0, 3.0, 6.0]]), 2)
    array([[1.5, 4.5]])
    """
    who = "interpolate_channels"
    axis, out = whole(f"{who}: axis", axis), whole(f"{who}: channels", channels)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{who}: axis must be one of x, whose shape is {tuple(x.shape)}, got {axis}")
    n, axis = x.shape[axis], axis % x.ndim
    if out < 1:
        raise ValueError(f"{who}: channels must be 1 or more, got {out}")
    if out > 1 << 24:
        raise ValueError(f"{who}: channels must be no more than 2^24, got {out}")
    if not n:
        raise ValueError(f"{who}: x has no channels along axis {axis}, its shape is {tuple(x.shape)}")
    start, end = [o * n // out for o in range(out)], [-(-(o + 1) * n // out) for o in range(out)]
    most = max(e - s for s, e in zip(start, end, strict=True))
    steps = [[min(s + j, e - 1) for s, e in zip(start, end, strict=True)] for j in range(most)]
    counts = [e - s for s, e in zip(start, end, strict=True)]
    narrow = dtype_name(x.dtype) != "float64"
    if is_tensor(x):
        check_dense(who, "x", x)
        return _tensor(x.float() if narrow else x, steps, counts, axis).to(x.dtype)
    with quiet(x):
        v = x.astype(np.float32) if narrow else x
        of = np.array(counts, v.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
        total = np.take(v, steps[0], axis)
        for j, places in enumerate(steps[1:], 1):
            total = total + np.where(j < of, np.take(v, places, axis), v.dtype.type(0))
        return rounded(total / of, x)


def _tensor(x: Any, steps: list[list[int]], counts: list[int], axis: int) -> Any:
    """The same sums, which autograd and traces follow."""
    import torch

    of = torch.tensor(counts, device=x.device).reshape(-1, *[1] * (x.ndim - 1 - axis))
    total = x.index_select(axis, torch.tensor(steps[0], device=x.device))
    for j, places in enumerate(steps[1:], 1):
        total = total + torch.where(j < of, x.index_select(axis, torch.tensor(places, device=x.device)), 0.0)
    return total / of
