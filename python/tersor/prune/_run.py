"""Running the kernels of a selection. The one rule: an array is made ready once, and where it lies decides what runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, is_tensor, native, whole
from tersor._keys import FORMATS, NAN, Order
from tersor._op import AXES, OPS, Op, kernel
from tersor._values import one_of, signed_word

Array = Any


def order_of(names: Iterable[str], *, signed: bool = False, nan: str = "raise") -> Order:
    """The order for arrays of these types: by value, in the least type that holds them all."""
    found = set(names) or {"float32"}
    for name in found:
        if name not in FLOATS:
            raise TypeError(f"expected floats, got {name}")
    if "float64" in found:
        name = "float64"
    else:
        name = found.pop() if len(found) == 1 else "float32"
    return Order(FORMATS.index(name), signed, NAN[one_of("nan", nan, tuple(NAN))])


def ready(x: Array, name: str = "x") -> Array:
    """An array as the kernels read it: contiguous, in native byte order, no part of a graph."""
    if isinstance(x, np.ndarray):
        return native("prune", name, x)
    if is_tensor(x):
        from tersor import _memory

        if x.device.type != "meta":  # said below
            _memory.check("prune", **{name: x})
    if x.device.type not in ("cpu", "cuda"):
        raise ValueError(f"prune: {name} is on {x.device}, where there is no kernel")
    return x.detach().contiguous()


def run(name: str, x: Array, *rest: Any) -> None:
    """The kernel on the device of `x`; the other arrays may be NumPy's, and are written to where they are outputs.

    All of them are contiguous, so that those of more axes than kernels have are read and written along one.
    """
    if x.ndim > AXES:
        x, rest = x.reshape(-1), tuple(a.reshape(-1) if getattr(a, "ndim", 0) > AXES else a for a in rest)
    if isinstance(x, np.ndarray) or x.device.type == "cpu":
        kernel(f"prune.{name}")(x, *rest)
        return
    dispatched(OPS[f"prune.{name}"], x, rest)


def dispatched(op: Op, x: Any, rest: Sequence[Any]) -> None:
    """The operator through torch's dispatcher, with arrays of NumPy sent to where x is, and results back."""
    import torch

    there = [torch.from_numpy(a).to(x.device) if isinstance(a, np.ndarray) else a for a in rest]
    first, last = op.n - 1, op.n - 1 + len(op.outputs)
    outs = there[first:last]
    op.torch((x, *there[:first], *there[last:]), {"out": tuple(outs) if len(outs) > 1 else outs[0]})
    for a, t in zip(rest[first:last], outs, strict=True):
        if isinstance(a, np.ndarray):
            a[...] = t.cpu().numpy()


def tally(x: Array, order: Order, keys: Sequence[int]) -> np.ndarray:
    """How many numbers of `x` lie above each key, and how many have it."""
    found = np.empty((len(keys), 2), np.int64)
    words = np.array([signed_word(k) for k in keys], np.int64)
    run("magnitude_tally", x, words, found, order.format, order.signed, order.nan)
    return found


def integer(name: str, value: Any) -> int:
    value = whole(name, value)
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return value
