r"""Quantizers: numbers as integer codes of a few bits, :math:`\hat x = (q - z)\,s`.

**A scale's shape is its granularity.** It has one size per axis of x, each a divisor of x's: ``()`` for a tensor, ``(N, 1)``
for rows, ``(1, K)`` for columns, ``(N, K/G)`` for groups of the last axis, ``(N/a, K/b)`` for tiles. `choose_qparams` makes
such scales from ``axis=`` or ``group=``; all other functions read the granularity from the scale.

Codes are int8 or uint8, one a byte, until `pack` puts them side by side. They are decided by the quotient x/s, divided
once in float64 for float64 data and in float32 for all other. Scales may have another float type than the data.
``compat=`` names a peer whose codes are reproduced bit for bit on finite values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor import _quantize as plain
from tersor._encoded import Encoded
from tersor._encoded import scheme as _scheme
from tersor._op import FLOATS, dtype_name, op
from tersor._sample import Quantized

__all__ = [
    "Encoded",
    "choose_qparams",
    "decode",
    "dequantize",
    "encode",
    "fake_quantize",
    "pack",
    "quantize",
    "unpack",
]

Array = Any

_ROUNDINGS = {"half_even": 0, "half_away": 1, "toward_zero": 2, "stochastic": 3}
#: divide, round, add z; multiply by 1/s in float32, round, add z; divide, add z, round
_FORMS = {None: 0, "gptq": 0, "repq": 0, "torch": 1, "torchao": 1, "ivit": 1, "ct": 2}
#: peers that compute 16-bit data in its own arithmetic
_OWN_ARITHMETIC = ("torchao", "ct")
#: elements of a group above which a group no longer fits the caches near a core: it is read twice, by all threads
_WIDE = 1 << 19


# --- the operators, private: the functions below them say the same with names instead of numbers ---


def _codes_meta(x: Array, scale: Array, zero_point: Array, lo: int, **_: Any) -> list:
    return [(tuple(x.shape), "int8" if lo < 0 else "uint8")]


@op(
    meta=_codes_meta,
    sample=Quantized("x", "scale", "zero_point", lo=-8, hi=7),
    exempt=("scale",),
    native=True,
    integer=True,
)
def _quantize(
    x: Array,
    scale: Array,
    zero_point: Array = None,
    lo: int = -128,
    hi: int = 127,
    form: int = 0,
    rounding: int = 0,
    seed: int = 0,
    saturate: bool = False,
) -> Array:
    """q = clamp(round(x/s) + z, lo, hi)."""
    return plain.codes(x, scale, zero_point, lo, hi, form, rounding, seed).astype(np.int8 if lo < 0 else np.uint8)


@op(
    meta=lambda q, scale, zero_point, dtype: [(tuple(q.shape), FLOATS[dtype])],
    sample=Quantized("q", "scale", "zero_point", dtype=True),
    exempt=("scale",),
    native=True,
)
def _dequantize(q: Array, scale: Array, zero_point: Array = None, dtype: int = 1) -> Array:
    """x = (q - z) s."""
    kind = np.float64 if dtype == 0 else np.float32
    z = plain.zeros(zero_point, q.shape, kind)
    return (q.astype(kind) - z) * plain.spread(np.asarray(scale).astype(kind), q.shape)


@op(sample=Quantized("x", "scale", "zero_point", lo=-8, hi=7), exempt=("scale",), native=True, gradcheck=False)
def _fake_quantize(
    x: Array, scale: Array, zero_point: Array = None, lo: int = -128, hi: int = 127, form: int = 0
) -> Array:
    """y = (clamp(rne(x/s) + z, lo, hi) - z) s."""
    return plain.fake(x, scale, zero_point, lo, hi, form)


@op(outputs=("dx",), sample=Quantized("g", "x", "scale", "zero_point", lo=-8, hi=7), exempt=("scale",), native=True)
def _fake_quantize_bwd(
    g: Array, x: Array, scale: Array, zero_point: Array = None, lo: int = -128, hi: int = 127, form: int = 0
) -> Array:
    """The straight-through gradient: g where the rounded value is within lo and hi, else 0."""
    return np.where(plain.fake_slopes(x, scale, zero_point, lo, hi, form)[0], g, 0)


@op(sample=Quantized("x", "scale", "z", lo=-8, hi=7, factor=0.5), exempt=("scale",), native=True, gradcheck=False)
def _fake_quantize_lsq(
    x: Array, scale: Array, zero_point: Array = None, lo: int = -128, hi: int = 127, form: int = 0, factor: float = 1.0
) -> Array:
    """As `_fake_quantize`, with gradients to the scale and the zero point."""
    return plain.fake(x, scale, zero_point, lo, hi, form)


@op(
    outputs=("dx", "dscale", "dzero_point"),
    sample=Quantized("g", "x", "scale", "z", lo=-8, hi=7, factor=0.5),
    exempt=("scale",),
    native=True,
)
def _fake_quantize_lsq_bwd(
    g: Array,
    x: Array,
    scale: Array,
    zero_point: Array = None,
    lo: int = -128,
    hi: int = 127,
    form: int = 0,
    factor: float = 1.0,
) -> tuple[Array, Array, Array]:
    """g inside; the sums of g (r - x/s) inside and g (end - z) outside; the sum of -g s outside."""
    inside, to_s, to_z = plain.fake_slopes(x, scale, zero_point, lo, hi, form)
    wide = np.asarray(g, np.float64) * factor
    ds = plain.gather(wide * to_s, np.shape(scale))
    if zero_point is None or np.size(zero_point) == 0:
        return np.where(inside, g, 0), ds, np.zeros(np.shape(zero_point) if zero_point is not None else 0)
    return np.where(inside, g, 0), ds, plain.gather(wide * to_z, np.shape(zero_point))


def _grain(shape: tuple[int, ...], axes: int, group: int) -> tuple[int, ...]:
    """The shape of a scale: groups of the last axis, or the sizes of the axes whose bit is set, or ()."""
    if group:
        return (*shape[:-1], shape[-1] // group)
    return tuple(n if axes >> i & 1 else 1 for i, n in enumerate(shape)) if axes else ()


def _compute(x: Array) -> str:
    """The name of the compute type of an array."""
    return "float64" if dtype_name(x.dtype) == "float64" else "float32"


@op(
    outputs=("low", "high"),
    meta=lambda x, axes, group, saturate: [(_grain(tuple(x.shape), axes, group), _compute(x))] * 2,
    sample=Quantized("x", axes=1),
    native=True,
    integer=True,
)
def _value_range(x: Array, axes: int = 0, group: int = 0, saturate: bool = False) -> tuple[Array, Array]:
    """The least and the largest value of each scale's elements, 0 included."""
    return plain.extents(x, _grain(x.shape, axes, group))


