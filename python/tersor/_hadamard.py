"""Hadamard matrices. The one rule: the order of a power of two is Sylvester's, and of K·2^m it is H_K ⊗ H_2 ⊗ … ⊗ H_2 with the
least K that Paley's constructions over GF(q), q a prime or its square, give.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

_PLUS = np.array([[1.0, 1.0], [1.0, -1.0]])


def core(n: int) -> int:
    """K of an order n = K·2^m; 0 where no matrix of this order is made here."""
    if n < 1:
        return 0
    odd = n // (n & -n)
    if odd == 1:
        return 1
    k = 4 * odd
    while n % k == 0:
        if _symmetric(k) or _prime(k - 1):
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


@cache
def _paley(k: int) -> Any:
    if k == 1:
        return np.ones((1, 1))
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
    h: Any = _paley(core(n))
    while len(h) < n:
        h = np.kron(h, _PLUS)
    return np.array(h)
