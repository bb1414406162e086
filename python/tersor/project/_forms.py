"""Random matrices whose entries hang together, as the reference makes them. The one rule: each is written by its formula."""

from __future__ import annotations

import math

import numpy as np

from tersor.project._entries import KINDS as ENTRIES
from tersor.project._entries import entries
from tersor.project.walsh import hadamard
from tersor.random import TAGS, words

#: kinds made of Walsh–Hadamard transforms
TRANSFORMS = ("srht", "spinner", "fastfood")
KINDS = (*ENTRIES, "countsketch", "osnap", *TRANSFORMS)


def bits(n: int) -> int:
    """m of the least power of two that is not below n."""
    return (n - 1).bit_length()


def column(kind: str, seed: int, tag: int, stream: int, a: int, n: int) -> np.ndarray:
    """n signs or normals of one column of words."""
    return entries(TAGS[kind], seed, stream, 0, 0, n, a, 1, tag=tag)[:, 0]


def steps(seed: int, tag: int, stream: int, m: int) -> tuple[list[tuple[int, int]], int, int]:
    """The rounds (factor, added number) of the permutation of [0, 2^m) that the column of words 1 holds, its mask and shift."""
    w = [int(v) for v in words(seed, tag, stream, np.full(16, 1), np.arange(16))]
    return [(2 * a + 1, b) for a, b in zip(w[::2], w[1::2], strict=True)], (1 << m) - 1, -(-m // 2)


def permutation(seed: int, tag: int, stream: int, m: int) -> np.ndarray:
    x = np.arange(1 << m, dtype=np.uint64)
    rounds, mask, shift = steps(seed, tag, stream, m)
    for factor, added in rounds:
        x = (x * np.uint64(factor) + np.uint64(added)) & np.uint64(mask)
        x = x ^ (x >> np.uint64(shift))
    return x.astype(np.int64)


def _sketch(seed: int, stream: int, own: int, row: int, rows: int, col: int, cols: int) -> np.ndarray:
    c, part = own >> 32, own & 0xFFFFFFFF
    r = np.arange(c)
    a = np.uint64(col) + np.arange(cols, dtype=np.uint64)[:, None]
    w, s = (words(seed, TAGS["osnap"], stream, a, 2 * r + i).astype(np.uint64) for i in (0, 1))
    place = (r * part + ((w * np.uint64(part)) >> np.uint64(32)).astype(np.int64)) - row
    p = np.zeros((rows, cols))
    j, r = np.nonzero((place >= 0) & (place < rows))
    p[place[j, r], j] = 1.0 - 2.0 * (s[j, r] >> np.uint64(31)).astype(np.float64)
    return p


def _transform(kind: int, seed: int, stream: int, own: int, row: int, rows: int, col: int, cols: int) -> np.ndarray:
    m, more = own & 0xFF, own >> 8 & 0xFF
    n = 1 << m
    h = hadamard(n)
    window = np.s_[row : row + rows, col : col + cols]

    def signs(a: int, n: int) -> np.ndarray:
        return column("rademacher", seed, kind, stream, a, n)

    if kind == TAGS["srht"]:
        return (h * signs(0, n))[permutation(seed, kind, stream, m)][window]
    if kind == TAGS["spinner"]:
        blocks = []
        for block in range(row // n, -(-(row + rows) // n)):
            p = np.eye(n)
            for t in range(more):
                p = h @ (signs(3 * block + t, n)[:, None] * p)
            blocks.append(p / math.sqrt(n) ** (more - 1))
        p = np.concatenate(blocks or [np.zeros((0, n))])
        return p[row % n : row % n + rows, col : col + cols]
    b = signs(0, 1 << more)
    g = column("rademacher" if own >> 16 else "gaussian", seed, kind, stream, 2, n)
    p = h @ (g[:, None] * h[permutation(seed, kind, stream, m), : len(b)] * b)
    return p[window] / math.sqrt(np.sum(g**2))


def matrix(kind: int, seed: int, stream: int, own: int, row: int, rows: int, col: int, cols: int) -> np.ndarray:
    """Rows and columns of the matrix without its scale, float64."""
    if kind == TAGS["countsketch"]:
        return _sketch(seed, stream, own, row, rows, col, cols)
    if kind in {TAGS[k] for k in TRANSFORMS}:
        return _transform(kind, seed, stream, own, row, rows, col, cols)
    return entries(kind, seed, stream, own, row, rows, col, cols)
