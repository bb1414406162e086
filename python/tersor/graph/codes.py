"""Rows of bits: packed, the nearest by Hamming distance, the distinct ones. The one rule: words decide, so that every answer is
exact, and of equals the lowest row is chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, INTEGERS, Array, check_order, dtype_name, is_tensor, ordinary
from tersor._distinct import distinct
from tersor._host import answer, held
from tersor._values import called
from tersor.graph._near import _hamming
from tersor.graph.nearest import Neighbors, _k


class Codes(NamedTuple):
    """The id of each code, the first row of each id, and how many rows have it."""

    ids: Any
    first: Any
    counts: Any


def pack_bits(a: Any) -> Array:
    r"""Codes of activations: bit b of a row is whether its number b is positive.

    Parameters
    ----------
    a : array or tensor [..., d] of floats, integers or bool
        NaN is not positive.

    Returns
    -------
    uint64 array or tensor [..., ⌈d/64⌉]
        Bit b stands in word b // 64 at place b % 64; bits past the end are 0.

    Raises
    ------
    TypeError
        If a is of another type.
    ValueError
        If a has no axis.
    """
    x = held("pack_bits", "a", a, (*FLOATS, *INTEGERS, "bool"))
    if not x.ndim:
        raise ValueError("pack_bits: a needs a last axis, got a 0-d array")
    bits = np.packbits(x > 0, axis=-1, bitorder="little")
    words = np.zeros((*bits.shape[:-1], -(-bits.shape[-1] // 8) * 8), np.uint8)
    words[..., : bits.shape[-1]] = bits
    return answer(words.view("<u8").astype(np.uint64), a)


def _codes(who: str, name: str, codes: Any) -> Any:
    """Rows of words."""
    if not isinstance(codes, np.ndarray) and not is_tensor(codes):
        raise TypeError(f"{who}: {name} must be a NumPy array or a torch tensor, got {type(codes).__name__}")
    ordinary(who, f": {name}", codes)
    check_order(who, name, codes)
    if dtype_name(codes.dtype) != "uint64":
        raise TypeError(f"{who}: {name} must be uint64, as pack_bits gives them, got {dtype_name(codes.dtype)}")
    if codes.ndim != 2:
        raise ValueError(f"{who}: {name} must have two axes, got shape {tuple(codes.shape)}")
    return codes


def hamming_knn(codes: Any, queries: Any = None, k: int = 1) -> Neighbors:
    r"""The k codes that differ from each query in the fewest bits.

    Parameters
    ----------
    codes : uint64 array or tensor [m, w]
        As `pack_bits` makes them.
    queries : uint64 array or tensor [n, w]
        If absent, the codes, none of which is its own neighbour.
    k : int

    Returns
    -------
    ids : int64 [n, k]
        Of equal distances the lowest row comes first; -1 where there are fewer than k.
    distances : int64 [n, k]
        -1 there too.

    Raises
    ------
    TypeError
        If codes are not uint64.
    ValueError
        If they are of different widths, or k is negative.

    Notes
    -----
    n·m·w exclusive ors and counts of ones; no array of n·m numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import graph
    >>> codes = graph.pack_bits(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]]))
    >>> graph.hamming_knn(codes, k=1).ids.T
    array([[1, 0, 1]])
    """
    _codes("hamming_knn", "codes", codes)
    q = codes if queries is None else _codes("hamming_knn", "queries", queries)
    if is_tensor(q) != is_tensor(codes):
        raise TypeError(f"hamming_knn: queries are a {type(q).__name__}, codes a {type(codes).__name__}")
    if q.shape[1] != codes.shape[1]:
        raise ValueError(f"hamming_knn: codes have {codes.shape[1]} words, queries {q.shape[1]}")
    d, ids = called("hamming_knn", _hamming, q, codes, _k("hamming_knn", k), queries is None)
    return Neighbors(ids, d)


def unique_codes(codes: Any) -> Codes:
    """Which codes are equal, exactly.

    Parameters
    ----------
    codes : uint64 array or tensor [n, w]
        As `pack_bits` makes them.

    Returns
    -------
    ids, first, counts : int64 [n], [m], [m]
        The number of each code, by first occurrence; the first row and the count of each. The redundancy of codes is
        ``1 - len(first) / n``.

    Raises
    ------
    TypeError
        If codes are not uint64.
    ValueError
        If they have not two axes.

    Notes
    -----
    O(n w) where keys of 64 bits differ; codes themselves are compared.
    """
    rows = _codes("unique_codes", "codes", codes)
    return Codes(*(answer(v, codes) for v in distinct(held("unique_codes", "codes", rows, ("uint64",)))))
