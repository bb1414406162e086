"""Hadamard matrices. The one rule: the order of a power of two is Sylvester's, and of K·2^m it is H_K ⊗ H_2 ⊗ … ⊗ H_2 with the
least K that Paley's constructions over GF(q), q a prime or its square, or the stored rows give.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

_PLUS = np.array([[1.0, 1.0], [1.0, -1.0]])
#: orders below 200 without Paley's constructions: the -1 of four rows of K/4, as bits, whose circulants' squares add to K
_ROWS = {
    92: (0x6A0056, 0x6542A6, 0x1CC338, 0x6C7E36),
    156: (0x4C8903D520, 0x635B10D363, 0x721141EC5D, 0x5DC752CA1F),
    172: (0x730A26450CE, 0x385B3FCDA1C, 0x14D42F42B28, 0x207AC935E04),
}


def core(n: int) -> int:
    """K of an order n = K·2^m; 0 where no matrix of this order is made here."""
    if n < 1:
        return 0
    odd = n // (n & -n)
    if odd == 1:
        return 1
    k = 4 * odd
    while n % k == 0:
        if k in _ROWS or _symmetric(k) or _prime(k - 1):
            return k
        k *= 2
    return 0


def _prime(q: int) -> bool:
    return q > 1 and all(q % d for d in range(2, math.isqrt(q) + 1))


def _symmetric(k: int) -> bool:
    """Whether Paley's second construction gives a matrix of this order, which is symmetric."""
    q, root = k // 2 - 1, math.isqrt(max(k // 2 - 1, 0))
    return k % 4 == 0 and q % 4 == 1 and (_prime(q) or (root * root == q and root > 2 and _prime(root)))


def _character(q: int) -> np.ndarray:
    """The quadratic character of all differences of GF(q): 1 of a square, -1 of none, 0 of 0."""
    x = np.arange(q)
    if _prime(q):
        squares, difference = {*(x[1:] ** 2 % q)}, (x[:, None] - x) % q
    else:  # GF(p)[i] where i² is no square of GF(p); a + bi at index a + pb
        p = math.isqrt(q)
        r = next(r for r in range(2, p) if r not in {a * a % p for a in range(p)})
        re, im = x % p, x // p
        squares = {*((re * re + r * im * im) % p + p * (2 * re * im % p))} - {0}
        difference = (re[:, None] - re) % p + p * ((im[:, None] - im) % p)
    return np.where(difference == 0, 0.0, np.where(np.isin(difference, [*squares]), 1.0, -1.0))


def _goethals_seidel(rows: tuple[int, ...], n: int) -> Any:
    """The matrix of order 4n of four circulants whose products with their transposes add to 4n times the identity."""
    i = np.arange(n)
    a, b, c, d = (1.0 - 2 * np.array([r >> j & 1 for j in range(n)])[(i - i[:, None]) % n] for r in rows)
    # its columns in reverse make of a circulant a symmetric matrix, with which all others go
    br, cr, dr, bt, ct, dt = (m[:, ::-1] for m in (b, c, d, b.T, c.T, d.T))
    return np.block([[a, br, cr, dr], [-br, a, dt, -ct], [-cr, -dt, a, bt], [-dr, ct, -bt, a]])


@cache
def _made(k: int) -> Any:
    if k == 1:
        return np.ones((1, 1))
    if k in _ROWS:
        return _goethals_seidel(_ROWS[k], k // 4)
    if _symmetric(k):
        q = k // 2 - 1
        c = np.ones((q + 1, q + 1))
        c[1:, 1:] = _character(q)
        c[0, 0] = 0
        return np.kron(c, _PLUS) + np.kron(np.eye(q + 1), [[1, -1], [-1, -1]])
    h = np.ones((k, k))
    h[1:, 0] = -1
    h[1:, 1:] = _character(k - 1) + np.eye(k - 1)
    return h


def matrix(n: int) -> np.ndarray:
    """The matrix of order n, float64, whose entries are 1 and -1."""
    h: Any = _made(core(n))
    while len(h) < n:
        h = np.kron(h, _PLUS)
    return np.array(h)
