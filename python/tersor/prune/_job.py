"""The arguments of a selection, made whole and checked. The one rule: whatever is wrong with them is found here, before
anything is read or written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._arrays import BYTES, dtype_name, is_tensor, ordinary
from tersor._keys import FORMATS, Order
from tersor._lists import listed
from tersor._values import one_of
from tersor.prune._bytes import widened
from tersor.prune._group import ALONE, Alone, Group
from tersor.prune._rank import Plan, in_order, plan, search, share
from tersor.prune._run import integer, order_of, ready
from tersor.prune._same import first_places
from tersor.prune.histogram import MagnitudeHistogram

Array = Any

#: how many weights peers prune, and what they do with equals: rounding, ties, one more than asked
COMPAT = {
    "torch": ("round", "low", 0),
    "globalmp": ("floor", "all", 0),
    "mc-smoe": ("floor", "all", 0),
    "llm-compressor": ("floor", "none", 0),
    "sparsegpt": ("floor", "none", 1),
    "wanda": ("floor", "high", 0),
    "wanda-magnitude": ("floor", "none", 1),
}


class Whole:
    """An array in memory, as a layer of one chunk; of a layer elsewhere, its size and no chunk."""

    def __init__(self, size: int, x: Array = None, name: str = "") -> None:
        self.size, self.x, self.name = size, x, name

    @property
    def here(self) -> bool:
        return self.x is not None

    def array(self) -> Array:
        return ready(self.x, self.name)

    def chunks(self) -> Any:
        if self.here:
            yield self.array()


def checked(arrays: Any, what: str) -> list[Array]:
    arrays = list(listed(what, arrays))
    for i, x in enumerate(arrays):
        if not (is_tensor(x) or isinstance(x, np.ndarray)):
            raise TypeError(f"{what}[{i}] must be a NumPy array or a torch tensor, got {type(x).__name__}")
        ordinary(what, f"[{i}]", x)
        if isinstance(x, np.ndarray) == is_tensor(arrays[0]):
            raise TypeError(f"{what} must all be NumPy arrays or all torch tensors, {what}[{i}] is not like {what}[0]")
        if dtype_name(x.dtype) not in (*FORMATS, *BYTES):
            raise TypeError(f"{what}[{i}] must hold floats, got {dtype_name(x.dtype)}")
    return arrays


@dataclass(eq=False, repr=False)
class Job:
    """The arguments that all functions share, as `global_masks` has them.

    ``layers`` are the arrays of all processes in the order of selection, ``local`` the numbers of those given here.
    """

    arrays: Any
    sparsity: Any = None
    k: Any = None
    min_keep: int | Sequence[int] = 0
    scope: str = "global"
    scores: Any = None
    ties: str = "low"
    rounding: str = "round"
    compat: str | None = None
    nan: str = "raise"
    group: Any = None
    shard: str = "tensors"
    mixed: bool = False

    def __post_init__(self) -> None:
        one_of("shard", self.shard, ("tensors", "rows"))
        self.ranks: Alone = ALONE if self.group is None else Group(self.group)
        self.ranks.agree(self._read)
        if self.shard == "tensors" and self.scope == "layer":
            self.ranks = ALONE  # every layer is cut by itself and lies in one process
        self._join(self.ranks.gather(self._mine))

    def _read(self) -> None:
        """What can be known of this process alone."""
        self.arrays = checked(self.arrays, "arrays")
        for i, first in enumerate(first_places(self.arrays)):
            if i != first:
                raise ValueError(f"arrays[{i}] is arrays[{first}]: give it once to the processes of a group")
        self.what = "arrays" if self.scores is None else "scores"
        signed = self.scores is not None and self.compat != "torch"
        ranked = self.arrays
        if self.scores is not None:
            ranked = checked(self.scores, "scores")
            if [tuple(s.shape) for s in ranked] != [tuple(x.shape) for x in self.arrays]:
                raise ValueError("scores must have the shapes of the arrays")
        for i, x in enumerate(ranked):
            if not self.mixed and x.dtype != ranked[0].dtype:
                kinds = f"{self.what}[{i}] is {dtype_name(x.dtype)}, {self.what}[0] {dtype_name(ranked[0].dtype)}"
                raise TypeError(f"{kinds}; mixed=True ranks numbers of several types by value")
        given = {dtype_name(x.dtype) for x in ranked}
        self.ranked = ranked = [widened(x) for x in ranked]
        names = [dtype_name(x.dtype) for x in ranked]
        order_of(names, signed=signed, nan=self.nan)
        self.extra = 0
        if self.compat is not None:
            if self.compat not in COMPAT:
                raise ValueError(f"compat must be one of {', '.join(COMPAT)}, got {self.compat!r}")
            if self.ties != "low" or self.rounding != "round":
                raise ValueError("compat says how to round and what to do with ties: leave out rounding and ties")
            self.rounding, self.ties, self.extra = COMPAT[self.compat]
        self.least = 1 if self.compat == "globalmp" else 0
        one_of("ties", self.ties, ("low", "high", "all", "none"))
        one_of("rounding", self.rounding, ("round", "floor", "ceil"))
        one_of("scope", self.scope, ("global", "layer"))
        if (self.sparsity is None) == (self.k is None):
            raise ValueError("exactly one of sparsity and k must be given")
        n, each = len(ranked), self.min_keep
        wanted = list(each) if isinstance(each, (list, tuple)) else [each] * n
        if len(wanted) != n:
            raise ValueError(f"min_keep has {len(wanted)} numbers for {n} arrays")
        wanted = [integer("min_keep", m) for m in wanted]
        rules = (self.scope, self.ties, self.rounding, self.extra, self.least, signed, self.nan, self.shard, self.mixed)
        self._mine = (rules, (self.sparsity, self.k), names, [math.prod(x.shape) for x in ranked], wanted, given)

    def _join(self, parts: list[Any]) -> None:
        """Makes one list of layers of what all processes have."""
        rules, asked, *_ = parts[0]
        for rank, part in enumerate(parts):
            if part[:2] != (rules, asked):
                raise ValueError(
                    f"the processes of the group differ in their arguments: {parts[0][:2]}, {rank}: {part[:2]}"
                )
        kinds = sorted(set().union(*(part[5] for part in parts)))
        if not self.mixed and len(kinds) > 1:
            raise TypeError(f"the processes of the group give {' and '.join(kinds)}; mixed=True ranks them by value")
        self.order = order_of({name for part in parts for name in part[2]}, signed=rules[5], nan=rules[6])
        me = self.ranks.rank
        named = [(x, f"{self.what}[{i}]") for i, x in enumerate(self.ranked)]
        if self.shard == "rows":
            sizes, wanted = [part[3] for part in parts], parts[0][4]
            if any(len(part[3]) != len(named) or part[4] != wanted for part in parts):
                raise ValueError(
                    'the processes of the group must give as many arrays and the same min_keep with shard="rows"'
                )
            self.layers = [Whole(sum(s), *named[i]) for i, s in enumerate(zip(*sizes, strict=True))]
            self.local = list(range(len(named)))
        else:
            first = sum(len(part[3]) for part in parts[:me])
            wanted = [m for part in parts for m in part[4]]
            self.layers = [Whole(size) for part in parts for size in part[3]]
            self.local = list(range(first, first + len(named)))
            for at, (x, name) in zip(self.local, named, strict=True):
                self.layers[at] = Whole(self.layers[at].size, x, name)
        self.protect = [min(m, layer.size) for m, layer in zip(wanted, self.layers, strict=True)]

    def count(self, which: Sequence[int], k: Any, sparsity: Any) -> int:
        """How many weights of these layers to prune."""
        total = sum(self.layers[i].size for i in which)
        free = total - sum(self.protect[i] for i in which)
        if k is None:
            k = min(share(sparsity, total, self.rounding), free)
        k = integer("k", k)
        if k > free:
            kept = f" with min_keep for {total - free} of them" if free < total else ""
            raise ValueError(f"cannot prune k = {k} of {total} weights{kept}")
        return min(max(k + self.extra, self.least), free)

    def parts(self) -> list[tuple[list[int], int]]:
        """Which layers are ranked together, and how many of their weights to prune."""
        every = list(range(len(self.layers)))
        if self.scope == "global":
            return [(every, self.count(every, self.k, self.sparsity))]
        given = self.k if self.sparsity is None else self.sparsity
        each = list(given) if isinstance(given, (list, tuple)) else [given] * len(every)
        if len(each) != len(every):
            raise ValueError(f"{len(each)} numbers for {len(every)} arrays")
        if self.sparsity is None:
            return [([i], self.count([i], each[i], None)) for i in every]
        return [([i], self.count([i], None, each[i])) for i in every]

    def solve(self, which: Sequence[int], k: int) -> tuple[MagnitudeHistogram, Plan]:
        layers, protect = [self.layers[i] for i in which], [self.protect[i] for i in which]
        h = search(layers, [k], self.order, protect, self.ranks)
        return h, plan(layers, h, self.ties, protect, self.ranks)

    def walk(self, which: Sequence[int]) -> list[tuple[int, int]]:
        """Places in `which` and layers of this process, in the order in which they get their share of the ties."""
        return [pair for pair in in_order(list(enumerate(which)), self.ties) if self.layers[pair[1]].here]

    @property
    def simple(self) -> bool:
        """Whether one read will do: magnitudes of one type on the CPU, NaN refused, nothing protected."""
        return (
            self.ranks.size == 1
            and self.order == Order(self.order.format)
            and not any(self.protect)
            and all(
                dtype_name(x.dtype) == FORMATS[self.order.format]
                and (isinstance(x, np.ndarray) or x.device.type == "cpu")
                for x in self.ranked
            )
        )
