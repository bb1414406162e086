"""Weights under a mask. The one rule: what is pruned is +0, whatever was there."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Kept, Ranked, is_distributed
from tersor.prune._bytes import clear, is_bytes, masked
from tersor.prune._operators import _apply_mask

Array = Any


def apply_mask(x: Ranked, mask: Kept, *, out: Array = None) -> Array:
    """The weights that a mask keeps, +0 elsewhere (whatever x is there, also NaN).

    Parameters
    ----------
    x : array or tensor, float64, float32, float16, bfloat16 or float8 (as of `global_masks`)
    mask : bool array or tensor of the same shape, or its bits (`pack_mask`)
        True where x is kept.
    out : array or tensor
        Where the result goes; ``out=x`` prunes in place. Not with gradients.

    Returns
    -------
    array or tensor
        Of the shape and type of x.

    Raises
    ------
    TypeError
        If x is not a float array or the mask not bool.
    ValueError
        If the shapes differ, or bits are those of another shape.

    Notes
    -----
    One read and one write. The gradient is the gradient under the same mask; floats of 8 bits have none.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import prune
    >>> prune.apply_mask(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]))
    array([1., 0., 3.])
    >>> prune.apply_mask(np.array([1.0, 2.0, 3.0]), np.array([0b101], np.uint8))
    array([1., 0., 3.])
    """
    if hasattr(x, "dtype") and is_bytes(x) and not is_distributed(x):
        y = masked("apply_mask", x, mask)
        return y if out is None else _written(y, out)
    return _apply_mask(x, mask) if out is None else _apply_mask(x, mask, out=out)


def _written(y: Array, out: Array) -> Array:
    """Floats of 8 bits where they were asked for."""
    if type(out) is not type(y) or out.dtype != y.dtype:
        raise TypeError(f"apply_mask: out must be a {type(y).__name__} of {y.dtype}, got a {type(out).__name__}")
    if tuple(out.shape) != tuple(y.shape):
        raise ValueError(f"apply_mask: out has shape {tuple(out.shape)}, x {tuple(y.shape)}")
    if isinstance(out, np.ndarray):
        out.view(np.uint8)[...] = y.view(np.uint8)
    else:
        import torch

        with torch.no_grad():
            out.copy_(y)
    return out


def prune_inplace(x: Array, mask: Array) -> None:
    if is_bytes(x) and not is_distributed(x):
        clear(x, mask)
        return
    if isinstance(x, np.ndarray):
        if x.flags.c_contiguous and x.flags.aligned:
            _apply_mask(x, mask, out=x)
        else:
            x[~mask] = 0
        return
    import torch

    with torch.no_grad():
        if is_distributed(x):
            prune_inplace(x.to_local(), mask.to_local())
            torch.autograd.graph.increment_version(x)
        elif x.is_contiguous():
            _apply_mask(x.detach(), mask, out=x.detach())
        else:
            x.masked_fill_(~mask, 0)
