"""Which rows are equal. The one rule: keys only gather what may be equal, rows themselves decide, so the answer is exact."""

from __future__ import annotations

import numpy as np

#: odd numbers by which the words of a row are spread over 64 bits; a row that shares its key with another is keyed anew
_FACTORS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _words(rows: np.ndarray) -> np.ndarray:
    """Rows as unsigned words of 64 bits, the last filled with 0."""
    n, width = rows.shape[0], rows.shape[1] * rows.itemsize
    filled = np.zeros((n, -(-width // 8) * 8), np.uint8)
    filled[:, :width] = np.ascontiguousarray(rows).view(np.uint8).reshape(n, width)
    return filled.view(np.uint64)


def _keys(words: np.ndarray, turn: int) -> np.ndarray:
    """64 bits of each row; a row of one word is its own key."""
    if words.shape[1] == 1:
        return words[:, 0]
    key = np.full(len(words), turn, np.uint64)
    for column in words.T:
        key = (key ^ column) * np.uint64(_FACTORS[turn % 3])
        key ^= key >> np.uint64(29)
    return key


def distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids of rows ``[n, width]`` of whole numbers, numbered by first occurrence; the first row and the count of each id.

    O(n width + n log n); rows whose keys are equal by chance go another turn, which each ends for one row at least.
    """
    n = len(rows)
    words = _words(rows)
    first = np.full(n, -1)
    left, turn = np.arange(n), 0
    while len(left):
        keys = _keys(words[left], turn)
        order = np.argsort(keys, kind="stable")  # the first of equals comes first
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        heads = np.empty_like(left)
        heads[order] = np.repeat(left[order[starts]], np.diff(np.append(starts, len(left))))
        same = (words[left] == words[heads]).all(1)
        first[left[same]] = heads[same]
        left, turn = left[~same], turn + 1
    heads, number = np.flatnonzero(first == np.arange(n)), np.empty(n, np.int64)
    number[heads] = np.arange(len(heads))
    back = number[first]
    return back, heads, np.bincount(back, minlength=len(heads))
