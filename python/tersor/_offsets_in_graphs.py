"""Labels of offsets that a graph is given. The one rule: nothing is looked at where a call is traced; on the CPU the graph
refuses what a plain call does, elsewhere nothing is waited for, and what is wrong becomes a label that operators refuse."""

from __future__ import annotations

import torch
from torch import Tensor

from tersor._library import opaque
from tersor._offsets import run_labels


def _unseen(offsets: Tensor, n: int, who: str) -> Tensor:
    places, ends = torch.arange(n, dtype=offsets.dtype, device=offsets.device), offsets[1:]
    fine = (offsets[0] == 0) & (offsets[-1] == n) & (offsets[:-1] <= ends).all()
    return torch.where(fine, torch.searchsorted(ends.contiguous(), places, right=True), offsets.shape[0] - 1)


#: labels [n] of offsets [S + 1], in the words of who was given them
traced_labels = opaque(
    "reduce_run_labels(Tensor offsets, SymInt n, str who) -> Tensor",
    lambda offsets, n, who: offsets.new_empty(n, dtype=torch.int64),
    CPU=lambda offsets, n, who: run_labels(who, offsets, n),
    CUDA=_unseen,
)
