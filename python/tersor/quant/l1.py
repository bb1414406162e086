"""Rows divided by their mean deviation. The one rule: what does not vary is 0, and has no slope."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Array, is_tensor
from tersor._op import op
from tersor._reference import xp
from tersor._sample import Draw
from tersor.quant._arguments import detached


def _sample(*kinds: str) -> Any:
    """Rows that vary: gradients are divided by how much."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        size = {"x": max(draw.scale, 0.1), "g": 1.0}
        return [draw.cast(draw.rng.standard_normal((*draw.lead, draw.d)) * size[k]) for k in kinds], {}

    return draw_all


def _middle(x: Array) -> Array:
    """The mean of rows, which lies among their numbers: of equal ones it is that number, rounded or not."""
    low, high = (x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)) if is_tensor(x) else (x.min(-1), x.max(-1))
    if not is_tensor(x):
        low, high = low[..., None], high[..., None]
    return xp.minimum(xp.maximum(_mean(x), low), high)


def _mean(x: Array) -> Array:
    return x.mean(-1, keepdim=True) if is_tensor(x) else np.mean(x, -1, keepdims=True)


def _parts(x: Array) -> tuple[Array, Array, Array]:
    """The deviations, their mean magnitude, and that without zeros."""
    d = x - _middle(x)
    a = _mean(abs(d))
    return d, a, xp.where(a == 0, 1.0, a)


@op(sample=_sample("x"), leading={"x": 1}, local={"x": 1})
def _l1_normalize(x: Array) -> Array:
    """y = (x - mean x)/mean |x - mean x|."""
    if not x.shape[-1]:
        return x
    d, a, safe = _parts(x)
    return xp.where(a == 0, 0.0, d / safe)


@op(sample=_sample("g", "x"), leading={"g": 1, "x": 1}, local={"g": 1, "x": 1}, conditioned=True)
def _l1_normalize_bwd(g: Array, x: Array) -> Array:
    """dx = (g - mean g - m (sign d - mean sign d))/a, m = mean(g y)."""
    if not x.shape[-1]:
        return x
    d, a, safe = _parts(x)
    sign, m = xp.sign(d), _mean(g * d) / safe
    return xp.where(a == 0, 0.0, (g - _mean(g) - m * (sign - _mean(sign))) / safe)


def l1_normalize(x: Array) -> Array:
    r"""Rows less their mean, divided by their mean deviation: :math:`y = (x - \mu) / \overline{|x - \mu|}`.

    Parameters
    ----------
    x : array or tensor ``[..., d]`` of float64, float32, float16 or bfloat16

    Returns
    -------
    array or tensor like x; a row whose numbers are all equal is 0, and so is its gradient

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If x has no axis.

    Notes
    -----
    One read and one write of x; the gradient reads twice and writes once. Sums are float64. No squares, no roots: it is linear
    in the row up to the divisor, so that integer kernels need no square root: the normalization of ShiftQuant (Guo et al.,
    2024).
    """
    detached("l1_normalize", x)
    return _l1_normalize(x)
