"""Segments said by where they end, as labels. The one rule: offsets rise from 0 to the number of rows, or are refused in the
words of the function that was given them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import torch_module

Array = Any


def run_labels(who: str, offsets: Array, n: int) -> Array:
    """The label of each of `n` rows."""
    first, last, groups = int(offsets[0]), int(offsets[-1]), offsets.shape[0] - 1
    if first != 0 or last != n or bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError(
            f"{who}: offsets must rise from 0 to {n} without falling, got {first} to {last} of {groups + 1}"
        )
    if isinstance(offsets, np.ndarray):
        return np.repeat(np.arange(groups), np.diff(offsets))
    torch = torch_module()
    return torch.repeat_interleave(torch.arange(groups, device=offsets.device), offsets.diff(), output_size=n)
