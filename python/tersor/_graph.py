"""Gradients of operators. The rule: one autograd node per operator, and what its backward saves and asks is told by the
parameters of ``<op>_bwd``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tersor import _func
from tersor._op import OPS, Op
from tersor._values import SPEAKER


def node(op: Op, raw: Callable[..., Any], call: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """One ``autograd.Function`` per operator; what its backward saves is told by the parameters of ``<op>_bwd``.

    And the same for the transforms of torch.func, which want its context set up apart: plain calls would pay for that.
    """
    bwd = OPS.get(f"{op.key}_bwd")
    if bwd is None:
        if op.options.tensors:
            return _through_reference(op, raw, call)

        def refuse(*args: Any) -> Any:
            raise NotImplementedError(f"{op.name}: not differentiable")

        if op.options.integer:
            return raw, raw
        return refuse, _func.function(op, raw, call, lambda ctx, inputs, output: None, refuse)
    n, recording = op.n, torch.is_grad_enabled
    grads = [k for k in bwd.inputs if k not in op.inputs and k not in op.outputs]
    order = {k: i for i, k in enumerate(op.inputs)} | {k: n + i for i, k in enumerate(op.outputs)}
    saved = [k for k in bwd.inputs if k not in grads]
    # the arguments of the backward: the output gradients and what is saved, in its own order
    feed = [grads.index(k) if k in grads else len(grads) + saved.index(k) for k in bwd.inputs]
    places = [order[k] for k in saved]
    inputs_only = all(i < n for i in places)
    asked = bwd.signature.needs
    constants = [n + list(op.scalars).index(k) for i, k in enumerate(bwd.scalars) if i != asked]
    backward_raw = _func.raw(bwd)
    twice = f"{bwd.key}_bwd" in OPS or bwd.options.tensors
    single = len(bwd.outputs) == 1
    # for each gradient: of which input, and its place among the saved unless it has that one's shape by its rule
    back = []
    for place, (k, rule) in enumerate(zip(bwd.outputs, bwd.rules, strict=True)):
        k = k.removeprefix("d")
        like = isinstance(rule, int) and bwd.inputs[rule] == k
        back.append((op.inputs.index(k), place, saved.index(k) if k in saved and not like else None))
    nothing = [None] * (n + len(op.scalars))

    def save(ctx: Any, args: tuple[Any, ...], ys: Any) -> None:
        every = args if inputs_only else (*args[:n], ys) if len(op.outputs) == 1 else (*args[:n], *ys)
        ctx.save_for_backward(*[every[i] for i in places])
        if op.shown < len(op.outputs):
            ctx.mark_non_differentiable(*ys[op.shown :])
        if constants:
            ctx.constants = [args[i] for i in constants]
        if not twice:
            ctx.who = op.name if torch.compiler.is_compiling() else SPEAKER.name or op.name

    def pull(ctx: Any, *gs: torch.Tensor) -> Any:
        xs, needed = ctx.saved_tensors, ctx.needs_input_grad
        every = (*gs[: op.shown], *xs)
        fed = [every[i] for i in feed]
        if constants:
            fed += ctx.constants
        if asked is not None:
            fed.insert(len(feed) + asked, sum(1 << place for i, place, _ in back if needed[i]))
        # without create_graph no graph is recorded here, and nothing has to watch for one
        ds = graphed(ctx, *fed) if recording() else backward_raw(*fed)
        if single:
            ds = (ds,)
        out = nothing.copy()
        for i, place, kept in back:
            if needed[i]:
                d = ds[place]
                out[i] = d if kept is None or d.shape == xs[kept].shape else d.sum_to_size(xs[kept].shape)
        return tuple(out)

    def graphed(ctx: Any, *args: Any) -> Any:
        if twice:
            return bwd.torch(args, {})
        with torch.no_grad():
            ds = backward_raw(*args)
        ds = (ds,) if single else ds
        ds = _Once.apply(ctx.who, len(ds), *ds, *[a for a in args if isinstance(a, torch.Tensor)])
        return ds[0] if single else ds

    return _recorded(op, raw, save, pull), _func.function(op, raw, call, save, pull)


def _recorded(
    op: Op, raw: Callable[..., Any], save: Callable[..., None], pull: Callable[..., Any]
) -> Callable[..., Any]:
    """The operator with its context in one call, which plain calls are quicker by."""

    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            ys = raw(*args)
            save(ctx, args, ys)
            return ys

        backward = staticmethod(pull)

    Fn.__name__ = Fn.__qualname__ = op.name
    apply: Callable[..., Any] = Fn.apply
    return apply


def _through_reference(
    op: Op, raw: Callable[..., Any], call: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A backward that is differentiated in its turn: by autograd through its reference, in float64."""
    n = op.n

    def save(ctx: Any, args: tuple[Any, ...], ys: Any) -> None:
        ctx.save_for_backward(*args[:n])
        ctx.constants = args[n:]

    def outputs(xs: list[torch.Tensor], constants: tuple[Any, ...], gs: tuple[torch.Tensor, ...]) -> list[Any]:
        ys = op.reference(*xs, *constants)
        return [y.sum_to_size(g.shape) for y, g in zip(ys if isinstance(ys, tuple) else (ys,), gs, strict=True)]

    def pull(ctx: Any, *gs: torch.Tensor) -> Any:
        graph, needed = torch.is_grad_enabled(), ctx.needs_input_grad[:n]
        with torch.enable_grad():
            # views, so that one argument does not count as made of another
            xs = [x.double().view_as(x) if x.is_floating_point() else x for x in ctx.saved_tensors]
            ys = outputs(xs, ctx.constants, gs)
        # what depends on nothing that is watched has no part
        parts = [(y, g.to(y.dtype)) for y, g in zip(ys, gs, strict=True) if y.requires_grad]
        wanted = [x for x, k in zip(xs, needed, strict=True) if k]
        found = torch.autograd.grad(
            [y for y, _ in parts], wanted, [g for _, g in parts], create_graph=graph, allow_unused=True
        )
        ds = iter(found)
        out = [next(ds) if k else None for k in needed]
        out = [d if d is None else d.to(x.dtype) for d, x in zip(out, ctx.saved_tensors, strict=True)]
        return (*out, *(None for _ in ctx.constants))

    def transformed(ctx: Any, *gs: torch.Tensor) -> Any:
        """`pull`, by a transform of its own: the level that recorded the inputs may be closed by now."""
        saved, needed = list(ctx.saved_tensors), ctx.needs_input_grad[:n]
        wide = [x.double() if x.is_floating_point() else x for x in saved]
        at = [i for i in range(n) if needed[i]]

        def of(*xs: torch.Tensor) -> list[torch.Tensor]:
            return outputs([xs[at.index(i)] if i in at else x for i, x in enumerate(wide)], ctx.constants, gs)

        ys, back = torch.func.vjp(of, *[wide[i] for i in at])
        ds = back([g.to(y.dtype) for y, g in zip(ys, gs, strict=True)])
        out: list[Any] = [None] * (n + len(ctx.constants))
        for i, d in zip(at, ds, strict=True):
            out[i] = d.to(saved[i].dtype)
        return tuple(out)

    return _recorded(op, raw, save, pull), _func.function(op, raw, call, save, transformed)


class _Once(torch.autograd.Function):
    """Gradients that have none of their own: they carry the graph, and who follows it is told."""

    @staticmethod
    def forward(name: str, n: int, *args: torch.Tensor) -> Any:
        return tuple(d.view_as(d) for d in args[:n])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, *gs: torch.Tensor) -> Any:
        raise NotImplementedError(f"{ctx.name}: not differentiable twice")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], name: str, n: int, *args: torch.Tensor) -> Any:
        return _Once.apply(name, n, *args), in_dims[2 : 2 + n]
