"""Integer-only vision transformers. The one rule: scales are numbers of the caller, all else is integers.

What they compute stands in `_integers`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import INTEGERS, Array, Integers, dtype_name, is_distributed, is_tensor, whole
from tersor.quant import _ivit
from tersor.quant._arguments import code_range, detached, one_of, some_value
from tersor.quant._integers import ONE, _int_layernorm, _requantize, _shift_exp, _shift_gelu, _shiftmax


def _unit(name: str, s: float) -> float:
    s = float(s)
    if not (math.isfinite(s) and s >= 2.0**-31):
        raise ValueError(f"{name}: s must be finite and at least 2^-31, got {s}")
    return s


def _width(name: str, bits: int) -> int:
    bits = whole(f"{name}: bits", bits)
    if not 2 <= bits <= 16:
        raise ValueError(f"{name}: bits must lie within 2 and 16, got {bits}")
    return bits


def _compat(name: str, compat: str | None) -> bool:
    return bool(one_of(name, "compat", compat, {None: False, "ivit_f32": True}))


def _simulated(name: str, q: Array) -> Array:
    """Integers that float32 holds, of rows that are there."""
    if is_distributed(q):
        raise TypeError(f"{name}: compat='ivit_f32' takes plain tensors, got a DTensor")
    if dtype_name(q.dtype) not in INTEGERS:
        raise TypeError(f"{name}: q must be integers, got {dtype_name(q.dtype)}")
    if q.ndim == 0 or not q.shape[-1]:
        raise ValueError(f"{name}: compat='ivit_f32' takes rows of at least one number, got shape {tuple(q.shape)}")
    if dtype_name(q.dtype) == "int64":
        some_value(name, "integers of 32 bits are taken, got more", (q <= ONE) & (q >= -ONE - 1))
    return q


def shift_exp(q: Integers, s: float, n: int = 15) -> Array:
    r"""The exponential of :math:`s q` by shifts and one division: :math:`e^{sq} \approx e / (u\,2^n)`.

    With :math:`u = \lceil 1/s \rceil` and :math:`x = q + \lfloor q/2 \rfloor - \lfloor q/16 \rfloor`, held at :math:`-n u`,
    split as :math:`x = r - u p`, :math:`-u < r \le 0`: :math:`e = \lfloor (r/2 + u)\,2^{n - p} \rfloor`.

    Parameters
    ----------
    q : array or tensor of int8, uint8, int16, int32, or int64 of values within int32
        At most 0 where it stands for what a softmax subtracts its maximum from; beyond, e is held at :math:`2^{63} - 1`.
    s : float
        The scale of q, at least 2^-31.
    n : int
        1 to 31; what lies below :math:`e^{-n \ln 2}` is not told apart any more.

    Returns
    -------
    int64 array or tensor of q's shape

    Raises
    ------
    TypeError
        If q are not integers.
    ValueError
        If q leaves int32, or s or n are out of range.

    Notes
    -----
    One read of q, one write of 8 bytes each. Between powers of two it is a line, at most 6.2 % above, and 1.4375 stands for
    :math:`\log_2 e`, 0.4 % more for each unit of :math:`|s q|`. The scale enters by u alone, as if it were 1/u: where 1/s is no
    integer, the exponent is :math:`q/u` in place of :math:`s q`, 17 % less at s = 0.3 and at most 1 % less below s = 0.01.
    Li and Gu, "I-ViT" (2023), section 3.3, in integers where its code rounds float32.
    """
    name = "shift_exp"
    q, n = detached(name, q), whole(f"{name}: n", n)
    if not 1 <= n <= 31:
        raise ValueError(f"{name}: n must lie within 1 and 31, got {n}")
    return _shift_exp(q, _unit(name, s), n)


def shiftmax(q: Integers, s: float, bits: int = 8, *, compat: str | None = None) -> Array:
    r"""Softmax over the last axis in integers: :math:`p = \lfloor e f / 2^{32 - bits} \rfloor`, of scale :math:`2^{1 - bits}`.

    :math:`e` is `shift_exp` of :math:`q - \max q` with n = 15, and
    :math:`f = \lfloor (2^{31} - 1) / \min(\sum e, 2^{31} - 1) \rfloor`.

    Parameters
    ----------
    q : array or tensor of int8, uint8, int16, int32, or int64 of values within int32
    s : float
        The scale of q.
    bits : int
        2 to 16: the results take values of 0 to :math:`2^{bits - 1} - 1`.
    compat : "ivit_f32", optional
        What the published code computes, which simulates this in float32: some codes are others. On tensors it is bit for bit
        that; sums over rows are NumPy's on arrays.

    Returns
    -------
    int32 array or tensor of q's shape

    Raises
    ------
    TypeError
        If q are not integers.
    ValueError
        If q leaves int32, has no axis, or s or bits are out of range.

    Notes
    -----
    The sum of a row of T is held at :math:`2^{31} - 1`: it is a softmax while :math:`\lceil 1/s \rceil\,2^{15}\,T < 2^{31}`;
    beyond, results are those of the formula and too large. Floors make rows sum to less than 1: 0.45 to 0.92 of it for 197
    numbers and 8 bits. Li and Gu, "I-ViT" (2023), section 3.3.
    """
    name = "shiftmax"
    q, s, bits = detached(name, q), _unit(name, s), _width(name, bits)
    return _ivit.shiftmax(_simulated(name, q), s, bits) if _compat(name, compat) else _shiftmax(q, s, bits)


def shift_gelu(q: Integers, s: float, bits: int = 8, *, compat: str | None = None) -> Array:
    r"""GELU in integers, :math:`q \sigma(1.702 s q)`, of scale :math:`s\,2^{1 - bits}`.

    :math:`\sigma = \lfloor e f / 2^{32 - bits} \rfloor`, :math:`f = \lfloor (2^{31} - 1) / \min(e + e', 2^{31} - 1) \rfloor`; e
    is `shift_exp` of :math:`q - \max q` over the last axis and e' of :math:`-\max q`, with n = 23 and the scale 1.702 s.

    Parameters
    ----------
    q : array or tensor of int8, uint8, int16, int32, or int64 of values within int32
    s : float
        The scale of q.
    bits : int
        2 to 16, of the sigmoid.
    compat : "ivit_f32", optional
        What the published code computes, which simulates this in float32: some codes are others. On tensors it is bit for bit
        that; sums over rows are NumPy's on arrays. The code holds the sum of the exponentials at :math:`2^{31}`, as this does,
        and nothing else; what leaves int32 after it is an error here too, and held at the ends of int32 within a trace.

    Returns
    -------
    int32 array or tensor of q's shape

    Raises
    ------
    TypeError
        If q are not integers.
    ValueError
        If q leaves int32, has no axis, a result does not fit 32 bits, or s or bits are out of range.

    Notes
    -----
    Two limits of the method. An exponential fits while :math:`\lceil 1/(1.702 s) \rceil\,2^{23} < 2^{31}`, for s
    from 0.0024 on. And both exponentials of a negative number are the smallest there is, so that :math:`\sigma` is 1/2, once
    :math:`s \max q` is beyond 9.4. Li and Gu, "I-ViT" (2023), section 3.4.
    """
    name = "shift_gelu"
    q, s, bits = detached(name, q), _unit(name, s), _width(name, bits)
    return _ivit.shift_gelu(_simulated(name, q), s, bits) if _compat(name, compat) else _shift_gelu(q, s, bits)


def int_layernorm(q: Integers, *, root: str = "newton", compat: str | None = None) -> Array:
    r"""Layer normalization over the last axis in integers, without weight and bias, of scale :math:`\sqrt d / 2^{30}`.

    :math:`y = \lfloor (q - \mu) \lfloor (2^{31} - 1)/k \rfloor / 2 \rfloor`, :math:`\mu` the mean, rounded half to even, and k
    the root of :math:`v = \sum (q - \mu)^2`.

    Parameters
    ----------
    q : array or tensor of int8, uint8, int16, int32, or int64 of values within int32
        Adding an even integer to all of a row changes nothing.
    root : "newton" or "exact"
        Ten steps :math:`k \leftarrow \lfloor (k + \lfloor v/k \rfloor)/2 \rfloor` from :math:`2^{16}`, as published, or
        :math:`\lfloor \sqrt v \rfloor`, at least 1.
    compat : "ivit_f32", optional
        What the published code computes, which simulates this in float32: some codes are others. On tensors it is bit for bit
        that; sums over rows are NumPy's on arrays.

    Returns
    -------
    int32 array or tensor of q's shape

    Raises
    ------
    TypeError
        If q are not integers.
    ValueError
        If q leaves int32, has no axis, v is 2^63 or more, or root is unknown.

    Notes
    -----
    Ten steps are the root for :math:`2^{15} \le v \le 2^{48}`; beyond, k is too large and results too small. A weight
    :math:`\gamma` joins the scale, a bias is :math:`\lfloor (\beta/\gamma) / (\sqrt d / 2^{30}) \rfloor` more. Li and Gu,
    "I-ViT" (2023), section 3.5.
    """
    name = "int_layernorm"
    q, newton = detached(name, q), one_of(name, "root", root, {"newton": True, "exact": False})
    if not _compat(name, compat):
        return _int_layernorm(q, newton)
    if not newton:
        raise ValueError(f"{name}: compat='ivit_f32' goes with root='newton', got root={root!r}")
    return _ivit.int_layernorm(_simulated(name, q))


def dyadic(ratio: Any) -> tuple[Any, Any]:
    r"""A ratio of scales as a product with an integer and a shift: :math:`ratio \approx m / 2^e`,
    :math:`2^{30} \le m \le 2^{31}`.

    Parameters
    ----------
    ratio : float, or float array or tensor
        Positive and finite.

    Returns
    -------
    m, e : int, or int64 array or tensor of the shape of ratio
        :math:`m = \lfloor f\,2^{31} + 1/2 \rfloor` of the fraction :math:`1/2 \le f < 1`, within :math:`2^{-31}` of it.

    Raises
    ------
    TypeError
        If ratio is no number.
    ValueError
        If ratio is not positive and finite.

    Notes
    -----
    Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization" (2021).
    """
    if is_tensor(ratio):
        import torch

        value = ratio.detach().double()
        some_value("dyadic", "ratio must be positive and finite", (value > 0) & value.isfinite())
        fraction, power = torch.frexp(value)
        return torch.floor(torch.ldexp(fraction, fraction.new_tensor(31)) + 0.5).long(), (31 - power).long()
    try:
        value = np.asarray(ratio, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"dyadic: ratio must be a number or a float array, got {type(ratio).__name__}") from None
    if not ((value > 0) & np.isfinite(value)).all():
        raise ValueError(f"dyadic: ratio must be positive and finite, got {ratio}")
    fraction, power = np.frexp(value)
    m, e = np.floor(np.ldexp(fraction, 31) + 0.5).astype(np.int64), (31 - power).astype(np.int64)
    return (m, e) if isinstance(ratio, np.ndarray) else (int(m), int(e))


#: the codes of `requantize` that are wider than a byte: their ends and their size
WIDE = {"int16": (-(2**15), 2**15 - 1, 2), "int32": (-(2**31), 2**31 - 1, 4)}


def requantize(z: Integers, m: Any, e: Any, dtype: Any = "int8") -> Array:
    r"""Integers of one scale as those of another: :math:`\mathrm{clamp}(\mathrm{rne}(z m / 2^e), lo, hi)`.

    Parameters
    ----------
    z : array or tensor of int8, uint8, int16, int32, or int64 of values within int32
    m, e : int, or int64 array or tensor of the length of the last axis
        Of `dyadic`.
    dtype : str, type or (int, int)
        "int2" to "int8", "uint1" to "uint8", "int16", "int32", or the least and the largest code of a byte.

    Returns
    -------
    codes of z's shape: a byte each, or int16, or int32

    Raises
    ------
    TypeError
        If z, m or e are not integers.
    ValueError
        If z leaves int32, m is beyond 2^31, there are not as many factors as columns, or dtype is unknown.

    Notes
    -----
    One read of z, one write of the codes; exact. With r the ratio that `dyadic` was given it is within
    :math:`1/2 + 2^{-31} |z r|` of :math:`z r`.
    """
    name = "requantize"
    z = detached(name, z)
    lo, hi, size = WIDE[dtype] if isinstance(dtype, str) and dtype in WIDE else (*code_range(dtype, name), 1)
    return _requantize(z, *(_factor(name, k, v, z) for k, v in (("m", m), ("e", e))), lo, hi, size)


def _factor(name: str, argument: str, value: Any, z: Array) -> Array:
    """One factor, or one of each column, as int64 where z is."""
    if hasattr(value, "dtype"):
        if dtype_name(value.dtype) not in INTEGERS:
            raise TypeError(f"{name}: {argument} must be an integer or int64, got {dtype_name(value.dtype)}")
        if getattr(value, "ndim", 0) and is_tensor(value) != is_tensor(z):
            kinds = ("a NumPy array", "a torch tensor")
            raise TypeError(f"{name}: {argument} is {kinds[is_tensor(value)]}, z {kinds[is_tensor(z)]}")
    else:
        value = whole(f"{name}: {argument}", value)
    if is_tensor(z):
        import torch

        return torch.as_tensor(value, dtype=torch.int64, device=z.device).reshape(-1)
    return np.asarray(value, np.int64).reshape(-1)
