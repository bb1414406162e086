"""Arrays that stand in a list more than once. The one rule: the same weights are counted once and get one mask, and weights
that two arrays share in part have none that would be right for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import is_distributed

Array = Any


def _place(x: Array) -> tuple[Any, ...] | None:
    """What tells an array from others: where it lies and how it is read; None of one without elements or memory."""
    if isinstance(x, np.ndarray):
        return (x.__array_interface__["data"][0], x.shape, x.strides, x.dtype.str, "numpy") if x.size else None
    if not x.numel() or x.device.type == "meta" or type(x).__name__ == "DTensor":
        return None
    return x.data_ptr(), tuple(x.shape), x.stride(), str(x.dtype), str(x.device)


def _bounds(x: Array) -> tuple[int, int]:
    """The bytes from the first element to the end of the last."""
    if isinstance(x, np.ndarray):
        return np.lib.array_utils.byte_bounds(x)
    start, width = x.data_ptr(), x.element_size()
    return start, start + width * (1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)))


def _shared(a: Array, b: Array) -> bool:
    """Whether two arrays whose bytes interleave have an element in common; where that is hard to tell, they have not."""
    if isinstance(a, np.ndarray):
        try:
            return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            return False
    return bool(a.is_contiguous() and b.is_contiguous())


def _overlapping(x: Array) -> bool:
    """Whether two elements of one array lie in the same memory."""
    if isinstance(x, np.ndarray):
        shape, steps, width = x.shape, x.strides, x.itemsize
    else:
        shape, steps, width = tuple(x.shape), x.stride(), 1
    axes = sorted((abs(s), n) for n, s in zip(shape, steps, strict=True) if n > 1)
    if 0 in shape or not axes:
        return False
    apart, length = True, width
    for step, n in axes:
        apart = apart and step >= length
        length += (n - 1) * step
    if apart:
        return False
    if math.prod(n for _, n in axes) * width > length:
        return True
    places = np.zeros(1, np.int64)
    for step, n in axes:
        places = (places[:, None] + step * np.arange(n)).reshape(-1)
    return bool(np.any(np.diff(np.sort(places)) < width))


def check_apart(arrays: Sequence[Array], what: str = "arrays") -> None:
    """Refuses to write into what has one element at several places: it has no mask that would be right for all of them.

    Raises
    ------
    ValueError
        If elements of an array share memory.
    """
    for i, x in enumerate(arrays):
        own = x.to_local() if is_distributed(x) else x
        if _overlapping(own):
            raise ValueError(f"{what}[{i}]: elements share memory; write into a copy")


def first_places(arrays: Sequence[Array], what: str = "arrays") -> list[int]:
    """For each array the place of the first one that is the same.

    Raises
    ------
    ValueError
        If two arrays overlap without being the same.
    """
    found: dict[Any, int] = {}
    firsts = []
    for i, x in enumerate(arrays):
        place = _place(x)
        firsts.append(i if place is None else found.setdefault(place, i))
    order = sorted((_bounds(arrays[i]), i) for place, i in found.items())
    end, last = 0, -1
    for (start, stop), i in order:
        if start < end and last >= 0:
            one, other = sorted((last, i))
            if str(_place(arrays[one])[-1:]) == str(_place(arrays[other])[-1:]) and _shared(arrays[one], arrays[other]):  # type: ignore[index]
                raise ValueError(f"{what}[{one}] and {what}[{other}] share memory without being the same array")
        if stop > end:
            end, last = stop, i
    return firsts


def once(options: dict[str, Any], firsts: Sequence[int]) -> dict[str, Any]:
    """Options given array by array, for those that are first; what is said of the same array twice must be the same."""
    made = dict(options)
    kept = [i for i, first in enumerate(firsts) if i == first]
    for name, value in options.items():
        if name in ("min_keep", "scores", "sparsity", "k") and isinstance(value, (list, tuple)):
            if len(value) != len(firsts):
                continue  # said where the arguments are read
            for i, first in enumerate(firsts):
                if value[i] is not value[first] and (name == "scores" or value[i] != value[first]):
                    raise ValueError(f"arrays[{i}] is arrays[{first}], and {name} differs between them")
            made[name] = [value[i] for i in kept]
    return made
