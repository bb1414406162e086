"""Weights laid out for products. The one rule: once, by `prepack`, and no product makes a dense weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._arrays import Number, dtype_name, is_tensor
from tersor.quant._arguments import Array
from tersor.quant._encoded import Encoded, Scheme, check_parts
from tersor.quant._grids import SMALL, like
from tersor.quant._products import _panels
from tersor.quant.encode import float_scales
from tersor.quant.packing import unpack


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights laid out for products, as `prepack` makes them.

    Attributes
    ----------
    panels : uint8 array or tensor
        Scales, zero points and codes, sixteen outputs beside each other. What bytes they are belongs to the version of tersor
        that made them: keep an `Encoded`, and pack it again.
    table : float32 [16] or [256], or None
        The numbers that codes stand for, where they are no integers: any 16, or all of e4m3 or e5m2.
    shape : (out, in)
    bits : 4 or 8, of a code as it lies there
    groups : int
        How many scales an output has.
    affine : bool
        Whether every group has its zero point.
    """

    panels: Any
    table: Any
    shape: tuple[int, int]
    bits: int
    groups: int
    affine: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the panels."""
        return int(np.prod(self.panels.shape))

    def __repr__(self) -> str:
        return f"Packed({self.bits} bits, {self.shape}, {self.groups} groups, {self.nbytes} bytes)"


def prepack(weight: Encoded, table: Number = None) -> Packed:
    r"""Lays encoded weights out for `packed_linear`, once: codes in the order in which a product reads them.

    Parameters
    ----------
    weight : Encoded of ``[out, in]``
        Of any scheme of integers of `encode`, of codes of 4 bits that are places in a table (nf4, fp4, mxfp4, nvfp4, nested or
        not), or of small floats (mxfp6, mxfp8).
        Codes of up to 4 bits lie in 4 bits, others in 8; floats of 6 bits as the same numbers of e4m3.
    table : float32 array or tensor [16], optional
        The numbers that codes of 4 bits are places in, instead of those of the scheme: of nf4 and its like, or of int4, whose
        place 0 is the code -8. With `gptq(codebook=)` these are the codebook.

    Returns
    -------
    Packed

    Raises
    ------
    TypeError
        If weight is not an Encoded, or its scales are float64 (encode the weight as float32); if a table is not float32.
    ValueError
        If its parts do not fit, it is not ``[out, in]``, or a table is given that is not 16 finite numbers for codes of 4 bits
        without zero points; if its scheme is dynamic8, or one of GGUF; if codes of floats are no finite number.

    Notes
    -----
    One read and one write of the codes.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import quant
    >>> w = quant.prepack(quant.encode(np.eye(4, dtype=np.float32), "int8-row"))
    >>> quant.packed_linear(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32), w)
    array([[1., 2., 3., 4.]], dtype=float32)
    """
    who = "prepack"
    if not isinstance(weight, Encoded):
        raise TypeError(f"{who}: weight must be an Encoded, got {type(weight).__name__}")
    how = check_parts(who, weight)
    if len(weight.shape) != 2:
        raise ValueError(f"{who}: weight must be [out, in], got shape {tuple(weight.shape)}")
    floats = bool(how.small) and how.bits > 4
    if how.block or (how.places and how.bits != 4 and not floats):
        raise ValueError(f"{who}: codes of {weight.scheme} are not multiplied as they are; decode them")
    scale, zero = float_scales(weight, how), weight.zero_point
    if dtype_name(scale.dtype) != "float32":
        raise TypeError(f"{who}: scales must be float32, got {dtype_name(scale.dtype)}; encode a float32 weight")
    outs, inputs = weight.shape
    groups = inputs // how.group if how.group and inputs else 1
    if table is not None:
        table = _sixteen(who, table, how, scale)
    elif how.places:
        table = like(_wide(how.small) if floats else how.places, scale)
    plain = how.affine or table is not None
    q = weight.data if how.raw else unpack(weight.data, how.bits, weight.shape, dtype="uint8" if plain else "int8")
    if floats:
        q = _floats(who, q, how.small)
    if how.group is None:
        scale = scale.reshape(1, 1) + _zeros(scale, outs)
        zero = None if zero is None else zero.reshape(1, 1) + _zeros(zero, outs)
    elif not inputs:
        scale, zero = _zeros(scale, outs), None if zero is None else _zeros(zero, outs)
    if zero is not None:
        zero = zero.astype(np.float32) if isinstance(zero, np.ndarray) else zero.float()
    bits = 4 if how.bits <= 4 else 8
    return Packed(_panels(q, scale, zero, bits, how.affine), table, (outs, inputs), bits, groups, how.affine)


def _wide(small: str) -> str:
    """The float of 8 bits that has all numbers of this one."""
    return "e5m2" if small == "e5m2" else "e4m3"


def _floats(who: str, q: Array, small: str) -> Array:
    """Codes of a small float as those of the one of 8 bits."""
    own, wide = SMALL[small], SMALL[_wide(small)]
    if own is not wide:
        places = wide.codes(own.numbers)
        if not is_tensor(q):
            return places[q]
        import torch

        return torch.tensor(places.tolist(), dtype=torch.uint8, device=q.device)[q.long()]
    if q.shape[0] and q.shape[1] and int((q & 127).max()) > own.top:
        raise ValueError(f"{who}: weight holds codes of {small} that are no finite number")
    return q


def _sixteen(who: str, table: Array, how: Scheme, like: Array) -> Array:
    """A table that somebody gave, checked."""
    if how.bits != 4 or how.affine:
        raise ValueError(f"{who}: a table goes with codes of 4 bits without zero points, got {how.name}")
    if is_tensor(table) != is_tensor(like) or dtype_name(getattr(table, "dtype", "")) != "float32":
        raise TypeError(f"{who}: table must be float32 of the library of weight, got {type(table).__name__}")
    if tuple(table.shape) != (16,) or not bool(abs(table).max() < float("inf")):
        raise ValueError(f"{who}: table must be 16 finite numbers, got shape {tuple(table.shape)}: {table}")
    return table


def _zeros(like: Array, n: int) -> Array:
    return np.zeros((n, 1), like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(n, 1)
