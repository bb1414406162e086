"""Operators over lists, as torch sees them. The one rule: one node in a graph for a call, whatever the lists hold; what its
backward saves and asks is told by the parameters of ``<op>_bwd``, as of every operator.

A Function of torch takes tensors and no lists of them: the entries go through it one after another, with their numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tersor import _callers, _core, _disjoint, _dtensor, _func, _memory
from tersor._arrays import OUT_GRAPH, into
from tersor._body import launch
from tersor._graph import _Once
from tersor._lists import check_out, each, entries, flat, given, named, told
from tersor._op import OPS, Op
from tersor._values import SPEAKER

Lengths = tuple[int | None, ...]


def lengths(arrays: Sequence[Any]) -> Lengths:
    """How many entries each list has; None of what is no list."""
    return tuple(len(a) if isinstance(a, (list, tuple)) else None for a in arrays)


def parted(entries: Sequence[Any], lens: Lengths) -> list[Any]:
    """What `flat` was made of."""
    rest: Iterator[Any] = iter(entries)
    return [next(rest) if n is None else [next(rest) for _ in range(n)] for n in lens]


def public(op: Op) -> tuple[Callable[..., Any], Callable[[tuple[Any, ...]], Any]]:
    """The operator's torch entry, and its second half, which takes all arguments as the kernel does."""
    raw, n, places = _func.raw(op), op.n, _places(op)
    function = _node(op, raw)

    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs = dict(kwargs)
        out = kwargs.pop("out", None)
        xs, scalars = op.bind(args, kwargs)
        whole = flat(xs)
        first: Any = next((x for x in whole if isinstance(x, Tensor)), None)
        for i, k in enumerate(op.inputs):
            x = xs[i]
            if k in op.lists:
                xs[i] = entries(op.name, k, x, first)
            elif not isinstance(x, Tensor) or _dtensor.distributed(x):
                raise TypeError(f"{op.name}: {k} must be a plain tensor like the others, got {type(x).__name__}")
            elif x.device != first.device:
                raise ValueError(f"{op.name}: {k} is on {x.device}, others are on {first.device}")
        if forward_ad._current_level >= 0:
            raise NotImplementedError(f"{op.name}: forward-mode differentiation is not supported")
        if out is None:
            return every((*xs, *scalars))
        ys = list(out) if op.shown > 1 else [out]
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in (*whole, *flat(ys))):
            raise RuntimeError(f"{op.name}: {OUT_GRAPH}")
        _into(op, every, xs, scalars, ys)
        return out

    def every(whole: tuple[Any, ...]) -> Any:
        xs = flat(whole[:n])
        if not any(lens != 0 for lens in _results(places, lengths(whole[:n]))):  # torch finds no device in nothing
            return op.seen([[] for _ in op.outputs])
        if torch.compiler.is_compiling():
            _callers.noted(op.key)
        try:
            if torch.is_grad_enabled() and any(x.requires_grad for x in xs):
                return op.seen(function(whole))
            ys = raw(*whole)
        except (RuntimeError, AssertionError) as e:
            meant = _core.translate(str(e)) if "[tersor:" in str(e) else None
            if meant is not None:
                raise meant from None
            for name, x in named(op, whole[:n]):
                if (why := _memory.kind(x)) is not None:
                    raise TypeError(f"{op.name}: {name} is {why}") from None
            raise
        return ys if len(op.outputs) == 1 else op.seen(ys)

    return call, every


def _places(op: Op) -> tuple[int | None, ...]:
    """Of each result that is a list, the input that it is like."""
    return tuple(
        rule if k in op.lists and isinstance(rule, int) else None for k, rule in zip(op.outputs, op.rules, strict=True)
    )


def _results(places: tuple[int | None, ...], lens: Lengths) -> Lengths:
    """How many entries each result has."""
    return tuple([None if at is None else lens[at] for at in places])


def _into(op: Op, every: Callable[..., Any], xs: list[Any], scalars: list[Any], ys: list[Any]) -> None:
    """The operator into memory that the caller brought: at once where it is memory, else through what torch makes of it."""
    check_out(op, ys, op.signature.made(xs, scalars), Tensor)
    arrays = flat((*xs, *ys))
    for name, y in given(op, ys):
        if y.device != arrays[0].device:
            raise ValueError(f"{op.name}: {name} is on {y.device}, others are on {arrays[0].device}")
    if torch.compiler.is_compiling() or any(_memory.lack(x) is not None for x in arrays):
        _disjoint.check(op.name, _read(op, xs, ys), list(given(op, ys)))
        made = every((*xs, *scalars))
        into(op.name, flat(ys), flat(made if op.shown > 1 else (made,)))
        return
    run = op.kernel if not arrays or arrays[0].device.type == "cpu" else functools.partial(launch, op)
    dense = [each(lambda v: v.detach().contiguous(), x) for x in xs]
    with told(op, xs):
        run(*dense, *[each(Tensor.detach, y) for y in ys], *scalars)
    _memory.written(flat(ys))


