"""The operators of integer-only vision transformers. The one rule: exact in integers of 64 bits, divisions round down, so the
bits are the same on every machine, and those of Python's own integers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array, is_tensor
from tersor._op import op
from tersor._reference import wide, xp
from tersor._sample import Draw

#: what sums of exponentials are held at, and what they divide
ONE = 2**31 - 1


class _Integers:
    """Integers of 32 bits, and the constants of a call."""

    def __init__(self, bound: int = 127, **scalars: Any) -> None:
        self.bound = bound
        self.scalars = scalars

    def __call__(self, draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        q = draw.rng.integers(-self.bound, self.bound + 1, (*draw.lead, draw.d), np.int32)
        return [q], self.scalars


def _factors(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    (z,), scalars = _Integers(2**24, lo=-128, hi=127, size=1)(draw)
    each = draw.d if draw.seed % 2 else 1
    return [z, draw.rng.integers(2**30, 2**31, each), draw.rng.integers(40, 55, each)], scalars


def _long(x: Array) -> Array:
    return x.long() if is_tensor(x) else np.asarray(x, np.int64)


def _narrow(x: Array, what: str) -> Array:
    """In 32 bits, or an error, as the kernels say it."""
    if bool(((x > ONE) | (x < -ONE - 1)).any()):
        raise ValueError(what)
    return x.int() if is_tensor(x) else x.astype(np.int32)


def _taken(q: Array) -> Array:
    """In 64 bits, of values within 32."""
    return _long(_narrow(_long(q), "integers of 32 bits are taken, got more"))


def _int(x: Array) -> Array:
    return _narrow(x, "a result does not fit 32 bits: scale q down")


def _held(x: Array, lo: Any = None, hi: Any = None) -> Array:
    return x.clamp(lo, hi) if is_tensor(x) else np.clip(x, lo, hi)


def _top(x: Array) -> Array:
    return x.amax(-1, keepdim=True) if is_tensor(x) else x.max(-1, keepdims=True)


def _total(x: Array) -> Array:
    return x.sum(-1, keepdim=True) if is_tensor(x) else x.sum(-1, keepdims=True)


def _exp(x: Array, s: float, n: int) -> Array:
    unit = math.ceil(1 / s)
    x = _held(x + (x >> 1) - (x >> 4), -n * unit)
    p = -x // unit
    value, shift = x + unit * p + 2 * unit, n - p - 1
    held = _held(shift, 0, 62)
    over = (shift > 62) | (value >> (63 - held) > 0)
    return xp.where(shift < 0, value >> 1, xp.where(over, 2**63 - 1, value << held))


@op(sample=_Integers(s=0.04, n=15), dtypes=("int32",), integer=True, local={"q": 0})
def _shift_exp(q: Array, s: float = 1.0, n: int = 15) -> Array:
    """e = floor((r/2 + u) 2^(n - p)), u = ceil(1/s), x = r - u p of x = q + floor(q/2) - floor(q/16)."""
    return _exp(_taken(q), s, n)


@op(sample=_Integers(s=0.04, bits=8), dtypes=("int32",), integer=True, local={"q": 1})
def _shiftmax(q: Array, s: float = 1.0, bits: int = 8) -> Array:
    """p = floor(e floor((2^31 - 1)/sum e)/2^(32 - bits)), e of q - max q."""
    q = _taken(q)
    if not math.prod(q.shape):
        return _int(q)
    e = _exp(q - _top(q), s, 15)
    return _int(e * (ONE // _held(_total(_held(e, None, ONE)), None, ONE)) >> 32 - bits)


@op(sample=_Integers(s=0.04, bits=8), dtypes=("int32",), integer=True, local={"q": 1})
def _shift_gelu(q: Array, s: float = 1.0, bits: int = 8) -> Array:
    """y = q floor(e floor((2^31 - 1)/(e + e'))/2^(32 - bits)), e of q - max q and e' of -max q."""
    q = _taken(q)
    if not math.prod(q.shape):
        return _int(q)
    top = _top(q)
    e, other = _exp(q - top, 1.702 * s, 23), _exp(-top, 1.702 * s, 23)
    return _int(q * (e * (ONE // _held(_held(e, None, ONE) + _held(other, None, ONE), None, ONE)) >> 32 - bits))


@op(sample=_Integers(newton=True), dtypes=("int32",), integer=True, local={"q": 1})
def _int_layernorm(q: Array, newton: bool = True) -> Array:
    """y = floor((q - mean) floor((2^31 - 1)/k)/2), k the root of the sum of (q - mean)^2."""
    q = _taken(q)
    if not math.prod(q.shape):
        return _int(q)
    n, total = q.shape[-1], _total(q)
    floor, over = total // n, 2 * (total % n)
    y = q - (floor + _long((over > n) | ((over == n) & (floor % 2 == 1))))
    if bool((_total(wide(y) ** 2) >= 2.0**63).any()):
        raise ValueError("the squares of a row sum to 2^63 or more: scale q down")
    squares = _total(y * y)
    k = squares * 0 + 2**16
    if newton:
        for _ in range(10):
            k = (k + squares // k) >> 1
    else:
        k = _long(xp.floor(xp.sqrt(squares)))
        k = k - _long(k * k > squares)
        k = _held(k + _long((k + 1) * (k + 1) <= squares), 1)
    return _int(y * (ONE // k) >> 1)


@op(sample=_factors, dtypes=("int32",), integer=True)
def _requantize(z: Array, m: Array, e: Array, lo: int = -128, hi: int = 127, size: int = 1) -> Array:
    """q = clamp(rne(z m/2^e), lo, hi), 0 < e < 63."""
    p, e = _taken(z) * _long(m), _long(e)
    floor, left, half = p >> e, p & ((1 << e) - 1), 1 << (e - 1)
    q = _held(floor + _long((left > half) | ((left == half) & (floor % 2 == 1))), lo, hi)
    kind = {4: "int32", 2: "int16"}.get(size, "int8" if lo < 0 else "uint8")
    if is_tensor(q):
        import torch

        return q.to(getattr(torch, kind))
    return q.astype(kind)
