"""Operators under torch.func: the batch axis of ``vmap``, and one autograd.Function whose context is set up apart.

The rule of this file: a batch axis is one more leading axis where rows do not see each other; elsewhere samples go one by one,
so that what ``vmap`` gives is what a loop over the samples gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tersor._op import Op

#: whether any transform of torch.func is at work
active: Callable[[], bool] = torch._C._are_functorch_transforms_active


@torch._dynamo.assume_constant_result
def nested() -> bool:
    """Whether the transform at work is within one that differentiates. Runs where a call is traced: what a graph has of a node
    there torch takes for a constant."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Grad for level in levels[:-1])


def bare(x: Any, batches: bool = True) -> Any:
    """A tensor without the levels of torch.func that it was made at, with which it would end; or down to its batch, if that is
    to stay."""
    of = torch._C._functorch
    while of.is_functorch_wrapped_tensor(x) and (batches or not of.is_batchedtensor(x)):
        x = of.get_unwrapped(x)
    return x


def raw(op: Op) -> Callable[..., Any]:
    """The operator as torch's dispatcher has it."""
    found: Callable[..., Any] = getattr(torch.ops.tersor, op.symbol).default
    return found


def batched(op: Op, call: Callable[..., Any], size: int, dims: Sequence[int | None], args: Sequence[Any]) -> Any:
    """The results of `call` for all samples, their batch axis first.

    Parameters
    ----------
    call : the operator on tensors that lie one level lower
    size : the number of samples
    dims : where each argument has its batch axis, or None
    """
    args = [a if at is None else a.movedim(at, 0) for a, at in zip(args, dims, strict=True)]
    own = [at is not None for at in dims]
    fold = _by_rows if op.vectors else _by_axes if op.leading else None
    ys = fold(op, call, size, own, args) if fold is not None and size else None
    return _one_by_one(op, call, size, own, args) if ys is None else ys


def _by_rows(op: Op, call: Callable[..., Any], size: int, own: list[bool], args: list[Any]) -> Any:
    """One call with the batch as a leading axis of the rows; None where a row of one sample sees others."""
    xs = args[: op.n]
    shapes = [tuple(x.shape[1:] if mine else x.shape) for x, mine in zip(xs, own, strict=False)]
    tails = [1 if i < op.vectors or k in op.coefficients else 0 for i, k in enumerate(op.inputs)]
    vectors = shapes[: op.vectors]
    lead = max((s[:-1] for s in vectors), key=lambda s: (math.prod(s), len(s)))
    absent = {i for i, k in enumerate(op.inputs) if k in op.optional and shapes[i] == (0,)}
    summed = dict.fromkeys(absent, False)
    for i in {rule for rule in op.rules if isinstance(rule, int)} - absent:
        full = shapes[i] == (*lead, *(vectors[i][-1:] if i < op.vectors else (1,) * tails[i]))
        if not full and i < op.vectors and math.prod(lead) != 1:
            return None  # the gradient of one row for all is a sum, which the kernel takes more exactly
        summed[i] = not full
    for i, (x, mine) in enumerate(zip(xs, own, strict=False)):
        if i in absent or (not mine and i not in summed):
            continue
        shape = shapes[i] or (1,) * tails[i]
        missing = len(lead) + tails[i] - len(shape)
        x = x.reshape((size if mine else 1, *(1,) * missing, *shape))
        if i in summed:
            if i >= op.vectors and summed[i]:
                x = x.double()  # sums of gradients are rounded once, as the kernel's own
            x = x.expand(size, *lead, *x.shape[len(lead) + 1 :])
        xs[i] = x
    ys = call(*op.broadcast(xs, Tensor.expand), *args[op.n :])
    ys = list(ys) if isinstance(ys, tuple) else [ys]
    for j, rule in enumerate(op.rules):
        if op.signature.unneeded(j, args[op.n :]):
            ys[j] = ys[j].new_empty((size, 0))
        elif isinstance(rule, int):
            y, x = ys[j], args[rule]
            if summed[rule]:
                y = y.sum_to_size(size, *(1,) * (y.ndim - 1 - len(shapes[rule])), *shapes[rule])
            ys[j] = y.reshape(size, *shapes[rule]).to(x.dtype)
    return tuple(ys) if len(ys) > 1 else ys[0]


def _by_axes(op: Op, call: Callable[..., Any], size: int, own: list[bool], args: list[Any]) -> Any:
    """One call, where all that has a batch is declared to take leading axes."""
    leading = op.leading
    if any(mine and k not in leading for k, mine in zip(op.inputs, own, strict=False)):
        return None
    xs = [
        x.expand(size, *x.shape) if k in leading and not mine else x
        for k, x, mine in zip(op.inputs, args, own, strict=False)
    ]
    return call(*xs, *args[op.n :])


def _one_by_one(op: Op, call: Callable[..., Any], size: int, own: list[bool], args: list[Any]) -> Any:
    if not size:
        like = [x.new_empty(x.shape[1:], device="meta") if mine else x for x, mine in zip(args, own, strict=True)]
        like = [x.to("meta") if isinstance(x, Tensor) else x for x in like]
        ys = raw(op)(*like)
        ys = tuple(args[0].new_empty((0, *y.shape), dtype=y.dtype) for y in (ys if isinstance(ys, tuple) else (ys,)))
        return ys if len(ys) > 1 else ys[0]
    runs = [call(*[x[b] if mine else x for x, mine in zip(args, own, strict=True)]) for b in range(size)]
    if isinstance(runs[0], tuple):
        return tuple(torch.stack(ys) for ys in zip(*runs, strict=True))
    return torch.stack(runs)


def rule(op: Op, call: Callable[..., Any]) -> Callable[..., Any]:
    """How ``vmap`` runs the operator."""

    def vmap(info: Any, dims: tuple[Any, ...], *args: Any) -> Any:
        ys = batched(op, call, info.batch_size, dims, args)
        return ys, (0,) * len(ys) if isinstance(ys, tuple) else 0

    return vmap


def function(
    op: Op,
    raw: Callable[..., Any],
    call: Callable[..., Any],
    save: Callable[..., None],
    backward: Callable[..., Any],
) -> Callable[..., Any]:
    """The operator as a Function that transforms can see through: ``save(ctx, inputs, output)`` keeps what `backward` reads."""

    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return raw(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            save(ctx, inputs, output)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            return over(info, in_dims, *args)

    over = rule(op, call)
    Fn.backward = staticmethod(backward)
    Fn.__name__ = Fn.__qualname__ = op.name
    return Fn.apply
