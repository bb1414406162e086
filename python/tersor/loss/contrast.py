"""Losses of pairs of rows: every row of x against every row of y.

The rule of this file: no array of N·M numbers, in neither direction; a loss is made of the negatives alone, so that a small one
keeps its digits.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from tersor._arrays import Number, axes
from tersor._op import op
from tersor._sample import Draw
from tersor.loss._reduced import checked_reduction, checked_word, reduced

Array = Any


def _lib(x: Array) -> Any:
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def _sample(*kinds: str, **scalars: int) -> Any:
    """Rows of x and y, with gradients of the losses of x before them where they are asked for."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        lead, n = (draw.lead[:-1], draw.lead[-1]) if draw.lead else ((), 1)
        m = n + (0, 7, 70)[draw.seed % 3]
        cosine = bool(draw.seed % 2)
        # the gradients of a cosine grow as rows become short
        size = (1.0 if cosine else min(draw.scale, 1.0)) / math.sqrt(max(draw.d, 1))
        shapes = {"x": (*lead, n, draw.d), "y": (*lead, m, draw.d)}
        single = "float64" if draw.dtype == "float64" else "float32"
        made = [
            draw.cast(draw.rng.standard_normal(shapes[k]) * size)
            if k in shapes
            else np.asarray(draw.rng.standard_normal((*lead, n)), single)
            for k in kinds
        ]
        return [*made, float(draw.rng.uniform(0.3, 2))], {"cosine": cosine, **scalars}

    return draw_all


def _own(x: Array, n: int, m: int) -> Array:
    """Ones where a row meets its own."""
    return np.eye(n, m) if isinstance(x, np.ndarray) else _lib(x).eye(n, m, device=x.device)


def _units(x: Array, cosine: bool) -> tuple[Array, Array]:
    """Directions and one over the lengths, 0 of a row of zeros; rows as they are, and ones."""
    if not cosine:
        return x, 0 * x[..., :1] + 1
    lib = _lib(x)
    square = (x * x).sum(-1, keepdims=True)
    per = lib.where(square > 0, 1 / lib.sqrt(lib.where(square > 0, square, 1.0)), 0.0)
    return x * per, per


