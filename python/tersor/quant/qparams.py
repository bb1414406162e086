"""Scales and zero points from the range of the data. The one rule: the range holds 0, which is always a code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import cast, dtype_name, torch_module, whole
from tersor._op import op
from tersor._sample import Quantized
from tersor._signature import grain
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array, code_range, detached, one_of, own_arithmetic

#: what share of the range method="mse" tries
SHARES = tuple(1 - 0.025 * i for i in range(20))


@op(sample=Quantized("x", axes=1), native=True, integer=True)
def _value_range(x: Array, axes: int = 0, group: int = 0, saturate: bool = False) -> tuple[Array, Array]:
    """The least and the largest value of each scale's elements, 0 included."""
    return plain.extents(x, grain(x.shape, axes, group))


def least(xp: Any, s: Array, extent: Array, n: float) -> Array:
    """A scale s of numbers that reach over ``extent`` in n steps, also among denormals, where a quotient has few digits: the
    next one up where rounding went so far down that n steps do not reach. Zeros have the smallest normal number."""
    limits = np.finfo(dtype_name(s.dtype))
    smallest, tiny = xp.full_like(s, float(limits.smallest_subnormal)), xp.full_like(s, float(limits.tiny))
    low = xp.maximum(s, smallest)
    low = xp.where(low * xp.full_like(s, n) < extent, low + smallest, low)
    return xp.where(s > tiny, s, xp.where(extent == 0, tiny, low))


def affine_params(xp: Any, low: Array, high: Array, lo: int, hi: int) -> tuple[Array, Array]:
    """s = (high - low)/(hi - lo) and z = lo + rne(-low/s) in float64, s rounded once."""
    n, kind = hi - lo, dtype_name(low.dtype)
    bottom, top = cast(xp, low, "float64"), cast(xp, high, "float64")
    # one step over the whole of the type is longer than its largest number
    s = xp.clip(cast(xp, top / n - bottom / n, kind), None, float(np.finfo(kind).max))
    s = least(xp, s, high - low, n)
    return s, lo + xp.clip(xp.round(-bottom / cast(xp, s, "float64")), 0, n)


def _solve(
    xp: Any, low: Array, high: Array, lo: int, hi: int, symmetric: bool, compat: str | None
) -> tuple[Array, Array]:
    """Scales and zero points of ranges."""
    if compat is None and not symmetric:
        s, z = affine_params(xp, low, high, lo, hi)
        return s, cast(xp, z, "int32")
    centre = 0 if lo < 0 else (lo + hi + 1) // 2
    eps = float(np.finfo(dtype_name(low.dtype) if compat == "ct" else np.float32).eps)
    amax = xp.maximum(-low, high)
    if symmetric:
        most = (hi - lo) / 2 if compat else min(hi - centre, centre - lo)
        s = amax / xp.full_like(amax, most)
        z = xp.full_like(amax, centre)
    else:
        s = (high - low) / xp.full_like(amax, hi - lo)
    if compat == "ct":
        flat, s = s == 0, xp.where(s == 0, xp.full_like(s, eps), s)
        if not symmetric:  # rounds the sum, and has 0/0 for the zero point of zeros, which as an integer is 0
            z = xp.where(flat, xp.zeros_like(s), xp.clip(xp.round(lo - low / s), lo, hi))
    elif compat:
        s = xp.clip(s, eps, None)
    else:
        s = least(xp, s, amax, most)
    if not symmetric and compat != "ct":
        z = xp.clip(lo - xp.round(low / s), lo, hi)
    return s, cast(xp, z, "int32")


def _shrunk(xp: Any, x: Array, scale: Array, zero: Array, lo: int, hi: int, nan: str) -> Array:
    """Of each scale and its shares, the one whose numbers are nearest to x in sum of squares; of equals the largest."""
    from tersor.quant.affine import dequantize, quantize

    least_error, best = None, scale
    for share in SHARES:
        s = scale * share
        s = xp.where(s > 0, s, scale)
        y = dequantize(quantize(x, s, zero, (lo, hi), nan=nan), s, zero)
        d = cast(xp, x, dtype_name(y.dtype)) - y
        error = _gathered(xp.where(xp.isfinite(d), d, xp.zeros_like(d)) ** 2, tuple(scale.shape))
        if least_error is None:
            least_error = error
        else:
            better = error < least_error
            least_error, best = xp.where(better, error, least_error), xp.where(better, s, best)
    return best


