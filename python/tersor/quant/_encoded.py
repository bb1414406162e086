"""What `tersor.quant.encode` makes, and the names of the ways to make it.

The rule of this file: an `Encoded` holds all that `decode` needs and nothing else, so it can be pickled, stored and sent.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from tersor._arrays import FLOATS, dtype_name
from tersor.quant._gguf import KINDS, Kind, N
from tersor.quant._grids import SMALL, TABLES

_GRAIN = r"(?:-(row|tensor|g[1-9]\d*))?"
_GRAMMAR = re.compile(r"(u?)int([1-8])" + _GRAIN)
_NAMED = re.compile(
    r"(nf4|fp4|dynamic8|nvfp4|mx(?:int8|fp4|fp6_e2m3|fp6_e3m2|fp8_e4m3|fp8_e5m2))" + _GRAIN + "(-nested)?"
)
#: elements that share a scale where it is not said
_GROUPS = {"nf4": 64, "fp4": 64, "dynamic8": 64, "nvfp4": 16}
_MICRO = 32
#: scales that share a scale, where scales are coded
SCALES = 256


@dataclass(frozen=True)
class Scheme:
    """``int4-g128``: what a code is, its bits, whether there are zero points, and how many elements of a row share a scale."""

    name: str
    bits: int
    affine: bool = False
    #: elements of a group; 0 is a whole row, None the whole array
    group: int | None = 0
    #: what codes are places in: the name of a table, or of a small float
    table: str = ""
    small: str = ""
    #: the block of a GGUF file, which holds its scales itself
    block: Kind | None = None
    #: whether scales are coded, by dynamic8
    nested: bool = False
    #: whether the scales of integers are powers of two, kept as bytes
    power: bool = False

    def elements(self, last: int) -> int:
        """How many elements of a row of `last` share a scale."""
        return self.group or last

    def bytes(self, last: int) -> int:
        """Bytes of a packed row."""
        return last // N * self.block.bytes if self.block else -(-last * self.bits // 8)

    def steps(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the scales of an array of this shape."""
        if self.group is None:
            return ()
        return (*shape[:-1], shape[-1] // self.group if self.group else 1)

    @property
    def codes(self) -> str:
        """The dtype of a code on its own, as `quantize` names it."""
        return f"{'u' if self.affine else ''}int{self.bits}"

    @property
    def raw(self) -> bool:
        """Codes that are kept as int8 instead of packed."""
        return self.bits == 8 and not (self.affine or self.block or self.places)

    @property
    def own(self) -> bool:
        """Whether scales are the format's own, and are made in one way."""
        return bool(self.block or self.places or self.power)

    @property
    def outer(self) -> bool:
        """Whether there are scales over the scales."""
        return self.nested or self.name.startswith("nvfp4")

    @property
    def places(self) -> str:
        """The name of the numbers that codes are places in; nothing of integers."""
        return self.table or self.small


def scheme(name: str, who: str = "encode", block: int | None = None, nested: bool = False) -> Scheme:
    """The scheme of a name; `block` is how many elements share a scale where the name leaves it open."""
    text = name if isinstance(name, str) else ""
    whole, named = _GRAMMAR.fullmatch(text), _NAMED.fullmatch(text)
    if nested and (not named or named[1] not in TABLES):
        raise ValueError(f"{who}: nested goes with nf4, fp4 and dynamic8, got {text}")
    if text in KINDS:
        if block not in (None, N):
            raise ValueError(f"{who}: a block of {text} has {N} elements, got block = {block}")
        return Scheme(text, KINDS[text].bits, group=N, block=KINDS[text])
    grain = whole[3] if whole else named[2] if named else None
    if block is not None and grain:
        raise ValueError(f"{who}: {text} says itself how many elements share a scale, got block = {block} too")
    usual = None if not named else _GROUPS.get(named[1], _MICRO)
    if grain is None and (block is not None or usual is not None):
        grain = f"g{usual if block is None else block}"
    if (
        grain is None
        or (whole and whole[2] == "1" and not whole[1])
        or (named and (grain == "tensor" or (named[3] and named[1] not in TABLES)))
    ):
        raise ValueError(
            f"{who}: scheme {name!r} is unknown: <code>-row, <code>-tensor or <code>-g<G>, where <code> is int2 to int8 "
            "(symmetric) or uint1 to uint8 (with a zero point); nf4, fp4, dynamic8, nvfp4, mxfp4, mxfp6_e2m3, mxfp6_e3m2, "
            f"mxfp8_e4m3, mxfp8_e5m2 or mxint8, with or without -row or -g<G>; {', '.join(KINDS)}"
        )
    group = {"row": 0, "tensor": None}.get(grain) if grain[0] != "g" else int(grain[1:])
    if whole:
        return Scheme(f"{whole[1]}int{whole[2]}-{grain}", int(whole[2]), bool(whole[1]), group)
    code = named[1] if named else ""
    full = code if group == usual else f"{code}-{grain}"
    if code in TABLES:
        nested = nested or bool(named and named[3])
        bits = 4 if len(TABLES[code]) == 16 else 8
        return Scheme(full + "-nested" * nested, bits, group=group, table=code, nested=nested)
    if code == "mxint8":
        return Scheme(full, 8, group=group, power=True)
    small = code.partition("_")[2] or "e2m1"
    return Scheme(full, SMALL[small].bits, group=group, small=small)


def fitting(group: int, last: int) -> int:
    """How many elements share a scale in rows of ``last`` that groups may not divide: so many, or the largest power of two
    below that does, or, where that is below 16, a whole row (0)."""
    if not group or last % group == 0:
        return group
    power = math.gcd(last, 1 << group.bit_length() - 1)
    return power if power >= 16 else 0


def fitted(how: Scheme, last: int) -> Scheme:
    """The scheme for rows that its groups may not divide."""
    group = fitting(how.group or 0, last)
    if how.block or how.group is None or group == how.group:
        return how
    code, nested = how.name.partition("-")[0], "-nested" * how.nested
    return scheme(f"{code}-{f'g{group}' if group else 'row'}{nested}")


@dataclass(frozen=True, eq=False)
class Encoded:
    """A quantized array: packed codes, scales, and what they are.

    Attributes
    ----------
    data : int8 ``[..., K]`` for 8 symmetric bits, else uint8 ``[..., ceil(K b / 8)]``
        Codes side by side from the lowest bit of the first byte, symmetric integers plus :math:`2^{b-1}`. Where a row is a
        whole number of 32-bit words, the same bytes are the layout of compressed-tensors. Of a GGUF scheme, its blocks.
    scale : float64 or float32 ``[..., 1]``, ``[..., K/G]`` or ``[]``
        uint8 of the mx schemes (powers of two, plus 127) and of nvfp4 (e4m3); None of GGUF schemes.
    zero_point : uint8 like scale, or None for codes without
    scheme : str
    shape, dtype : of the array that `decode` gives back
    outer : None; or, of nvfp4, float32 ``[]``, what all scales are multiplied by; or, where scales are nested, float32
        ``[1 + ceil(n / 256)]`` of n scales, whose codes are those of dynamic8: their mean, and the largest distance from it of
        each 256 of them in a row
    """

    data: Any
    scale: Any
    zero_point: Any
    scheme: str
    shape: tuple[int, ...]
    dtype: str
    outer: Any = None

    @property
    def parts(self) -> dict[str, Any]:
        """The arrays that are there, by name."""
        every = {k: getattr(self, k) for k in ("data", "scale", "zero_point", "outer")}
        return {k: v for k, v in every.items() if v is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, scales and zero points."""
        return sum(math.prod(a.shape) * a.itemsize for a in self.parts.values())

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
    if how.block and e.dtype == "float64":
        raise ValueError(f"{who}: {e.scheme} stands for float32 numbers, got dtype float64")
    for name, there in (("scale", not how.block), ("zero_point", how.affine), ("outer", how.outer)):
        if (getattr(e, name) is not None) != there:
            raise ValueError(f"{who}: {e.scheme} has {'no' if not there else 'an' if name == 'outer' else 'a'} {name}")
    steps = how.steps(shape)
    coded = how.small or how.nested or how.power
    kinds = {"data": "int8" if how.raw else "uint8", "scale": "uint8" if coded else "", "zero_point": "uint8"}
    outer = (1 - -math.prod(steps) // SCALES,) if how.nested else ()
    shapes = {"data": (*lead, how.bytes(last)), "outer": outer}
    for name, x in e.parts.items():
        want, dtype = shapes.get(name, steps), kinds.get(name, "float32")
        if not hasattr(x, "shape"):
            raise TypeError(f"{who}: {name} must be an array, got {type(x).__name__}")
        if tuple(x.shape) != want:
            raise ValueError(f"{who}: {name} must have shape {want} for {e.scheme} of {shape}, got {tuple(x.shape)}")
        if dtype and dtype_name(x.dtype) != dtype:
            raise ValueError(f"{who}: {name} must be {dtype} for {e.scheme}, got {dtype_name(x.dtype)}")
    return how
