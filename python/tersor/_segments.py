"""Segments of an array: by the axes that are kept, labels, offsets and weights. The one rule: what a user may say of them
becomes what a kernel takes in one place, and references add by the same ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import INTEGERS, an_axis, check_order, dtype_name, integer, is_tensor, ordinary, torch_module
from tersor._offsets import run_labels
from tersor._reference import there

Array = Any

#: the types of labels that kernels read
_READ = ("int64", "int32", "uint8", "bool")


def axes_of(who: str, ndim: int, dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes that are summed over, all if None, in their order."""
    if dim is None:
        return tuple(range(ndim))
    given: tuple[Any, ...] | None = (dim,) if integer(dim) else None
    if isinstance(dim, Sequence) and not isinstance(dim, str):
        given = tuple(dim)
    if given is None or not all(map(integer, given)):
        raise TypeError(f"{who}: dim must be an integer or several, got {dim!r}")
    found = []
    for d in given:
        an_axis(f"{who}: dim", d, ndim)
        if int(d) % ndim in found:
            raise ValueError(f"{who}: dim {tuple(given)} names an axis twice")
        found.append(int(d) % ndim)
    return tuple(sorted(found))


class Moments(NamedTuple):
    """Weight, mean and population variance of segments, in float64."""

    count: Any
    mean: Any
    var: Any


class Segments(NamedTuple):
    """What a kernel is told: the bits of the axes that are kept, minus the number of labels, labels and weights; and the shape
    of what it gives."""

    kept: int
    groups: int
    labels: Array
    weight: Array
    shape: tuple[Any, ...]


def segments(
    who: str,
    x: Array,
    dim: int | Sequence[int] | None,
    labels: Array = None,
    num_segments: int | None = None,
    offsets: Array = None,
    weight: Array = None,
    name: str = "weight",
) -> Segments:
    """The segments of `x` as they were said, with what is wrong in the words of `who`."""
    dims = axes_of(who, x.ndim, dim)
    sizes = tuple(n for i, n in enumerate(x.shape) if i not in dims)
    kept = sum(1 << i for i in range(x.ndim) if i not in dims)
    if labels is not None and offsets is not None:
        raise ValueError(f"{who}: labels and offsets are two ways to say one thing, got both")
    if offsets is not None:
        if num_segments is not None:
            raise ValueError(f"{who}: offsets tell their number, got num_segments={num_segments} too")
        labels, num_segments = _runs(who, x, dims, offsets), offsets.shape[0] - 1
    elif labels is not None:
        labels = _beside(who, "labels", x, dims, labels)
        num_segments = _number(who, labels, num_segments)
    elif num_segments is not None:
        raise ValueError(f"{who}: num_segments={num_segments} without labels")
    if weight is not None:
        weight = _beside(who, name, x, dims, weight)
    if labels is not None and tuple(labels.shape) == (0,):  # which to a kernel means that there are none
        labels = np.full(1, -1) if isinstance(x, np.ndarray) else labels.new_full((1,), -1, dtype=torch_module().int64)
    groups = 0 if num_segments is None else -num_segments
    if groups == 0 and labels is not None:
        raise ValueError(f"{who}: num_segments must be positive, got {num_segments}")
    return Segments(kept, groups, labels, weight, sizes if labels is None else (num_segments, *sizes))