def _gathered(v: Array, shape: tuple[int, ...]) -> Array:
    """The sums over the elements of each scale."""
    if math.prod(shape) <= 1:
        return v.sum().reshape(shape)
    cut = [size for n, m in zip(v.shape, shape, strict=True) for size in (m, n // max(m, 1))]
    return v.reshape(cut).sum(tuple(range(1, 2 * v.ndim, 2)))


def choose_qparams(
    x: Array,
    dtype: Any = "int8",
    *,
    axis: int | tuple[int, ...] | None = None,
    group: int | None = None,
    symmetric: bool = True,
    compat: str | None = None,
    method: str = "minmax",
    nan: str = "raise",
) -> tuple[Array, Array]:
    r"""Scales and zero points that reach every value of x.

    Symmetric: :math:`s = \max|x| / (2^{b-1} - 1)`, so that nothing clips and quantizing again changes nothing; z is 0, or
    the middle of an unsigned range. Otherwise, with the range widened to hold 0,
    :math:`s = (\max x - \min x) / (hi - lo)` and :math:`z = lo + \mathrm{rne}(-\min x / s)`. Denormals have codes like all
    else: a scale that is denormal is rounded up where the codes would not reach. The scale of zeros is the smallest normal
    number.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
    dtype : str, type or (int, int)
        "int2" to "int8", "uint1" to "uint8", a type of NumPy or torch of such a name, or the least and the largest code.
    axis : int or tuple of int, optional
        The axes that are kept: 0 is a scale per row of a matrix. None is one scale for all.
    group : int, optional
        One scale for every so many elements of the last axis. Not together with axis.
    symmetric : bool
    compat : "torch" or "ct", optional
        Scales and zero points of torch's observers (:math:`\max|x|/127.5`, at least 2^-23) or of compressed-tensors
        (:math:`2\max|x|/(hi - lo)`, the machine epsilon for zeros, whose zero point is 0). The latter computes 16-bit data
        in its own arithmetic, which is not reproduced: a ValueError.
    method : "minmax" or "mse"
        Scales that reach every value; or of 0.525, 0.55, … 1 times these, for each the one with which x comes back with the
        least sum of squared errors: few large values clip so that the many are nearer. Not together with compat.
    nan : "raise" or "zero"
        What is not finite is an error, or has no say.

    Returns
    -------
    scale : float64 for float64 data, else float32
    zero_point : int32, of the scale's shape

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If x holds non-finite values, a group does not divide the last axis, or an argument is unknown.

    Notes
    -----
    One read of x; with "mse" it is quantized twenty times besides.
    """
    name = "choose_qparams"
    x = detached(name, x)
    lo, hi = code_range(dtype, name)
    one_of(name, "method", method, ("minmax", "mse"))
    one_of(name, "compat", compat, (None, "torch", "ct"))
    if compat and method == "mse":
        raise ValueError(f"{name}: compat={compat!r} has no method='mse'")
    saturate = one_of(name, "nan", nan, {"raise": False, "zero": True})
    axes = 0
    if group is not None:
        if axis is not None:
            raise ValueError(f"{name}: axis={axis} and group={group} are two granularities; give one")
        if x.ndim == 0:
            raise ValueError(f"{name}: groups need a last axis, got a 0-d array")
        group = whole(f"{name}: group", group)
        if group < 1 or x.shape[-1] % group:
            raise ValueError(f"{name}: groups of {group} do not divide a last axis of {x.shape[-1]}")
    elif axis is not None:
        for a in axis if isinstance(axis, tuple) else (axis,):
            a = whole(f"{name}: axis", a)
            if not -x.ndim <= a < x.ndim:
                raise np.exceptions.AxisError(a, x.ndim, name)
            axes |= 1 << a % x.ndim
    own_arithmetic(name, compat, dtype_name(x.dtype))
    low, high = _value_range(x, axes, group or 0, saturate)
    xp = np if isinstance(x, np.ndarray) else torch_module()
    scale, zero = _solve(xp, low, high, lo, hi, symmetric, compat)
    if method == "mse":
        scale = _shrunk(xp, x, scale, zero, lo, hi, nan)
    # NumPy's arithmetic on 0-d arrays gives scalars
    return (np.asarray(scale), np.asarray(zero)) if xp is np else (scale, zero)
