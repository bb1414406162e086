"""Masks of one bit a weight, made and read. The one rule: what takes a mask of weights takes its bits (`tersor._bits`)."""

from __future__ import annotations

from collections.abc import Sequence

from tersor._arrays import Bits, Mask
from tersor._bits import packed, unpacked


def pack_mask(mask: Mask) -> Bits:
    """A mask in one bit a weight, an eighth of its bytes.

    Parameters
    ----------
    mask : bool array or tensor of any shape

    Returns
    -------
    uint8 array or tensor [⌈n / 8⌉], n the number of weights
        On the device of the mask. Its shape is not kept: `unpack_mask` is told it.

    Raises
    ------
    TypeError
        If mask is not a bool array.
    ValueError
        None of its own: a mask of any shape has its bytes, one without elements none.

    Notes
    -----
    One read. The bytes are those of ``numpy.packbits(mask, bitorder="little")``.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import prune
    >>> prune.pack_mask(np.array([[True, False, True], [False, True, False]]))
    array([21], dtype=uint8)
    """
    return packed(mask)


def unpack_mask(bits: Bits, shape: Sequence[int]) -> Mask:
    """The bool mask of this shape that `pack_mask` made bits of.

    Parameters
    ----------
    bits : uint8 array or tensor [⌈n / 8⌉]
    shape : of the mask, of n weights

    Returns
    -------
    bool array or tensor of that shape, on the device of bits

    Raises
    ------
    TypeError
        If bits is not a uint8 array, or shape not made of integers.
    ValueError
        If there are more or fewer bytes than the shape needs, or a bit past the end is set: such a mask is of another shape. In
        a trace bits are not looked at.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import prune
    >>> prune.unpack_mask(np.array([21], np.uint8), (2, 3))
    array([[ True, False,  True],
           [False,  True, False]])
    """
    who = "unpack_mask"
    try:
        shape = tuple(int(n.__index__()) for n in shape)
    except (TypeError, AttributeError):
        raise TypeError(f"{who}: shape must be integers, got {shape!r}") from None
    if any(n < 0 for n in shape):
        raise ValueError(f"{who}: shape must not be negative, got {shape}")
    return unpacked(who, "bits", bits, shape)
