"""Operators as torch sees them: schema, fake, CPU and CUDA kernels, autograd, all derived from the registry.

The rule of this file: no code per operator. The CPU kernels are registered by Rust through torch's stable C ABI;
a Python body stands in where torch lacks the ABI.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from tersor import _autocast, _core, _dtensor, _func, _memory
from tersor._arrays import OUT_GRAPH, dtype_name, into
from tersor._op import AXES, OPS, Op
from tersor.triton import ABSENT, PLAIN

NAMESPACE = "tersor"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
KINDS = {"float": "float", "int": "int", "bool": "bool", "needs": "int"}
#: the entries of the operators that torch knows
ENTRIES: dict[str, Callable[..., Any]] = {}
#: the same of all arguments as the kernel takes them, for whoever has asked of them what the entries ask
WHOLE: dict[str, Callable[[tuple[Any, ...]], Any]] = {}


def register() -> None:
    """Makes every declared operator known to torch; again after a family was imported later."""
    fresh = [op for key, op in OPS.items() if key not in ENTRIES]
    for op in fresh:
        LIBRARY.define(schema(op))
        torch.library.register_fake(f"{NAMESPACE}::{op.symbol}", body(op, None), lib=LIBRARY)
        LIBRARY.impl(op.symbol, body(op, functools.partial(_launch, op)), "CUDA")
    native = _native() if fresh else frozenset()
    for op in fresh:
        if op.symbol not in native:
            LIBRARY.impl(op.symbol, body(op, op.kernel), "CPU")
    for op in fresh:
        raw = _func.raw(op)
        torch.library.register_vmap(f"{NAMESPACE}::{op.symbol}", _func.rule(op, raw), lib=LIBRARY)
        ENTRIES[op.key], WHOLE[op.key] = public(op)


def entry(op: Op) -> Callable[..., Any]:
    """How torch's tensors enter an operator; from now on that is its own, but not in a trace, which guards what it has seen."""
    if op.key not in ENTRIES:
        register()
    if not torch.compiler.is_compiling():
        op.torch = ENTRIES[op.key]
    return ENTRIES[op.key]


