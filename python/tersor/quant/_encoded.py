"""What `tersor.quant.encode` makes, and the names of the ways to make it.

The rule of this file: an `Encoded` holds all that `decode` needs and nothing else, so it can be pickled, stored and sent.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from tersor._arrays import dtype_name

_GRAMMAR = re.compile(r"(u?)int([1-8])-(row|tensor|g[1-9]\d*)")


@dataclass(frozen=True)
class Scheme:
    """``int4-g128``: bits of a code, whether codes have a zero point, and how many elements of a row share a scale."""

    bits: int
    affine: bool
    #: elements of a group; 0 is a whole row, None the whole array
    group: int | None

    def elements(self, last: int) -> int:
        """How many elements of a row of `last` share a scale."""
        return self.group or last

    def bytes(self, last: int) -> int:
        """Bytes of a packed row."""
        return -(-last * self.bits // 8)

    @property
    def codes(self) -> str:
        """The dtype of a code on its own, as `quantize` names it."""
        return f"{'u' if self.affine else ''}int{self.bits}"

    @property
    def raw(self) -> bool:
        """Codes that are kept as int8 instead of packed."""
        return self.bits == 8 and not self.affine


def scheme(name: str) -> Scheme:
    """The scheme of a name."""
    found = _GRAMMAR.fullmatch(name) if isinstance(name, str) else None
    if not found or (found[2] == "1" and not found[1]):
        raise ValueError(
            f"encode: scheme {name!r} is unknown: <code>-row, <code>-tensor or <code>-g<G>, "
            "where <code> is int2 to int8 (symmetric) or uint1 to uint8 (with a zero point)"
        )
    grain = found[3]
    return Scheme(
        int(found[2]), bool(found[1]), {"row": 0, "tensor": None}.get(grain) if grain[0] != "g" else int(grain[1:])
    )


@dataclass(frozen=True, eq=False)
class Encoded:
    """A quantized array: packed codes, scales, and what they are.

    Attributes
    ----------
    data : int8 ``[..., K]`` for 8 symmetric bits, else uint8 ``[..., ceil(K b / 8)]``
        Codes side by side from the lowest bit of the first byte, symmetric ones plus :math:`2^{b-1}`. Where a row is a
        whole number of 32-bit words, the same bytes are the layout of compressed-tensors.
    scale : float64 or float32 ``[..., 1]``, ``[..., K/G]`` or ``[]``
    zero_point : uint8 like scale, or None for symmetric codes
    scheme : str
    shape, dtype : of the array that `decode` gives back
    """

    data: Any
    scale: Any
    zero_point: Any
    scheme: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, scales and zero points."""
        return sum(math.prod(a.shape) * a.itemsize for a in (self.data, self.scale, self.zero_point) if a is not None)

    def __repr__(self) -> str:
        kind = dtype_name(self.dtype)
        return f"Encoded({self.scheme}, {kind} {self.shape}, {self.nbytes} bytes)"
