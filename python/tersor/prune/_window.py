"""Masks in one read, where a sample tells about where the threshold is. The one rule: the sample saves work and decides
nothing; the masks are the exact ones, or the search by digits makes them.

The window is the sample's k-th magnitude give or take its error. One read writes the mask of what is above the window and
lists what is inside; among those few the threshold is selected exactly, and their bits of the mask are set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._keys import Order
from tersor._values import signed_word
from tersor.prune._rank import EVERY
from tersor.prune._run import run

Array = Any

#: below this many weights the sample is not worth its time
LEAST = 1 << 20
#: a cache line of float32 is read for the price of an element
LINE = 16
LINES = 8192
#: standard errors on either side of the sample's threshold; one search in two thousand misses and starts again by digits
SIGMAS = 3.5
#: of all weights; more in the window would cost more memory than the search by digits
MOST = 0.01


def _bits(x: Array) -> np.ndarray:
    """The memory of a contiguous CPU array as unsigned integers."""
    if isinstance(x, np.ndarray):
        return x.reshape(-1).view(f"u{x.itemsize}")
    import torch

    signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.reshape(-1).view(signed).numpy().view(f"u{x.element_size()}")


def _sample(arrays: Sequence[np.ndarray], lines: int) -> np.ndarray:
    """Keys of about so many lines at equal distances: [lines, LINE]."""
    total = sum(a.size // LINE for a in arrays)
    step = max(total // lines, 1) | 1  # odd, so that it does not follow the rows of a matrix
    parts, first = [], step // 2
    for a in arrays:
        every = a[: a.size // LINE * LINE].reshape(-1, LINE)
        parts.append(every[first::step])
        first += len(parts[-1]) * step - len(every)
    return np.concatenate(parts) << np.ones(1, parts[0].dtype)


def window(arrays: Sequence[Array], k: int, n: int, lines: int = 0) -> tuple[int, int, int] | None:
    """(low, high, room): keys between which the k-th smallest of n magnitudes almost surely is, and how many to expect."""
    lines = lines or LINES
    keys = _sample([_bits(x) for x in arrays], lines)
    m = keys.size
    if m < LINE * LINES // 2:
        return None
    flat = keys.reshape(-1)
    middle = min(m - 1, int(k / n * m))
    guess = np.partition(flat, middle)[middle]
    # neighbours are alike, so the error is that of the lines' shares, not of their elements; every layer is hit in
    # proportion, so only what differs between one line and the next counts (Wolter, 1984: systematic samples)
    shares = np.mean(keys <= guess, axis=1)
    error = SIGMAS * math.sqrt(float(np.mean(np.diff(shares) ** 2)) / 2 / len(keys)) + 2 / len(keys)
    low, high = int((k / n - error) * m), math.ceil((k / n + error) * m)
    inner = np.partition(flat, [max(low, 0), min(high, m - 1)])
    top = int(np.iinfo(keys.dtype).max)
    ends = int(inner[low]) if low >= 0 else 0, int(inner[high]) if high < m else top
    inside = int(np.count_nonzero((flat >= ends[0]) & (flat <= ends[1]))) / m
    if inside > MOST:
        # rows of very different scales: a larger sample; many equals: no sample helps
        more = 4 * lines
        return window(arrays, k, n, more) if lines == LINES and ends[0] < ends[1] and 8 * more * LINE < n else None
    return *ends, int(1.15 * inside * n) + 4096


def masks(arrays: Sequence[Array], outs: Sequence[Array], k: int, order: Order, ties: str) -> list[int] | None:
    """Writes the masks of contiguous CPU arrays of the order's own type; how many each keeps, or None if the window missed or
    a number is not finite.
    """
    n = sum(math.prod(x.shape) for x in arrays)
    found = window(arrays, k, n) if n >= LEAST and 0 < k < n else None
    if found is None:
        return None
    low, high, room = found
    places, keys = np.empty(room, np.int64), np.empty(room, np.int64)
    at, below, ends, kept = 0, 0, [0], []
    for x, out in zip(arrays, outs, strict=True):
        counts = np.empty(3, np.int64)
        run("magnitude_split", x, out, places[at:], keys[at:], counts,
            signed_word(low), signed_word(high), room - at, order.format)  # fmt: skip
        under, inside, wrong = (int(c) for c in counts)
        if wrong:
            return None  # the search by digits says where
        at, below = at + inside, below + under
        if at > room:
            return None
        ends.append(at)
        kept.append(math.prod(x.shape) - under - inside)
    rank = k - below
    if not 0 < rank <= at:
        return None
    stay = _stay(keys[:at].view(np.uint64), rank, ties)
    for i, out in enumerate(outs):
        part = slice(ends[i], ends[i + 1])
        flat = out.reshape(-1) if isinstance(out, np.ndarray) else out.reshape(-1).numpy()
        flat[places[part]] = stay[part]
        kept[i] += int(np.count_nonzero(stay[part]))
    return kept


def _stay(keys: np.ndarray, rank: int, ties: str) -> np.ndarray:
    """Which of the listed numbers are kept when the first `rank` of them, in the order of selection, go."""
    threshold = np.partition(keys, rank - 1)[rank - 1]
    stay = keys > threshold
    equal = np.flatnonzero(keys == threshold)
    left = {"all": EVERY, "none": 0}.get(ties, len(equal) - (rank - int(np.count_nonzero(keys < threshold))))
    if left:
        stay[equal[-left:] if ties == "high" else equal[:left]] = True
    return stay