@functools.cache
def _native() -> frozenset[str]:
    """The operators whose CPU kernel Rust has registered itself."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        path = Path(torch.__file__).parent / "lib" / name
        if path.exists():
            try:
                return frozenset(_core.register_torch(str(path), NAMESPACE))
            except RuntimeError:  # an older torch without the ABI: the Python bodies serve
                break
    return frozenset()


def schema(op: Op) -> str:
    arrays = [f"Tensor {k}" for k in op.inputs]
    scalars = [f"{KINDS[kind]} {k}" for k, kind in zip(op.signature.scalars, op.signature.kinds, strict=True)]
    results = ", ".join("Tensor" for _ in op.outputs)
    return f"{op.symbol}({', '.join(arrays + scalars)}) -> " + (results if len(op.outputs) == 1 else f"({results})")


def body(op: Op, kernel: Callable[..., None] | None) -> Callable[..., Any]:
    """The operator on one device: allocate by the rule, fill by `kernel` (None: shapes are all there is)."""
    n = op.n

    def run(*args: Any) -> Any:
        if kernel is not None:
            for k, x in zip(op.inputs, args, strict=False):
                if (why := _memory.short(x)) is not None:
                    raise TypeError(f"{op.name}: {k} is {why}")
        xs = [x if x.is_contiguous() else x.contiguous() for x in args[:n]]
        ys = [_made(xs[0], shape, dtype) for shape, dtype in op.signature.made(xs, args[n:])]
        if kernel is not None:
            kernel(*xs, *ys, *args[n:])
        return ys[0] if len(ys) == 1 else tuple(ys)

    return run


def _made(like: torch.Tensor, shape: tuple[Any, ...], dtype: Any) -> torch.Tensor:
    return like.new_empty(shape, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype)


def _launch(op: Op, *args: Any) -> None:
    """The Triton kernel of the same name in `tersor.triton.<family>`, imported at first use."""
    path = f"tersor.triton.{op.family}"
    launcher = getattr(importlib.import_module(path), op.name, None) if importlib.util.find_spec(path) else None
    if launcher is None:
        why = ABSENT.get(op.key, "not written yet")
        if why != PLAIN:
            raise NotImplementedError(f"{op.name}: no GPU kernel ({why}); move the tensors to the CPU")
        launcher = functools.partial(_plain, op)
    with torch.cuda.device_of(args[0]):
        launcher(*args)


def _plain(op: Op, *args: Any) -> None:
    """The reference in torch, on the device where the tensors are."""
    n = op.n
    ys = args[n : n + len(op.outputs)]
    xs = [x.double() if x.is_floating_point() else x for x in args[:n]]
    with torch.no_grad():
        made = op.reference(*xs, *args[n + len(ys) :])
    for y, made_y in zip(ys, made if isinstance(made, tuple) else (made,), strict=True):
        if y.numel():
            y.copy_(made_y.sum_to_size(y.shape))


HALVES = (torch.float16, torch.bfloat16)
#: numbers as the kernels take them, and the tensor that stands for None: kept, since for a few rows making them is the call
_NUMBERS: dict[float, torch.Tensor] = {}
with _disable_current_modes():
    _ABSENT = torch.empty(0, device="cpu", dtype=torch.float32)


def _number(value: float) -> torch.Tensor:
    found = _NUMBERS.get(value)
    if found is None or not value:  # the two zeros are one key
        if len(_NUMBERS) >= 1024:
            _NUMBERS.clear()
        with _disable_current_modes():  # a FakeTensor made here would outlive its mode
            found = _NUMBERS[value] = torch.tensor(value, dtype=torch.float64, device="cpu")
    return found


def _tensor(op: Op, name: str, x: Any, device: torch.device) -> torch.Tensor:
    if isinstance(x, torch.Tensor):
        if x.device != device and (x.ndim or x.device.type != "cpu"):
            raise ValueError(f"{op.name}: {name} is on {x.device}, {op.inputs[0]} on {device}")
        return x
    if x is None and name in op.optional:
        if torch.compiler.is_compiling():
            return torch.empty(0, device=device, dtype=torch.float32)
        return _ABSENT if device.type == "cpu" else torch.empty(0, device=device, dtype=torch.float32)
    if isinstance(x, (int, float)) and name in op.exempt:
        # a number is a float64 coefficient on the CPU; kernels on other devices read its value
        if torch.compiler.is_compiling():
            return torch.tensor(float(x), dtype=torch.float64, device="cpu")
        return _number(float(x))
    raise TypeError(f"{op.name}: {name} must be a tensor like the first argument, got {type(x).__name__}")


def public(op: Op) -> tuple[Callable[..., Any], Callable[[tuple[Any, ...]], Any]]:
    """The operator's torch entry, and its second half.

    The first makes arguments whole, the second is one autograd node if a gradient is recorded.
    """
    raw = _func.raw(op)
    n, v, inputs, wider = op.n, op.vectors, op.inputs, op.signature.wider
    # looked up once: for a few rows, this is what a call costs; the dispatcher itself, without a call of Python before it
    direct = getattr(raw, "_op", raw)
    compiling, recording, tensor = torch.compiler.is_compiling, torch.is_grad_enabled, torch.Tensor
    transforms = _func.active

    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if compiling():
            return thought(args, kwargs)
        try:
            if not kwargs and forward_ad._current_level < 0:
                whole = ready(args)
                if whole is not None:
                    return dispatch(whole)
            return thought(args, kwargs)
        except (RuntimeError, AssertionError):  # nested tensors have no shape, say
            _refuse(op, args)
            raise

    def thought(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = None
        if "out" in kwargs:
            kwargs = dict(kwargs)
            out = kwargs.pop("out")
        xs, scalars = op.bind(args, kwargs)
        if not isinstance(xs[0], torch.Tensor):
            raise op.no_array(xs[0])
        device = xs[0].device
        for i in range(n):
            if i == 0 or not isinstance(xs[i], torch.Tensor) or xs[i].device != device:
                xs[i] = _tensor(op, inputs[i], xs[i], device)
        kinds = [dtype_name(x.dtype) for x in xs]
        places = op.typed(xs, kinds)
        if len({kinds[i] for i in places}) > 1:
            if _autocast.unlike([xs[i] for i in places]):
                for i, x in zip(places, _autocast.alike([xs[i] for i in places]), strict=True):
                    xs[i] = x
            else:
                op.dtypes(xs, kinds)
        xs = op.broadcast(xs, torch.Tensor.expand)
        if max(x.ndim for x in xs) > AXES:
            return op.folded(call, xs, scalars, out)
        if forward_ad._current_level >= 0:
            raise NotImplementedError(f"{op.name}: forward-mode differentiation is not supported")
        if out is not None:
            if torch.is_grad_enabled() and any(x.requires_grad for x in xs):
                raise RuntimeError(f"{op.name}: {OUT_GRAPH}")
            return _into(op, dispatch, xs, scalars, out)
        return dispatch((*xs, *scalars))

    total = n + len(op.scalars)
    tails = [
        tuple(op.defaults[k] for k in op.parameters[i:]) if all(k in op.defaults for k in op.parameters[i:]) else None
        for i in range(total + 1)
    ]
    exempt = [k in op.exempt for k in inputs]
    first = max(sum(k not in op.optional for k in inputs[:v]), 1)
    # what follows the rows, made whole: by what was given of it, numbers or nothing
    rests: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def ready(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The short way: the arguments as the kernel takes them, or None where anything needs thought."""
        if len(args) < first:
            return None
        x = args[0]
        if not isinstance(x, tensor) or (v and not x.ndim) or x.ndim > AXES:
            return None
        if v > 1:
            shape, dtype, device = x.shape, x.dtype, x.device
            for y in args[1:first]:
                if not isinstance(y, tensor) or y.dtype != dtype or y.device != device:
                    return None
                if y.shape != shape and y.shape != shape[-1:]:  # one row for all, a weight say, needs no thought either
                    return None
        given = args[first:]
        # what follows is kept where it is a number or nothing
        brief = not given or (len(given) == 1 and type(given[0]) is float)
        rest = rests.get(given) if brief else None
        if rest is None:
            rest = complete(given, x, brief)
            if rest is None:
                return None
        return args[:first] + rest

    def complete(given: tuple[Any, ...], x: torch.Tensor, brief: bool) -> tuple[Any, ...] | None:
        """What follows the rows, with its defaults, numbers and nothing as tensors."""
        at = first + len(given)
        tail = tails[at] if at <= total else None
        if tail is None:
            return None
        rest = list(given + tail)
        kept = True
        for i in range(n - first):
            a = rest[i]
            if isinstance(a, tensor):
                if a.device != x.device or not fits(first + i, a, x):
                    return None
            elif not exempt[first + i]:
                return None
            elif type(a) is float:
                rest[i] = _number(a)
            elif a is None and inputs[first + i] in op.optional and x.device.type == "cpu":
                rest[i], kept = _ABSENT, False
            else:
                return None
        if str in map(type, rest):
            return None
        if kept and brief:
            if len(rests) >= 1024:
                rests.clear()
            rests[given] = tuple(rest)
        return tuple(rest)

    def fits(i: int, a: torch.Tensor, x: torch.Tensor) -> bool:
        """Whether input `i` is as the kernel takes it beside x: a number, one for each row, or of an operator without rows."""
        if i < v:
            alike = a.dtype == x.dtype or (inputs[i] in wider and beside(a, x))
            return alike and (a.shape == x.shape or a.shape == x.shape[-1:])
        if a.ndim > AXES or not (exempt[i] or a.dtype == x.dtype or not a.is_floating_point()):
            return False
        return not v or (not a.ndim if exempt[i] else a.shape == x.shape[:-1])

    def beside(a: torch.Tensor, x: torch.Tensor) -> bool:
        """Whether a weight is float32 beside 16 bits; autocast would make them one."""
        return a.dtype == torch.float32 and x.dtype in HALVES and _autocast.autocast_type(x) is None

    def every_of(*whole: Any) -> Any:
        return every(whole)

    def every(whole: tuple[Any, ...]) -> Any:
        """All results, those too that are kept for the backward."""
        if compiling():
            return traced(whole)
        try:
            if recording():
                if transforms():
                    return transformed(*whole)
                for x in whole[:n]:
                    if x.requires_grad:
                        return function(*whole)
            return direct(*whole)
        except (RuntimeError, AssertionError) as e:
            # torch's C ABI raises RuntimeError only: give back the exception that was meant
            meant = _core.translate(str(e)) if "[tersor:" in str(e) else None
            if meant is not None:
                raise meant from None
            if any(_dtensor.distributed(x) for x in whole[:n]):
                return _dtensor.run(op, every, whole)
            same = _fakes(whole)
            if same is not None:
                return every(same)
            _refuse(op, whole)
            raise

    def traced(whole: tuple[Any, ...]) -> Any:
        if recording():
            for x in whole[:n]:
                if x.requires_grad:
                    return function(*whole)
        return raw(*whole)

    def seen(whole: tuple[Any, ...]) -> Any:
        return op.seen(every(whole))

    dispatch = every if op.shown == len(op.outputs) else seen
    function, transformed = _function(op, raw, every_of)
    return call, dispatch


