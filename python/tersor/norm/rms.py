"""Norms of rows: a row divided by its size, then weighted.

The rule of this file: moments are taken in float64, whatever the type of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tersor._arrays import Weight, dtype_name
from tersor._op import op
from tersor._reference import Array, dot, there
from tersor._sample import Draw
from tersor.norm._arguments import checked_eps, checked_out, last_axes

__all__ = ["rms_norm"]

#: the machine epsilon of the type that torch computes in
_EPS = {"float64": 2.0**-52}


def _sample(*kinds: str, **scalars: int) -> Any:
    """Rows, a weight for all of them or one for each or none, and gradients."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        shape = (*draw.lead, draw.d)
        weight = (shape, (draw.d,), None)[draw.seed % 3]
        made = {
            "x": lambda: draw.normal(*shape),
            "g": lambda: draw.cast(draw.rng.standard_normal(shape)),
            "weight": lambda: None if weight is None else draw.cast(draw.rng.uniform(-2, 2, weight)),
        }
        return [made[k]() for k in kinds], {"eps": (1e-6, 0.1)[draw.seed % 2], **scalars}

    return draw_all


def _scale(x: Array, eps: float) -> Array:
    return 1 / (dot(x, x) / x.shape[-1] + eps) ** 0.5


@op(sample=_sample("x", "weight"))
def _rms_norm(x: Array, weight: Array = None, eps: float = 1e-6) -> Array:
    """w x/√(mean x² + ε) of rows."""
    y = x * _scale(x, eps)
    return weight * y if there(weight) else y


@op(sample=_sample("g", "x", "weight", needs=3), tensors=True)
def _rms_norm_bwd(g: Array, x: Array, weight: Array = None, eps: float = 1e-6, needs: int = 3) -> tuple[Array, Array]:
    r"""Gradient of `rms_norm`: :math:`dx = r(wg - r^2\overline{wgx}\,x)`, :math:`dw = \sum r g x`, r the scale of the row."""
    given, nothing = there(weight), x.reshape(-1)[:0]
    r, up = _scale(x, eps), g * weight if given else g
    dx = r * (up - r * r * dot(up, x) / x.shape[-1] * x) if needs & 1 else nothing
    if not given or not needs & 2:
        return dx, nothing
    dw = g * x * r
    return dx, dw if weight.shape == dw.shape else dw.reshape(-1, x.shape[-1]).sum(0).reshape(weight.shape)


def rms_norm(
    x: Array,
    normalized_shape: int | Sequence[int],
    weight: Weight = None,
    eps: float | None = None,
    *,
    out: Array = None,
) -> Array:
    r"""Root mean square norm, :math:`y = w \odot x/\sqrt{\overline{x^2} + \varepsilon}`.

    Parameters
    ----------
    x : array or tensor [..., *normalized_shape], float64, float32, float16 or bfloat16
    normalized_shape : int or tuple of int
        The last axes, over which the mean is taken.
    weight : array or tensor of normalized_shape, of the type of x or float32 beside 16-bit x, optional
        One number for each element; ones if it is absent.
    eps : float, optional
        Added to the mean of squares; by default, as in torch, 2^-52 for float64 and 2^-23 for the others.
    out : array or tensor, optional
        Where the result goes; C-contiguous, of its shape and dtype. Not with gradients.

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable, twice too, with respect to x and weight.

    Raises
    ------
    TypeError
        If x is no float array, or weight neither of its type nor float32 beside 16 bits.
    ValueError
        If shapes do not go together, or ``eps`` is negative or not finite.

    Notes
    -----
    The mean of squares is summed in float64, of float64 data in twice its precision: rows of any length and size are right to
    some units in the last place (on a GPU, of one whose squares are float64 numbers). Two reads of x that are near each other
    and one write. The gradient of the weight is summed over the rows in a fixed order: the same bits for any number of
    threads. Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import norm
    >>> norm.rms_norm(np.array([[3.0, 4.0], [0.0, 2.0]]), 2).round(4)
    array([[0.8485, 1.1314],
           [0.    , 1.4142]])
    """
    shape = last_axes("rms_norm", x, normalized_shape)
    n = len(shape)
    if weight is not None and tuple(weight.shape) != shape:
        raise ValueError(f"rms_norm: weight has shape {tuple(weight.shape)}, normalized_shape is {shape}")
    if eps is None:
        eps = _EPS.get(dtype_name(x.dtype), 2.0**-23)
    eps = checked_eps("rms_norm", eps)
    keywords: dict[str, Any] = {} if out is None else {"out": out}
    if n == 1:
        return _rms_norm(x, weight, eps, **keywords)
    rows = (*x.shape[:-n], math.prod(shape))
    flat = None if weight is None else weight.reshape(-1)
    if out is not None:
        checked_out("rms_norm", x, out)
        keywords = {"out": out.reshape(rows)}
    y = _rms_norm(x.reshape(rows), flat, eps, **keywords).reshape(x.shape)
    return y if out is None else out
