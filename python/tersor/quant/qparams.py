"""Scales and zero points from the range of the data. The one rule: the range holds 0, which is always a code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import an_axis, cast, dtype_name, torch_module, whole
from tersor._op import op
from tersor._reference import quiet
from tersor._sample import Quantized
from tersor._signature import grain
from tersor.quant import _peers
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array, code_range, detached, one_of, some_value
from tersor.quant._ranges import CLIPS, _best_share, _row_quantiles, clipped, rows

#: how many shares of the range method="mse" tries, and how far apart
SHARES = (20, 0.025)


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


def _solve(xp: Any, low: Array, high: Array, lo: int, hi: int, symmetric: bool) -> tuple[Array, Array]:
    """Scales and zero points of ranges."""
    if not symmetric:
        s, z = affine_params(xp, low, high, lo, hi)
        return s, cast(xp, z, "int32")
    centre = 0 if lo < 0 else (lo + hi + 1) // 2
    amax, most = xp.maximum(-low, high), min(hi - centre, centre - lo)
    s = least(xp, amax / xp.full_like(amax, most), amax, most)
    return s, cast(xp, xp.full_like(amax, centre), "int32")


def choose_qparams(
    x: Array,
    dtype: Any = "int8",
    *,
    axis: int | tuple[int, ...] | None = None,
    group: int | None = None,
    symmetric: bool = True,
    compat: str | None = None,
    method: str = "minmax",
    percentile: float = 99.99,
    distribution: str = "gauss",
    norm: float = 2.0,
    nan: str = "raise",
) -> tuple[Array, Array]:
    r"""Scales and zero points that reach every value of x, or all but those with which the rest would be coarser.

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
    compat : str, optional
        Scales and zero points as a peer has them, bit for bit: "torch", "torchao", "ct", "gptq", "repq", "zeroq", "calibtip" or
        "ivit"; the formulas are in docs/quantization. "torchao" and "ct" compute 16-bit data in its own type, and so are
        their scales. "repq", "zeroq" and "calibtip" are asymmetric, "ivit" symmetric. The zero points of "repq" may be no
        codes, those of "zeroq" are whole float32 beside scales of float64, and that of "calibtip" is the number that code 0
        stands for. Hand them to `quantize` and `dequantize` with the same compat.
    method : "minmax", "percentile", "entropy", "aciq" or "mse"
        "minmax" reaches every value. "percentile" reaches from the (100 - percentile)-th to the percentile-th of x, or, if
        symmetric, the percentile-th of \|x\|. "entropy" ends where the distribution of \|x\|, with what is beyond put into the
        last of 2048 bins, diverges least from itself in as many levels as there are codes on the larger side. "aciq" ends at
        the mean and the number of spreads beyond it that lose least of a distribution. "mse" takes, of 0.525, 0.55, … 1 times
        the scale that reaches every value, for each the one with which x comes back with the least
        :math:`\sum |x - \hat x|^{norm}`. Not together with compat.
    percentile : float
        Of that method: above 50 and at most 100, in percent.
    distribution : "gauss" or "laplace"
        Of "aciq", for 2 to 8 bits: with spreads :math:`\sqrt{\overline{(x - \mu)^2}}` or :math:`\overline{|x - \mu|}`.
    norm : float
        Of "mse"; GPTQ has 2.4.
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
        If x holds non-finite values, a group does not divide the last axis, symmetric codes would have but one side (those of
        "uint1", and with "ivit" all without a sign), a peer's scale would be infinite, or an argument is unknown.

    Notes
    -----
    "minmax" reads x once. "percentile" finds order statistics by the bits of numbers, 16 at a time (two reads of 16-bit and
    float32 data, four of float64, and one before that), whatever their number, and mixes the two beside a rank as NumPy's
    default does, in float64. "entropy" and "aciq" read it three and four times; "mse" once more, tried with all shares while it
    is in cache. Migacz, "8-bit Inference with TensorRT" (2017), with one slip mended: what lies beyond is put into
    the last bin that is not empty. Banner et al., "Post training 4-bit quantization" (2019), for "aciq".
    """
    name = "choose_qparams"
    x = detached(name, x)
    lo, hi = code_range(dtype, name)
    one_of(name, "method", method, ("minmax", "percentile", "entropy", "aciq", "mse"))
    one_of(name, "compat", compat, (None, *_peers.KINDS))
    if compat and method != "minmax":
        raise ValueError(f"{name}: compat={compat!r} has no method={method!r}")
    if compat and bool(symmetric) not in _peers.KINDS[compat]:
        raise ValueError(f"{name}: compat={compat!r} has no symmetric={symmetric}")
    if compat == "ivit" and lo >= 0:
        raise ValueError(f"{name}: compat='ivit' has codes with a sign, got {lo} to {hi}")
    options = _options(name, method, percentile, distribution, norm, hi - lo + 1)
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
            axes |= 1 << an_axis(name, whole(f"{name}: axis", a), x.ndim)
    centre = 0 if lo < 0 else (lo + hi + 1) // 2
    if symmetric and not compat and not lo < centre < hi:
        raise ValueError(f"{name}: symmetric scales need codes on both sides of {centre}, got {lo} to {hi}")
    grain: dict[str, Any] = {"axes": axes, "group": group or 0, "saturate": saturate}
    xp = np if isinstance(x, np.ndarray) else torch_module()
    low, high = _value_range(x, *grain.values())
    with quiet(x):  # a range may be longer than its type's largest number
        if compat:
            if compat in _peers.WITHOUT_ZERO:
                ends = _row_quantiles(rows(x, axes, group or 0), 0.0, 1.0, False, saturate)
                low, high = (v.reshape(low.shape) for v in ends)
            low, high = _peers.taken(compat, low, x), _peers.taken(compat, high, x)
            scale, zero = _peers.qparams(compat, low, high, lo, hi, symmetric)
            some_value(name, f"compat={compat!r} has no finite scale for numbers as large", xp.isfinite(scale))
        else:
            if method not in ("minmax", "mse"):
                low, high = clipped(method, x, (low, high), hi - lo + 1, symmetric, grain | options)
            scale, zero = _solve(xp, low, high, lo, hi, symmetric)
    if method == "mse":
        scale = _best_share(x, scale, zero, lo, hi, *SHARES, options["norm"])
    # NumPy's arithmetic on 0-d arrays gives scalars
    return (np.asarray(scale), np.asarray(zero)) if xp is np else (scale, zero)


def _options(name: str, method: str, percentile: Any, distribution: str, norm: Any, codes: int) -> dict[str, Any]:
    """What belongs to a method."""
    one_of(name, "distribution", distribution, CLIPS)
    if not 50 < percentile <= 100:
        raise ValueError(f"{name}: percentile must lie above 50 and be at most 100, got {percentile}")
    if not 0 < norm < math.inf:
        raise ValueError(f"{name}: norm must be positive and finite, got {norm}")
    if method == "aciq" and codes not in (4, 8, 16, 32, 64, 128, 256):
        raise ValueError(f"{name}: method='aciq' has clips for 2 to 8 bits, got {codes} codes")
    return {"percentile": float(percentile), "distribution": distribution, "norm": float(norm)}
