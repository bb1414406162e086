"""The search for a threshold over many arrays. The one rule: everything is decided by counts of keys, which add up, so
arrays, chunks of files and machines may come in any order (ties alone need theirs).

A key is a float as an unsigned number in the same order (`keys`); 16 bits of it are decided by one read of the data.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tersor._keys import FORMATS, NAN, Order
from tersor._op import FLOATS, _native, dtype_name, kernel

Array = Any

#: more equals than any array has
EVERY = (1 << 63) - 1


def order_of(names: Iterable[str], *, signed: bool = False, nan: str = "raise") -> Order:
    """The order for arrays of these types: by value, in the least type that holds them all."""
    found = set(names) or {"float32"}
    for name in found:
        if name not in FLOATS:
            raise TypeError(f"expected floats, got {name}")
    if "float64" in found:
        name = "float64"
    else:
        name = found.pop() if len(found) == 1 else "float32"
    return Order(FORMATS.index(name), signed, NAN[one_of("nan", nan, tuple(NAN))])


def signed_word(key: int) -> int:
    """A key as the 64-bit integer that crosses into the kernels."""
    return key - (1 << 64) if key >> 63 else key


def ready(x: Array, name: str = "x") -> Array:
    """An array as the kernels read it: contiguous, in native byte order, no part of a graph."""
    if isinstance(x, np.ndarray):
        return _native("prune", name, x)
    if x.device.type not in ("cpu", "cuda"):
        raise ValueError(f"prune: {name} is on {x.device}, where there is no kernel")
    return x.detach().contiguous()


def run(name: str, x: Array, *rest: Any) -> None:
    """The kernel on the device of `x`; the other arrays may be NumPy's, and are written to where they are outputs."""
    if isinstance(x, np.ndarray) or x.device.type == "cpu":
        kernel(name)(x, *rest)
        return
    import torch

    launch = getattr(importlib.import_module("tersor.triton.prune"), name)
    there = [torch.from_numpy(a).to(x.device) if isinstance(a, np.ndarray) else a for a in rest]
    with torch.cuda.device_of(x):
        launch(x, *there)
    for a, t in zip(rest, there, strict=True):
        if isinstance(a, np.ndarray) and a.flags.writeable:
            a[...] = t.cpu().numpy()


def tally(x: Array, order: Order, keys: Sequence[int]) -> np.ndarray:
    """How many numbers of `x` lie above each key, and how many have it."""
    found = np.empty((len(keys), 2), np.int64)
    words = np.array([signed_word(k) for k in keys], np.int64)
    run("magnitude_tally", x, words, found, order.format, order.signed, order.nan)
    return found


