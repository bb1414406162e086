"""Codes of fewer than eight bits side by side. The one rule: a row fills whole bytes (or words), from the lowest bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Codes, dtype_name, whole
from tersor._op import op
from tersor._sample import Quantized
from tersor._values import float_name
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array, detached, one_of

#: whether rows are whole words
LAYOUTS = {"dense": False, "ct_dense": True, "bnb": False}


@op(sample=Quantized("q", bits=4), native=True, integer=True)
def _pack(q: Array, bits: int = 8, words: bool = False) -> Array:
    """Codes side by side from the lowest bit."""
    return plain.pack(q, bits, words)


@op(sample=Quantized("data", bits=4), native=True, integer=True)
def _unpack(w: Array, bits: int = 8, last: int = 0, signed: bool = False) -> Array:
    """The inverse of `_pack`."""
    return plain.unpack(w, bits, last, signed)


def _moved(x: Array, axis: int, to: int) -> Array:
    return np.moveaxis(x, axis, to) if isinstance(x, np.ndarray) else x.movedim(axis, to)


def _axis(name: str, axis: int, ndim: int) -> int:
    axis = whole(f"{name}: axis", axis)
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim, name)
    return axis % ndim - ndim


def _width(name: str, bits: Any) -> int:
    bits = whole(f"{name}: bits", bits)
    if not 1 <= bits <= 8:
        raise ValueError(f"{name}: bits must be within 1 and 8, got {bits}")
    return bits


def _turned(name: str, w: Array, bits: int, last: int) -> Array:
    """Bytes with their halves exchanged."""
    if bits != 4 or last % 2:
        raise ValueError(f'{name}: layout "bnb" holds pairs of codes of 4 bits, got {bits} bits and an axis of {last}')
    return w >> 4 | w << 4


def pack(q: Codes, bits: int, layout: str = "dense", *, axis: int = -1) -> Array:
    r"""Codes side by side: code i lies at bits i·b to i·b + b - 1 of its row, from the lowest bit of the first byte.

    Signed codes are stored plus :math:`2^{b-1}`. The bits after a row's last code are zero.

    Parameters
    ----------
    q : int8 or uint8 array or tensor
    bits : int
        1 to 8.
    layout : "dense", "ct_dense" or "bnb"
        Rows in whole bytes, uint8 ``[..., ceil(K b / 8)]``; in 32-bit words, int32 ``[..., ceil(K b / 32)]``, as
        compressed-tensors packs them; or two codes of 4 bits a byte, of an even K, the first in the high half, as
        bitsandbytes packs them.
    axis : int
        The axis that is packed.

    Returns
    -------
    uint8 or int32

    Raises
    ------
    TypeError
        If q is not int8 or uint8.
    ValueError
        If a code does not fit the bits, or the layout is unknown.
    """
    q = detached("pack", q)
    words = one_of("pack", "layout", layout, LAYOUTS)
    axis = _axis("pack", axis, q.ndim)
    bits = _width("pack", bits)
    w = _pack(_moved(q, axis, -1), bits, words)
    return _moved(_turned("pack", w, bits, q.shape[axis]) if layout == "bnb" else w, -1, axis)


def unpack(
    w: Codes, bits: int, shape: tuple[int, ...], layout: str = "dense", *, axis: int = -1, dtype: Any = None
) -> Array:
    """The codes that `pack` put side by side.

    Parameters
    ----------
    w : uint8 array or tensor, or int32 for "ct_dense"
    bits : int
        1 to 8.
    shape : tuple of int
        Of the codes.
    layout : "dense", "ct_dense" or "bnb"
    axis : int
        The axis that was packed.
    dtype : "int8" or "uint8", or the type, optional
        Signed or unsigned codes; unsigned for "dense" and "bnb", signed for "ct_dense" if it is not said.

    Returns
    -------
    int8 or uint8 of the given shape

    Raises
    ------
    TypeError
        If w is not of the layout's dtype.
    ValueError
        If w does not hold so many codes.
    """
    w = detached("unpack", w)
    words = one_of("unpack", "layout", layout, LAYOUTS)
    kind = ("int8" if words else "uint8") if dtype is None else float_name(dtype)
    signed = one_of("unpack", "dtype", kind, {"int8": True, "uint8": False})
    bits = _width("unpack", bits)
    if dtype_name(w.dtype) != ("int32" if words else "uint8"):
        raise TypeError(f"unpack: w is {dtype_name(w.dtype)}, {layout} is {'int32' if words else 'uint8'}")
    shape = tuple(shape)
    axis = _axis("unpack", axis, w.ndim)
    if len(shape) != w.ndim or any(shape[i] != w.shape[i] for i in range(-w.ndim, 0) if i != axis):
        raise ValueError(f"unpack: w of shape {tuple(w.shape)} does not hold codes of shape {shape}")
    w = _moved(w, axis, -1)
    w = _turned("unpack", w, bits, int(shape[axis])) if layout == "bnb" else w
    return _moved(_unpack(w, bits, int(shape[axis]), signed), -1, axis)