def _read(op: Op, xs: Sequence[Any], ys: Sequence[Any]) -> list[tuple[str, Any, int]]:
    """The inputs with their names and the place of the output that each may be: that of its own place in a list."""
    n = len(ys[0]) if isinstance(ys[0], (list, tuple)) else 1
    partners = [i % n if isinstance(x, list) else _disjoint.NONE for x in xs for i in range(len(flat([x])))]
    partners = partners if op.kernel.alias else [_disjoint.NONE] * len(partners)
    return [(name, x, own) for (name, x), own in zip(named(op, xs), partners, strict=True)]


def _node(op: Op, raw: Callable[..., Any]) -> Callable[[tuple[Any, ...]], Any]:
    """The operator as one node, called with all its arguments; its results as a list of arrays and lists."""
    bwd = OPS.get(f"{op.key}_bwd")
    if bwd is None:

        def refuse(whole: tuple[Any, ...]) -> Any:
            raise NotImplementedError(f"{op.name}: not differentiable")

        return refuse
    # a trace reads the functions below: they know no operator, but what follows from it
    n, who, inputs, places, single = op.n, op.name, op.inputs, _places(op), len(op.outputs) == 1
    every, feeds, slopes = (*op.inputs, *op.outputs), bwd.inputs, bwd.outputs
    grads = [k for k in feeds if k not in every]
    saved = [k for k in feeds if k in every]
    kept_at = [every.index(k) for k in saved]
    #: where each constant of the backward stands among ours; None of what says which gradients are wanted
    scalars_at = [
        None if i == bwd.signature.needs else op.signature.scalars.index(k) for i, k in enumerate(bwd.signature.scalars)
    ]
    back = _func.raw(bwd)

    class Fn(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(lens: Lengths, scalars: tuple[Any, ...], *arrays: Tensor) -> Any:
            ys = raw(*parted(arrays, lens), *scalars)
            return tuple(flat((ys,) if single else ys))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.lens, ctx.scalars = inputs[0], inputs[1]
            whole = parted((*inputs[2:], *output), (*ctx.lens, *_results(places, ctx.lens)))
            kept = [whole[i] for i in kept_at]
            ctx.kept = lengths(kept)
            ctx.save_for_backward(*flat(kept))
            ctx.who = who if torch.compiler.is_compiling() else SPEAKER.name or who

        @staticmethod
        def backward(ctx: Any, *gs: Tensor) -> Any:
            given = dict(zip(grads, parted(gs, _results(places, ctx.lens)), strict=True))
            given.update(zip(saved, parted(ctx.saved_tensors, ctx.kept), strict=True))
            wanted = {
                f"d{k}": any(flat([need]))
                for k, need in zip(inputs, parted(ctx.needs_input_grad[2:], ctx.lens), strict=True)
            }
            needs = sum(1 << j for j, d in enumerate(slopes) if wanted[d])
            constants = [needs if at is None else ctx.scalars[at] for at in scalars_at]
            fed = [given[k] for k in feeds]
            with torch.no_grad():
                made = back(*fed, *constants)
            ds = [made] if len(slopes) == 1 else list(made)
            if torch.is_grad_enabled():
                parts = flat(ds)
                ds = parted(_Once.apply(ctx.who, len(parts), *parts, *flat(fed)), lengths(ds))
            by_name = dict(zip(slopes, ds, strict=True))
            out: list[Any] = []
            for k, lens in zip(inputs, ctx.lens, strict=True):
                d = by_name[f"d{k}"] if wanted[f"d{k}"] else None
                out += [None] * (1 if lens is None else lens) if d is None else flat([d])
            return (None, None, *out)

    Fn.__name__ = Fn.__qualname__ = who

    def function(whole: tuple[Any, ...]) -> list[Any]:
        xs = whole[:n]
        arrays = flat(xs)
        if torch.compiler.is_compiling():  # a trace follows each input of a function to one gradient
            arrays = [x.view_as(x) if any(x is y for y in arrays[:i]) else x for i, x in enumerate(arrays)]
        lens = lengths(xs)
        return parted(Fn.apply(lens, tuple(whole[n:]), *arrays), _results(places, lens))

    return function


def rule(op: Op, call: Callable[..., Any]) -> Callable[..., Any]:
    """How ``vmap`` runs an operator over lists: sample by sample."""

    def vmap(info: Any, dims: tuple[Any, ...], *args: Any) -> Any:
        runs = [call(*_sample(args, dims, b)) for b in range(info.batch_size)]
        if not runs:
            raise NotImplementedError(f"{op.name}: a batch of no samples")
        if len(op.outputs) == 1:
            runs = [(ys,) for ys in runs]
        made: list[Any] = []
        for ys in zip(*runs, strict=True):
            one = isinstance(ys[0], Tensor)
            made.append(torch.stack(ys) if one else [torch.stack(y) for y in zip(*ys, strict=True)])
        at = [0 if isinstance(y, Tensor) else [0] * len(y) for y in made]
        return (made[0], at[0]) if len(made) == 1 else (tuple(made), tuple(at))

    return vmap


def _sample(args: Sequence[Any], dims: Sequence[Any], b: int) -> list[Any]:
    """Of all that has a batch axis, sample `b`."""
    return [
        _sample(a, at, b) if isinstance(a, (list, tuple)) and at is not None else a if at is None else a.select(at, b)
        for a, at in zip(args, dims, strict=True)
    ]
