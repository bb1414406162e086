"""Numbers that codes of few bits stand for: small floats, the tables of 4 bits, and which code is a number's.

The rule of this file: written plainly, as `_plain` is; what decides is one quotient in the compute type.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor.quant._plain import real, uniform

Array = Any


@dataclass(frozen=True)
class Small:
    """A float of e bits of exponent, with bias 2^(e-1) - 1, and m of mantissa."""

    exponent: int
    mantissa: int

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        return (1 << self.exponent - 1) - 1

    @property
    def top(self) -> int:
        """The code of the largest finite number: e5m2 has infinities above it, e4m3 one NaN, the others nothing."""
        return {5: 0x7B, 4: 0x7E}.get(self.exponent, (1 << self.bits - 1) - 1)

    @property
    def most(self) -> float:
        return float(self.numbers[self.top])

    @property
    def reach(self) -> int:
        """⌊log2⌋ of the largest number."""
        return math.frexp(self.most)[1] - 1

    @functools.cached_property
    def numbers(self) -> np.ndarray:
        """The numbers of all codes, float32."""
        c = np.arange(1 << self.bits - 1)
        power, rest = c >> self.mantissa, c & (1 << self.mantissa) - 1
        v = np.ldexp(rest + (power > 0) * (1 << self.mantissa), np.maximum(power, 1) - self.bias - self.mantissa)
        v[self.top + 1 :] = np.nan
        if self.exponent == 5:
            v[0x7C] = np.inf
        return np.concatenate([v, -v]).astype(np.float32)

    def codes(self, x: np.ndarray, rounding: int = 0, seed: int = 0) -> np.ndarray:
        """The codes of numbers and infinities, beyond the largest number that number's."""
        a = np.abs(x)
        a = np.where(a < self.most, a, x.dtype.type(self.most))
        least = 1 - self.bias
        power = np.maximum(np.where(a > 0, np.frexp(a)[1] - 1, least), least)
        v = np.ldexp(a, self.mantissa - power)
        r = np.rint(v)
        if rounding == 3:
            r = np.trunc(v) + (uniform(v.size, seed).reshape(v.shape) < v - np.trunc(v))
        code = r.astype(np.int64) + (power - least << self.mantissa)
        return (code + (np.signbit(x).astype(np.int64) << self.bits - 1)).astype(np.uint8)


SMALL = {"e4m3": Small(4, 3), "e5m2": Small(5, 2), "e2m1": Small(2, 1), "e2m3": Small(2, 3), "e3m2": Small(3, 2)}

#: Dettmers et al., "QLoRA" (2023), appendix E
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_TWELFTHS = (0, 0.0625, 8, 12, 4, 6, 2, 3)


def _dynamic() -> np.ndarray:
    """Of each decade below 1 twice as many intervals as of the one below it, and their middles; 0 and 1.

    Dettmers, "8-bit Approximations for Parallelism in Deep Learning" (2016).
    """
    half = []
    for i in range(7):
        # as files have it: ends in float32 from the nearer side, rounded once
        n, k = 1 << i, np.arange((1 << i) + 1)
        step = float(np.float32(np.float32(1) - np.float32(0.1)) / np.float32(n))
        ends = np.where(k < (n + 1) // 2, float(np.float32(0.1)) + step * k, 1 - step * (n - k)).astype(np.float32)
        half.append(np.float32(10.0 ** (i - 6)) * ((ends[1:] + ends[:-1]) / np.float32(2)))
    positive = np.concatenate(half)
    return np.sort(np.concatenate([positive, -positive, np.array([0, 1], np.float32)]))


#: the numbers of codes of 4 and 8 bits, in the order of the codes
TABLES = {
    "dynamic8": _dynamic(),
    "nf4": np.array(NF4, np.float32),
    "fp4": np.array([s * v for s in (1, -1) for v in _TWELFTHS], np.float32) / np.float32(12),
}


#: the numbers of scales that are powers of two, float32; the last byte is NaN
POWERS = np.append(np.ldexp(np.float32(1), np.arange(-127, 128)), np.float32(np.nan)).astype(np.float32)


#: the numbers of codes, by the name of their table: of tables, of small floats, of scales that are powers of two
NUMBERS = TABLES | {name: small.numbers for name, small in SMALL.items()} | {"e8m0": POWERS}
#: the same as Python's, of which torch makes tensors also where it traces
_LISTS = {name: numbers.tolist() for name, numbers in NUMBERS.items()}


def like(name: str, x: Array) -> Array:
    """The table of a name in the library of x, on its device."""
    if not is_tensor(x):
        return NUMBERS[name]
    import torch

    return torch.tensor(_LISTS[name], dtype=torch.float32, device=x.device)


def table_scale(amax: np.ndarray, peer: bool) -> tuple[np.ndarray, np.ndarray]:
    """max|x|, and what x is divided by, or multiplied with."""
    one = amax.dtype.type(1)
    if peer:
        return amax, one / np.maximum(amax, amax.dtype.type(np.float32(1e-38)))
    return amax, np.where(amax > 0, amax, one)


def table_codes(v: np.ndarray, table: Array, peer: bool) -> np.ndarray:
    """The places of the numbers nearest to v, of two the lower number's."""
    table = np.asarray(table, np.float32)
    order = np.argsort(table, kind="stable")
    if peer:
        middles = (table[order][:-1] + table[order][1:]) / np.float32(2)
    else:
        order = order[np.concatenate([[True], np.diff(table[order]) != 0])]
        middles = (table[order][:-1].astype(np.float64) + table[order][1:]) / 2
    return order[np.searchsorted(middles.astype(np.float64), v.astype(np.float64))].astype(np.uint8)


def micro_power(amax: np.ndarray, small: Small, scaling: int) -> np.ndarray:
    """k of the scales 2^k: floor 0, even 1, ceil 2, rceil 3."""
    wide = (amax / amax.dtype.type(small.most) if scaling == 3 else amax).astype(np.float64)
    if scaling == 1:
        wide = (wide.view(np.int64) + (1 << 51 - small.mantissa)).view(np.float64)
    fraction, power = np.frexp(wide)
    k = np.where(wide > 0, power - 1, -1023)
    if scaling >= 2:
        k = k + (fraction > 0.5)
    return np.clip(k if scaling == 3 else k - small.reach, -127, 127)


def byte_scales(scale: Array, outer: Array, kind: Any) -> np.ndarray:
    """What scales of one byte stand for: powers of two, or, with an outer scale, e4m3 times that."""
    if outer is None or np.size(outer) == 0:
        return POWERS[scale].astype(kind)
    return SMALL["e4m3"].numbers[scale].astype(kind) * real(outer).reshape(()).astype(kind)
