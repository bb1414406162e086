"""The largest entries of rows. The one rule: of equals the lowest index is selected."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import BYTES, FLOATS, Ranked, dtype_name
from tersor._keys import NAN
from tersor._op import op
from tersor._sample import Draw
from tersor._values import one_of
from tersor.prune._bytes import taken, widened
from tersor.prune._run import integer

Array = Any


def _topk_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    return [x], {"k": int(draw.rng.integers(0, draw.d + 1)), "magnitude": bool(draw.rng.integers(2))}


@op(sample=_topk_sample, integer=True)
def _topk_indices(x: Array, k: int, magnitude: bool = False, nan: int = 0) -> Array:
    """Indices of the k largest of each row, ascending; of equals the lowest index is selected."""
    rank = np.abs(x) if magnitude else np.asarray(x)
    return np.sort(np.argsort(-rank, axis=-1, kind="stable")[..., :k], axis=-1)


def _gather_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x, k = draw.normal(*draw.lead, draw.d), int(draw.rng.integers(0, draw.d + 1))
    order = np.argsort(draw.rng.standard_normal((*draw.lead, draw.d)), axis=-1)
    return [x, np.ascontiguousarray(np.sort(order[..., :k], axis=-1))], {}


def _gather_bwd_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x, indices = _gather_sample(draw)[0]
    return [draw.normal(*indices.shape), x, indices], {}


@op(sample=_gather_sample, any_dtype=True, local={"x": 1, "indices": 1})
def _gather_rows(x: Array, indices: Array) -> Array:
    """The entries of each row of x at the indices of the same row."""
    return np.take_along_axis(x, indices, -1)


@op(sample=_gather_bwd_sample, local={"g": 1, "x": 1, "indices": 1})
def _gather_rows_bwd(g: Array, x: Array, indices: Array) -> Array:
    """Gradient of the gathering: g at the indices of each row, 0 elsewhere. No index may come twice in a row."""
    dx = np.zeros(np.shape(x))
    np.put_along_axis(dx, indices, g, -1)
    return dx


def topk_rows(x: Ranked, k: int, *, magnitude: bool = False, nan: str = "raise") -> tuple[Array, Array]:
    """The k largest entries of each row, in the order in which they stand there.

    Parameters
    ----------
    x : array or tensor [..., n], float64, float32, float16, bfloat16 or float8 (as of `global_masks`)
    k : int
        From 0 to n.
    magnitude : bool
        The largest magnitudes instead of the largest values.
    nan : "raise", "keep" or "prune"
        What NaN counts as: an error, as infinities too; the largest; the smallest.

    Returns
    -------
    values : array or tensor [..., k], of the type of x
    indices : int64 array or tensor [..., k]
        Ascending; of equal entries the lowest index is selected.

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If k is not between 0 and n, or x not finite.

    Notes
    -----
    Radix selection, O(n) a row whatever k is. The gradient goes to the selected entries;
    floats of 8 bits have none.
    """
    k = integer("k", k)
    if not hasattr(x, "dtype") or dtype_name(x.dtype) not in (*FLOATS, *BYTES):
        raise TypeError(f"topk_rows: x must be a float array, got {dtype_name(getattr(x, 'dtype', type(x).__name__))}")
    if x.ndim and k > x.shape[-1]:
        raise ValueError(f"topk_rows: k must be between 0 and {x.shape[-1]}, got {k}")
    indices = _topk_indices(widened(x), k, bool(magnitude), NAN[one_of("nan", nan, tuple(NAN))])
    return (taken if dtype_name(x.dtype) in BYTES else _gather_rows)(x, indices), indices
