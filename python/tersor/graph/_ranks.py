"""Graphs cut by rows over processes. The one rule: a rank has the rows of its own nodes, in the order of ranks, and what it
computes from all of them has the bits of one process."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor._values import tensor_of

Array = Any


class Alone:
    """One process, which has all rows."""

    start = 0

    def gather(self, x: Array) -> Array:
        """The rows of all nodes."""
        return x

    def total(self, x: Array) -> Array:
        """The sum over all ranks."""
        return x


ALONE = Alone()


class Ranks(Alone):
    """The processes of a group of ``torch.distributed``; ``rows`` are the nodes of this one."""

    def __init__(self, who: str, group: Any, rows: int) -> None:
        import torch
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(f"{who}: group needs torch.distributed.init_process_group first")
        self.group = None if group is True else group
        self.rank = dist.get_rank(self.group)
        if self.rank < 0:
            raise ValueError(f"{who}: this process is no part of group")
        counts: list[Any] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(counts, rows, group=self.group)
        self.counts = [int(c) for c in counts]
        self.start = sum(self.counts[: self.rank])
        self.n = sum(self.counts)
        self._torch = torch

    def gather(self, x: Array) -> Array:
        if not is_tensor(x):
            return self._gathered(tensor_of(np.ascontiguousarray(x))).numpy()
        return _gathering().apply(x, self) if x.requires_grad else self._gathered(x)

    def _gathered(self, x: Any) -> Any:
        """The rows of all ranks: of unequal counts they travel in as many as the most."""
        import torch.distributed as dist

        most, at = max(self.counts), x.ndim - 2 if x.ndim > 1 else 0
        mine = x.movedim(at, 0).contiguous()
        sent = mine.new_zeros((most, *mine.shape[1:]))
        sent[: len(mine)] = mine
        parts = [self._torch.empty_like(sent) for _ in self.counts]
        dist.all_gather(parts, sent, group=self.group)
        whole = self._torch.cat([p[:c] for p, c in zip(parts, self.counts, strict=True)])
        return whole.movedim(0, at).contiguous()

    def total(self, x: Array) -> Array:
        """In the order of ranks, so that all have the same bits."""
        import torch.distributed as dist

        t = x.detach().contiguous() if is_tensor(x) else tensor_of(np.ascontiguousarray(x))
        parts = [self._torch.empty_like(t) for _ in self.counts]
        dist.all_gather(parts, t, group=self.group)
        whole = parts[0]
        for p in parts[1:]:
            whole = whole + p
        return whole if is_tensor(x) else whole.numpy()


def _gathering() -> Any:
    """The gathering of rows as a node of a graph; what its rows send back is the sum over ranks."""
    import torch

    class Gathering(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, ranks: Ranks) -> Any:
            ctx.ranks = ranks
            return ranks._gathered(x.detach())

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            r, at = ctx.ranks, g[0].ndim - 2 if g[0].ndim > 1 else 0
            return r.total(g[0]).narrow(at, r.start, r.counts[r.rank]), None

    return Gathering
