"""Operators over lists of arrays, on the NumPy side. The one rule: an error names the entry, and comes before a
number is written.

What is a list is said by the signature (`xs*[*]`); kernels get a list where the signature has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, as_words, check_order, dtype_name, empty, is_tensor, native, ordinary, sizes


def flat(arrays: Sequence[Any]) -> list[Any]:
    """The entries of lists and what is none, one after another."""
    return [x for a in arrays for x in (a if isinstance(a, (list, tuple)) else (a,))]


def each(f: Any, x: Any) -> Any:
    """`f` of an array, or of every entry of a list."""
    return [f(v) for v in x] if isinstance(x, (list, tuple)) else f(x)


def named(names: Sequence[str], arrays: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """`flat`, with what an error calls each."""
    for name, a in zip(names, arrays, strict=False):
        if isinstance(a, (list, tuple)):
            for i, x in enumerate(a):
                yield f"{name}[{i}]", x
        else:
            yield name, a


def entries(who: str, name: str, xs: Any, like: Any = None) -> list[Any]:
    """A list of arrays of float types, all of one library (that of `like`, where one is given) and on one device."""
    if not isinstance(xs, (list, tuple)):
        raise TypeError(f"{who}: {name} must be a list of arrays, got {type(xs).__name__}")
    for i, x in enumerate(xs):
        numpy = isinstance(x, np.ndarray)
        if not numpy and not is_tensor(x):
            must = "a NumPy array or a torch tensor"
            raise TypeError(f"{who}: {name}[{i}] must be {must}, got {type(x).__name__}")
        ordinary(who, f": {name}[{i}]", x)
        check_order(who, f"{name}[{i}]", x)
        if dtype_name(x.dtype) not in FLOATS:
            must = "float64, float32, float16 or bfloat16"
            raise TypeError(f"{who}: {name}[{i}] must be {must}, got {dtype_name(x.dtype)}")
        if like is None:
            like = x
        elif isinstance(like, np.ndarray) != numpy:
            kind = "NumPy array" if isinstance(like, np.ndarray) else "torch tensor"
            raise TypeError(f"{who}: {name}[{i}] must be a {kind} like the others, got {type(x).__name__}")
        elif not numpy and x.device != like.device:
            raise ValueError(f"{who}: {name}[{i}] is on {x.device}, others are on {like.device}")
    return list(xs)


def alike(who: str, first: tuple[str, Sequence[Any]], other: tuple[str, Sequence[Any]], wider: bool = False) -> None:
    """Two lists of one length, entries i of one shape and type; `wider`: the first may be float32 beside 16 bits."""
    (a, xs), (b, ys) = first, other
    if len(xs) != len(ys):
        raise ValueError(f"{who}: {a} has {len(xs)} entries, {b} has {len(ys)}")
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if x.shape != y.shape:
            raise ValueError(f"{who}: {a}[{i}] has shape {sizes(x.shape)}, {b}[{i}] {sizes(y.shape)}")
        if x.dtype != y.dtype:
            own, its = dtype_name(x.dtype), dtype_name(y.dtype)
            if not (wider and own == "float32" and its in FLOATS[2:]):
                raise TypeError(f"{who}: {a}[{i}] is {own}, {b}[{i}] is {its}; tersor does not convert silently")


def check_out(op: Any, outs: Sequence[Any], wanted: Sequence[Any], kind: Any) -> None:
    """Refuses results that are not just what would be made."""
    if len(outs) != op.shown:
        raise ValueError(f"{op.name}: out has {len(outs)} results, {op.shown} are needed")
    for k, out, want in zip(op.outputs, outs, wanted, strict=True):
        if k in op.lists and not isinstance(out, (list, tuple)):
            raise TypeError(f"{op.name}: out for {k} must be a list, got {type(out).__name__}")
        if k in op.lists and len(out) != len(want):
            raise ValueError(f"{op.name}: out has {len(out)} entries, {len(want)} are needed")
        pairs = zip(out, want, strict=True) if k in op.lists else ((out, want),)
        for i, (y, (shape, dtype)) in enumerate(pairs):
            name = f"out[{i}]" if k in op.lists else "out"
            if not isinstance(y, kind):
                raise TypeError(f"{op.name}: {name} must be {kind.__name__}, got {type(y).__name__}")
            ordinary(op.name, f": {name}", y)
            check_order(op.name, name, y)
            if dtype_name(y.dtype) != dtype_name(dtype):
                raise TypeError(f"{op.name}: {name} must be {dtype_name(dtype)}, got {dtype_name(y.dtype)}")
            if tuple(y.shape) != tuple(shape):
                raise ValueError(f"{op.name}: {name} must have shape {sizes(shape)}, got {sizes(y.shape)}")
            dense = y.flags.c_contiguous and y.flags.writeable if isinstance(y, np.ndarray) else y.is_contiguous()
            if not dense:
                raise ValueError(f"{op.name}: {name} must be C-contiguous and writable")


def numpy(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator on arrays of NumPy."""
    kwargs = dict(kwargs)
    out = kwargs.pop("out", None)
    xs, scalars = op.bind(args, kwargs)
    for i, (k, x) in enumerate(zip(op.inputs, xs, strict=True)):
        xs[i] = entries(op.name, k, x) if k in op.lists else op._array(k, x)
    for name, x in named(op.inputs, xs):
        if not isinstance(x, np.ndarray):
            raise TypeError(f"{op.name}: {name} must be a NumPy array like the others, got {type(x).__name__}")
    wanted = op.signature.made(xs, scalars)
    if out is None:
        ys = [each(lambda w: empty(op.name, *w), w) if isinstance(w, list) else empty(op.name, *w) for w in wanted]
    else:
        ys = list(out) if op.shown > 1 else [out]
        check_out(op, ys, wanted, np.ndarray)
    buffers = [
        [native(op.name, f"{k}[{i}]", v) for i, v in enumerate(x)] if k in op.lists else native(op.name, k, x)
        for k, x in zip(op.inputs, xs, strict=True)
    ]
    op.kernel(*buffers, *[each(as_words, y) for y in ys], *scalars)
    return out if out is not None else op.seen(ys)


def call(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """By the library of the first array that there is; of none NumPy's."""
    first = next((x for x in flat((*args, *kwargs.values())) if isinstance(x, np.ndarray) or is_tensor(x)), None)
    return op.torch(args, kwargs) if is_tensor(first) else op.numpy(args, kwargs)
