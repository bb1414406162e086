"""Whether what is written lies apart from the rest, where no kernel sees memory: in graphs, in transforms, of stand-ins. The
one rule: what kernels refuse of memory is refused here of storages, in the same words, before a number is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tersor import _func
from tersor._library import LIBRARY, opaque

#: in place of the output that may be exactly an input: any of them, none
ANY, NONE = -2, -1


def _span(x: Tensor) -> tuple[int, Any, Any] | None:
    """Which storage a tensor lies in, from where to where; None of what is copied before it is read, and of nothing."""
    x = _func.bare(getattr(x, "_local_tensor", x))
    if not x.numel() or not x.is_contiguous():
        return None
    size = x.element_size()
    return x.untyped_storage()._cdata, x.storage_offset() * size, (x.storage_offset() + x.numel()) * size


def _check(who: str, read: Sequence[Tensor], written: Sequence[Tensor], partners: Sequence[int], names: str) -> None:
    """Refuses outputs that overlap anything, but exactly the input whose partner they are."""
    said = names.split(", ")
    into, out_of = [_span(y) for y in written], [_span(x) for x in read]
    for i, a in enumerate(into):
        for j, b in enumerate([*out_of, *into[:i]]):
            if a is None or b is None or a[0] != b[0] or not (a[1] < b[2] and b[1] < a[2]):
                continue
            if j < len(read) and partners[j] in (i, ANY) and a[1] == b[1] and a[2] == b[2]:
                continue
            raise ValueError(f"{who}: {said[len(read) + i]} overlaps {said[j]}")


#: what a trace calls: stand-ins have storages, and a graph keeps nothing of what has no result
_traced = opaque(
    "disjoint(str who, Tensor[] read, Tensor[] written, int[] partners, str names) -> ()",
    _check,
    CompositeExplicitAutograd=_check,
)

torch.library.register_vmap(
    "tersor::disjoint", lambda info, dims, who, *args: (_traced(who, *args), None), lib=LIBRARY
)  # storages are those of the whole batch


def check(who: str, read: Sequence[tuple[str, Any, int]], written: Sequence[tuple[str, Any]]) -> None:
    """Refuses outputs, named, that overlap each other or an input, named, with the place of the output that it may be."""
    inputs = [r for r in read if isinstance(r[1], Tensor)]
    outputs = [w for w in written if isinstance(w[1], Tensor)]
    names = ", ".join([r[0] for r in inputs] + [w[0] for w in outputs])
    given = (who, [r[1] for r in inputs], [w[1] for w in outputs], [r[2] for r in inputs], names)
    if torch.compiler.is_compiling():
        _traced(*given)
    else:  # of transforms the dispatcher would ask for their rules
        _check(*given)
