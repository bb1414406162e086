"""Floats of 8 bits, ranked and pruned but not computed with. The one rule: they are ranked as float16, which holds each of them
exactly, and what is kept keeps its bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import BYTES, dtype_name, is_tensor

Array = Any


def is_bytes(x: Array) -> bool:
    return dtype_name(x.dtype) in BYTES


def widened(x: Array) -> Array:
    """Floats of 8 bits as float16, others as they are."""
    if not is_bytes(x):
        return x
    if is_tensor(x):
        import torch

        return x.detach().to(torch.float16)
    return x.astype(np.float16)


def masked(who: str, x: Array, mask: Array) -> Array:
    """What a mask keeps of x, +0 elsewhere."""
    if is_tensor(mask) != is_tensor(x) or not hasattr(mask, "dtype"):
        raise TypeError(f"{who}: mask is a {type(mask).__name__}, x a {type(x).__name__}")
    if dtype_name(mask.dtype) != "bool":
        raise TypeError(f"{who}: mask must be bool, got {dtype_name(mask.dtype)}")
    if tuple(mask.shape) != tuple(x.shape):
        raise ValueError(f"{who}: mask has shape {tuple(mask.shape)}, x {tuple(x.shape)}")
    if not is_tensor(x):
        return np.where(mask, x.view(np.uint8), np.uint8(0)).view(x.dtype)
    import torch

    return torch.where(mask, x.detach().view(torch.uint8), 0).view(x.dtype)


def taken(x: Array, indices: Array) -> Array:
    """The entries of each row at the indices of the same row."""
    if not is_tensor(x):
        return np.take_along_axis(x, indices, -1)
    import torch

    return x.detach().view(torch.uint8).gather(-1, indices).view(x.dtype)


def clear(x: Array, mask: Array) -> None:
    """Makes what the mask does not keep +0, in place."""
    if is_tensor(x):
        import torch

        with torch.no_grad():
            x.detach().view(torch.uint8).masked_fill_(~mask, 0)
            torch.autograd.graph.increment_version(x)
    else:
        x.view(np.uint8)[~mask] = 0
