"""What a tensor's numbers look like, from their bits. The one rule: one pass over raw bytes, in bounded memory.

A magnitude's binary exponent is read off its bits, so bfloat16 needs no library; of 8-bit floats, off those of the float16.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tersor.checkpoint._small import SMALL, table

# safetensors name -> (unsigned type of the same size, bits of the exponent, bits of the mantissa)
LAYOUTS: dict[str, tuple[np.dtype[Any], int, int]] = {
    "F64": (np.dtype("<u8"), 11, 52),
    "F32": (np.dtype("<u4"), 8, 23),
    "F16": (np.dtype("<u2"), 5, 10),
    "BF16": (np.dtype("<u2"), 8, 7),
}
#: the types whose numbers are looked at
FLOATS = (*LAYOUTS, *SMALL)


@dataclass
class Magnitudes:
    """How many values have each binary exponent e, 2^e <= |x| < 2^(e+1)."""

    count: int = 0
    zeros: int = 0
    nonfinite: int = 0
    largest: float = 0.0
    exponents: dict[int, int] = field(default_factory=dict)

    def update(self, dtype: str, chunk: bytes | memoryview | np.ndarray) -> None:
        """Adds the values of ``chunk``, whole elements of the safetensors type ``dtype``."""
        if dtype in SMALL:
            dtype, chunk = "F16", table(dtype)[np.frombuffer(chunk, np.uint8)]
        unsigned, e, m = LAYOUTS[dtype]
        bits = np.frombuffer(chunk, unsigned) & unsigned.type((1 << (e + m)) - 1)
        exponent = (bits >> unsigned.type(m)).astype(np.uint16)
        counts = np.bincount(exponent, minlength=1 << e)
        bias = (1 << (e - 1)) - 1
        zeros = int(np.count_nonzero(bits == 0))
        self.count += bits.size
        self.zeros += zeros
        self.nonfinite += int(counts[-1])
        for i in np.flatnonzero(counts[1:-1]) + 1:
            self._add(int(i) - bias, int(counts[i]))
        if counts[0] > zeros:  # denormals: their exponent is in the mantissa
            tiny = bits[(exponent == 0) & (bits != 0)].astype(np.float64)
            found, times = np.unique(np.frexp(tiny)[1], return_counts=True)
            for i, n in zip(found, times, strict=True):
                self._add(int(i) - bias - m, int(n))
        finite = bits[exponent != counts.size - 1]
        if finite.size:
            self.largest = max(self.largest, _value(int(finite.max()), e, m))

    def _add(self, exponent: int, n: int) -> None:
        self.exponents[exponent] = self.exponents.get(exponent, 0) + n

    def merge(self, other: "Magnitudes") -> None:
        self.count += other.count
        self.zeros += other.zeros
        self.nonfinite += other.nonfinite
        self.largest = max(self.largest, other.largest)
        for exponent, n in other.exponents.items():
            self._add(exponent, n)

    @property
    def sparsity(self) -> float:
        return self.zeros / self.count if self.count else 0.0


def _value(bits: int, e: int, m: int) -> float:
    exponent, mantissa = bits >> m, bits & ((1 << m) - 1)
    bias = (1 << (e - 1)) - 1
    if exponent:
        return float(np.ldexp(mantissa + (1 << m), exponent - bias - m))
    return float(np.ldexp(mantissa, 1 - bias - m))


def histogram(magnitudes: Magnitudes, width: int = 40, rows: int = 24) -> Iterable[str]:
    """The distribution of |x| as lines of text: a bar per power of two, the rare ends gathered in one line each."""
    if not magnitudes.count:
        return
    bins = sorted(magnitudes.exponents.items(), reverse=True)
    kept = len(bins)
    while kept > rows or (kept > 2 and sum(n for _, n in bins[kept - 1 :]) < 1e-3 * magnitudes.count):
        kept -= 1
    shown = bins[:kept]
    below = sum(n for _, n in bins[kept:])
    top = max([n for _, n in shown] + [below, magnitudes.zeros, 1])

    def line(label: str, n: int) -> str:
        eighths = round(8 * width * n / top)
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        return f"{label:>12} {bar or '▏' if n else ''} {100 * n / magnitudes.count:.2f} %"

    if magnitudes.nonfinite:
        yield line("inf, nan", magnitudes.nonfinite)
    for exponent, n in shown:
        yield line(f"2^{exponent}", n)
    if below:
        yield line(f"< 2^{shown[-1][0]}", below)
    yield line("0", magnitudes.zeros)
