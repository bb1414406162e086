"""One selection over the processes of a torch.distributed group. The one rule: all processes add up the same counts, so that
each decides the same, and what is wrong in one is an error in all instead of a wait without end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Alone:
    """No group: everything is in this process."""

    rank, size = 0, 1

    def sum(self, counts: np.ndarray) -> None:
        """Adds up counts over the processes, in place."""

    def gather(self, x: Any) -> list[Any]:
        """What every process has, in the order of ranks."""
        return [x]

    def agree(self, work: Callable[[], T]) -> T:
        """Does work that may fail; if it fails in one process, all raise."""
        return work()


class Group(Alone):
    """The processes of a ``torch.distributed`` group."""

    def __init__(self, group: Any) -> None:
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized() and isinstance(group, dist.ProcessGroup)):
            raise TypeError(f"group must be a torch.distributed process group, got {type(group).__name__}")
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.host = "nccl" not in dist.get_backend(group)

    def sum(self, counts: np.ndarray) -> None:
        import torch
        import torch.distributed as dist

        here = torch.from_numpy(counts)
        there = here if self.host else here.cuda()
        dist.all_reduce(there, group=self.group)
        if there is not here:
            here.copy_(there)

    def gather(self, x: Any) -> list[Any]:
        import torch.distributed as dist

        found = [None] * self.size
        dist.all_gather_object(found, x, group=self.group)
        return found

    def agree(self, work: Callable[[], T]) -> T:
        error: Exception | None = None
        try:
            result = work()
        except Exception as e:
            error = e
        found = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(found):
            if text is not None:
                raise ValueError(f"process {rank} of the group failed: {text}")
        return result


ALONE = Alone()
