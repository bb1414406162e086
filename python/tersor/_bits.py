"""Masks of one bit a weight. The one rule: weight i is bit i % 8 of byte i // 8, and bits past the end are 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor._values import at_hand, lasting

Array = Any


def is_packed(x: Any) -> bool:
    """Whether an array is one of bytes along one axis, as masks of bits are."""
    return hasattr(x, "dtype") and x.ndim == 1 and dtype_name(x.dtype) == "uint8"


def packed(mask: Array) -> Array:
    """The bits of a mask."""
    if not is_tensor(mask):
        return np.packbits(mask, axis=None, bitorder="little")
    import torch

    mask = mask.detach()
    if at_hand(mask):
        return torch.from_numpy(np.packbits(mask.numpy(), axis=None, bitorder="little"))
    return summed(mask)


def unpacked(who: str, name: str, bits: Array, shape: tuple[int, ...]) -> Array:
    """The mask of this shape that was made bits of; errors name the function and its argument."""
    n = math.prod(shape)
    if tuple(bits.shape) != (-(-n // 8),):
        raise ValueError(f"{who}: {name} has shape {tuple(bits.shape)}, a mask of {shape} needs {-(-n // 8)} bytes")
    seen = not is_tensor(bits) or (bits.device.type != "meta" and lasting(bits))
    if seen and n % 8 and int(bits[-1]) >> n % 8:
        raise ValueError(f"{who}: a bit past the {n} of a mask of {shape} is set in {name}")
    if not is_tensor(bits):
        return np.unpackbits(bits, count=n, bitorder="little").view(bool).reshape(shape)
    import torch

    bits = bits.detach()
    if at_hand(bits):
        return torch.from_numpy(np.unpackbits(bits.numpy(), count=n, bitorder="little").view(bool)).reshape(shape)
    return shifted(bits, n).reshape(shape)


def summed(mask: Array) -> Array:
    """`packed` of a tensor on any device."""
    import torch

    flat = torch.nn.functional.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (flat << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(1, dtype=torch.uint8)


def shifted(bits: Array, n: int) -> Array:
    """The first n bits of a tensor on any device."""
    import torch

    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[:, None] >> places) & 1).reshape(-1)[:n].bool()
