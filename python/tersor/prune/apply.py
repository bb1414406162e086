"""Weights under a mask. The one rule: what is pruned is +0, whatever was there."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Mask, is_distributed
from tersor._op import op
from tersor._sample import Draw
from tersor.prune._bytes import clear, is_bytes

Array = Any


def _apply_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    return [draw.normal(*draw.lead, draw.d), draw.rng.integers(0, 2, (*draw.lead, draw.d)) > 0], {}


@op(sample=_apply_sample)
def apply_mask(x: Array, mask: Mask) -> Array:
    """The weights that a mask keeps, +0 elsewhere (whatever x is there, also NaN).

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16
    mask : bool array or tensor of the same shape
        True where x is kept.

    Returns
    -------
    array or tensor
        Of the shape and type of x; ``out=x`` prunes in place.

    Raises
    ------
    TypeError
        If x is not a float array or the mask not bool.
    ValueError
        If the shapes differ.

    Notes
    -----
    One read and one write. The gradient is the gradient under the same mask.
    """
    return np.where(mask, x, 0)


@op(sample=_apply_sample)
def apply_mask_bwd(g: Array, mask: Array) -> Array:
    """Gradient of `apply_mask`: g where the mask is true, +0 elsewhere."""
    return np.where(mask, g, 0)


def prune_inplace(x: Array, mask: Array) -> None:
    if is_bytes(x) and not is_distributed(x):
        clear(x, mask)
        return
    if isinstance(x, np.ndarray):
        if x.flags.c_contiguous and x.flags.aligned:
            apply_mask(x, mask, out=x)
        else:
            x[~mask] = 0
        return
    import torch

    with torch.no_grad():
        if is_distributed(x):
            prune_inplace(x.to_local(), mask.to_local())
            torch.autograd.graph.increment_version(x)
        elif x.is_contiguous():
            apply_mask(x.detach(), mask, out=x.detach())
            torch.autograd.graph.increment_version(x)
        else:
            x.masked_fill_(~mask, 0)