class MagnitudeHistogram:
    r"""The k-th smallest magnitude of numbers that are never in one place: arrays, shards, machines.

    Parameters
    ----------
    dtype : str, dtype, or several of them
        Type of the data; of several, all are ranked by value.
    k : int or sequence of int
        Ranks from 1; 0 has no threshold. Of several, all are found in the same reads.
    nan : "raise", "keep" or "prune"
        What NaN counts as: an error (infinities too), the largest magnitude, or the smallest.
    signed : bool
        Rank the values themselves instead of their magnitudes.
    bins : int
        Counters to use at most (8 bytes each); many k with few bins take more rounds.

    Attributes
    ----------
    counts : int64 array
        What this round counted; it may be added to in place by an all-reduce.
    done : bool
    threshold : float or None, or a list of them, once done

    Raises
    ------
    ValueError
        If numbers are not finite and ``nan="raise"``, or k is larger than how many there are (at the first `advance`).

    Examples
    --------
    >>> h = MagnitudeHistogram("float32", 3)
    >>> while not h.done:
    ...     h.update(np.float32([3, -1, 4, -1, 5]))
    ...     h.advance()
    >>> h.threshold
    3.0

    Notes
    -----
    Radix selection from the top: one round for 16-bit types, two for float32, four for float64, more for many k.
    """

    def __init__(
        self,
        dtype: Any,
        k: int | Sequence[int],
        *,
        nan: str = "raise",
        signed: bool = False,
        bins: int = 1 << 18,
    ) -> None:
        if isinstance(dtype, Order):
            self.order = dtype
        else:
            kinds = list(dtype) if isinstance(dtype, (list, tuple, set)) else [dtype]
            self.order = order_of([_name(d) for d in kinds], signed=signed, nan=nan)
        self.several = not isinstance(k, (int, np.integer))
        self.k = [integer("k", v) for v in (k if self.several else [k])]  # type: ignore[union-attr]
        if bins < 1 << 16:
            raise ValueError(f"bins must be at least 65536, got {bins}")
        self.bins = bins
        self.done = False
        self.round = 0
        self.total = 0
        #: for each k: its rank among the keys of its prefix; at the end, among the keys equal to it
        self.ties = list(self.k)
        #: for each k, at the end: how many numbers are equal to it
        self.equal = [0] * len(self.k)
        self.keys = [0] * len(self.k)
        self._shift = self.order.width
        self._start([0])

    def _start(self, prefixes: list[int]) -> None:
        """Makes ready to count the next digit after each prefix."""
        room = max((self.bins // len(prefixes)).bit_length() - 1, 1)
        self._bits = min(16, self._shift, room)
        self._shift -= self._bits
        self.prefixes = np.array(prefixes, np.int64)
        self.counts = np.zeros(len(prefixes) << self._bits, np.int64)

    def update(self, x: Array) -> None:
        """Counts the numbers of one array; all of them must be counted in every round."""
        self.add(ready(x))

    def add(self, x: Array) -> None:
        """As `update`, for an array that is `ready`."""
        before = self.counts[self._nonfinite].sum() if self._refuses else 0
        self._count(x, self.counts)
        if self._refuses and self.counts[self._nonfinite].sum() != before:
            extra = np.zeros_like(self.counts)
            self._count(x, extra)
            self.counts -= extra
            raise ValueError("non-finite values: they have no rank; nan= says what to do with NaN")

    def _count(self, x: Array, counts: np.ndarray) -> None:
        if self.done:
            raise ValueError("the search is done")
        o = self.order
        run("magnitude_count", x, self.prefixes, counts, counts, o.format, self._shift, self._bits, o.signed, o.nan)

    @property
    def tail(self) -> int:
        """Bits of a key after the prefixes of this round."""
        return self._shift + self._bits

    @property
    def _refuses(self) -> bool:
        return self.order.nan == 0 and self.round == 0

    @property
    def _nonfinite(self) -> np.ndarray:
        """The bins of the first round that hold what is not finite."""
        high, low = self.order.infinities
        wrong = np.arange(high >> self._shift, 1 << self._bits)
        return np.concatenate([np.arange((low >> self._shift) + 1), wrong])

    def merge(self, other: MagnitudeHistogram) -> None:
        """Adds what another histogram of the same search and round has counted."""
        if (self.order, self.k, self.bins, self.round, self.done) != (
            other.order,
            other.k,
            other.bins,
            other.round,
            other.done,
        ) or not np.array_equal(self.prefixes, other.prefixes):
            raise ValueError("the histograms are not of the same search and round")
        self.counts += other.counts

    def advance(self) -> None:
        """Ends a round: fixes the digit that it counted."""
        if self.done:
            raise ValueError("the search is done")
        if self.round == 0:
            if self._refuses and self.counts[self._nonfinite].any():
                raise ValueError("non-finite values: they have no rank; nan= says what to do with NaN")
            self.total = int(self.counts.sum())
            if max(self.k, default=0) > self.total:
                raise ValueError(f"k = {max(self.k)} of {self.total} numbers")
        counts = self.counts.reshape(len(self.prefixes), -1)
        sums = np.cumsum(counts, axis=1)
        slots = {int(p): i for i, p in enumerate(self.prefixes)}
        for i, k in enumerate(self.k):
            if k == 0:
                continue
            slot = slots[self.keys[i]]
            digit = int(np.searchsorted(sums[slot], self.ties[i]))
            self.equal[i] = int(counts[slot, digit])
            self.ties[i] -= int(sums[slot, digit]) - self.equal[i]
            self.keys[i] = self.keys[i] << self._bits | digit
        self.round += 1
        prefixes = sorted({key for key, k in zip(self.keys, self.k, strict=True) if k})
        if self._shift == 0 or not prefixes:
            self.done = True
            self.counts = np.zeros(0, np.int64)
        else:
            self._start(prefixes)

    @property
    def threshold(self) -> float | list[float | None] | None:
        if not self.done:
            raise ValueError("the search is not done")
        values = [self.order.value(key) if k else None for key, k in zip(self.keys, self.k, strict=True)]
        return values if self.several else values[0]


def _name(dtype: Any) -> str:
    if isinstance(dtype, type) and not hasattr(dtype, "dtype"):
        return np.dtype(dtype).name
    return dtype_name(np.dtype(dtype) if isinstance(dtype, type) else dtype)


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def integer(name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return int(value.__index__())


def share(sparsity: float, n: int, rounding: str = "round") -> int:
    """How many of n weights a sparsity prunes: the float product, rounded (half to even), or cut, or the next integer."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float, np.floating, np.integer)):
        raise TypeError(f"sparsity must be a number, got {sparsity!r}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be between 0 and 1, got {sparsity}")
    whole: dict[str, Callable[[float], int]] = {"round": round, "floor": math.floor, "ceil": math.ceil}
    return min(whole[rounding](float(sparsity) * n), n)


class Layer(Protocol):
    """An array, or what stands for one: read in chunks that are `ready`, in the same order every time."""

    size: int

    def chunks(self) -> Iterator[Array]: ...


def search(layers: Sequence[Layer], ks: Sequence[int], order: Order, protect: Sequence[int] = ()) -> MagnitudeHistogram:
    """Finds the k-th smallest key of all layers together, without the largest ``protect[l]`` of layer l."""
    h = MagnitudeHistogram(order, list(ks))
    while not h.done:
        for i, layer in enumerate(layers):
            if protect and protect[i]:
                _count_free(h, layer, layer.size - protect[i])
            else:
                for chunk in layer.chunks():
                    h.add(chunk)
        h.advance()
    return h


def _count_free(h: MagnitudeHistogram, layer: Layer, free: int) -> None:
    """Counts the ``free`` smallest numbers of a layer: as many of its digits, from the least, as are left of them."""
    part = copy.copy(h)
    part.counts = np.zeros_like(h.counts)
    lowest = int(h.prefixes[0]) << h.tail
    below = 0
    for chunk in layer.chunks():
        part.add(chunk)
        if h.round:
            below += _size(chunk) - int(tally(chunk, h.order, [lowest]).sum())
    sums = np.minimum(np.cumsum(part.counts), max(free - below, 0))
    h.counts += np.diff(sums, prepend=0)


def _size(x: Array) -> int:
    return int(x.size if isinstance(x, np.ndarray) else x.numel())


def tallies(layer: Layer, order: Order, keys: Sequence[int]) -> np.ndarray:
    """`tally` of a whole layer."""
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


def plan(layers: Sequence[Layer], h: MagnitudeHistogram, ties: str, protect: Sequence[int] = ()) -> Plan:
    """How to cut every layer at the threshold of a search (of its only k), whose protected numbers stay."""
    key, order = h.keys[0], h.order
    left = {"all": EVERY, "none": 0}.get(ties, h.equal[0] - h.ties[0])
    if not h.k[0]:
        return Plan([], Cut(0, EVERY))
    if not any(protect):
        return Plan([], Cut(key, left))
    cuts = [Cut(key, 0) for _ in layers]
    for i in reversed(range(len(layers))) if ties == "high" else range(len(layers)):
        [[above, equal]] = tallies(layers[i], order, [key]).tolist()
        if above + equal < protect[i]:  # the layer is cut by itself: the protected numbers are what stays
            own = search([layers[i]], [layers[i].size - protect[i]], order)
            cuts[i] = Cut(own.keys[0], own.equal[0] - own.ties[0]) if own.k[0] else Cut(0, EVERY)
            continue
        bound = max(protect[i] - above, 0)
        free = min(left, equal - bound)
        cuts[i].keep = bound + free
        left -= free if left != EVERY else 0
    return Plan(cuts)