def _encoded_meta(affine: bool) -> Any:
    def meta(x: Array, bits: int, group: int, saturate: bool) -> list:
        *lead, last = x.shape if len(x.shape) else (1,)
        raw = bits == 8 and not affine
        scales = (*lead, last // group if group else 1)
        out: list = [((*lead, -(-last * bits // 8)), "int8" if raw else "uint8"), (scales, _compute(x))]
        return [*out, (scales, "uint8")] if affine else out

    return meta


@op(outputs=("data", "scale"), meta=_encoded_meta(False), sample=Quantized("x", bits=4), native=True, integer=True)
def _encode_symmetric(x: Array, bits: int = 8, group: int = 0, saturate: bool = False) -> tuple[Array, Array]:
    """s = max(amax/(2^(b-1) - 1), tiny), q = rne(x/s), packed unless they are int8."""
    most = (1 << bits - 1) - 1
    low, high = plain.extents(x, (*x.shape[:-1], x.shape[-1] // group if group else 1))
    s = np.maximum(np.maximum(-low, high) / high.dtype.type(most), np.finfo(high.dtype).tiny)
    q = plain.codes(x, s, None, -most, most).astype(np.int8)
    return q if bits == 8 else plain.pack(q, bits, False), s


@op(
    outputs=("data", "scale", "zero_point"),
    meta=_encoded_meta(True),
    sample=Quantized("x", bits=4),
    native=True,
    integer=True,
)
def _encode_affine(x: Array, bits: int = 8, group: int = 0, saturate: bool = False) -> tuple[Array, Array, Array]:
    """s = max((high - low)/(2^b - 1), tiny), z = rne(-low/s), q = rne(x/s) + z, packed."""
    low, high = plain.extents(x, (*x.shape[:-1], x.shape[-1] // group if group else 1))
    s, z = _affine(np, low, high, 0, (1 << bits) - 1)
    q = plain.codes(x, s, z, 0, (1 << bits) - 1).astype(np.uint8)
    return plain.pack(q, bits, False), s, z.astype(np.uint8)


@op(
    meta=lambda data, scale, zero_point, bits, last, dtype: [((*tuple(data.shape)[:-1], last), FLOATS[dtype])],
    sample=Quantized("data", "scale", "none", bits=4, dtype=True),
    exempt=("scale",),
    native=True,
)
def _decode(data: Array, scale: Array, zero_point: Array = None, bits: int = 8, last: int = 0, dtype: int = 1) -> Array:
    """The numbers of packed codes; without a zero point it is 2^(b-1), or 0 for int8."""
    signed = data.dtype == np.int8
    q = data if signed else plain.unpack(data, bits, last, False)
    if not signed and (zero_point is None or np.size(zero_point) == 0):
        zero_point = np.float32(1 << bits - 1)
    return _dequantize.__wrapped__(q, scale, zero_point, dtype)


@op(
    meta=lambda q, bits, words: [
        ((*tuple(q.shape)[:-1], -(-q.shape[-1] * bits // (32 if words else 8))), "int32" if words else "uint8")
    ],
    sample=Quantized("q", bits=4),
    native=True,
    integer=True,
)
def _pack(q: Array, bits: int = 8, words: bool = False) -> Array:
    """Codes side by side from the lowest bit."""
    return plain.pack(q, bits, words)


@op(
    meta=lambda w, bits, last, signed: [((*tuple(w.shape)[:-1], last), "int8" if signed else "uint8")],
    sample=Quantized("data", bits=4),
    native=True,
    integer=True,
)
def _unpack(w: Array, bits: int = 8, last: int = 0, signed: bool = False) -> Array:
    """The inverse of `_pack`."""
    return plain.unpack(w, bits, last, signed)


# --- what the arguments of the public functions mean ---


def _range(dtype: Any, name: str) -> tuple[int, int]:
    """The least and the largest code: of "int2" to "int8" and "uint1" to "uint8", or as they are given."""
    if isinstance(dtype, str):
        word, _, bits = dtype.partition("int")
        if word in ("", "u") and bits.isdecimal() and (2 if word == "" else 1) <= int(bits) <= 8:
            half = 1 << int(bits) - 1
            return (0, 2 * half - 1) if word else (-half, half - 1)
    elif isinstance(dtype, tuple) and len(dtype) == 2 and all(type(v) is int for v in dtype):
        return dtype
    raise ValueError(f'{name}: dtype must be "int2" to "int8", "uint1" to "uint8" or (lo, hi), got {dtype!r}')


def _one_of(name: str, argument: str, value: Any, known: Any) -> Any:
    if value not in known:
        raise ValueError(f"{name}: {argument} must be one of {', '.join(repr(k) for k in known)}, got {value!r}")
    return known[value] if isinstance(known, dict) else value


def _form(name: str, compat: str | None, x: Array, scale: Array) -> int:
    form = _one_of(name, "compat", compat, _FORMS)
    small = ("float16", "bfloat16")
    kinds = [dtype_name(v.dtype) for v in (x, scale) if getattr(v, "ndim", 0)]
    if compat in _OWN_ARITHMETIC and kinds and all(k in small for k in kinds):
        raise ValueError(f"{name}: {compat} divides {kinds[0]} in its own arithmetic, which is not reproduced")
    return form


def _array(name: str, x: Array) -> Array:
    """`x` without its gradient, if it is an array at all."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "detach"):
        return x.detach()
    raise TypeError(f"{name}: x must be a NumPy array or a torch tensor, got {type(x).__name__}")


def _torch() -> Any:
    import torch

    return torch


def _as(xp: Any, v: Array, kind: str) -> Array:
    return v.astype(kind) if xp is np else v.to(getattr(xp, kind))


def _affine(xp: Any, low: Array, high: Array, lo: int, hi: int) -> tuple[Array, Array]:
    """s = max((high - low)/(hi - lo), tiny) and z = lo + rne(-low/s) in float64, s rounded once."""
    n, kind = hi - lo, dtype_name(low.dtype)
    bottom, top = _as(xp, low, "float64"), _as(xp, high, "float64")
    s = xp.clip(_as(xp, top / n - bottom / n, kind), np.finfo(kind).tiny, None)
    return s, lo + xp.clip(xp.round(-bottom / _as(xp, s, "float64")), 0, n)


def _solve(
    xp: Any, low: Array, high: Array, lo: int, hi: int, symmetric: bool, compat: str | None
) -> tuple[Array, Array]:
    """Scales and zero points of ranges."""
    if compat is None and not symmetric:
        s, z = _affine(xp, low, high, lo, hi)
        return s, _as(xp, z, "int32")
    centre = 0 if lo < 0 else (lo + hi + 1) // 2
    eps = float(np.finfo(np.float32).eps)
    amax = xp.maximum(-low, high)
    if symmetric:
        most = (hi - lo) / 2 if compat else min(hi - centre, centre - lo)
        s = amax / xp.full_like(amax, most)
        z = xp.full_like(amax, centre)
    else:
        s = (high - low) / xp.full_like(amax, hi - lo)
    if compat == "ct":
        s = xp.where(s == 0, xp.full_like(s, eps), s)
    else:
        s = xp.clip(s, eps if compat else np.finfo(dtype_name(s.dtype)).tiny, None)
    if not symmetric:
        z = xp.clip(lo - xp.round(low / s), lo, hi)
    return s, _as(xp, z, "int32")


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
    :math:`s = (\max x - \min x) / (hi - lo)` and :math:`z = lo + \mathrm{rne}(-\min x / s)`. A scale is at least the
    smallest normal number, so zeros and denormals have codes like all else.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
    dtype : str or (int, int)
        "int2" to "int8", "uint1" to "uint8", or the least and the largest code.
    axis : int or tuple of int, optional
        The axes that are kept: 0 is a scale per row of a matrix. None is one scale for all.
    group : int, optional
        One scale for every so many elements of the last axis. Not together with axis.
    symmetric : bool
    compat : "torch" or "ct", optional
        Scales of torch's observers (:math:`\max|x|/127.5`, at least 2^-23) or of compressed-tensors.
    method : "minmax"
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
    One read of x.
    """
    name = "choose_qparams"
    x = _array(name, x)
    lo, hi = _range(dtype, name)
    _one_of(name, "method", method, ("minmax",))
    _one_of(name, "compat", compat, (None, "torch", "ct"))
    saturate = _one_of(name, "nan", nan, {"raise": False, "zero": True})
    axes = 0
    if group is not None:
        if axis is not None:
            raise ValueError(f"{name}: axis={axis} and group={group} are two granularities; give one")
        if x.ndim == 0:
            raise ValueError(f"{name}: groups need a last axis, got a 0-d array")
        if type(group) is not int or group < 1 or x.shape[-1] % group:
            raise ValueError(f"{name}: groups of {group} do not divide a last axis of {x.shape[-1]}")
    elif axis is not None:
        for a in axis if isinstance(axis, tuple) else (axis,):
            if not -x.ndim <= a < x.ndim:
                raise np.exceptions.AxisError(a, x.ndim, name)
            axes |= 1 << a % x.ndim
    low, high = _value_range(x, axes, group or 0, saturate)
    return _solve(np if isinstance(x, np.ndarray) else _torch(), low, high, lo, hi, symmetric, compat)


def quantize(
    x: Array,
    scale: Array,
    zero_point: Array = None,
    dtype: Any = "int8",
    *,
    rounding: str = "half_even",
    seed: int = 0,
    compat: str | None = None,
    nan: str = "raise",
    out: Array = None,
) -> Array:
    r"""Codes :math:`q = \mathrm{clamp}(\mathrm{round}(x/s) + z,\ lo,\ hi)`.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
    scale : float or array
        Positive and finite; its shape is the granularity (see `tersor.quant`).
    zero_point : int, integer or float array like scale, optional
        Within ±2^21; floats are rounded half to even.
    dtype : str or (int, int)
        "int2" to "int8", "uint1" to "uint8", or the least and the largest code.
    rounding : "half_even", "half_away", "toward_zero" or "stochastic"
        Stochastic rounds away from zero with the probability of the fraction, so that the mean is x/s.
    seed : int
        Of stochastic rounding: element i uses word i of tag 32, whatever the threads (see the contract of random bits).
    compat : str, optional
        "torch", "torchao" and "ivit" multiply by 1/s in float32; "ct" adds z before rounding; "gptq" and "repq" are the
        default.
    nan : "raise" or "zero"
        What is not finite is an error, or NaN is the code of 0 and infinities are the ends.
    out : array or tensor, optional
        Where the codes go. With nan="raise", x is then read twice, so that nothing is changed if there is an error.

    Returns
    -------
    int8 if the least code is negative, else uint8, of x's shape

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If x holds non-finite values, a scale is not positive and finite, shapes do not fit, or codes do not fit a byte.

    Notes
    -----
    One read of x, one write of the codes. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference" (2018), equation 1.
    """
    name = "quantize"
    x = _array(name, x)
    lo, hi = _range(dtype, name)
    saturate = _one_of(name, "nan", nan, {"raise": False, "zero": True})
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"{name}: seed must lie within 0 and 2^64 - 1, got {seed}")
    numbers = (
        lo,
        hi,
        _form(name, compat, x, scale),
        _one_of(name, "rounding", rounding, _ROUNDINGS),
        seed - (1 << 64) if seed >> 63 else seed,
        saturate,
    )
    if out is None:
        return _quantize(x, scale, zero_point, *numbers)
    _finite(name, x, saturate)
    return _quantize(x, scale, zero_point, *numbers, out=out)


def _finite(name: str, x: Array, saturate: bool) -> None:
    """An error before anything is written."""
    if not saturate:
        try:
            _value_range(x)
        except ValueError as e:
            raise ValueError(str(e).replace("value_range", name, 1)) from None


def dequantize(
    q: Array, scale: Array, zero_point: Array = None, *, dtype: str | None = None, out: Array = None
) -> Array:
    r"""Numbers :math:`\hat x = (q - z)\,s`.

    Parameters
    ----------
    q : int8 or uint8 array or tensor
    scale : float or array
        Its shape is the granularity.
    zero_point : int, integer or float array like scale, optional
    dtype : str, optional
        "float64", "float32", "float16" or "bfloat16"; the scale's if it is an array, else float32.
    out : array or tensor, optional

    Returns
    -------
    floats of q's shape, computed in float32 (float64 where they are float64) and rounded once

    Raises
    ------
    TypeError
        If q is not int8 or uint8.
    ValueError
        If shapes do not fit.

    Notes
    -----
    One read of the codes, one write of the numbers.
    """
    name = "dequantize"
    q = _array(name, q)
    kind = dtype or (dtype_name(scale.dtype) if hasattr(scale, "dtype") else "float32")
    number = FLOATS.index(_one_of(name, "dtype", kind, FLOATS))
    keywords = {} if out is None else {"out": out}
    return _dequantize(q, scale, zero_point, number, **keywords)


def fake_quantize(
    x: Array,
    scale: Array,
    zero_point: Array = None,
    dtype: Any = "int8",
    *,
    grad: str = "ste",
    grad_scale: float | str = 1.0,
    compat: str | None = None,
    out: Array = None,
) -> Array:
    r"""The numbers that x becomes as codes, :math:`(\mathrm{clamp}(\mathrm{rne}(x/s) + z, lo, hi) - z)\,s`, with a gradient.

    With :math:`r = \mathrm{rne}(x/s)` and "inside" meaning :math:`lo \le r + z \le hi`:
    :math:`\partial\hat x/\partial x` is 1 inside and 0 outside (straight-through). With ``grad="lsq"`` also
    :math:`\partial\hat x/\partial s = r - x/s` inside and :math:`lo - z` or :math:`hi - z` outside, and
    :math:`\partial\hat x/\partial z = -s` outside.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
        A map, not a decision: NaN stays NaN, infinities clamp.
    scale : float or array
        Its shape is the granularity.
    zero_point : int, integer or float array like scale, optional
        A learned one is a float tensor; it is rounded half to even.
    dtype : str or (int, int)
        "int2" to "int8", "uint1" to "uint8", or the least and the largest code.
    grad : "ste" or "lsq"
        Whether the scale and the zero point have gradients too, summed in float64 in a fixed order.
    grad_scale : float or "lsq"
        Multiplies those gradients; "lsq" is :math:`1/\sqrt{N\,hi}` for N elements per scale.
    compat : str, optional
        As in `quantize`; "torch" equals ``torch.fake_quantize_*`` on finite values.
    out : array or tensor, optional
        May be x itself.

    Returns
    -------
    array or tensor like x

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If shapes do not fit, a zero point is beyond ±2^21, or codes do not fit a byte.

    Notes
    -----
    One read and one write of x; the gradient reads twice and writes once. Bengio, Léonard, Courville (2013) for x; Esser et
    al., "Learned Step Size Quantization" (2020), equation 3, for s; Bhalgat et al., "LSQ+" (2020), equation 4, for z.
    """
    name = "fake_quantize"
    _array(name, x)
    lo, hi = _range(dtype, name)
    form = _form(name, compat, x, scale)
    keywords = {} if out is None else {"out": out}
    if _one_of(name, "grad", grad, ("ste", "lsq")) == "ste":
        return _fake_quantize(x, scale, zero_point, lo, hi, form, **keywords)
    if grad_scale == "lsq":
        per_scale = math.prod(x.shape) // max(math.prod(getattr(scale, "shape", ())), 1)
        grad_scale = 1 / math.sqrt(max(per_scale * hi, 1))
    return _fake_quantize_lsq(x, scale, zero_point, lo, hi, form, float(grad_scale), **keywords)


def _moved(x: Array, axis: int, to: int) -> Array:
    return np.moveaxis(x, axis, to) if isinstance(x, np.ndarray) else x.movedim(axis, to)


def _axis(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim, name)
    return axis % ndim - ndim


def pack(q: Array, bits: int, layout: str = "dense", *, axis: int = -1) -> Array:
    r"""Codes side by side: code i lies at bits i·b to i·b + b - 1 of its row, from the lowest bit of the first byte.

    Signed codes are stored plus :math:`2^{b-1}`. The bits after a row's last code are zero.

    Parameters
    ----------
    q : int8 or uint8 array or tensor
    bits : int
        1 to 8.
    layout : "dense" or "ct_dense"
        Rows in whole bytes, uint8 ``[..., ceil(K b / 8)]``; or in 32-bit words, int32 ``[..., ceil(K b / 32)]``, as
        compressed-tensors packs them.
    axis : int
        The axis that is packed.

    Returns
    -------
    uint8 or int32

    Raises
    ------
    TypeError
        If q is not int8 or uint8.
    ValueError
        If a code does not fit the bits, or the layout is unknown.
    """
    q = _array("pack", q)
    words = _one_of("pack", "layout", layout, {"dense": False, "ct_dense": True})
    axis = _axis("pack", axis, q.ndim)
    _width("pack", bits)
    return _moved(_pack(_moved(q, axis, -1), bits, words), -1, axis)


def _width(name: str, bits: Any) -> None:
    if type(bits) is not int or not 1 <= bits <= 8:
        raise ValueError(f"{name}: bits must be an int within 1 and 8, got {bits!r}")


def unpack(
    w: Array, bits: int, shape: tuple[int, ...], layout: str = "dense", *, axis: int = -1, dtype: str | None = None
) -> Array:
    """The codes that `pack` put side by side.

    Parameters
    ----------
    w : uint8 array or tensor, or int32 for "ct_dense"
    bits : int
        1 to 8.
    shape : tuple of int
        Of the codes.
    layout : "dense" or "ct_dense"
    axis : int
        The axis that was packed.
    dtype : "int8" or "uint8", optional
        Signed or unsigned codes; unsigned for "dense", signed for "ct_dense" if it is not said.

    Returns
    -------
    int8 or uint8 of the given shape

    Raises
    ------
    TypeError
        If w is not of the layout's dtype.
    ValueError
        If w does not hold so many codes.
    """
    w = _array("unpack", w)
    words = _one_of("unpack", "layout", layout, {"dense": False, "ct_dense": True})
    kind = dtype or ("int8" if words else "uint8")
    signed = _one_of("unpack", "dtype", kind, {"int8": True, "uint8": False})
    _width("unpack", bits)
    if dtype_name(w.dtype) != ("int32" if words else "uint8"):
        raise TypeError(f"unpack: w is {dtype_name(w.dtype)}, {layout} is {'int32' if words else 'uint8'}")
    shape = tuple(shape)
    axis = _axis("unpack", axis, w.ndim)
    if len(shape) != w.ndim or any(shape[i] != w.shape[i] for i in range(-w.ndim, 0) if i != axis):
        raise ValueError(f"unpack: w of shape {tuple(w.shape)} does not hold codes of shape {shape}")
    return _moved(_unpack(_moved(w, axis, -1), bits, int(shape[axis]), signed), -1, axis)


def encode(x: Array, scheme: str, *, nan: str = "raise", out: Encoded | None = None) -> Encoded:
    r"""Range, codes and packing in one read of x.

    Parameters
    ----------
    x : array or tensor ``[..., K]`` of float64, float32, float16 or bfloat16
    scheme : str
        ``<code>-row``, ``<code>-g<G>`` or ``<code>-tensor``: one scale per row of the last axis, per G elements of it, or
        for all. ``<code>`` is int2 to int8, symmetric with :math:`s = \max|x|/(2^{b-1} - 1)`, or uint1 to uint8, with a zero
        point. "int8-row" and "int4-g128" are the usual ones.
    nan : "raise" or "zero"
        What is not finite is an error; or it has no say in the range, NaN is the code of 0 and infinities are the ends.
    out : Encoded, optional
        Overwritten and returned; of the same scheme, shape and dtype. With nan="raise", x is then read twice, so that
        nothing is changed if there is an error; with nan="zero" once.

    Returns
    -------
    Encoded

    Raises
    ------
    TypeError
        If x is not a float array, or out is of another dtype.
    ValueError
        If x holds non-finite values or is 0-d, the scheme is unknown, or its groups do not divide the last axis.

    Notes
    -----
    Groups are measured and coded while they are in cache. Groups of more than 2^19 elements are read twice.
    """
    name = "encode"
    how, x = _scheme(scheme), _array(name, x)
    saturate = _one_of(name, "nan", nan, {"raise": False, "zero": True})
    if x.ndim == 0:
        raise ValueError(f"{name}: x needs a last axis, got a 0-d array")
    last, kind = x.shape[-1], dtype_name(x.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: x must be a float array, got {kind}")
    if how.group and last % how.group:
        raise ValueError(f"{name}: groups of {how.group} do not divide a last axis of {last}")
    target = None if out is None else _target(out, scheme, x)
    if out is not None:
        _finite(name, x, saturate)
    shape = tuple(x.shape)
    if how.group is None or how.elements(last) > _WIDE or last == 0:
        made = _in_two_reads(x, how, nan)
        if out is None:
            return Encoded(*made, scheme, shape, kind)
        for old, new in zip((out.data, out.scale, out.zero_point), made, strict=True):
            if old is not None:
                old[...] = new
        return out
    keywords: dict[str, Any] = {} if target is None else {"out": target}
    try:
        made = (_encode_affine if how.affine else _encode_symmetric)(x, how.bits, how.group, saturate, **keywords)
    except ValueError as e:
        raise ValueError(str(e).replace("encode_affine", name, 1).replace("encode_symmetric", name, 1)) from None
    return out if out is not None else Encoded(*made, *(() if how.affine else (None,)), scheme, shape, kind)


def _target(out: Any, scheme: str, x: Array) -> tuple[Array, ...]:
    """The arrays of an `Encoded` that is to be overwritten."""
    if not isinstance(out, Encoded):
        raise TypeError(f"encode: out must be an Encoded, got {type(out).__name__}")
    if out.dtype != dtype_name(x.dtype):
        raise TypeError(f"encode: out is of {out.dtype}, x of {dtype_name(x.dtype)}")
    if out.scheme != scheme or out.shape != tuple(x.shape):
        raise ValueError(f"encode: out is {out.scheme} of {out.shape}, x is to be {scheme} of {tuple(x.shape)}")
    if isinstance(out.data, np.ndarray) != isinstance(x, np.ndarray):
        raise TypeError("encode: out and x must be of the same library")
    return (out.data, out.scale) if out.zero_point is None else (out.data, out.scale, out.zero_point)


def _in_two_reads(x: Array, how: Any, nan: str) -> tuple[Array, Array, Array]:
    """The same for groups that no cache holds: a range, then codes, each over all threads."""
    grain: dict[str, Any] = {"group": how.group} if how.group else {}
    if how.group == 0:
        grain = {"axis": tuple(range(x.ndim - 1))} if x.ndim > 1 else {}
    dtype: Any = how.codes
    if not how.affine:
        most = (1 << how.bits - 1) - 1
        dtype = (-most, most)
    scale, zero = choose_qparams(x, dtype, symmetric=not how.affine, nan=nan, **grain)
    if how.group == 0:
        shape = (*x.shape[:-1], 1)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    q = quantize(x, scale, zero if how.affine else None, dtype, nan=nan)
    zero = _as(np if isinstance(x, np.ndarray) else _torch(), zero, "uint8") if how.affine else None
    return (q if how.raw else pack(q, how.bits)), scale, zero


def decode(e: Encoded, *, out: Array = None) -> Array:
    r"""The numbers of an `Encoded`, :math:`\hat x = (q - z)\,s`.

    Parameters
    ----------
    e : Encoded
    out : array or tensor, optional

    Returns
    -------
    array or tensor of the encoded one's shape and dtype

    Raises
    ------
    TypeError
        If e is not an Encoded.
    ValueError
        If its parts do not fit each other.

    Notes
    -----
    One read of the codes, one write of the numbers.
    """
    if not isinstance(e, Encoded):
        raise TypeError(f"decode: e must be an Encoded, got {type(e).__name__}")
    how = _scheme(e.scheme)
    keywords = {} if out is None else {"out": out}
    return _decode(e.data, e.scale, e.zero_point, how.bits, e.shape[-1], FLOATS.index(e.dtype), **keywords)
