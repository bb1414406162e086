"""Operators over lists of arrays, on the NumPy side. The one rule: an error names the entry, and comes before a
number is written.

What is a list is said by the signature (`xs*[*]`); kernels get a list where the signature has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np

from tersor._arrays import (
    FLOATS,
    as_words,
    check_order,
    check_result,
    dtype_name,
    empty,
    in_trace,
    is_distributed,
    is_tensor,
    native,
    ordinary,
    sizes,
    torch_module,
)


def flat(arrays: Sequence[Any]) -> list[Any]:
    """The entries of lists and what is none, one after another."""
    return [x for a in arrays for x in (a if isinstance(a, (list, tuple)) else (a,))]


def each(f: Any, x: Any) -> Any:
    """`f` of an array, or of every entry of a list."""
    return [f(v) for v in x] if isinstance(x, (list, tuple)) else f(x)


def named(op: Any, arrays: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The inputs of an operator `flat`, with what an error calls each."""
    n = next((len(a) for a in arrays if isinstance(a, (list, tuple))), 0)
    for name, a in zip(op.inputs, arrays, strict=False):
        if isinstance(a, (list, tuple)):
            for i, x in enumerate(a):
                yield op.options.entry(name, i, n) if op.options.entry else f"{name}[{i}]", x
        else:
            yield name, a


def given(op: Any, ys: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Outputs `flat`, with what an error calls each."""
    for k, y in zip(op.outputs, ys, strict=False):
        if isinstance(y, (list, tuple)):
            for i, each_y in enumerate(y):
                yield f"{op.given(k)}[{i}]", each_y
        else:
            yield op.given(k), y


@contextmanager
def told(op: Any, arrays: Sequence[Any]) -> Iterator[None]:
    """What a kernel says of entries in the words of who handed them over."""
    try:
        yield
    except (TypeError, ValueError) as e:
        entry = op.options.entry
        if entry is None:
            raise
        n = next((len(a) for a in arrays if isinstance(a, (list, tuple))), 0)
        lists = "|".join(k for k in op.inputs if k in op.lists)
        text = re.sub(rf"\b({lists})\[(\d+)\]", lambda m: entry(m[1], int(m[2]), n), str(e))
        raise type(e)(text) from None


def listed(name: str, xs: Any, of: str = "arrays") -> Any:
    """What gives one thing after another as a list, made once: a generator, a module of parameters, values of a dict. One array
    is no list, nor is what has names or no order."""
    if isinstance(xs, (list, tuple)):
        return xs
    if isinstance(xs, (str, bytes, Mapping, Set)) or hasattr(xs, "shape") or not hasattr(xs, "__iter__"):
        raise TypeError(f"{name} must be a list of {of}, got {type(xs).__name__}")
    return list(xs)


#: NumPy's own float types, as most entries have them
_NATIVE = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))


class Checked(list[Any]):
    """A list whose entries were looked at."""


def entries(who: str, name: str, xs: Any, like: Any = None) -> list[Any]:
    """A list of arrays of float types, all of one library (that of `like`, where one is given) and on one device."""
    if type(xs) is Checked:
        return xs
    xs = listed(f"{who}: {name}", xs)
    if like is None and xs:
        like = xs[0]
    tracing = in_trace()
    usual = _refuse if tracing else _usual(like)
    for i, x in enumerate(xs):
        if not usual(x):
            _entry(who, f"{name}[{i}]", x, like)
    return list(xs) if tracing else Checked(xs)


def _refuse(x: Any) -> bool:
    return False


def _usual(like: Any) -> Callable[[Any], bool]:
    """Whether an array is what most are beside `like`: of a thousand small ones, what is asked of each is the call."""
    if type(like) is np.ndarray:
        return lambda x: type(x) is np.ndarray and x.dtype in _NATIVE
    if not is_tensor(like):
        return _refuse
    torch = torch_module()
    kinds, strided, device = (torch.Tensor, torch.nn.Parameter), torch.strided, like.device
    floats = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    return lambda x: (
        type(x) in kinds and x.dtype in floats and x.layout is strided and x.device == device and not x.is_nested
    )


def _entry(who: str, name: str, x: Any, like: Any) -> None:
    """Refuses an array that may not stand in a list beside `like`."""
    numpy = isinstance(x, np.ndarray)
    if not numpy and not is_tensor(x):
        raise TypeError(f"{who}: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if is_distributed(x):
        raise TypeError(f"{who}: {name} is a DTensor; lists take plain tensors, .to_local() gives its part")
    ordinary(who, f": {name}", x)
    check_order(who, name, x)
    if dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{who}: {name} must be float64, float32, float16 or bfloat16, got {dtype_name(x.dtype)}")
    if x is like:
        return
    if isinstance(like, np.ndarray) != numpy:
        kind = "NumPy array" if isinstance(like, np.ndarray) else "torch tensor"
        raise TypeError(f"{who}: {name} must be a {kind} like the others, got {type(x).__name__}")
    if not numpy and x.device != like.device:
        raise ValueError(f"{who}: {name} is on {x.device}, others are on {like.device}")


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
            raise TypeError(f"{op.name}: {op.given(k)} must be a list, got {type(out).__name__}")
        if k in op.lists and len(out) != len(want):
            raise ValueError(f"{op.name}: {op.given(k)} has {len(out)} entries, {len(want)} are needed")
    each_want = [own for k, want in zip(op.outputs, wanted, strict=True) for own in (want if k in op.lists else [want])]
    for (name, y), (shape, dtype) in zip(given(op, outs), each_want, strict=True):
        check_result(op.name, name, y, shape, dtype, kind)


def numpy(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator on arrays of NumPy."""
    kwargs = dict(kwargs)
    out = kwargs.pop("out", None)
    xs, scalars = op.bind(args, kwargs)
    first = next((x for x in flat(xs) if isinstance(x, np.ndarray)), None)
    for i, (k, x) in enumerate(zip(op.inputs, xs, strict=True)):
        xs[i] = entries(op.name, k, x, first) if k in op.lists else op._array(k, x)
    wanted = op.signature.made(xs, scalars)
    if out is None:
        ys = [each(lambda w: empty(op.name, *w), w) if isinstance(w, list) else empty(op.name, *w) for w in wanted]
    else:
        ys = list(out) if op.shown > 1 else [out]
        check_out(op, ys, wanted, np.ndarray)
    with told(op, xs):
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
