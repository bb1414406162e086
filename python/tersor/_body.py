"""What an operator does with tensors of one device: its schema, and a body that allocates by the signature and fills.

The rule of this file: nothing here knows of gradients; the CPU kernels are Rust's own where torch has the stable ABI, and these
bodies where it lacks it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tersor import _memory
from tersor._lists import each, flat, named
from tersor._op import Op
from tersor.triton import ABSENT, PLAIN

KINDS = {"float": "float", "int": "int", "bool": "bool", "needs": "int"}


def schema(op: Op) -> str:
    kind = {k: "Tensor[]" if k in op.lists else "Tensor" for k in (*op.inputs, *op.outputs)}
    arrays = [f"{kind[k]} {k}" for k in op.inputs]
    scalars = [f"{KINDS[kind]} {k}" for k, kind in zip(op.signature.scalars, op.signature.kinds, strict=True)]
    results = ", ".join(kind[k] for k in op.outputs)
    return f"{op.symbol}({', '.join(arrays + scalars)}) -> " + (results if len(op.outputs) == 1 else f"({results})")


def body(op: Op, kernel: Callable[..., None] | None) -> Callable[..., Any]:
    """The operator on one device: allocate by the rule, fill by `kernel` (None: shapes are all there is)."""
    n = op.n

    def run(*args: Any) -> Any:
        if kernel is not None:
            for k, x in named(op, args):
                if (why := _memory.short(x)) is not None:
                    raise TypeError(f"{op.name}: {k} is {why}")
        xs = [each(Tensor.contiguous, x) for x in args[:n]]
        ys: list[Any] = []
        for w in op.signature.made(xs, args[n:]):
            like = flat(xs)[0]
            ys.append([room(like, *own) for own in w] if isinstance(w, list) else room(like, *w))
        if kernel is not None:
            kernel(*xs, *ys, *args[n:])
        return ys[0] if len(ys) == 1 else tuple(ys)

    return run


def room(like: torch.Tensor, shape: tuple[Any, ...], dtype: Any) -> torch.Tensor:
    return like.new_empty(shape, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype)


def launch(op: Op, *args: Any) -> None:
    """The Triton kernel of the same name in `tersor.triton.<family>`, imported at first use."""
    path = f"tersor.triton.{op.family}"
    launcher = getattr(importlib.import_module(path), op.name, None) if importlib.util.find_spec(path) else None
    if launcher is None:
        why = ABSENT.get(op.key, "not written yet")
        if why != PLAIN:
            raise NotImplementedError(f"{op.name}: no GPU kernel ({why}); move the tensors to the CPU")
        launcher = functools.partial(plain, op)
    with torch.cuda.device_of(next(x for x in flat(args) if isinstance(x, Tensor))):
        launcher(*args)


def plain(op: Op, *args: Any) -> None:
    """The reference in torch, on the device where the tensors are."""
    n = op.n
    ys = args[n : n + len(op.outputs)]
    xs = [each(lambda v: v.double() if v.is_floating_point() else v, x) for x in args[:n]]
    with torch.no_grad():
        made = op.reference(*xs, *args[n + len(ys) :])
    for y, made_y in zip(flat(ys), flat(made if isinstance(made, tuple) else (made,)), strict=True):
        if y.numel():
            y.copy_(made_y.sum_to_size(y.shape))
