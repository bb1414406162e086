"""Keys of floats: unsigned numbers in the same order. The one rule: what a key means is said here, for the CPU and the GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: the float types a key can be made of, in the order of their codes
FORMATS = ("float16", "bfloat16", "float32", "float64")
WIDTH = (16, 16, 32, 64)
INF = (0x7C00, 0x7F80, 0x7F800000, 0x7FF0000000000000)
NAN = {"raise": 0, "keep": 1, "prune": 2}


@dataclass(frozen=True)
class Order:
    """What is ranked: magnitudes or signed values, as which type, and where NaN stands."""

    format: int
    signed: bool = False
    nan: int = 0

    @property
    def width(self) -> int:
        return WIDTH[self.format]

    @property
    def infinities(self) -> tuple[int, int]:
        """The keys from which on, and up to which, numbers are not finite (the latter -1 for magnitudes)."""
        inf, top = INF[self.format], 1 << (self.width - 1)
        return (inf | top, top - 1 - inf) if self.signed else (inf << 1, -1)

    def value(self, key: int) -> float:
        """The number that has the key."""
        top = 1 << (self.width - 1)
        bits = (key ^ top if key & top else key ^ (2 * top - 1)) if self.signed else key >> 1
        if FORMATS[self.format] == "bfloat16":
            return float(np.uint32(bits << 16).view(np.float32))
        return float(np.dtype(f"u{self.width // 8}").type(bits).view(FORMATS[self.format]))
