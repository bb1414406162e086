"""The operators of I-ViT as its published code simulates them, in float32. The one rule: the operations are those of that code,
in its order, each rounded; sums over a row are those of the array's own library.

A number divided by an array is there, as torch has it, the array's reciprocal times the number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Array, is_tensor
from tersor._reference import quiet
from tersor.quant._arguments import some_value

F = np.float32
#: 2^31 - 1 as float32 has it
ONE = 2.0**31
#: the largest float32 below it
MOST = 2147483520.0


def _float(q: Array) -> Array:
    return q.float() if is_tensor(q) else np.asarray(q, F)


def _floor(x: Array) -> Array:
    return x.floor() if is_tensor(x) else np.floor(x)


def _top(x: Array) -> Array:
    return x.amax(-1, keepdim=True) if is_tensor(x) else x.max(-1, keepdims=True)


def _total(x: Array) -> Array:
    return x.sum(-1, keepdim=True) if is_tensor(x) else x.sum(-1, keepdims=True, dtype=F)


def _over(x: Array) -> Array:
    """floor((2^31 - 1)/x)."""
    return _floor(x.reciprocal() * ONE if is_tensor(x) else F(1) / x * F(ONE))


def _held(x: Array, low: float | None = None, high: float | None = None) -> Array:
    return x.clamp(low, high) if is_tensor(x) else np.clip(x, low, high).astype(F)


def _power(n: int, q: Array) -> Array:
    """2^(n - q)."""
    if is_tensor(q):
        return 2 ** (n - q)
    with quiet(q):
        return np.exp2(F(n) - q)


def _ints(name: str, x: Array) -> Array:
    """As int32: what does not fit is an error, and held within a trace. The code itself goes on in float32."""
    with quiet(x):
        some_value(name, "a result does not fit 32 bits: scale q down", (x >= -ONE) & (x <= MOST))
    x = _held(x, -ONE, MOST)
    return x.int() if is_tensor(x) else x.astype(np.int32)


def _exp(x: Array, s: Any, n: int) -> Array:
    x = x + _floor(x / 2) - _floor(x / 16)
    unit = float(np.floor(F(1) / s * F(-1)))
    x = _held(x, float(F(n) * F(unit)))
    q = _floor(x / unit)
    r = x - unit * q
    return _held(_floor((r / 2 - unit) * _power(n, q)), 0)


def shiftmax(q: Array, s: float, bits: int) -> Array:
    x = _float(q)
    e = _exp(x - _top(x), F(s), 15)
    return _ints("shiftmax", _floor(e * _over(_held(_total(e), None, ONE)) / 2.0 ** (32 - bits)))


def shift_gelu(q: Array, s: float, bits: int) -> Array:
    x, wider = _float(q), F(s) * F(1.702)
    top = _top(x)
    e = _exp(x - top, wider, 23)
    total = _held(e + _exp(-top, wider, 23), None, ONE)
    return _ints("shift_gelu", x * _floor(e * _over(total) / 2.0 ** (32 - bits)))


def int_layernorm(q: Array) -> Array:
    x = _float(q)
    mean = x.mean(-1, keepdim=True).round() if is_tensor(x) else np.rint(x.mean(-1, keepdims=True, dtype=F))
    y = x - mean
    squares = _total(y**2)
    k = _floor((_floor(squares / 2.0**16) + 2.0**16) / 2)
    for _ in range(9):
        k = _floor((k + _floor(squares / k)) / 2)
    return _ints("int_layernorm", _floor(y * _over(k) / 2))
