"""Masks of one bit a weight. The one rule: weight i is bit i % 8 of byte i // 8, and bits past the end are 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tersor._arrays import Bits, Mask, is_tensor
from tersor._values import at_hand, lasting


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
    if not is_tensor(mask):
        return np.packbits(mask, axis=None, bitorder="little")
    import torch

    mask = mask.detach()
    if at_hand(mask):
        return torch.from_numpy(np.packbits(mask.numpy(), axis=None, bitorder="little"))
    return summed(mask)


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
    n = math.prod(shape)
    if tuple(bits.shape) != (-(-n // 8),):
        raise ValueError(f"{who}: bits has shape {tuple(bits.shape)}, a mask of {shape} needs {-(-n // 8)} bytes")
    seen = not is_tensor(bits) or (bits.device.type != "meta" and lasting(bits))
    if seen and n % 8 and int(bits[-1]) >> n % 8:
        raise ValueError(f"{who}: a bit past the {n} of a mask of {shape} is set")
    if not is_tensor(bits):
        return np.unpackbits(bits, count=n, bitorder="little").view(bool).reshape(shape)
    import torch

    bits = bits.detach()
    if at_hand(bits):
        return torch.from_numpy(np.unpackbits(bits.numpy(), count=n, bitorder="little").view(bool)).reshape(shape)
    return shifted(bits, n).reshape(shape)


def summed(mask: Mask) -> Bits:
    """`pack_mask` of a tensor on any device."""
    import torch

    flat = torch.nn.functional.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (flat << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(1, dtype=torch.uint8)


def shifted(bits: Bits, n: int) -> Mask:
    """The first n bits of a tensor on any device."""
    import torch

    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[:, None] >> places) & 1).reshape(-1)[:n].bool()
