"""The k-th smallest of numbers that are never in one place. The one rule: everything is decided by counts of keys, which add
up, so arrays, chunks of files and machines may come in any order.

A key is a float as an unsigned number in the same order (`tersor._keys`); 16 bits of it are decided by one read of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import BYTES, FLOATS, axes, flag, is_distributed
from tersor._keys import NAN, Order
from tersor._values import float_name, one_of
from tersor.prune._bytes import widened
from tersor.prune._run import integer, order_of, ready, run

Array = Any


class MagnitudeHistogram:
    r"""The k-th smallest magnitude of numbers that are never in one place: arrays, shards, machines.

    Parameters
    ----------
    dtype : str, dtype, or several of them
        Type of the data, floats of 8 bits among them; of several, all are ranked by value.
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
    >>> import numpy as np
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
        who = "MagnitudeHistogram"
        if isinstance(dtype, Order):
            self.order = dtype
        else:
            kinds = list(dtype) if isinstance(dtype, (list, tuple, set)) else [dtype]
            one_of(f"{who}: nan", nan, tuple(NAN))
            self.order = order_of([_name(who, d) for d in kinds], signed=flag(f"{who}: signed", signed), nan=nan)
        self.several = (isinstance(k, Sequence) and not isinstance(k, (str, bytes))) or axes(k) == 1
        self.k = [integer(f"{who}: k", v) for v in (k if self.several else [k])]  # type: ignore[union-attr]
        self.bins = integer(f"{who}: bins", bins)
        if self.bins < 1 << 16:
            raise ValueError(f"{who}: bins must be at least 65536, got {bins}")
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
        if is_distributed(x):
            raise TypeError(
                "MagnitudeHistogram.update: x is a DTensor; count what every process holds, x.to_local(), and add up counts"
            )
        try:
            self.add(ready(widened(x)))
        except (TypeError, ValueError) as e:
            raise type(e)(f"MagnitudeHistogram.update: {e}") from None

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
            raise ValueError("MagnitudeHistogram.merge: the histograms are not of the same search and round")
        self.counts += other.counts

    def advance(self) -> None:
        """Ends a round: fixes the digit that it counted."""
        if self.done:
            raise ValueError("MagnitudeHistogram.advance: the search is done")
        if self.round == 0:
            if self._refuses and self.counts[self._nonfinite].any():
                raise ValueError(
                    "MagnitudeHistogram.advance: non-finite values: they have no rank; nan= says what to do with NaN"
                )
            self.total = int(self.counts.sum())
            if max(self.k, default=0) > self.total:
                raise ValueError(f"MagnitudeHistogram.advance: k = {max(self.k)} of {self.total} numbers")
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
            raise ValueError("MagnitudeHistogram.threshold: the search is not done")
        values = [self.order.value(key) if k else None for key, k in zip(self.keys, self.k, strict=True)]
        return values if self.several else values[0]


def _name(who: str, dtype: Any) -> str:
    name = "an array" if not isinstance(dtype, type) and hasattr(dtype, "shape") and axes(dtype) else float_name(dtype)
    if name in BYTES:
        return "float16"
    if name not in FLOATS:
        raise TypeError(f"{who}: dtype must be one or several floats ({', '.join((*FLOATS, *BYTES))}), got {name}")
    return name
