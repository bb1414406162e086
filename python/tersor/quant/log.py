"""Logarithmic codes, for what piles up near 0: attention after softmax. The one rule: a code is read off the exponent and the
fraction of the quotient x/s, rounded once; no logarithm is computed, and no threshold is missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import FLOATS, Array, Codes, Number, dtype_name, into, whole
from tersor._op import op
from tersor._sample import Quantized
from tersor._values import float_name
from tersor.quant import _plain as plain
from tersor.quant._arguments import detached, learned, one_of

#: the names of the base, and whether its steps are halves of a power of two
BASES: dict[Any, bool] = {"sqrt2": True, 2: False}
#: the first float64 above 2^1/4, 2^1/2 and 2^3/4
QUARTER, HALF, THREE_QUARTERS = 1.1892071150027212, 1.4142135623730951, 1.6817928305074292


def _free(v: Array, half: bool) -> np.ndarray:
    """rne(-k log2 v) of positive quotients, by exponent and fraction; far too large of 0."""
    f, e = np.frexp(np.clip(np.where(v > 0, v, 1), 0, 4))
    f, e = 2 * np.asarray(f, np.float64), e - 1
    q = -2 * e - (f >= QUARTER) - (f >= THREE_QUARTERS) if half else -e - (f >= HALF)
    return np.where(v > 0, q, 1 << 20)


def _levels(q: Array, half: bool, kind: Any) -> np.ndarray:
    """2^(-q/k), rounded once to `kind`."""
    if not half:
        return np.ldexp(kind(1), -q)
    return np.where(q % 2 == 1, np.ldexp(kind(HALF), -((q + 1) // 2)), np.ldexp(kind(1), -((q + 1) // 2)))


def _levels_of(q: Array, bits: int, half: bool, kind: Any) -> np.ndarray:
    return np.where(q < 1 << bits, _levels(q, half, kind), kind(0))


def _codes(v: Array, bits: int, half: bool) -> np.ndarray:
    q = np.maximum(_free(v, half), 0)
    return np.where(q < 1 << bits, q, min(1 << bits, 255))


def _quotient(x: Array, scale: Array) -> tuple[np.ndarray, np.ndarray]:
    v, _, s = plain.quotient(x, scale, None, 0)
    return v, s


@op(
    sample=Quantized("x+", "scale", bits=4, half=True, saturate=True),
    exempt=("scale",),
    local={"x": 0, "scale": 0},
    native=True,
    integer=True,
)
def _quantize_log(x: Array, scale: Array, bits: int = 4, half: bool = True, saturate: bool = False) -> Array:
    """q = rne(-k log2(x/s)), held within 0 and 2^bits - 1; 2^bits of 0."""
    return _codes(_quotient(x, scale)[0], bits, half).astype(np.uint8)


@op(
    sample=Quantized("q", "scale", bits=4, half=True, dtype=True),
    exempt=("scale",),
    local={"q": 0, "scale": 0},
    native=True,
)
def _dequantize_log(q: Array, scale: Array, bits: int = 4, half: bool = True, dtype: int = 1) -> Array:
    """x = s 2^(-q/k)."""
    kind = np.float64 if dtype == 0 else np.float32
    levels = _levels_of(np.asarray(q).astype(np.int32), bits, half, kind)
    return plain.number(levels, plain.spread(np.asarray(scale).astype(kind), q.shape), FLOATS[dtype])


@op(
    sample=Quantized("x+", "scale", bits=4, half=True),
    exempt=("scale",),
    native=True,
    gradcheck=False,
    leading={"x": 1},
    local={"x": 0, "scale": 0},
)
def _fake_quantize_log(x: Array, scale: Array, bits: int = 4, half: bool = True) -> Array:
    """y = s 2^(-q/k) of the codes q of x."""
    v, s = _quotient(x, scale)
    levels = _levels_of(_codes(v, bits, half), bits, half, v.dtype.type)
    return plain.number(np.where(v >= 0, levels, np.nan), s, dtype_name(np.asarray(x).dtype))


@op(
    sample=Quantized("g", "x+", "scale", bits=4, half=True),
    exempt=("scale",),
    native=True,
    leading={"g": 1, "x": 1},
    local={"g": 0, "x": 0, "scale": 0},
)
def _fake_quantize_log_bwd(g: Array, x: Array, scale: Array, bits: int = 4, half: bool = True) -> Array:
    """The straight-through gradient: g where x has a code of its own, else 0."""
    v, _ = _quotient(x, scale)
    q = _free(v, half)
    return np.where((q >= 0) & (q < 1 << bits) & (v > 0), g, 0)


def _bits(name: str, bits: int) -> int:
    bits = whole(f"{name}: bits", bits)
    if not 1 <= bits <= 8:
        raise ValueError(f"{name}: bits must lie within 1 and 8, got {bits}")
    return bits


def quantize_log(
    x: Array,
    scale: Number,
    bits: int = 4,
    *,
    base: str | int = "sqrt2",
    nan: str = "raise",
    out: Array = None,
) -> Array:
    r"""Codes :math:`q = \mathrm{rne}(-\log_b(x/s))` of numbers that are not negative, :math:`b = \sqrt 2` or 2.

    What lies above s has code 0. What lies below the last code, :math:`2^{bits} - 1`, is 0 and has code :math:`2^{bits}`; for 8
    bits a byte has no such code, and there the last code stands for 0 too.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
    scale : float or array
        The number of code 0, positive and finite; its shape is the granularity (see `tersor.quant`).
    bits : int
        1 to 8.
    base : "sqrt2" or 2
        Steps of :math:`\sqrt 2` reach down to :math:`s\,2^{-(2^{bits} - 1)/2}`, those of 2 to :math:`s\,2^{-(2^{bits} - 1)}`.
    nan : "raise" or "zero"
        What is negative or not finite is an error, or NaN and what is negative is 0 and infinity is s.
    out : array or tensor, optional
        Where the codes go, as in `quantize`.

    Returns
    -------
    uint8 array or tensor of x's shape

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If x holds negative or non-finite values, a scale is not positive and finite, shapes do not fit, or bits are no such
        number.

    Notes
    -----
    One read of x, one write of the codes. Exact on the quotient, which is divided once in float64 for float64 data and in
    float32 for all other: thresholds are irrational, so there are no ties. Li, Xiao, Yang, Gu, "RepQ-ViT" (2023), equations 11
    to 13; Miyashita, Lee, Murmann, "Convolutional Neural Networks using Logarithmic Data Representation" (2016), for base 2.
    """
    name = "quantize_log"
    x = detached(name, x)
    numbers = (_bits(name, bits), one_of(name, "base", base, BASES))
    saturate = one_of(name, "nan", nan, {"raise": False, "zero": True})
    if out is not None and saturate:
        return _quantize_log(x, scale, *numbers, saturate, out=out)
    codes = _quantize_log(x, scale, *numbers, saturate)
    if out is None:
        return codes
    into(name, [out], [codes])
    return out


def dequantize_log(
    q: Codes, scale: Number, bits: int = 4, *, base: str | int = "sqrt2", dtype: Any = None, out: Array = None
) -> Array:
    r"""Numbers :math:`\hat x = s\,b^{-q}`, and 0 of code :math:`2^{bits}`.

    Parameters
    ----------
    q : uint8 array or tensor
        Codes of `quantize_log` of as many bits.
    scale : float or array
        Its shape is the granularity.
    bits, base : as in `quantize_log`
    dtype : str or type, optional
        "float64", "float32", "float16" or "bfloat16"; the scale's if it is an array, else float32.
    out : array or tensor, optional

    Returns
    -------
    floats of q's shape: the power, rounded once to float32 (float64 where they are float64), times the scale

    Raises
    ------
    TypeError
        If q is not uint8.
    ValueError
        If q holds codes beyond :math:`2^{bits}`, or shapes do not fit.

    Notes
    -----
    One read of the codes, one write of the numbers.
    """
    name = "dequantize_log"
    q = detached(name, q)
    if dtype_name(q.dtype) != "uint8":
        raise TypeError(f"{name}: q must be uint8, got {dtype_name(q.dtype)}")
    kind = dtype_name(scale.dtype) if hasattr(scale, "dtype") else "float32"
    kind = kind if dtype is None else float_name(dtype)
    number = FLOATS.index(one_of(name, "dtype", kind, FLOATS))
    keywords = {} if out is None else {"out": out}
    return _dequantize_log(q, scale, _bits(name, bits), one_of(name, "base", base, BASES), number, **keywords)


def fake_quantize_log(x: Array, scale: Number, bits: int = 4, *, base: str | int = "sqrt2", out: Array = None) -> Array:
    r"""The numbers that x becomes as logarithmic codes, with a gradient: `dequantize_log` of `quantize_log`, bit for bit.

    The gradient is straight-through: 1 where x has a code of its own,
    :math:`0 \le \mathrm{rne}(-\log_b(x/s)) < 2^{bits}`, and 0 where it is held at s or taken for 0.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
        A map, not a decision: NaN stays NaN, what is negative becomes NaN, infinity becomes s.
    scale : float or array
        Its shape is the granularity.
    bits, base : as in `quantize_log`
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
        If shapes do not fit, bits are no number of 1 to 8, or a scale would be left without the gradient that it requires.

    Notes
    -----
    One read and one write of x; the gradient reads twice and writes once. Between the first code and the last the ratio of the
    result to x lies within :math:`b^{-1/2}` and :math:`b^{1/2}`.
    """
    name = "fake_quantize_log"
    detached(name, x)
    learned(name, "scale", scale)
    keywords = {} if out is None else {"out": out}
    return _fake_quantize_log(x, scale, _bits(name, bits), one_of(name, "base", base, BASES), **keywords)
