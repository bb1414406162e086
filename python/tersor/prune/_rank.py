"""The search for a threshold over many layers, and the cuts it makes. The one rule: counts add up in any order; ties alone need
the order of the layers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from tersor._keys import Order
from tersor.prune._group import ALONE, Alone
from tersor.prune._run import tally
from tersor.prune.histogram import MagnitudeHistogram

Array = Any
T = TypeVar("T")

#: more equals than any array has
EVERY = (1 << 63) - 1


def share(sparsity: float, n: int, rounding: str = "round", name: str = "sparsity") -> int:
    """How many of n weights a sparsity prunes: the float product, rounded (half to even), or cut, or the next integer."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float, np.floating, np.integer)):
        raise TypeError(f"{name} must be a number, got {sparsity!r}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {sparsity}")
    whole: dict[str, Callable[[float], int]] = {"round": round, "floor": math.floor, "ceil": math.ceil}
    return min(whole[rounding](float(sparsity) * n), n)


class Layer(Protocol):
    """An array, or what stands for one: read in chunks that are `ready`, in the same order every time.

    Of a layer that several processes share each has its own chunks; ``size`` is that of the whole.
    """

    size: int

    def chunks(self) -> Iterator[Array]: ...


def search(
    layers: Sequence[Layer], ks: Sequence[int], order: Order, protect: Sequence[int] = (), ranks: Alone = ALONE
) -> MagnitudeHistogram:
    """Finds the k-th smallest key of all layers together, without the largest ``protect[l]`` of layer l."""
    h = MagnitudeHistogram(order, list(ks))
    some = [layer for i, layer in enumerate(layers) if not (protect and protect[i])]

    def count() -> None:
        for layer in some:
            for chunk in layer.chunks():
                _add(h, layer, chunk)

    while not h.done:
        ranks.agree(count)
        ranks.sum(h.counts)
        for layer, bound in zip(layers, protect, strict=False):
            if bound:
                _count_free(h, layer, layer.size - bound, ranks)
        h.advance()
    return h


def _add(h: MagnitudeHistogram, layer: Layer, chunk: Array) -> None:
    """Counts a chunk; an error says which array of the list it is about."""
    try:
        h.add(chunk)
    except ValueError as e:
        name = getattr(layer, "name", "")
        raise ValueError(f"{name} holds {e}" if name else str(e)) from None


def _count_free(h: MagnitudeHistogram, layer: Layer, free: int, ranks: Alone) -> None:
    """Counts the ``free`` smallest numbers of a layer: as many of its digits, from the least, as are left of them."""
    part = copy.copy(h)
    part.counts = np.zeros_like(h.counts)
    lowest = int(h.prefixes[0]) << h.tail
    below = np.zeros(1, np.int64)

    def count() -> None:
        for chunk in layer.chunks():
            _add(part, layer, chunk)
            if h.round:
                below[0] += _size(chunk) - int(tally(chunk, h.order, [lowest]).sum())

    ranks.agree(count)
    ranks.sum(part.counts)
    ranks.sum(below)
    sums = np.minimum(np.cumsum(part.counts), max(free - int(below[0]), 0))
    h.counts += np.diff(sums, prepend=0)


def _size(x: Array) -> int:
    return int(x.size if isinstance(x, np.ndarray) else x.numel())


def tallies(layer: Layer, order: Order, keys: Sequence[int]) -> np.ndarray:
    """`tally` of all of a layer that is in this process."""
    return sum((tally(c, order, keys) for c in layer.chunks()), start=np.zeros((len(keys), 2), np.int64))


@dataclass
class Cut:
    """Where a layer is cut: above ``key`` is kept, and the first ``keep`` of what equals it (or the last)."""

    key: int
    keep: int


@dataclass
class Plan:
    """How all layers are cut: each by its own cut, or all by one, whose ``keep`` they share in order."""

    cuts: list[Cut]
    shared: Cut | None = None

    def cut(self, i: int) -> Cut:
        return self.shared or self.cuts[i]

    def spend(self, i: int, equal: int) -> int:
        """Takes from the cut of layer i what that layer, or a chunk of it, keeps of its equals; says how many."""
        cut = self.cut(i)
        kept = min(cut.keep, equal)
        if cut.keep != EVERY:
            cut.keep -= kept
        return kept


def in_order(items: Sequence[T], ties: str) -> list[T]:
    """Items in the order in which they get their share of the ties."""
    return list(items)[::-1] if ties == "high" else list(items)


def plan(
    layers: Sequence[Layer], h: MagnitudeHistogram, ties: str, protect: Sequence[int] = (), ranks: Alone = ALONE
) -> Plan:
    """How to cut every layer at the threshold of a search (of its only k), whose protected numbers stay."""
    key, order = h.keys[0], h.order
    left = {"all": EVERY, "none": 0}.get(ties, h.equal[0] - h.ties[0])
    if not h.k[0]:
        return Plan([], Cut(0, EVERY))
    if not any(protect):
        return _apart(layers, Plan([], Cut(key, left)), order, ties, ranks)
    cuts = [Cut(key, 0) for _ in layers]
    for i in in_order(range(len(layers)), ties):
        found = tallies(layers[i], order, [key])
        ranks.sum(found)
        [[above, equal]] = found.tolist()
        if above + equal < protect[i]:  # the layer is cut by itself: the protected numbers are what stays
            own = search([layers[i]], [layers[i].size - protect[i]], order, ranks=ranks)
            cuts[i] = Cut(own.keys[0], own.equal[0] - own.ties[0]) if own.k[0] else Cut(0, EVERY)
            continue
        bound = max(protect[i] - above, 0)
        free = min(left, equal - bound)
        cuts[i].keep = bound + free
        left -= free if left != EVERY else 0
    return _apart(layers, Plan(cuts), order, ties, ranks)


def _apart(layers: Sequence[Layer], cuts: Plan, order: Order, ties: str, ranks: Alone) -> Plan:
    """The plan of this process: of the equals that a layer keeps, those in its own part of it."""
    if ranks.size == 1:
        return cuts
    equal = [int(tallies(layer, order, [cuts.cut(i).key])[0, 1]) for i, layer in enumerate(layers)]
    everywhere = ranks.gather(equal)
    own = [Cut(cuts.cut(i).key, 0) for i in range(len(layers))]
    for i in in_order(range(len(layers)), ties):
        for rank in in_order(range(ranks.size), ties):
            kept = cuts.spend(i, everywhere[rank][i])
            if rank == ranks.rank:
                own[i].keep = kept
    return Plan(own)