def _refuse(op: Op, args: tuple[Any, ...]) -> None:
    """Says so where an argument is of a kind that no operator takes."""
    for k, x in zip(op.inputs, args, strict=False):
        why = _memory.kind(x) if isinstance(x, torch.Tensor) else None
        if why is not None:
            raise TypeError(f"{op.name}: {k} is {why}") from None


def _fakes(whole: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arguments with numbers as fake as the rest; None where nothing is, or all are."""
    mode = next((x.fake_mode for x in whole if isinstance(x, FakeTensor)), None)
    plain = [isinstance(x, torch.Tensor) and not isinstance(x, FakeTensor) and x.numel() < 2 for x in whole]
    if mode is None or not any(plain):
        return None
    return tuple(mode.from_tensor(x) if p else x for x, p in zip(whole, plain, strict=True))


def _into(op: Op, call: Callable[..., Any], xs: list[torch.Tensor], scalars: list[Any], out: Any) -> Any:
    """The operator into memory that the caller brought: at once where it is memory, else through what torch makes of it."""
    ys = list(out) if isinstance(out, tuple) else [out]
    if torch.compiler.is_compiling() or any(
        isinstance(x, torch.Tensor) and _memory.lack(x) is not None for x in (*xs, *ys)
    ):
        for k, y in zip(op.outputs, ys, strict=False):
            why = _memory.kind(y) or _memory.gone(y) if isinstance(y, torch.Tensor) else None
            if why is not None:
                raise TypeError(f"{op.name}: out for {k} is {why}")
        made = call((*xs, *scalars))
        news = list(made) if isinstance(made, tuple) else [made]
        for k, y, new in zip(op.outputs, ys, news, strict=False):
            if not isinstance(y, torch.Tensor):
                continue
            if y.device != new.device:
                raise ValueError(f"{op.name}: out for {k} is on {y.device}, {op.inputs[0]} on {new.device}")
            for special in (FakeTensor, _dtensor.kind()):
                if isinstance(y, special) != isinstance(new, special):
                    raise TypeError(
                        f"{op.name}: out for {k} is a {type(y).__name__}, the result a {type(new).__name__}"
                    )
        into(op.name, ys, news)
        return out
    wanted = op.signature.made(xs, scalars)
    op.check_out(ys, wanted, torch.Tensor, lambda y: dtype_name(y.dtype))
    for k, y in zip(op.outputs, ys, strict=False):
        if not y.is_contiguous():
            raise ValueError(f"{op.name}: out for {k} must be contiguous")
        if y.device != xs[0].device:
            raise ValueError(f"{op.name}: out for {k} is on {y.device}, {op.inputs[0]} on {xs[0].device}")
    run = op.kernel if xs[0].device.type == "cpu" else functools.partial(_launch, op)
    kept = [_made(xs[0], *w) for w in wanted[op.shown :]]
    run(*[x.detach().contiguous() for x in xs], *[y.detach() for y in ys], *kept, *scalars)
    return out


def _function(
    op: Op, raw: Callable[..., Any], call: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
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

    def pull(ctx: Any, *gs: torch.Tensor) -> Any:
        xs, needed = ctx.saved_tensors, ctx.needs_input_grad
        every = (*gs[: op.shown], *xs)
        fed = [every[i] for i in feed]
        if constants:
            fed += ctx.constants
        if asked is not None:
            fed.insert(len(feed) + asked, sum(1 << place for i, place, _ in back if needed[i]))
        # without create_graph no graph is recorded here, and nothing has to watch for one
        ds = graphed(*fed) if recording() else backward_raw(*fed)
        if single:
            ds = (ds,)
        out = nothing.copy()
        for i, place, kept in back:
            if needed[i]:
                d = ds[place]
                out[i] = d if kept is None or d.shape == xs[kept].shape else d.sum_to_size(xs[kept].shape)
        return tuple(out)

    def graphed(*args: Any) -> Any:
        if twice:
            return bwd.torch(args, {})
        with torch.no_grad():
            ds = backward_raw(*args)
        ds = (ds,) if single else ds
        ds = _Once.apply(op.name, len(ds), *ds, *[a for a in args if isinstance(a, torch.Tensor)])
        return ds[0] if single else ds

    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            ys = raw(*args)
            save(ctx, args, ys)
            return ys

        backward = staticmethod(pull)

    Fn.__name__ = Fn.__qualname__ = op.name
    return Fn.apply, _func.function(op, raw, call, save, pull)


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

    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            ys = raw(*args)
            save(ctx, args, ys)
            return ys

        backward = staticmethod(pull)

    Fn.__name__ = Fn.__qualname__ = op.name
    return Fn.apply, _func.function(op, raw, call, save, transformed)


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


register()
