"""Codes of numbers and numbers of codes. The one rule: a code is decided by one quotient x/s, rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import FLOATS, Codes, Level, Number, dtype_name, into, is_tensor
from tersor._op import op
from tersor._sample import Quantized
from tersor._values import check_dense, float_name, seeded, signed_word
from tersor.quant import _peers
from tersor.quant import _plain as plain
from tersor.quant._arguments import FORMS, ROUNDINGS, Array, code_range, detached, one_of, within


@op(
    sample=Quantized("x", "scale", "zero_point", lo=-8, hi=7),
    exempt=("scale",),
    local={"x": 0, "scale": 0, "zero_point": 0},
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
    sample=Quantized("q", "scale", "zero_point", dtype=True),
    exempt=("scale",),
    local={"q": 0, "scale": 0, "zero_point": 0},
    native=True,
)
def _dequantize(q: Array, scale: Array, zero_point: Array = None, dtype: int = 1) -> Array:
    """x = (q - z) s."""
    kind = np.float64 if dtype == 0 else np.float32
    z = plain.zeros(zero_point, q.shape, kind)
    return plain.number(q.astype(kind) - z, plain.spread(np.asarray(scale).astype(kind), q.shape), FLOATS[dtype])


def quantize(
    x: Array,
    scale: Number,
    zero_point: Level = None,
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
        A code, that is, within the range of dtype; floats are rounded half to even.
    dtype : str, type or (int, int)
        "int2" to "int8", "uint1" to "uint8", a type of NumPy or torch of such a name, or the least and the largest code.
    rounding : "half_even", "half_away", "toward_zero" or "stochastic"
        Stochastic rounds away from zero with the probability of the fraction, so that the mean is x/s.
    seed : int
        Of stochastic rounding: element i uses word i of tag 32, whatever the threads (see the contract of random bits).
    compat : str, optional
        The codes of a peer, bit for bit on finite values; the formulas are in docs/quantization. "torch", "torchao" and
        "ivit" multiply by 1/s in float32; "ct" adds z before rounding; "gptq" and "repq" are the default, the latter with zero
        points that are no codes; "zeroq" rounds S x + z, "calibtip" (x - o)/s, of scales and zero points of `choose_qparams`.
        "torchao" and "ct" divide 16-bit data by 16-bit scales in that type.
    nan : "raise" or "zero"
        What is not finite is an error, or NaN is the code of 0 and infinities are the ends.
    out : array or tensor, optional
        Where the codes go. With nan="raise" they are made apart and copied, so that nothing is changed if there is an error;
        with nan="zero" they are made in place.

    Returns
    -------
    int8 if the least code is negative, else uint8, of x's shape

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If x holds non-finite values, a scale is not positive and finite, a zero point is no code, shapes do not fit, or codes
        do not fit a byte.

    Notes
    -----
    One read of x, one write of the codes. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference" (2018), equation 1.
    """
    name = "quantize"
    x = detached(name, x)
    lo, hi = code_range(dtype, name)
    if compat not in _peers.FREE:
        within(name, zero_point, lo, hi)
    form = one_of(name, "compat", compat, FORMS)
    saturate = one_of(name, "nan", nan, {"raise": False, "zero": True})
    if rounding == "stochastic" and is_tensor(x):
        check_dense(name, "x", x)  # which word is an element's is told by its place among all of them
    numbers = (lo, hi, form, one_of(name, "rounding", rounding, ROUNDINGS), signed_word(seeded(name, seed)), saturate)
    if _peers.made(compat, x, scale):
        _peers.check(name, x, scale, zero_point, values=True)
        x, scale, zero_point = _peers.quotient(str(compat), x, scale, zero_point)
        numbers = (lo, hi, 0, *numbers[3:])
    if out is not None and saturate:
        return _quantize(x, scale, zero_point, *numbers, out=out)
    codes = _quantize(x, scale, zero_point, *numbers)
    if out is None:
        return codes
    into(name, [out], [codes])
    return out


def dequantize(
    q: Codes,
    scale: Number,
    zero_point: Level = None,
    *,
    dtype: Any = None,
    compat: str | None = None,
    out: Array = None,
) -> Array:
    r"""Numbers :math:`\hat x = (q - z)\,s`.

    Parameters
    ----------
    q : int8 or uint8 array or tensor
    scale : float or array
        Its shape is the granularity.
    zero_point : int, integer or float array like scale, optional
    dtype : str or type, optional
        "float64", "float32", "float16" or "bfloat16"; the scale's if it is an array, else float32.
    compat : str, optional
        "zeroq" divides by S, in float32 unless a dtype is given; "calibtip" has q s + o; those of all others are as they are.
    out : array or tensor, optional

    Returns
    -------
    floats of q's shape, computed in float32 (float64 where they are float64) and rounded once; a product beyond the largest
    finite number of the dtype is that number, so that what was finite comes back finite

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
    q = detached(name, q)
    one_of(name, "compat", compat, FORMS)
    if (
        compat not in _peers.FREE
        and (codes := {"int8": (-128, 127), "uint8": (0, 255)}.get(dtype_name(q.dtype))) is not None
    ):
        within(name, zero_point, *codes)
    kind = dtype_name(scale.dtype) if hasattr(scale, "dtype") else "float32"
    if dtype is not None:
        kind = float_name(dtype)
    elif compat == "zeroq":
        kind = "float32"
    number = FLOATS.index(one_of(name, "dtype", kind, FLOATS))
    keywords = {} if out is None else {"out": out}
    if compat in _peers.MADE:
        _peers.check(name, q, scale, zero_point)
        y = _peers.numbers(str(compat), _dequantize(q, 1.0, None, FLOATS.index("float32")), scale, zero_point, kind)
        if out is None:
            return y
        into(name, [out], [y])
        return out
    return _dequantize(q, scale, zero_point, number, **keywords)
