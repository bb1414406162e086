"""What references are written with: NumPy's functions or torch's, and functions of a square that are smooth at 0, as in the
kernels' ``roots``.

The rule of this file: arrays or tensors, and no family. A second derivative is taken by autograd through the reference of a
backward, so each function here has the right slope at 0 too, and no branch that is not taken has one that is infinite.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any


class _Library:
    """NumPy's functions; torch's of the same names where an argument is a tensor."""

    def __getattr__(self, name: str) -> Callable[..., Array]:
        def call(*args: Any) -> Array:
            torch = sys.modules.get("torch")
            seen = args[0] if isinstance(args[0], list) else args
            tensors = torch is not None and any(isinstance(a, torch.Tensor) for a in seen)
            return getattr(torch if tensors else np, name)(*args)

        return call


#: what references call instead of np
xp = _Library()


def dot(x: Array, y: Array) -> Array:
    return (x * y).sum(-1, keepdims=True)


def gap(c: Any, square: Array) -> Array:
    """1 - c|x|^2; NaN where it is negative: such a row is no point of the ball, and every formula would take it for another."""
    rest = 1 - c * square
    return xp.where(rest < 0, math.nan, rest)


def there(x: Array) -> bool:
    """Whether an input that may be absent is there; absent is None, or an array of shape [0]."""
    return x is not None and tuple(x.shape) != (0,)


def wide(x: Array) -> Array:
    """`x` in float64."""
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


def rounded(y: Array, x: Array) -> Array:
    """`y` in the type of `x`."""
    return y.astype(x.dtype) if isinstance(y, (np.ndarray, np.generic)) else y.to(x.dtype)


def quiet(x: Array) -> Any:
    """A context in which NumPy says nothing of infinities and NaN; torch, which never does, is left alone."""
    return np.errstate(all="ignore") if isinstance(x, np.ndarray) else contextlib.nullcontext()


def scaled(x: Array, power: Any) -> Array:
    """x times a power of two, a whole number or some; in two halves, since the power itself may be beyond float64."""
    if isinstance(power, int):
        half = power // 2
        return x if not power else x * 2.0**half * 2.0 ** (power - half)
    half = power // 2
    if not isinstance(x, np.ndarray):  # torch's power of an integer is float32 in some versions
        half, power = half.to(x.dtype), power.to(x.dtype)
    return xp.ldexp(xp.ldexp(x, half), power - half)


def far(top: Array) -> Array:
    """The power of two of what is as large as that, 0 where its square, those of differences by an ulp and third powers are
    ordinary numbers, and of what is no size."""
    e = xp.frexp(top)[1] - 1
    return xp.where((top > 0) & (top < math.inf) & ((e < -250) | (e > 320)), e, 0 * e)


def root(z: Array) -> Array:
    """The square root, of slope 0 at 0."""
    return xp.where(z == 0, 0.0, xp.sqrt(xp.where(z == 0, 1.0, z)))


def like(total: Array, c: Array) -> Array:
    """The gradient of a curvature: per row, or summed where one number served all rows."""
    shape = np.shape(c)
    return (total if math.prod(shape) == math.prod(total.shape) else total.sum()).reshape(shape)


#: below this z functions are their series: the closed forms cancel in the first derivative or in the next
NEAR = 0.06
TERMS = 17


def _convolved(a: list[float], k: int) -> float:
    """Coefficient k - 1 of the square of a series."""
    return sum(a[i] * a[k - 1 - i] for i in range(k))


def _tanh() -> list[float]:
    a = [1.0]
    for k in range(1, TERMS):  # T + 2zT' = 1 - zT²
        a.append(-_convolved(a, k) / (2 * k + 1))
    return a


def _arsinh() -> list[float]:
    a = [1.0]
    for k in range(1, TERMS):
        a.append(-a[-1] * (2 * k - 1) ** 2 / (2 * k * (2 * k + 1)))
    return a


def _sinh_log_d() -> list[float]:
    a = [1 / 6]
    for k in range(1, TERMS):  # 6l + 4zl' = 1 - 4zl²
        a.append(-4 * _convolved(a, k) / (4 * k + 6))
    return a


TANH, ARSINH, SINH_LOG_D = _tanh(), _arsinh(), _sinh_log_d()
ARTANH = [1 / (2 * k + 1) for k in range(TERMS)]
SINH = [1 / math.factorial(2 * k + 1) for k in range(TERMS)]
COSH = [1 / math.factorial(2 * k) for k in range(TERMS)]
SECH2 = [1.0, *((2 * k + 1) * TANH[k] for k in range(1, TERMS))]  # 1 - zT²


def _slopes(a: list[float]) -> list[float]:
    return [k * a[k] for k in range(1, len(a))]


def _smooth(z: Array, series: list[float], closed: Callable[[Array], Array]) -> Array:
    """`closed` of z, near 0 its series; neither sees what belongs to the other."""
    near = z < NEAR
    s = xp.where(near, z, 0.0)
    total = series[-1] + 0 * s
    for a in reversed(series[:-1]):
        total = total * s + a
    return xp.where(near, total, closed(xp.where(near, 0.5, z)))


def tanh_root(z: Array) -> Array:
    """T(z) = tanh √z/√z"""
    return _smooth(z, TANH, lambda z: xp.tanh(xp.sqrt(z)) / xp.sqrt(z))


def artanh_root(z: Array) -> Array:
    """A(z) = artanh √z/√z"""
    return _smooth(z, ARTANH, lambda z: xp.arctanh(xp.sqrt(z)) / xp.sqrt(z))


def arsinh_root(z: Array) -> Array:
    """S(z) = arsinh √z/√z"""
    return _smooth(z, ARSINH, lambda z: xp.arcsinh(xp.sqrt(z)) / xp.sqrt(z))


def sinh_root(z: Array) -> Array:
    """sinh √z/√z"""
    return _smooth(z, SINH, lambda z: xp.sinh(xp.sqrt(z)) / xp.sqrt(z))


def cosh_root(z: Array) -> Array:
    """cosh √z"""
    return _smooth(z, COSH, lambda z: xp.cosh(xp.sqrt(z)))


def sech2_root(z: Array) -> Array:
    """1/cosh² √z, which does not overflow on the way"""

    def closed(z: Array) -> Array:
        w = xp.exp(-2 * xp.sqrt(z))
        return 4 * w / (1 + w) ** 2

    return _smooth(z, SECH2, closed)


def tanh_root_d(z: Array) -> Array:
    def closed(z: Array) -> Array:
        t = xp.tanh(xp.sqrt(z)) / xp.sqrt(z)
        return (1 - t - z * t * t) / (2 * z)

    return _smooth(z, _slopes(TANH), closed)


def artanh_root_d(z: Array) -> Array:
    return _smooth(z, _slopes(ARTANH), lambda z: (1 / (1 - z) - xp.arctanh(xp.sqrt(z)) / xp.sqrt(z)) / (2 * z))


def arsinh_root_d(z: Array) -> Array:
    return _smooth(z, _slopes(ARSINH), lambda z: (1 / xp.sqrt(1 + z) - xp.arcsinh(xp.sqrt(z)) / xp.sqrt(z)) / (2 * z))


def sinh_root_log_d(z: Array) -> Array:
    """The derivative of log(sinh √z/√z)."""
    return _smooth(z, SINH_LOG_D, lambda z: (xp.sqrt(z) / xp.tanh(xp.sqrt(z)) - 1) / (2 * z))
