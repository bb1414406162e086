"""What `tersor.quant.encode` makes, and the names of the ways to make it.

The rule of this file: an `Encoded` holds all that `decode` needs and nothing else, so it can be pickled, stored and sent.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from tersor._arrays import FLOATS, dtype_name

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


def scheme(name: str, who: str = "encode") -> Scheme:
    """The scheme of a name."""
    found = _GRAMMAR.fullmatch(name) if isinstance(name, str) else None
    if not found or (found[2] == "1" and not found[1]):
        raise ValueError(
            f"{who}: scheme {name!r} is unknown: <code>-row, <code>-tensor or <code>-g<G>, "
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


def check_parts(who: str, e: Encoded) -> Scheme:
    """The scheme of an `Encoded`, or a ValueError where its parts do not fit it, its shape or its dtype."""
    how = scheme(e.scheme, who)
    if e.dtype not in FLOATS:
        raise ValueError(f"{who}: dtype must be {', '.join(FLOATS[:-1])} or {FLOATS[-1]}, got {e.dtype!r}")
    shape = tuple(e.shape)
    if not shape:
        raise ValueError(f"{who}: shape must have a last axis, got ()")
    *lead, last = shape
    if how.group and last % how.group:
        raise ValueError(f"{who}: groups of {how.group} do not divide a last axis of {last}")
    steps = () if how.group is None else (*lead, last // how.group if how.group else 1)
    if (e.zero_point is not None) != how.affine:
        raise ValueError(f"{who}: {e.scheme} has {'a' if how.affine else 'no'} zero_point")
    kind = "int8" if how.raw else "uint8"
    wanted = [("data", e.data, kind, (*lead, how.bytes(last))), ("scale", e.scale, "", steps)]
    for name, x, dtype, want in [*wanted, ("zero_point", e.zero_point, "uint8", steps)][: 3 if how.affine else 2]:
        if not hasattr(x, "shape"):
            raise TypeError(f"{who}: {name} must be an array, got {type(x).__name__}")
        if tuple(x.shape) != want:
            raise ValueError(f"{who}: {name} must have shape {want} for {e.scheme} of {shape}, got {tuple(x.shape)}")
        if dtype and dtype_name(x.dtype) != dtype:
            raise ValueError(f"{who}: {name} must be {dtype} for {e.scheme}, got {dtype_name(x.dtype)}")
    return how
