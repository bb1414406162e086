"""Floats of 8 bits, ranked and pruned but not computed with. The one rule: as float16, which holds each of them exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor

Array = Any

#: the types of torch and of ml_dtypes whose numbers are all float16's too
BYTES = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


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


def clear(x: Array, mask: Array) -> None:
    """Makes what the mask does not keep +0, in place."""
    if is_tensor(x):
        import torch

        with torch.no_grad():
            x.detach().view(torch.uint8).masked_fill_(~mask, 0)
            torch.autograd.graph.increment_version(x)
    else:
        x.view(np.uint8)[~mask] = 0