def _shape(x: Array, y: Array) -> tuple[int, ...]:
    if len(x.shape) < 2 or len(y.shape) < 2 or x.shape[-1] != y.shape[-1] or x.shape[:-2] != y.shape[:-2]:
        raise ValueError(
            f"info_nce: x and y must be [..., N, d] and [..., M, d], got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return tuple(x.shape[:-1])


@op(sample=_sample("x", "y"))
def _info_nce(x: Array, y: Array, temperature: Any = 0.1, cosine: bool = True) -> Array:
    """The loss of every row of x, whose positive is the row of y of the same number."""
    lib, (n, m) = _lib(x), (x.shape[-2], y.shape[-2])
    u = _units(x, cosine)[0] @ _units(y, cosine)[0].swapaxes(-1, -2) / temperature
    own = _own(x, n, m) > 0
    rest = lib.where(own, -math.inf, u)
    top = np.max(rest, -1, initial=-math.inf, keepdims=True) if lib is np else rest.amax(-1, keepdims=True)
    top = lib.where(lib.isinf(top), 0.0, top)
    t = lib.log(lib.exp(rest - top).sum(-1)) + top[..., 0] - lib.where(own, u, 0.0).sum(-1)
    return lib.logaddexp(lib.zeros_like(t), t)


@op(sample=_sample("g", "x", "y", needs=7), tensors=True, exempt=("g",))
def _info_nce_bwd(
    g: Array, x: Array, y: Array, temperature: Any = 0.1, cosine: bool = True, needs: int = 7
) -> tuple[Array, Array, Array]:
    r"""Gradient of `info_nce`: a pair sends :math:`G = g\,(P - \delta)`, P the shares :math:`e^{u_{ij}}/\sum_k e^{u_{ik}}`."""
    lib, (n, m) = _lib(x), (x.shape[-2], y.shape[-2])
    (a, per_x), (b, per_y) = _units(x, cosine), _units(y, cosine)
    u = a @ b.swapaxes(-1, -2) / temperature
    e = lib.exp(u - (np.max(u, -1, initial=-math.inf, keepdims=True) if lib is np else u.amax(-1, keepdims=True)))
    pull = g[..., None] * (e / e.sum(-1, keepdims=True) - _own(x, n, m))
    to_x, to_y = pull @ b / temperature, pull.swapaxes(-1, -2) @ a / temperature
    if cosine:
        to_x = (to_x - (to_x * a).sum(-1, keepdims=True) * a) * per_x
        to_y = (to_y - (to_y * b).sum(-1, keepdims=True) * b) * per_y
    nothing = x.reshape(-1)[:0]
    turn = (-(pull * u).sum() / temperature).reshape(np.shape(temperature))
    return to_x if needs & 1 else nothing, to_y if needs & 2 else nothing, turn if needs & 4 else nothing


def info_nce(
    x: Array,
    y: Array,
    *,
    temperature: Number = 0.1,
    metric: Literal["cosine", "dot"] = "cosine",
    symmetric: bool = False,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Array:
    r"""InfoNCE: how badly each row of x finds its own row of y among all.

    .. math:: \ell_i = \log\Big(1 + \sum_{j \ne i} e^{(s_{ij} - s_{ii})/\tau}\Big), \qquad s_{ij} = s(x_i, y_j)

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Rows.
    y : array or tensor [..., M, d], of the type of x
        Row i is the positive of row i of x, all others are its negatives; M is not less than N.
    temperature : float, or array of 0 axes
        :math:`\tau`, finite and positive.
    metric : "cosine" or "dot"
        s: the cosine of the angle (0 with a row of zeros), or the inner product.
    symmetric : bool
        Whether the result is the mean of this loss and that of y against x; N must be M.
    reduction : "mean", "sum" or "none"
        Over all rows; of no rows the mean is NaN and the sum 0.

    Returns
    -------
    array or tensor of 0 axes, or [..., N] of reduction "none"
        float64 for float64, else float32. Differentiable, twice too, with respect to x, y and temperature.

    Raises
    ------
    TypeError
        If x and y are not of one float type.
    ValueError
        If the temperature is not positive, not finite or no single number, a word is unknown, or shapes do not go together.

    Notes
    -----
    This is the cross entropy of the logits s/τ with targets 0, 1, …, as a function of the negatives alone: a loss far below
    the rounding of the logits keeps its digits, and so do its gradients. 2NMd operations forward and eight times as many
    backward, which makes the scores again tile by tile; no array of N·M numbers but in second derivatives. Sums are in float64;
    the same bits for any number of threads. Van den Oord, Li and Vinyals, "Representation learning with contrastive predictive
    coding" (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import loss
    >>> x = np.eye(3)
    >>> float(loss.info_nce(x, x, temperature=0.5).round(4))
    0.2395
    """
    if axes(temperature):
        shape = tuple(temperature.shape)
        raise ValueError(f"info_nce: temperature must be a number or an array of 0 axes, got shape {shape}")
    if isinstance(temperature, (int, float)) and not 0 < temperature < math.inf:
        raise ValueError(f"info_nce: temperature must be finite and positive, got {temperature}")
    checked_word("info_nce", "metric", metric, ("cosine", "dot"))
    checked_reduction("info_nce", reduction)
    n, m = _shape(x, y)[-1], y.shape[-2]
    if n > m or (symmetric and n != m):
        need = "as many rows as" if symmetric else "at most as many rows as"
        raise ValueError(f"info_nce: x must have {need} y, got {n} and {m}")
    loss = _info_nce(x, y, temperature, metric == "cosine")
    if symmetric:
        loss = (loss + _info_nce(y, x, temperature, metric == "cosine")) / 2
    return reduced(loss, reduction, math.prod(loss.shape))
