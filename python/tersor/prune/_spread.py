"""Lists of distributed tensors. The one rule: the answer is that of the whole tensors, every process looks at what it holds,
and what travels are counts.

Tensors sharded along their first axis are what a selection over a group takes as rows. Of those that every process holds
whole, each looks at an equal part, so that no weight is counted twice; only their masks are sent round.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from tersor._arrays import is_distributed
from tersor.prune._group import ALONE, Alone, Group
from tersor.prune._job import checked
from tersor.prune._same import _place, once

Array = Any
F = TypeVar("F", bound=Callable[..., Any])


def axis_of(who: str, arrays: Sequence[Array], what: str = "arrays") -> int | None:
    """The axis of the device mesh along which tensors are sharded; None where every process holds all of them.

    Raises
    ------
    TypeError
        If the tensors are not all distributed, over one mesh, whole or in rows along one of its axes.
    """
    axes = set()
    mesh = next(x.device_mesh for x in arrays if is_distributed(x))
    for i, x in enumerate(arrays):
        if not is_distributed(x):
            raise TypeError(f"{who}: {what}[{i}] is a plain tensor, others are DTensors; distribute it as well")
        if x.device_mesh != mesh:
            raise TypeError(f"{who}: {what}[{i}] lies on another device mesh than others; prune each mesh by itself")
        for m, p in enumerate(x.placements):
            if p.is_partial():
                raise TypeError(
                    f"{who}: {what}[{i}] is a DTensor with {p}: a sum still to be made; redistribute it first"
                )
            if type(p).__name__ not in ("Shard", "Replicate"):
                raise TypeError(f"{who}: {what}[{i}] is a DTensor with {p}; it must be Shard(0) or Replicate")
            if p.is_shard():
                # among equals the lowest index stays: a part along another axis would not know its indices
                if p.dim != 0:
                    raise TypeError(
                        f"{who}: {what}[{i}] is a DTensor sharded along axis {p.dim}; redistribute it to Shard(0)"
                    )
                axes.add(m)
    if len(axes) > 1:
        raise TypeError(f"{who}: the DTensors are sharded along several axes of the mesh; redistribute them to one")
    return axes.pop() if axes else None


class Part:
    """What of a distributed tensor a process looks at: its rows, or an equal part of a tensor that all hold."""

    def __init__(self, x: Array, axis: int | None) -> None:
        from torch.distributed.tensor import DTensor, Shard

        self.x, self.mesh, self.placements = x, x.device_mesh, list(x.placements)
        own = x.detach().to_local()
        #: where what this process holds lies; an equal part of it may be a copy
        self.place = _place(own)
        #: how the flat elements of a tensor that all hold are looked at
        self.flat = None
        if axis is not None and self.placements[axis].is_replicate():
            self.flat = [Shard(0) if m == axis else p for m, p in enumerate(self.placements)]
            whole = DTensor.from_local(own.reshape(-1), self.mesh, self.placements, run_check=False)
            own = whole.redistribute(placements=self.flat).to_local()
        self.own = own

    def spread(self, mask: Array) -> Array:
        """The mask of the part as a mask of the tensor, placed as that is."""
        from torch.distributed.tensor import DTensor

        from tersor._dtensor import strides

        if self.flat is not None:
            flat = (self.x.numel(),)
            some = DTensor.from_local(mask, self.mesh, self.flat, run_check=False, shape=flat, stride=(1,))
            mask = some.redistribute(placements=self.placements).to_local().view(self.x.shape)
        shape = tuple(self.x.shape)
        return DTensor.from_local(mask, self.mesh, self.placements, run_check=False, shape=shape, stride=strides(shape))


class Spread:
    """A list of distributed tensors as the processes of a group take it: parts, and the first of those that are the same."""

    def __init__(self, who: str, arrays: Sequence[Array], scores: Any) -> None:
        axis = axis_of(who, arrays)
        self.ranks: Alone = ALONE if axis is None else Group(arrays[0].device_mesh.get_group(axis))
        import torch

        with torch.no_grad():
            self.parts = [Part(x, axis) for x in arrays]
            self.scores = None if scores is None else self._scores(who, arrays, scores, axis)
        # that of equal tensors some process has no elements must not make them two
        places = self.ranks.gather([p.place for p in self.parts])
        found: dict[Any, int] = {}
        self.firsts = []
        for i, key in enumerate(zip(*places, strict=True)):
            self.firsts.append(i if not any(key) else found.setdefault(key, i))

    @staticmethod
    def _scores(who: str, arrays: Sequence[Array], scores: Any, axis: int | None) -> list[Array]:
        scores = checked(scores, "scores")
        axis_of(who, [*arrays, *scores], "arrays and scores")
        for i, (x, s) in enumerate(zip(arrays, scores, strict=False)):
            if x.shape == s.shape and x.placements != s.placements:
                raise TypeError(f"{who}: scores[{i}] must be placed as arrays[{i}]: {s.placements}, {x.placements}")
        own = {id(s): Part(s, axis).own for s in scores}
        return [own[id(s)] for s in scores]

    def call(self, function: Callable[..., Any], options: dict[str, Any], each: Sequence[str]) -> Any:
        """The selection on what is first of the parts; `each`: the options that may be given array by array."""
        given = {**options, "scores": self.scores}
        given.update(once({k: given[k] for k in each if k in given}, self.firsts))
        kept = [self.parts[i].own for i, first in enumerate(self.firsts) if i == first]
        group = getattr(self.ranks, "group", None)
        return function(kept, **given, group=group, shard="rows" if group else "tensors")

    def each(self, made: Sequence[Any]) -> list[Any]:
        """What was made for the first of equal tensors, for all of them."""
        kept = [i for i, first in enumerate(self.firsts) if i == first]
        by = dict(zip(kept, made, strict=True))
        return [by[first] for first in self.firsts]

    def masks(self, made: Sequence[Array]) -> list[Array]:
        kept = [p for i, p in enumerate(self.parts) if i == self.firsts[i]]
        return self.each([p.spread(mask) for p, mask in zip(kept, made, strict=True)])

    def counts(self, made: Sequence[int]) -> list[int]:
        """Numbers of the parts as those of the tensors."""
        total = np.array(made, np.int64)
        self.ranks.sum(total)
        return self.each(total.tolist())


def spreading(finish: Callable[[Spread, Any], Any], each: Sequence[str]) -> Callable[[F], F]:
    """Lets a selection take distributed tensors.

    Parameters
    ----------
    finish : makes of the answer for the parts that for the tensors
    each : the options that may be given array by array
    """

    def wrap(function: F) -> F:
        who = function.__name__

        @functools.wraps(function)
        def call(arrays: Any, sparsity: Any = None, **options: Any) -> Any:
            arrays = list(arrays) if isinstance(arrays, Iterator) else arrays
            if not (isinstance(arrays, (list, tuple)) and any(is_distributed(x) for x in arrays)):
                return function(arrays, sparsity, **options)
            if options.get("out", "bool") != "bool":
                raise TypeError(
                    f"{who}: out must be 'bool' for DTensors, whose masks are DTensors, got {options['out']!r}"
                )
            if options.get("group") is not None:
                raise TypeError(f"{who}: group is for plain tensors; that of DTensors is of their mesh")
            arrays = checked(arrays, "arrays")
            found = Spread(who, arrays, options.pop("scores", None))
            given = {k: v for k, v in options.items() if k not in ("group", "shard")}
            return finish(found, found.call(function, {"sparsity": sparsity, **given}, each))

        return cast(F, call)

    return wrap
