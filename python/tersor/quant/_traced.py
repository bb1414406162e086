"""Constants of traced code. The one rule: they are made by NumPy once, and a trace takes them as they are."""

from __future__ import annotations

import torch

from tersor import _hadamard


@torch.compiler.assume_constant_result
def factor(n: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The Hadamard matrix of order n."""
    return torch.as_tensor(_hadamard.matrix(n), dtype=dtype, device=device)
