"""What of every layer is to stay, and scores that compare weights of different layers. The one rule: shares add up to what was
asked for, and scores keep the order of magnitudes within a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor._reference import wide, xp

Array = Any


def lamp_scores(w: Array) -> Array:
    r"""Layer-adaptive magnitudes: each weight squared, divided by what would be left of its layer if it were the next to go.

    .. math:: s_i = \frac{w_i^2}{\sum_{j \succeq i} w_j^2}

    The sum is over the weights not before i in the order of selection (by :math:`|w|`, minus the index). Pruning by them over
    all layers together, ``global_masks(layers, s, scores=[lamp_scores(w) for w in layers])``, keeps at least one weight in
    each layer that has one not zero.

    Parameters
    ----------
    w : array or tensor, float64, float32, float16 or bfloat16

    Returns
    -------
    float64 array or tensor of the shape of w
        Between 0 and 1, 1 for the largest; 0 for weights that are 0.

    Raises
    ------
    TypeError
        If w is not a float array.
    ValueError
        If w is not finite.

    Notes
    -----
    One stable sort. Sums run from the largest square down, in float64, of weights scaled by a power of two so that none
    overflows. Lee, Park, Mo, Ahn and Shin, "Layer-adaptive Sparsity for the Magnitude-based Pruning" (2021).

    Examples
    --------
    >>> import numpy as np
    >>> lamp_scores(np.array([1.0, -2.0, 0.0]))
    array([0.2, 1. , 0. ])
    """
    v = abs(wide(w.detach() if is_tensor(w) else w)).reshape(-1)
    if not bool(xp.isfinite(v).all()):
        raise ValueError("lamp_scores: w holds non-finite values")
    n = v.shape[0]
    if not n:
        return v.reshape(w.shape)
    _, e = math.frexp(float(v.max()))
    v = v * 2.0**-e if e > -1000 else v * 2.0**1000 * 2.0 ** -(e + 1000)
    # descending, of equals the lowest index first: what stays longest comes first
    if is_tensor(v):
        order = v.argsort(descending=True, stable=True)
        square = v[order] ** 2
        total = square.cumsum(0)
        scores = v.new_zeros(n)
    else:
        order = np.argsort(-v, kind="stable")
        square = v[order] ** 2
        total = np.cumsum(square)
        scores = np.zeros(n)
    total[total == 0] = 1
    scores[order] = square / total
    return scores.reshape(w.shape)


def _sizes(who: str, shapes: Any, sparsity: float) -> tuple[list[tuple[int, ...]], list[int]]:
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float, np.floating)):
        raise TypeError(f"{who}: sparsity must be a number, got {type(sparsity).__name__}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"{who}: sparsity must be between 0 and 1, got {sparsity}")
    try:
        made = [tuple(int(n.__index__()) for n in shape) for shape in shapes]
    except (TypeError, AttributeError):
        raise TypeError(f"{who}: shapes must be a list of shapes, got {shapes!r}") from None
    for i, shape in enumerate(made):
        if not shape or min(shape) < 1:
            raise ValueError(f"{who}: shapes[{i}] must have axes of 1 or more, got {shape}")
    return made, [math.prod(shape) for shape in made]


def erk_densities(shapes: Sequence[Sequence[int]], sparsity: float, *, power: float = 1.0) -> list[float]:
    r"""Shares to keep by Erdős–Rényi kernels: layer l in proportion to :math:`(\sum_i n_i / \prod_i n_i)^{\text{power}}`.

    Parameters
    ----------
    shapes : list of shapes
        Of the weights of each layer.
    sparsity : float between 0 and 1
        Of all of them together.
    power : float
        0 gives every layer the same share.

    Returns
    -------
    list of float
        The density of each layer, from 0 to 1: those that would be above 1 are 1, and the others share what is left, so that
        together exactly the share asked for is kept. ``global_masks(layers, [1 - d for d in densities], scope="layer")``
        prunes so.

    Raises
    ------
    TypeError
        If shapes are no shapes.
    ValueError
        If an axis has no length, or the sparsity is not between 0 and 1.

    Notes
    -----
    Evci, Gale, Menick, Castro and Elsen, "Rigging the Lottery: Making All Tickets Winners" (2020). At most as many rounds as
    layers.

    Examples
    --------
    >>> [round(d, 3) for d in erk_densities([(10, 10), (100, 100)], 0.9)]
    [0.918, 0.092]
    """
    made, sizes = _sizes("erk_densities", shapes, sparsity)
    sparsity = float(sparsity)
    try:
        raw = [(sum(shape) / n) ** power for shape, n in zip(made, sizes, strict=True)]
    except OverflowError:
        raw = [math.inf]
    if not all(0 < r < math.inf for r in raw):
        raise ValueError(f"erk_densities: power must leave shares that are positive numbers, got {power}")
    dense: set[int] = set()
    while len(dense) < len(made):
        rest = [i for i in range(len(made)) if i not in dense]
        left = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        scale = left / math.fsum(raw[i] * sizes[i] for i in rest)
        over = [i for i in rest if scale * raw[i] > 1]
        if not over:
            return [1.0 if i in dense else scale * raw[i] for i in range(len(made))]
        most = max(raw[i] for i in over)
        dense |= {i for i in over if raw[i] == most}
    return [1.0] * len(made)


def uniform_densities(
    shapes: Sequence[Sequence[int]], sparsity: float, *, first: float = 0.0, last: float = 0.0
) -> list[float]:
    """The same share to keep of every layer, but that the first and the last layer keep at least so much.

    Parameters
    ----------
    shapes : list of shapes
        Of the weights of each layer, from the input to the output.
    sparsity : float between 0 and 1
        Of all of them together.
    first, last : float between 0 and 1
        The least density of the first and of the last layer: 1 and 0.2 are the "uniform+" of Gale, Elsen and Hooker, "The
        State of Sparsity in Deep Neural Networks" (2019).

    Returns
    -------
    list of float
        The density of each layer; together exactly the share asked for is kept.

    Raises
    ------
    TypeError
        If shapes are no shapes.
    ValueError
        If an axis has no length, a number is not between 0 and 1, or the first and last layer need more than may be kept.

    Examples
    --------
    >>> [round(d, 3) for d in uniform_densities([(10, 10), (100, 100), (10, 100)], 0.9, first=1.0, last=0.2)]
    [1.0, 0.081, 0.2]
    """
    made, sizes = _sizes("uniform_densities", shapes, sparsity)
    sparsity, least = float(sparsity), [0.0] * len(made)
    for name, i, value in (("first", 0, first), ("last", -1, last)):
        if not 0 <= value <= 1:
            raise ValueError(f"uniform_densities: {name} must be between 0 and 1, got {value}")
        if made:
            least[i] = max(least[i], value)
    held: set[int] = set()
    while True:
        rest = [i for i in range(len(made)) if i not in held]
        left = (1 - sparsity) * sum(sizes) - math.fsum(least[i] * sizes[i] for i in held)
        near = 1e-9 * sum(sizes)  # what is asked for exactly may be less by a rounding
        if left < -near or (not rest and held and left > near):
            raise ValueError(
                f"uniform_densities: first={first} and last={last} do not go with a sparsity of {sparsity} of all layers"
            )
        share = max(left, 0.0) / sum(sizes[i] for i in rest) if rest else 0.0
        below = {i for i in rest if share < least[i]}
        if not below:
            return [least[i] if i in held else share for i in range(len(made))]
        held |= below
