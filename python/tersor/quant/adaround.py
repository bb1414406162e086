"""Roundings up or down that are learned. The one rule: the layer is not run, the Gram matrix of its inputs has the gradient
exactly; and no row is left worse than its nearest codes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, Level, Number, cast, detached, dtype_name, torch_module, whole
from tersor._reference import quiet
from tersor.quant._adam import Adam
from tersor.quant._arguments import Array, code_range, held, some_value, within
from tersor.quant.gptq import GPTQ
from tersor.quant.qparams import choose_qparams

#: the sigmoid is stretched, so that it reaches 0 and 1
_LEAST, _MOST = -0.1, 1.1
#: the share of steps without a regulariser; its exponent after them and at the end; its weight beside an error of 1 a weight
_WARM, _FIRST, _LAST, _WEIGHT = 0.2, 20.0, 2.0, 30.0


def adaround(
    w: Array,
    h: Number,
    dtype: Any = "int4",
    *,
    scale: Number | None = None,
    zero_point: Level | None = None,
    group: int | None = None,
    symmetric: bool = True,
    method: str = "minmax",
    steps: int = 500,
    lr: float = 0.03,
) -> GPTQ:
    r"""Codes of a matrix, each the one below or the one above, with which a layer errs least in its results.

    .. math:: \hat w = s\,\big(\mathrm{clamp}(\lfloor w/s \rfloor + z + a(v), lo, hi) - z\big), \qquad
              a(v) = \mathrm{clamp}(1.2\,\sigma(v) - 0.1, 0, 1)

    and v is learned by Adam: :math:`\mathrm{tr}(\Delta H \Delta^\top)`, whose gradient in :math:`\hat W` is :math:`2 \Delta H`,
    plus, after a fifth of the steps, :math:`\lambda \sum 1 - |2a - 1|^\beta` with β falling from 20 to 2, which leaves each a
    at 0 or at 1. A row's error counts in units of K-ths of that of its nearest codes, so λ is the same for every layer.

    Parameters
    ----------
    w : array or tensor [N, K] of float64, float32, float16 or bfloat16
    h : float64 or float32 [K, K]
        `hessian` of the inputs. Its scale has no say.
    dtype : str, type or (int, int)
        As of `quantize`.
    scale, zero_point, group, symmetric, method
        As of `gptq`; a scale is a number or a matrix whose sizes divide those of w.
    steps : int
        Each is a product of w's shape by H. With none codes are the nearest.
    lr : float
        Adam's.

    Returns
    -------
    GPTQ
        ``error`` of no row is more than that of its nearest codes.

    Raises
    ------
    TypeError
        If w is not a float array, h not of float64 or float32, or steps no integer.
    ValueError
        If w or h holds non-finite values, shapes do not fit, or an argument is unknown or out of range.

    Notes
    -----
    :math:`2\,\mathrm{steps}\,N K^2` operations in the type of w (float32 for 16 bits) by the library's own product, and some
    twenty passes over w a step. Nothing is drawn. `gptq`, which may go further than to the next code and costs one such step,
    mostly errs less. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), with all inputs at
    once in place of batches.
    """
    layer = prepared("adaround", w, h, dtype, scale, zero_point, group, symmetric, method, steps, lr)
    xp, w, h, unit, (lo, hi), scale, zero_point = layer
    shapes = [tuple(getattr(x, "shape", ())) for x in (scale, zero_point)]
    if shapes[1] not in ((), shapes[0]):
        raise ValueError(f"adaround: zero_point must have shape {shapes[0]} as scale, got {shapes[1]}")
    s, z = (_spread(xp, "adaround", x, w, dtype_name(w.dtype)) for x in (scale, zero_point))
    z = xp.round(z)
    if not bool(((s > 0) & xp.isfinite(s)).all()):
        raise ValueError("adaround: scales must be positive and finite")
    grid = _Grid(xp, w, h, s, z, lo, hi)
    nearest = xp.clip(xp.round(w / s), lo - z, hi - z)
    error = grid.error(nearest)
    with quiet(w):
        learned = _learned(grid, error, steps, float(lr))
        less = grid.error(learned)
        better = less < error
        codes = xp.where(better[:, None], learned, nearest) + z
        codes = cast(xp, codes, "int8" if lo < 0 else "uint8")
        return GPTQ(codes, scale, zero_point, xp.clip(xp.where(better, less, error), 0.0, None) * unit)


class Layer(NamedTuple):
    """A weight and its Gram matrix in the type to compute in, the unit of that, the ends of its codes, and its grid."""

    xp: Any
    w: Any
    h: Any
    unit: float
    ends: tuple[int, int]
    scale: Any
    zero_point: Any


def prepared(
    name: str,
    w: Array,
    h: Number,
    dtype: Any,
    scale: Any,
    zero_point: Any,
    group: int | None,
    symmetric: bool,
    method: str,
    steps: int,
    lr: float,
) -> Layer:
    """The arguments of what is learned, held to what they must be; scales are made where there are none."""
    w, h = detached(name, w), detached(name, h)
    held(name, w=w, h=h, scale=scale, zero_point=zero_point)
    xp = np if isinstance(w, np.ndarray) else torch_module()
    for what, x, kinds in (("w", w, FLOATS), ("h", h, FLOATS[:2])):
        if dtype_name(x.dtype) not in kinds:
            raise TypeError(f"{name}: {what} must be of {', '.join(kinds)}, got {dtype_name(x.dtype)}")
    if w.ndim != 2:
        raise ValueError(f"{name}: w must be a matrix, got shape {tuple(w.shape)}")
    n, k = w.shape
    if tuple(h.shape) != (k, k):
        raise ValueError(f"{name}: h must have shape {(k, k)} for w of shape {(n, k)}, got {tuple(h.shape)}")
    for what, x in (("w", w), ("h", h)):
        if not bool(xp.isfinite(x).all()):
            raise ValueError(f"{name}: {what} holds non-finite values")
    if zero_point is not None and scale is None:
        raise ValueError(f"{name}: zero_point needs a scale")
    if scale is not None and group is not None:
        raise ValueError(f"{name}: scale has its granularity in its shape, group={group} is another")
    if whole(f"{name}: steps", steps) < 0 or not 0 < lr < math.inf:
        raise ValueError(f"{name}: steps must not be negative and lr positive and finite, got {steps} and {lr}")
    lo, hi = code_range(dtype, name)
    compute = "float64" if dtype_name(w.dtype) == "float64" else "float32"
    if scale is None:
        grain: dict[str, Any] = {"axis": 0} if group is None else {"group": group}
        scale, zero_point = choose_qparams(w, (lo, hi), symmetric=symmetric, method=method, **grain)
        scale = scale.reshape(n, -1) if n else scale
        zero_point = None if symmetric and lo < 0 else zero_point.reshape(scale.shape)
    within(name, zero_point, lo, hi)
    if zero_point is not None:
        z = zero_point if hasattr(zero_point, "shape") else np.asarray(zero_point)
        some_value(name, "a zero point is finite", (np if isinstance(z, (np.ndarray, np.generic)) else xp).isfinite(z))
    # a power of two, which changes no digit, keeps it within the type
    h = cast(xp, h, "float64")
    unit = 2.0 ** max(-1000, min(1000, math.frexp(float(abs(h).max()) if k else 0.0)[1]))
    w, h = cast(xp, w, compute), cast(xp, h / unit, compute)
    return Layer(xp, w, h, unit, (lo, hi), scale, zero_point)


def _spread(xp: Any, name: str, x: Any, w: Array, kind: str) -> Array:
    """A number for every weight."""
    full = xp.zeros_like(w)
    if x is None or not math.prod(w.shape):
        return full
    if not getattr(x, "ndim", 0):
        return full + float(x)
    if x.ndim != 2 or any(not b or a % b for a, b in zip(w.shape, x.shape, strict=True)):
        raise ValueError(f"{name}: scale of shape {tuple(x.shape)} does not divide w of shape {tuple(w.shape)}")
    (high, a), (wide, b) = ((have, size // have) for size, have in zip(w.shape, x.shape, strict=True))
    parts = full.reshape(high, a, wide, b) + cast(xp, x, kind).reshape(high, 1, wide, 1)
    return parts.reshape(w.shape)


class _Grid:
    """A weight, the numbers that it may become, and what these do to the layer."""

    def __init__(self, xp: Any, w: Array, h: Array, s: Array, z: Array, lo: int, hi: int) -> None:
        self.xp, self.w, self.h, self.s, self.lo, self.hi = xp, w, h, s, lo - z, hi - z

    def slope(self, codes: Array) -> tuple[Array, Array]:
        """Δ and ΔH."""
        delta = codes * self.s - self.w
        return delta, delta @ self.h

    def error(self, codes: Array) -> Array:
        delta, slope = self.slope(codes)
        return (cast(self.xp, slope, "float64") * delta).sum(-1)


def _learned(grid: _Grid, error: Array, steps: int, lr: float) -> Array:
    """Codes without their zero points, after Adam's steps from where a is the fraction of w/s."""
    xp, k = grid.xp, max(grid.w.shape[-1], 1)
    quotient = grid.w / grid.s
    below = xp.floor(quotient)
    share = xp.clip((quotient - below - _LEAST) / (_MOST - _LEAST), 1e-6, 1 - 1e-6)
    v = xp.log(share / (1 - share))
    adam = Adam(xp, v)
    # rows that are exact have nothing to learn
    unit = xp.where(error > 0, 2 * k / xp.where(error > 0, error, xp.ones_like(error)), xp.zeros_like(error))
    unit = cast(xp, unit, dtype_name(v.dtype))[:, None] * grid.s
    for step in range(1, steps + 1):
        sigmoid = 1 / (1 + xp.exp(-v))
        a = xp.clip(sigmoid * (_MOST - _LEAST) + _LEAST, 0, 1)
        codes = below + a
        inside = (codes >= grid.lo) & (codes <= grid.hi)
        slope = unit * grid.slope(xp.clip(codes, grid.lo, grid.hi))[1] * inside
        if (part := (step / steps - _WARM) / (1 - _WARM)) > 0:
            beta = _LAST + (_FIRST - _LAST) * (1 + math.cos(math.pi * part)) / 2
            away = 2 * a - 1
            slope = slope - 2 * _WEIGHT * beta * xp.sign(away) * abs(away) ** (beta - 1)
        slope = slope * (_MOST - _LEAST) * sigmoid * (1 - sigmoid) * ((a > 0) & (a < 1))
        v = v - lr * adam.step(slope)
    a = 1 / (1 + xp.exp(-v)) * (_MOST - _LEAST) + _LEAST
    up = a >= 0.5 if steps else quotient - below >= 0.5
    return xp.clip(below + cast(xp, up, dtype_name(v.dtype)), grid.lo, grid.hi)
