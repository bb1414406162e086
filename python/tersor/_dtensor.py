"""Operators on torch's distributed tensors. The one rule: rows are local to a shard, so each process works on what it holds;
what would need another process's rows is refused.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tersor._op import Op


def kind() -> Any:
    """The class of distributed tensors; an empty tuple where nobody has imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return getattr(module, "DTensor", ()) if module is not None else ()


def distributed(x: Any) -> bool:
    return isinstance(x, kind())


def local(who: str, name: str, x: Any, rows: bool = True) -> Any:
    """The part of `x` that this process holds; anything else passes.

    Parameters
    ----------
    rows : whether the last axis must be whole
    """
    if not distributed(x):
        return x
    for p in x.placements:
        if p.is_partial():
            raise TypeError(f"{who}: {name} is a DTensor with {p}: a sum still to be made; redistribute it first")
        if rows and p.is_shard() and p.dim == x.ndim - 1:
            raise TypeError(f"{who}: {name} is a DTensor sharded along its rows ({p}); shard a leading axis")
        if not (p.is_shard() or p.is_replicate()) or type(p).__name__ != ("Shard" if p.is_shard() else "Replicate"):
            raise TypeError(f"{who}: {name} is a DTensor with {p}; rows must be Shard or Replicate")
    return x.to_local()


def number(x: Any) -> Any:
    """A number is no row: one that is distributed (a curvature that is learned, say) is made whole for every process."""
    if not distributed(x) or x.numel() != 1 or all(p.is_replicate() for p in x.placements):
        return x
    from torch.distributed.tensor import Replicate

    return x.redistribute(placements=[Replicate()] * x.device_mesh.ndim)


def core(op: Op, i: int) -> int | None:
    """How many last axes of input `i` belong together; None where no axis may be split."""
    k = op.inputs[i]
    if op.options.local is not None:
        return op.options.local.get(k)
    if op.vectors:
        return 1 if i < op.vectors or k in op.coefficients else 0
    return op.leading.get(k)


def run(op: Op, call: Callable[..., Any], whole: tuple[Any, ...]) -> Any:
    """The operator on the local parts; its results are placed as the rows are."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    xs = [number(x) if k in op.exempt else x for k, x in zip(op.inputs, whole, strict=False)]
    first = next((x for x in xs if distributed(x)), None)
    if first is None:  # nothing was distributed but numbers
        return call((*xs, *whole[op.n :]))
    mesh = first.device_mesh
    leads = []
    for i, (k, x) in enumerate(zip(op.inputs, xs, strict=True)):
        kept = core(op, i)
        absent = k in op.optional and not x.numel()
        leads.append(tuple(x.shape[: max(x.ndim - kept, 0)]) if kept is not None and not absent else ())
        if distributed(x):
            local(op.name, k, x, rows=kept is None or kept > 0)
            if x.device_mesh != mesh:
                raise TypeError(f"{op.name}: {k} lies on another device mesh than other arguments")
        elif isinstance(x, Tensor) and x.numel() > 1:
            raise TypeError(f"{op.name}: {k} is a plain tensor, others are DTensors; distribute it as well")
        elif isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled():
            # its gradient would be that of the rows at hand
            raise TypeError(
                f"{op.name}: {k} is a plain tensor that wants a gradient, others are DTensors; distribute it as well"
            )
    width = max(len(lead) for lead in leads)
    placements: list[Any] = []
    back: list[list[Any]] = [[] for _ in xs]
    for m in range(mesh.ndim):
        at = {}
        for i, x in enumerate(xs):
            p = x.placements[m] if distributed(x) else None
            if p is None or not p.is_shard():
                continue
            if p.dim >= len(leads[i]):
                raise TypeError(
                    f"{op.name}: {op.inputs[i]} is a DTensor sharded along axis {p.dim}, over which this goes as a whole; "
                    "redistribute it"
                )
            at[i] = p.dim - len(leads[i])
        axes = set(at.values())
        if len(axes) > 1:
            raise TypeError(f"{op.name}: the DTensors are sharded along different axes of the rows")
        axis = axes.pop() if axes else None
        if axis is not None and len({leads[i][axis] for i in at}) > 1:  # one row for all lies in one process
            raise TypeError(
                f"{op.name}: the DTensors are sharded along axes of different sizes; redistribute the shorter"
            )
        for i, lead in enumerate(leads):
            if axis is not None and i not in at and len(lead) >= -axis and lead[axis] != 1:
                raise TypeError(
                    f"{op.name}: {op.inputs[i]} is not sharded, others are ({axis} from the rows); redistribute it alike"
                )
            back[i].append(Replicate() if axis is None else Shard(at[i] + len(lead)) if i in at else Partial())
        placements.append(Replicate() if axis is None else Shard(axis + width))
    parts = [x.to_local(grad_placements=g) if distributed(x) else x for x, g in zip(xs, back, strict=True)]
    ys = call((*parts, *whole[op.n :]))
    several = isinstance(ys, tuple)
    # scales that are for groups of elements do not broadcast; the result is like the first
    lead = leads[0] if op.options.local is not None else lead_of(leads)
    out = []
    for y in ys if several else (ys,):
        shape = (*lead, *y.shape[width:])
        out.append(DTensor.from_local(y, mesh, placements, run_check=False, shape=shape, stride=strides(shape)))
    return tuple(out) if several else out[0]


def lead_of(leads: list[tuple[int, ...]]) -> tuple[int, ...]:
    import numpy as np

    return tuple(np.broadcast_shapes(*leads))


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a contiguous tensor."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
