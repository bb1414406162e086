"""A module of 16 bits looked at in float32. The one rule: all of it is as it was after the look, and of a module that does not
run so nothing is said."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree

HALVES = (torch.float16, torch.bfloat16)


def _float(x: Any) -> Any:
    return x.float() if isinstance(x, torch.Tensor) and x.dtype in HALVES else x


@contextlib.contextmanager
def widened(walk: Any) -> Iterator[bool]:
    """A walk's module and its first batch in float32 for a while; whether that changes anything."""
    module, batch = walk.module, walk.batches[0]
    narrow = [t for t in (*module.parameters(), *module.buffers()) if t.dtype in HALVES]
    saved = [t.data for t in narrow]
    try:
        for t in narrow:
            t.data = t.data.float()
        walk.batches[0] = _pytree.tree_map(_float, batch)
        yield bool(narrow)
    finally:
        walk.batches[0] = batch
        for t, data in zip(narrow, saved, strict=True):
            t.data = data


def differs(walk: Any, look: Callable[[], bool]) -> bool:
    """Whether ``look`` finds in float32 what 16 bits may hide; False where there is no wider type, or no run in it."""
    with widened(walk) as wider:
        if not wider:
            return False
        try:
            return not look()
        except Exception:  # whatever a module does that was written for another type
            return False
