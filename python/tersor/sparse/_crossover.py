"""What sparse and dense products cost on this machine. The one rule: a shape is measured once in a process, and by what is
measured nothing is decided but which of two products is taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tersor._arrays import FLOATS
from tersor._values import float_name
from tersor.sparse._check import checked_shape
from tersor.sparse._pattern import Pattern

#: weights of a layer under which nothing is measured, as either product is a call and little else; and the most that are
FLOOR, MOST = 1 << 12, 1 << 21
#: the most rows that are measured
ROWS = 256
#: the share of weights stored up to which a sparse product of more weights than are measured is taken for the faster one
SURE = 1 / 8
#: the shares that are measured: what lies between and beyond is on the line through them
SHARES = (0.05, 0.3)


@dataclass(frozen=True)
class Costs:
    """Seconds of products of one shape: of dense ones, of sparse ones by share."""

    dense: float
    shares: tuple[float, float]

    def sparse(self, share: float) -> float:
        """Seconds of a sparse product of which so many weights are stored."""
        (a, b), (s, t) = SHARES, self.shares
        return max(s + (t - s) * (share - a) / (b - a), 0.0)

    @property
    def crossover(self) -> float:
        """The share of zeros at which a sparse product takes as long as a dense one."""
        (a, b), (s, t) = SHARES, self.shares
        slope = max(t - s, 1e-12) / (b - a)
        return min(max(1 - (a + (self.dense - s) / slope), 0.0), 1.0)


def _matrix(outs: int, ins: int, share: float) -> Pattern:
    """Places drawn at random: rows of unequal length, as pruning leaves them, which take longer than equal ones."""
    import torch

    rows, columns = np.nonzero(np.random.default_rng(0).random((outs, ins), np.float32) < share)
    offsets = np.append(0, np.cumsum(np.bincount(rows, minlength=outs)))
    indices, indptr = (torch.from_numpy(a.astype(np.int32)) for a in (columns, offsets))
    return Pattern(indices, indptr, (outs, ins))


def _fastest(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """The least seconds of each, taking turns: what else the machine does is in the others."""
    least = [math.inf] * len(calls)
    for turn in range(7):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if turn:
                least[i] = min(least[i], time.perf_counter() - start)
    return least


@lru_cache(maxsize=1024)
def _measured(outs: int, ins: int, rows: int, dtype: str, threads: int) -> Costs:
    import torch

    from tersor.sparse._straight import straight

    some = min(outs, max(MOST // ins, 1))  # the others cost as much each
    kind = getattr(torch, dtype)
    with torch.inference_mode(False), torch.no_grad():
        x, w, bias = (torch.zeros(shape, dtype=kind) for shape in ((rows, ins), (some, ins), (some,)))
        patterns = [_matrix(some, ins, share) for share in SHARES]
        values = [torch.ones(p.indices.shape[0], dtype=kind) for p in patterns]
        dense, *shares = _fastest(
            [
                lambda: torch.nn.functional.linear(x, w, bias),
                *(lambda v=v, p=p: straight(v, p, x, bias, p.brief(x)) for v, p in zip(values, patterns, strict=True)),
            ]
        )
    whole = outs / some
    return Costs(whole * dense, (whole * shares[0], whole * shares[1]))


def costs(shape: tuple[int, int], n: int, dtype: Any) -> Costs:
    """The costs of n rows times a weight [out, in], on as many threads as torch has."""
    import torch

    rows = min(n, ROWS)
    of = _measured(*shape, rows, float_name(dtype), torch.get_num_threads())
    more = n / rows
    return Costs(more * of.dense, (more * of.shares[0], more * of.shares[1]))


def crossover(shape: Sequence[int], n: int, dtype: Any = "float32") -> float:
    """The share of zeros from which on a sparse weight is faster than torch's dense product, as measured on this machine.

    Parameters
    ----------
    shape : (int, int)
        Of the weight, [out, in].
    n : int
        Rows of activations that go through it at once.
    dtype : "float32", "float64", "float16" or "bfloat16", or a type of either library

    Returns
    -------
    float
        Between 0 and 1. Times of the products differ from run to run, and so does this, by some hundredths.

    Raises
    ------
    TypeError
        If shape is not two integers, n no integer, or dtype of another type.
    ValueError
        If a size is not positive.

    Notes
    -----
    Both products are measured the first time that a shape is asked for in a process, and kept: with 5 % and 30 % of the
    weights stored, at places drawn at random; what lies between and beyond follows from these in proportion. Of weights
    of more than 2²¹ elements some rows are measured, of more than 256 rows of activations 256. Takes some hundredths of a
    second to some tenths.

    Examples
    --------
    >>> from tersor import sparse
    >>> 0 <= sparse.crossover((256, 256), 16) <= 1
    True
    """
    rows, cols = checked_shape(shape, "crossover")
    if float_name(dtype) not in FLOATS:
        raise TypeError(f"crossover: dtype must be float64, float32, float16 or bfloat16, got {dtype!r}")
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"crossover: n must be an integer, got {n!r}")
    if min(rows, cols, n) < 1:
        raise ValueError(f"crossover: sizes must be positive, got shape {tuple(shape)} and n={n}")
    return costs((rows, cols), n, dtype).crossover
