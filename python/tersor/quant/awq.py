"""Scales of inputs that make weights easier to round. The one rule: an error is that of the layer's results, from the Gram
matrix of its inputs; the layer is not run again."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, Number, dtype_name
from tersor._reference import quiet
from tersor.quant._arguments import Array, code_range, detached
from tersor.quant._plain import MOST
from tersor.quant.affine import dequantize, quantize
from tersor.quant.qparams import cast, choose_qparams, torch_module

#: the smallest normal numbers of the types in which that is not 2^-126
TINY = {"float64": 2.0**-1022, "float16": 2.0**-14}
#: exponents that are tried: 0, which is no scaling, to 1
EXPONENTS = tuple(i / 20 for i in range(21))


class Scaled(NamedTuple):
    """What `awq_search` found.

    Attributes
    ----------
    scales : float64 or float32 [K]
        Columns of w are to be multiplied with them, inputs divided. Ones where nothing is better.
    error : float
        :math:`\\mathrm{tr}(\\Delta H \\Delta^\\top)` of all rows with these scales.
    """

    scales: Any
    error: float


def _vector(name: str, what: str, x: Any, k: int | None = None) -> Any:
    x = detached(name, x)
    if dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{name}: {what} must be a float array, got {dtype_name(x.dtype)}")
    if x.ndim != 1 or (k is not None and len(x) != k):
        raise ValueError(f"{name}: {what} must have shape {('K',) if k is None else (k,)}, got {tuple(x.shape)}")
    xp = np if isinstance(x, np.ndarray) else torch_module()
    if not bool(xp.isfinite(x).all()) or bool((x < 0).any()):
        raise ValueError(f"{name}: {what} must be finite and not negative")
    return x


def awq_search(
    w: Array,
    h: Number,
    act_mean: Number,
    *,
    dtype: Any = "int4",
    group: int | None = None,
    symmetric: bool = True,
    method: str = "minmax",
) -> Scaled:
    r"""Scales of the inputs of a linear layer with which its weight, rounded to the nearest, errs least in its results.

    .. math:: s_\alpha = \frac{a^\alpha}{\sqrt{\max a^\alpha \min a^\alpha}},\qquad
              \Delta_\alpha = \mathrm{round}(W\,\mathrm{diag}\,s_\alpha)\,\mathrm{diag}\,s_\alpha^{-1} - W,\qquad
              \min_\alpha \mathrm{tr}(\Delta_\alpha H \Delta_\alpha^\top)

    over :math:`\alpha = 0, 1/20, \dots, 1`: columns whose inputs are large are rounded more finely. What gives the inputs is
    then to be divided by s.

    Parameters
    ----------
    w : array or tensor [N, K] of float64, float32, float16 or bfloat16
    h : float64 or float32 [K, K]
        `hessian` of the inputs.
    act_mean : float [K]
        a, the mean magnitude of each input. Inputs that are always 0 count as the least that is not.
    dtype, group, symmetric, method
        As of `choose_qparams`: a scale a row, or for every group of columns.

    Returns
    -------
    Scaled
        ``scales``, ``error``: never more than without scales.

    Raises
    ------
    TypeError
        If w, h or act_mean is not a float array.
    ValueError
        If values are not finite, act_mean is negative, or shapes do not fit.

    Notes
    -----
    :math:`21\,N K^2` operations in the type of w (float32 for 16 bits), by the library's own product: no kernel gains anything.
    Lin et al., "AWQ: Activation-aware Weight Quantization" (2023), whose search runs the layer for every α.
    """
    name = "awq_search"
    w, h = detached(name, w), detached(name, h)
    xp = np if isinstance(w, np.ndarray) else torch_module()
    kind = dtype_name(w.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: w must be a float array, got {kind}")
    if w.ndim != 2:
        raise ValueError(f"{name}: w must be a matrix, got shape {tuple(w.shape)}")
    k = w.shape[1]
    if dtype_name(h.dtype) not in ("float64", "float32"):
        raise TypeError(f"{name}: h must be float64 or float32, got {dtype_name(h.dtype)}")
    if tuple(h.shape) != (k, k):
        raise ValueError(f"{name}: h must have shape {(k, k)} for w of shape {tuple(w.shape)}, got {tuple(h.shape)}")
    for what, x in (("w", w), ("h", h)):
        if not bool(xp.isfinite(x).all()):
            raise ValueError(f"{name}: {what} holds non-finite values")
    compute = "float64" if kind == "float64" else "float32"
    a = cast(xp, _vector(name, "act_mean", act_mean, k), "float64")
    w, h = cast(xp, w, compute), cast(xp, h, compute)
    lo, hi = code_range(dtype, name)
    grain: dict[str, Any] = {"axis": 0} if group is None else {"group": group}
    best = Scaled(xp.ones_like(h[0] if k else w.reshape(-1)), math.inf)
    some = bool((a > 0).any())
    least = a[a > 0].min() if some else 1.0
    a = xp.clip(a, least, None) if some else a + 1
    for exponent in EXPONENTS if some else EXPONENTS[:1]:
        s = a**exponent
        s = s / xp.sqrt(s.max() * s.min()) if k else s
        s = cast(xp, s, compute)
        scaled = w * s
        if not bool(xp.isfinite(scaled).all()):
            continue
        step, zero = choose_qparams(scaled, (lo, hi), symmetric=symmetric, method=method, **grain)
        delta = dequantize(quantize(scaled, step, zero, (lo, hi)), step, zero) / s - w
        error = float(cast(xp, (delta @ h) * delta, "float64").sum())
        if error < best.error:
            best = Scaled(s, max(error, 0.0))
    return best


def smooth_scales(act_amax: Number, w_amax: Number, alpha: float = 0.5) -> Any:
    r"""Scales that divide what is hard to round between inputs and weights, :math:`s = a^\alpha / w^{1-\alpha}`.

    Inputs are divided by them and columns of the weight multiplied; at 1/2 both reach as far.

    Parameters
    ----------
    act_amax, w_amax : array or tensor [K] of one float type
        The largest magnitude of each input, and of each column of the weight.
    alpha : float
        From 0 to 1: how much of the inputs' range goes to the weight.

    Returns
    -------
    of the type of act_amax [K]
        1 where one of the two is 0: nothing is to be divided. Held within the smallest normal and the largest number of the
        type, so that none is 0 or infinite.

    Raises
    ------
    TypeError
        If an array is not of floats, or they are of two types.
    ValueError
        If values are negative or not finite, shapes differ, or alpha is beyond 0 and 1.

    Notes
    -----
    In float64, rounded once; no kernel gains anything. Xiao et al., "SmoothQuant" (2022), without its floor of 1e-5.
    """
    name = "smooth_scales"
    act = _vector(name, "act_amax", act_amax)
    weight = _vector(name, "w_amax", w_amax, len(act))
    kind = dtype_name(act.dtype)
    if dtype_name(weight.dtype) != kind:
        raise TypeError(
            f"{name}: w_amax is {dtype_name(weight.dtype)}, act_amax is {kind}; tersor does not convert silently"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"{name}: alpha must be within 0 and 1, got {alpha}")
    xp = np if isinstance(act, np.ndarray) else torch_module()
    a, b = cast(xp, act, "float64"), cast(xp, weight, "float64")
    none = (a == 0) | (b == 0)
    one = xp.ones_like(a)
    with quiet(act):
        s = xp.where(none, one, a) ** alpha / xp.where(none, one, b) ** (1 - alpha)
    s = xp.clip(s, TINY.get(kind, 2.0**-126), float(MOST[kind]))
    return s.astype(act.dtype) if xp is np else s.to(act.dtype)
