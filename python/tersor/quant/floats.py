"""Floats of 4 to 8 bits, one a byte. The one rule: what is beyond the largest number is that number."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import FLOATS, Codes, dtype_name, into, is_tensor
from tersor._op import op
from tersor._sample import Draw, Quantized
from tersor._values import check_dense, float_name, seeded, signed_word
from tersor.quant._arguments import Array, detached, one_of
from tersor.quant._grids import SMALL, Small
from tersor.quant._plain import real


def _sample(kind: str) -> Any:
    """All formats and roundings, and codes of their bits."""

    def draw_one(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        small = list(SMALL.values())[draw.seed % 5]
        scalars = {"exponent": small.exponent, "mantissa": small.mantissa}
        if kind == "x":
            (x,), _ = Quantized("x")(draw)
            return [x], scalars | {"rounding": 3 if draw.seed % 4 == 2 else 0, "seed": draw.seed}
        q = draw.rng.integers(0, 2 << small.bits - 1, (*draw.lead, draw.d), np.uint8)
        q[np.isin(q & 0x7F, (0x7C, 0x7D, 0x7E, 0x7F)) & (small.bits == 8)] = 0
        return [q], scalars | {"dtype": FLOATS.index(draw.dtype)}

    return draw_one


@op(sample=_sample("x"), local={"x": 0}, native=True, integer=True)
def _float_encode(
    x: Array, exponent: int = 4, mantissa: int = 3, rounding: int = 0, seed: int = 0, nan: int = 0
) -> Array:
    """The codes of the nearest numbers."""
    x = real(x)
    q = Small(exponent, mantissa).codes(x, rounding, seed)
    return np.where(np.isnan(x), np.where(nan == 2, q & 0x80 | 0x7F, 0), q).astype(np.uint8)


@op(sample=_sample("q"), local={"q": 0}, native=True)
def _float_decode(q: Array, exponent: int = 4, mantissa: int = 3, dtype: int = 1) -> Array:
    """The numbers of codes."""
    return Small(exponent, mantissa).numbers[q]


def float_encode(
    x: Array, code: str, *, rounding: str = "half_even", seed: int = 0, nan: str = "raise", out: Array = None
) -> Array:
    r"""Codes of floats of 4 to 8 bits, one a byte: sign, exponent, mantissa from the highest of their bits down.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
    code : "e4m3", "e5m2", "e2m1", "e2m3" or "e3m2"
        Bits of exponent and mantissa; the largest numbers are 448, 57344, 6, 7.5 and 28. The first two are the bytes of
        ``torch.float8_e4m3fn`` and ``torch.float8_e5m2``.
    rounding : "half_even" or "stochastic"
        Stochastic rounds away from zero with the probability of the fraction, so that the mean is x where x is not beyond the
        largest number.
    seed : int
        Of stochastic rounding: element i uses word i of tag 32, whatever the threads (see the contract of random bits).
    nan : "raise", "zero" or "propagate"
        What is not finite is an error; or infinities are the largest numbers and NaN is 0 or, in e4m3 and e5m2, NaN.
    out : array or tensor, optional
        Where the codes go. With nan="raise" they are made apart and copied, so that nothing is changed if there is an error.

    Returns
    -------
    uint8 of x's shape

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If x holds non-finite values, or the code, rounding or nan is unknown; if nan="propagate" meets a code without NaN.

    Notes
    -----
    With :math:`p = 2^{\max(\lfloor\log_2|x|\rfloor,\ 1 - B)}`, :math:`B = 2^{e-1} - 1`, x becomes the nearest multiple of
    :math:`p/2^m`, rounded once. Numbers beyond the largest one become that one. One read of x, one write of the codes. OCP,
    "8-bit Floating Point Specification" 1.0 (2023) and "Microscaling Formats" 1.0 (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import quant
    >>> q = quant.float_encode(np.array([0.4, -3.0, 1e9], np.float32), "e2m1")
    >>> q
    array([ 1, 13,  7], dtype=uint8)
    >>> quant.float_decode(q, "e2m1")
    array([ 0.5, -3. ,  6. ], dtype=float32)
    """
    name = "float_encode"
    x = detached(name, x)
    small = one_of(name, "code", code, SMALL)
    how = one_of(name, "rounding", rounding, {"half_even": 0, "stochastic": 3})
    missing = one_of(name, "nan", nan, {"raise": 0, "zero": 1, "propagate": 2})
    if missing == 2 and small.bits != 8:
        raise ValueError(f"{name}: nan='propagate' wants a code that has NaN, e4m3 or e5m2, got {code!r}")
    if how and is_tensor(x):
        check_dense(name, "x", x)  # which word is an element's is told by its place among all of them
    numbers = (small.exponent, small.mantissa, how, signed_word(seeded(name, seed)), missing)
    if out is not None and missing:
        return _float_encode(x, *numbers, out=out)
    codes = _float_encode(x, *numbers)
    if out is None:
        return codes
    into(name, [out], [codes])
    return out


def float_decode(q: Codes, code: str, *, dtype: Any = None, out: Array = None) -> Array:
    r"""The numbers of codes that `float_encode` makes.

    Parameters
    ----------
    q : uint8 array or tensor
    code : "e4m3", "e5m2", "e2m1", "e2m3" or "e3m2"
    dtype : str or type, optional
        "float64", "float32", "float16" or "bfloat16"; float32 if it is not said.
    out : array or tensor, optional

    Returns
    -------
    floats of q's shape, exact: all these numbers are numbers of each type

    Raises
    ------
    TypeError
        If q is not uint8.
    ValueError
        If the code or the dtype is unknown, or q holds codes of more bits.

    Notes
    -----
    One read of the codes, one write of the numbers.
    """
    name = "float_decode"
    q = detached(name, q)
    small = one_of(name, "code", code, SMALL)
    if dtype_name(q.dtype) != "uint8":
        raise TypeError(f"{name}: q must be uint8, got {dtype_name(q.dtype)}")
    kind = one_of(name, "dtype", "float32" if dtype is None else float_name(dtype), FLOATS)
    numbers = (small.exponent, small.mantissa, FLOATS.index(kind))
    if out is not None and small.bits == 8:
        return _float_decode(q, *numbers, out=out)
    x = _float_decode(q, *numbers)
    if out is None:
        return x
    into(name, [out], [x])
    return out
