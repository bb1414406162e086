"""Maps of what layers do: gradients go through, values that are not finite too. The one rule: sums are float64, and a result
has the type of the data.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array, is_distributed, is_tensor, whole
from tersor._reference import dot, quiet, root, rounded, wide, xp

KINDS = ("conv1", "conv3", "scaling", "bias")


def _scaled(x: Array) -> tuple[Array, Array]:
    """Rows of numbers within 1, and the size that was taken away; squares of them are in range."""
    most = x.detach().abs().amax(-1, keepdim=True) if is_tensor(x) else np.abs(x).max(-1, keepdims=True)
    some = xp.isfinite(most) & (most > 0)
    most = xp.where(some, most, xp.ones_like(most))
    return x / most, most


def residual_contribution(update: Array, residual: Array) -> tuple[Array, Array]:
    r"""What a block adds to its residual stream, row by row: :math:`\|u\| / \|r\|` and :math:`\cos(u, r)`.

    Parameters
    ----------
    update, residual : array or tensor of floats ``[..., d]``
        With a gradient to both, as torch's own operations have it.

    Returns
    -------
    ratio, cosine : ``[...]``, of the type of update
        The ratio is infinite where only r is 0 and NaN where both are; the cosine of a row of zeros is 0.

    Raises
    ------
    TypeError
        If they are not floats of one type and library.
    ValueError
        If shapes differ, or rows have no numbers.

    Notes
    -----
    Composed of the library's own operations in float64, after each row is divided by its largest magnitude. Csordás et al.,
    "Do Language Models Use Their Depth Efficiently?" (2025).

    Examples
    --------
    >>> import numpy as np
    >>> [v.tolist() for v in residual_contribution(np.array([[0.0, 2.0]]), np.array([[4.0, 0.0]]))]
    [[0.5], [0.0]]
    """
    who = "residual_contribution"
    if tuple(update.shape) != tuple(residual.shape):
        raise ValueError(f"{who}: residual has shape {tuple(residual.shape)}, update {tuple(update.shape)}")
    if not update.shape[-1]:
        raise ValueError(f"{who}: update has shape {tuple(update.shape)}: rows have no numbers")
    (u, a), (r, b) = _scaled(wide(update)), _scaled(wide(residual))
    m, n = root(dot(u, u)), root(dot(r, r))
    with quiet(u):
        ratio = m / n * (a / b)
    both = m * n
    cosine = dot(u, r) / xp.where(both == 0, xp.ones_like(both), both)
    return rounded(ratio[..., 0], update), rounded(cosine[..., 0], update)


def _box(x: Array) -> Array:
    """Sums of windows of 3 × 3 around each place, with zeros outside."""
    for axis in (-2, -1):
        pad = [(1, 1) if x.ndim + axis == i else (0, 0) for i in range(x.ndim)]
        if is_tensor(x):
            import torch

            wider = torch.nn.functional.pad(x, (1, 1) if axis == -1 else (0, 0, 1, 1))
        else:
            wider = np.pad(x, pad)
        n = x.shape[axis]
        x = sum(wider[..., i : i + n] if axis == -1 else wider[..., i : i + n, :] for i in range(3))
    return x


def norm_grad(activation: Array, gradient: Array, kind: str = "conv1") -> Array:
    r"""Where a layer would learn from an image: the norm of its weight's gradient at each place u.

    .. math:: \text{conv1: } \|a_u\| \|g_u\|,\quad
        \text{conv3: } \sqrt{\textstyle\sum_{v \in 3 \times 3} \|a_{u+v}\|^2}\, \|g_u\|,\quad
        \text{scaling: } \|a_u \odot g_u\|,\quad \text{bias: } \|g_u\|

    Parameters
    ----------
    activation : array or tensor of floats ``[N, C, H, W]``
        What the layer was given; places outside are zeros.
    gradient : ``[N, C', H, W]``, of that type
        Of the loss by what it gave; C' = C for "scaling". With a gradient to both.
    kind : "conv1", "conv3", "scaling" or "bias"

    Returns
    -------
    ``[N, H, W]``, of the type of activation

    Raises
    ------
    TypeError
        If they are not floats of one type and library.
    ValueError
        If shapes do not go together or the kind is none of those.

    Notes
    -----
    Composed of the library's own operations in float64; the norm of an unfolded patch is a sum over a window of squares, so
    nothing is unfolded. Rebuffi et al., "There and Back Again: Revisiting Backpropagation Saliency Methods" (2020).

    Examples
    --------
    >>> import numpy as np
    >>> norm_grad(np.full((1, 4, 1, 2), 0.5), np.ones((1, 4, 1, 2)), 'bias').tolist()
    [[[2.0, 2.0]]]
    """
    who = "norm_grad"
    if kind not in KINDS:
        raise ValueError(f"{who}: kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    a, g = wide(activation), wide(gradient)
    same = a.ndim == g.ndim == 4 and (a.shape[0], *a.shape[2:]) == (g.shape[0], *g.shape[2:])
    if not same or (kind == "scaling" and a.shape[1] != g.shape[1]):
        raise ValueError(
            f"{who}: activation and gradient must have the axes [N, C, H, W], got {tuple(a.shape)} and {tuple(g.shape)}"
        )
    if kind == "scaling":
        return rounded(root(((a * g) ** 2).sum(1)), activation)
    length = root((g * g).sum(1))
    if kind != "bias":
        square = (a * a).sum(1)
        length = length * root(_box(square) if kind == "conv3" else square)
    return rounded(length, activation)


def class_correlation(probs: Array) -> Array:
    r"""Which classes are taken for each other: :math:`P^\top P` with rows that add up to 1.

    Parameters
    ----------
    probs : array or tensor of floats ``[n, K]``
        With a gradient. The mean of what is not on the diagonal is a loss of confusion.

    Returns
    -------
    ``[K, K]``, of the type of probs
        NaN in the row of a class that has no share.

    Raises
    ------
    TypeError
        If probs are no floats.
    ValueError
        If they have not two axes.

    Notes
    -----
    O(n K²), composed of the library's own product in float64. Jin et al., "Minimum Class Confusion" (2020).

    Examples
    --------
    >>> import numpy as np
    >>> class_correlation(np.array([[0.9, 0.1], [0.1, 0.9]])).round(2)
    array([[0.82, 0.18],
           [0.18, 0.82]])
    """
    if probs.ndim != 2:
        raise ValueError(f"class_correlation: probs must have 2 axes, got shape {tuple(probs.shape)}")
    p = wide(probs)
    both = p.T @ p
    with quiet(p):
        return rounded(both / both.sum(1)[:, None], probs)


def loss_barrier(losses: Array, alphas: Any = None) -> Any:
    r"""How much higher the loss is between two models than the line between their own losses.

    .. math:: \max_\alpha\; L(\alpha) - \big((1-\alpha) L(0) + \alpha L(1)\big)

    Parameters
    ----------
    losses : array or tensor of floats ``[..., n]``
        Along the way from one to the other, ends included. With a gradient.
    alphas : sequence of n numbers, optional
        From 0 to 1, rising; evenly spaced if absent.

    Returns
    -------
    ``[...]``, of the type of losses; of one way a float, in torch a float64 tensor
        Not negative; NaN where a loss is.

    Raises
    ------
    TypeError
        If losses are no floats.
    ValueError
        If there are fewer than two, or alphas are not as many, or do not rise from 0 to 1.

    Notes
    -----
    Composed of the library's own operations in float64. Frankle et al., "Linear Mode Connectivity and the Lottery
    Ticket Hypothesis" (2020).

    Examples
    --------
    >>> import numpy as np
    >>> loss_barrier(np.array([0.1, 0.9, 0.3]))
    0.7
    """
    who = "loss_barrier"
    if is_distributed(losses):
        raise TypeError(f"{who}: losses must be a plain tensor, got a DTensor; full_tensor() makes one")
    n = losses.shape[-1] if losses.ndim else 0
    if n < 2:
        raise ValueError(f"{who}: losses must have two or more along their last axis, got shape {tuple(losses.shape)}")
    at = np.linspace(0.0, 1.0, n) if alphas is None else _alphas(who, alphas, n)
    v = wide(losses)
    if is_tensor(v):
        import torch

        at = torch.as_tensor(at, dtype=v.dtype, device=v.device)
    with quiet(v):
        away = v - ((1 - at) * v[..., :1] + at * v[..., -1:])
    most = away.amax(-1) if is_tensor(away) else away.max(-1)
    if losses.ndim == 1:
        return most if is_tensor(most) else float(most)
    return rounded(most, losses)


def _alphas(who: str, alphas: Any, n: int) -> np.ndarray:
    at = np.asarray(alphas.detach().cpu() if is_tensor(alphas) else alphas)
    if at.dtype.kind not in "fiu":
        raise TypeError(f"{who}: alphas must be numbers, got {at.dtype}")
    at = at.astype(np.float64)
    if at.shape != (n,):
        raise ValueError(f"{who}: alphas must be {n} numbers like losses, got shape {at.shape}")
    if at[0] != 0 or at[-1] != 1 or not (np.diff(at) > 0).all():
        raise ValueError(f"{who}: alphas must rise from 0 to 1, got {at.tolist()}")
    return at


def curriculum_window(num_groups: int, iteration: int, scale: float = 0.5) -> range:
    """Which groups of samples, from easy to hard, an iteration learns from: a window that moves by one and starts anew.

    Parameters
    ----------
    num_groups : int
    iteration : int
        From 0 on, which takes all groups.
    scale : float
        The share of groups in a window, above 0 and at most 1; rounded half to even to whole groups.

    Returns
    -------
    range

    Raises
    ------
    TypeError
        If one is not of its type.
    ValueError
        If a number is negative, or the window has no group or more than there are.

    Notes
    -----
    SeTa (2025): groups are those of `kmeans_1d` of the losses.

    Examples
    --------
    >>> import numpy as np
    >>> curriculum_window(10, 3)
    range(3, 8)
    """
    who = "curriculum_window"
    groups, at = whole(f"{who}: num_groups", num_groups), whole(f"{who}: iteration", iteration)
    if groups < 1:
        raise ValueError(f"{who}: num_groups must be positive, got {groups}")
    if at < 0:
        raise ValueError(f"{who}: iteration must not be negative, got {at}")
    width = round(groups * float(scale)) if math.isfinite(scale) else 0
    if not 1 <= width <= groups:
        raise ValueError(f"{who}: scale {scale} of {groups} groups is {width} groups, a window has 1 to {groups}")
    if not at:
        return range(groups)
    start = at % (groups - width + 1)
    return range(start, start + width)