def _beside(who: str, name: str, x: Array, dims: tuple[int, ...], t: Array) -> Array:
    """Labels or weights as they broadcast to `x`: of one axis, they go along the one that is summed over."""
    if not isinstance(t, np.ndarray) and not is_tensor(t):
        raise TypeError(f"{who}: {name} must be an array like x, got {type(t).__name__}")
    if is_tensor(t) != is_tensor(x):
        raise TypeError(f"{who}: {name} must be a {'torch tensor' if is_tensor(x) else 'NumPy array'} like x")
    ordinary(who, f": {name}", t)
    if name == "labels":
        kind = dtype_name(t.dtype)
        if kind not in (*INTEGERS, "bool"):
            raise TypeError(f"{who}: labels must be integers or bool, got {kind}")
        check_order(who, name, t)
        if kind not in _READ:
            t = t.astype(np.int64) if isinstance(t, np.ndarray) else t.long()
    shape = tuple(x.shape)
    if t.ndim == 1 and x.ndim != 1:
        if len(dims) != 1 or t.shape[0] != shape[dims[0]]:
            over = f"dim {dims} of x of shape {shape}"
            raise ValueError(f"{who}: {name} of shape {tuple(t.shape)} cannot go along {over}")
        t = t.reshape((-1 if t.shape[0] else 0, *(1,) * (x.ndim - 1 - dims[0])))
    own = tuple(t.shape)
    if len(own) > len(shape) or any(n not in (1, m) for n, m in zip(own[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{who}: {name} of shape {own} cannot broadcast to x of shape {shape}")
    return t


def _number(who: str, labels: Array, given: int | None) -> int:
    if given is not None:
        if not integer(given):
            raise TypeError(f"{who}: num_segments must be an integer, got {type(given).__name__}")
        if given <= 0:
            raise ValueError(f"{who}: num_segments must be positive, got {given}")
        return int(given)
    if is_tensor(labels) and (labels.is_meta or torch_module().compiler.is_compiling()):
        raise ValueError(
            f"{who}: num_segments must be said where code is traced or labels are on meta: it is the largest label and one"
        )
    size = math.prod(labels.shape)
    return max(int(labels.max()) + 1, 1) if size else 1


def _runs(who: str, x: Array, dims: tuple[int, ...], offsets: Array) -> Array:
    """The labels that offsets stand for."""
    if is_tensor(offsets) != is_tensor(x) or not hasattr(offsets, "ndim"):
        raise TypeError(f"{who}: offsets must be a {'torch tensor' if is_tensor(x) else 'NumPy array'} like x")
    if dtype_name(offsets.dtype) not in ("int64", "int32"):
        raise TypeError(f"{who}: offsets must be int64 or int32, got {dtype_name(offsets.dtype)}")
    if len(dims) != 1 or offsets.ndim != 1 or offsets.shape[0] < 2:
        raise ValueError(f"{who}: offsets are S + 1 numbers along one dim, got shape {tuple(offsets.shape)} for {dims}")
    n = x.shape[dims[0]]
    if is_tensor(offsets) and (offsets.is_meta or torch_module().compiler.is_compiling()):
        from tersor._offsets_in_graphs import traced_labels

        labels = traced_labels(offsets, n, who)
    else:
        labels = run_labels(who, offsets, n)
    return labels.reshape((-1 if n else 0, *(1,) * (x.ndim - 1 - dims[0])))


def ids(x: Array, labels: Array, kept: int, groups: int) -> tuple[Array, int]:
    """The segment of every element of `x`, -1 where it lies in none, and how many segments there are: for references."""
    shape = tuple(x.shape)
    sizes = tuple(n if kept >> i & 1 else 1 for i, n in enumerate(shape))
    count = math.prod(sizes)
    if isinstance(x, np.ndarray):
        own = np.broadcast_to(np.arange(count).reshape(sizes), shape)
        if not there(labels):
            return own, count
        label = np.broadcast_to(labels.astype(np.int64), shape)
        return np.where(label < 0, -1, label * count + own), -groups * count
    torch = torch_module()
    own = torch.arange(count, device=x.device).reshape(sizes).expand(shape)
    if not there(labels):
        return own, count
    label = labels.long().expand(shape)
    return torch.where(label < 0, -1, label * count + own), -groups * count


def drawn(rng: Any, x: Array, beside: tuple[int, ...], kept: int) -> tuple[Array, int]:
    """Labels of this shape for a sample, and minus their number; none where a segment would be empty: it has no derivative."""
    labels = rng.integers(-1, 2, beside)
    if beside == (0,):
        return None, 0
    at, n = ids(x, labels, kept, -2)
    return (labels, -2) if (add(np.ones(at.shape), at, n) > 0).all() else (None, 0)


def add(v: Array, at: Array, n: int) -> Array:
    """The sums of `v` by segments."""
    if isinstance(at, np.ndarray):
        return np.bincount(np.where(at < 0, n, at).ravel(), np.broadcast_to(v, at.shape).ravel(), n + 1)[:n]
    torch = torch_module()
    where = torch.where(at < 0, n, at).reshape(-1)
    return v.new_zeros(n + 1).index_add(0, where, v.expand(at.shape).reshape(-1))[:n]


def largest(v: Array, at: Array, n: int) -> Array:
    """The largest of `v`, none of which is negative, by segments; 0 of none."""
    if isinstance(at, np.ndarray):
        top = np.zeros(n + 1)
        np.maximum.at(top, np.where(at < 0, n, at).ravel(), np.broadcast_to(v, at.shape).ravel())
        return top[:n]
    where = torch_module().where(at < 0, n, at).reshape(-1)
    return v.new_zeros(n + 1).scatter_reduce(0, where, v.expand(at.shape).reshape(-1), "amax")[:n]


def take(stats: Array, at: Array) -> Array:
    """What segments know, at every element of them; 0 at those of none."""
    if isinstance(at, np.ndarray):
        return np.append(stats, np.zeros(1, stats.dtype))[at]
    return torch_module().cat([stats.reshape(-1), stats.new_zeros(1)])[at]


def gathered(v: Array, shape: tuple[int, ...]) -> Array:
    """The sums of `v` over the axes along which an array of this shape broadcasts to it."""
    if not isinstance(v, np.ndarray):
        return v.sum_to_size(shape)
    lead = v.ndim - len(shape)
    over = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1))
    return v.sum(over).reshape(shape)


def shape_of(x: Array, kept: int, groups: int) -> tuple[int, ...]:
    """The shape in which a kernel gives what it knows of segments."""
    sizes = tuple(n if kept >> i & 1 else 1 for i, n in enumerate(x.shape)) if kept or groups else ()
    return (-groups, *sizes) if groups else sizes


def constants(x: Array, n: int, *values: float) -> list[Array]:
    """Arrays of n float64 numbers beside `x`, all of one value each."""
    if isinstance(x, np.ndarray):
        return [np.full(n, v) for v in values]
    torch = torch_module()
    return [torch.full((n,), v, dtype=torch.float64, device=x.device) for v in values]


def rounded_to(v: Array, x: Array) -> Array:
    """`v` in the type of `x`."""
    return v.to(x.dtype) if is_tensor(v) else np.asarray(v).astype(x.dtype)
