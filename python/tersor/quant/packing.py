"""Codes of fewer than eight bits side by side. The one rule: one kernel fills bytes or words from the lowest bit; a layout says
which code comes where."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tersor._arrays import Codes, an_axis, dtype_name, whole
from tersor._op import op
from tersor._sample import Quantized
from tersor._values import float_name
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array, detached, one_of, within
from tersor.quant._layouts import LAYOUTS, Layout, exchanged, find, moved, of_blocks, of_words, to_blocks, to_words

#: what users of `repack` do not call
_INNER = re.compile("^(un)?pack")


@op(sample=Quantized("q", bits=4), native=True, integer=True)
def _pack(q: Array, bits: int = 8, words: bool = False) -> Array:
    """Codes side by side from the lowest bit."""
    return plain.pack(q, bits, words)


@op(sample=Quantized("data", bits=4), native=True, integer=True)
def _unpack(w: Array, bits: int = 8, last: int = 0, signed: bool = False) -> Array:
    """The inverse of `_pack`."""
    return plain.unpack(w, bits, last, signed)


def _axis(name: str, axis: int, ndim: int) -> int:
    return an_axis(name, whole(f"{name}: axis", axis), ndim) - ndim


def _width(name: str, bits: Any) -> int:
    bits = whole(f"{name}: bits", bits)
    if not 1 <= bits <= 8:
        raise ValueError(f"{name}: bits must be within 1 and 8, got {bits}")
    return bits


def _layout(name: str, layout: str, bits: Any, axis: int | None, shape: tuple[int, ...]) -> tuple[Layout, int, int]:
    """The layout of codes of this shape, their bits, and the axis that is packed, counted from the last."""
    bits = _width(name, bits)
    how = find(name, layout, bits, one_of(name, "layout", layout, LAYOUTS))
    if how.blocks and (len(shape) != 2 or axis not in (None, -1, 1)):
        raise ValueError(f'{name}: layout "{layout}" packs the last axis of a matrix, got shape {shape}, axis = {axis}')
    at = _axis(name, how.axis if axis is None else axis, len(shape))
    if shape[at] % how.multiple:
        raise ValueError(f'{name}: layout "{layout}" holds {how.multiple} codes together, got an axis of {shape[at]}')
    if how.blocks and shape[0] % 16:
        raise ValueError(f'{name}: layout "{layout}" holds 16 rows together, got {shape[0]}')
    return how, bits, at


def _in_order(w: Array) -> Array:
    """Words as a file has them, whose writers may take the memory of an array for its order."""
    return np.ascontiguousarray(w) if isinstance(w, np.ndarray) else w.contiguous()


def _words(k: int, bits: int, how: Layout) -> int:
    """How many words (or bytes) an axis of k codes takes."""
    return -(-k // (how.width // bits)) if how.whole else -(-k * bits // how.width)


def pack(q: Codes, bits: int, layout: str = "dense", *, axis: int | None = None) -> Array:
    r"""Codes side by side, as one of the formats of files has them.

    In most, code i of a row lies at bits i·b to i·b + b - 1, from the lowest bit of the first byte or word on. Signed codes are
    stored plus :math:`2^{b-1}`. Bits without a code are zero.

    Parameters
    ----------
    q : int8 or uint8 array or tensor
    bits : int
        1 to 8, or what the layout has.
    layout : str
        "dense": rows in whole bytes, ``[..., ceil(K b / 8)]``.

        "ct_dense": in 32-bit words, ``[..., ceil(K b / 32)]``, as compressed-tensors packs them; "ct_padded": as its older
        releases did, with whole codes only in a word, ``[..., ceil(K / floor(32 / b))]``.

        "gptq_v1", "gptq_v2": words down the inputs of codes ``[K, N]``, of 2, 3, 4 or 8 bits; with ``axis=-1`` zero points
        ``[G, N]`` along the outputs, which the first of the two stores less 1.

        "awq": words along the outputs of codes or zero points ``[K, N]`` of 4 bits, eight in the order 0 2 4 6 1 3 5 7.

        "bnb": two codes of 4 bits a byte, the first in the high half, as bitsandbytes packs them.

        "hqq": row i and the rows that are a share of all further down in one byte, the first in the highest bits; ten of 3
        bits in a 32-bit word; of 1, 2, 3, 4 or 8 bits. "quanto": the same of 2 or 4 bits with the first in the lowest.

        "aten_int4": what ``torch.ops.aten._convert_weight_to_int4pack_for_cpu`` makes of ``[N, K]`` on a processor with
        AVX-512: of 64 rows, row i and row i + 32 in one byte, one column after another.
    axis : int, optional
        The axis that is packed, where it is not the layout's own: the last; of gptq the last but one, of hqq and quanto the
        first.

    Returns
    -------
    uint8; int32 of ct, gptq, awq, and hqq with 3 bits

    Raises
    ------
    TypeError
        If q is not int8 or uint8.
    ValueError
        If a code does not fit the bits, the layout is unknown, has no codes of these bits or holds several together that do not
        divide the axis, or a zero point of gptq_v1 is 0, which it has no word for.

    Notes
    -----
    One read of the codes and one write of the words by the dense kernel; what is not in its order is copied before.
    """
    q = detached("pack", q)
    how, bits, axis = _layout("pack", layout, bits, axis, tuple(q.shape))
    if how.less and axis == -1:
        low = -(1 << bits - 1) if dtype_name(q.dtype) == "int8" else 0
        within("pack", q, low + how.less, low + how.less + (1 << bits) - 1)
        q = q - how.less
    if how.blocks:
        return _pack(to_blocks(q), bits, False).reshape(q.shape[0], q.shape[1] // 2)
    if how.whole:
        q, rows = to_words(q, bits, axis, how), how.width % bits
        # full words in a row are those of the same codes in a row
        w = _pack(q if rows else q.reshape(math.prod(q.shape)), bits, how.words).reshape(q.shape[:-1])
        return _in_order(moved(w, 0 if how.apart else -1, axis))
    return _in_order(moved(exchanged(_pack(moved(q, axis, -1), bits, how.words), how), -1, axis))


def unpack(
    w: Codes, bits: int, shape: tuple[int, ...], layout: str = "dense", *, axis: int | None = None, dtype: Any = None
) -> Array:
    """The codes that `pack` put side by side.

    Parameters
    ----------
    w : uint8 array or tensor, or int32 where the layout is of words
    bits : int
        1 to 8, or what the layout has.
    shape : tuple of int
        Of the codes.
    layout : str
        As of `pack`.
    axis : int, optional
        The axis that was packed, where it is not the layout's own.
    dtype : "int8" or "uint8", or the type, optional
        Signed or unsigned codes; where it is not said, signed of "ct_dense" and "ct_padded", unsigned of all others.

    Returns
    -------
    int8 or uint8 of the given shape

    Raises
    ------
    TypeError
        If w is not of the layout's dtype.
    ValueError
        If w does not hold so many codes, or as of `pack`; or if a zero point of gptq_v1 is 256.
    """
    w, shape = detached("unpack", w), tuple(shape)
    how, bits, axis = _layout("unpack", layout, bits, axis, shape)
    kind = ("int8" if layout.startswith("ct") else "uint8") if dtype is None else float_name(dtype)
    signed = one_of("unpack", "dtype", kind, {"int8": True, "uint8": False})
    if dtype_name(w.dtype) != how.dtype:
        raise TypeError(f"unpack: w is {dtype_name(w.dtype)}, {layout} is {how.dtype}")
    k = int(shape[axis])
    held = [int(n) for n in shape]
    held[axis] = _words(k, bits, how)
    if list(w.shape) != held:
        raise ValueError(f"unpack: w of shape {tuple(w.shape)} does not hold codes of shape {shape} in {layout}")
    if how.blocks:
        q = _unpack(w.reshape(-1), bits, shape[0] * k, signed)
        return of_blocks(q, shape[0], k)
    if how.whole:
        w = moved(w, axis, 0 if how.apart else -1)
        rows, n = how.width % bits, how.width // bits
        q = _unpack(
            w[..., None] if rows else w.reshape(math.prod(w.shape)), bits, n if rows else n * math.prod(w.shape), signed
        )
        return of_words(q.reshape(*w.shape, n), k, axis, how)
    q = moved(_unpack(exchanged(moved(w, axis, -1), how, back=True), bits, k, signed), -1, axis)
    if how.less and axis == -1:
        if bits == 8:
            within("unpack", q, -128 if signed else 0, 126 if signed else 254)
        q = q + how.less
    return q


def repack(w: Codes, bits: int, shape: tuple[int, ...], src: str, dst: str, *, axis: int | None = None) -> Array:
    """Packed codes of one layout in another, none of them changed.

    GPTQ and AWQ hold matrices as inputs by outputs ``[K, N]``, all others as ``[N, K]``: between the two the codes are
    transposed.

    Parameters
    ----------
    w : uint8 or int32 array or tensor
    bits : int
        1 to 8, of those that both layouts have.
    shape : tuple of int
        Of the codes, as `src` holds them.
    src, dst : str
        Layouts of `pack`.
    axis : int, optional
        The axis that was packed, where it is not that of `src`. It goes along where codes are transposed: the zero points
        ``[G, N]`` of GPTQ, whose axis is -1, become those ``[N, G]`` of compressed-tensors, packed down the first axis.

    Returns
    -------
    uint8 or int32

    Raises
    ------
    TypeError, ValueError
        As of `pack` and `unpack`; or if codes with fewer than two axes were to be transposed.
    """
    shape = tuple(shape)
    one = one_of("repack", "src", src, LAYOUTS)
    other = one_of("repack", "dst", dst, LAYOUTS)
    turned = one.turned != other.turned
    if turned and len(shape) < 2:
        raise ValueError(f"repack: between {src} and {dst} matrices are transposed, got shape {shape}")
    try:
        q = unpack(w, bits, shape, src, axis=axis, dtype="uint8")
        if turned:
            q = q.swapaxes(-1, -2)
            axis = None if axis is None else {-1: -2, -2: -1}.get(_axis("repack", axis, len(shape)), axis)
        return pack(q, bits, dst, axis=axis)
    except (TypeError, ValueError) as e:
        raise type(e)(_INNER.sub("repack", str(e), count=1)) from None
