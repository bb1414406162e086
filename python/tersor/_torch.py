"""Operators as torch sees them: all of them registered from their declarations, and the door by which tensors enter.

The rule of this file: no code per operator. What runs on a device is in `_body`, the autograd node in `_graph`; the CPU kernels
are registered by Rust through torch's stable C ABI.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

import tersor._offsets_in_graphs  # noqa: F401  what graphs name is known as soon as operators are
from tersor import _autocast, _callers, _core, _disjoint, _dtensor, _func, _memory, _torch_lists
from tersor._arrays import OUT_GRAPH, dtype_name, into
from tersor._body import body, launch, room, schema
from tersor._graph import node
from tersor._library import LIBRARY, NAMESPACE
from tersor._op import AXES, OPS, Op

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
        LIBRARY.impl(op.symbol, body(op, functools.partial(launch, op)), "CUDA")
    native = _native() if fresh else frozenset()
    for op in fresh:
        if op.symbol not in native:
            LIBRARY.impl(op.symbol, body(op, op.kernel), "CPU")
    for op in fresh:
        raw: Any = _func.raw(op)
        rule, entry = (_torch_lists.rule, _torch_lists.public) if op.lists else (_func.rule, public)
        torch.library.register_vmap(f"{NAMESPACE}::{op.symbol}", rule(op, raw), lib=LIBRARY)
        ENTRIES[op.key], WHOLE[op.key] = entry(op)
        raw._op = _callers.spoken(op, raw._op)  # last: plain calls translate themselves


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
            found = _NUMBERS[value] = _func.bare(torch.tensor(value, dtype=torch.float64, device="cpu"))
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
    if isinstance(x, (int, float, np.number)) and name in op.exempt:
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
            raise NotImplementedError(
                f"{op.name}: forward-mode differentiation is not supported; torch.func.jacrev twice is a Hessian"
            )
        if out is not None:
            ys = out if isinstance(out, tuple) else (out,)
            if torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in (*xs, *ys)):
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
        if str in map(type, rest) or not all(type(rest[i - first]) is bool for i in op.flags):
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
        _callers.noted(op.key)
        if recording():
            if derived and _func.nested():
                raise NotImplementedError(
                    f"{op.name}: torch.compile takes one transform of torch.func, of two it makes the derivative 0; "
                    "leave one of them outside"
                )
            for x in whole[:n]:
                if x.requires_grad:
                    return function(*_apart(whole, n))
        return raw(*whole)

    def seen(whole: tuple[Any, ...]) -> Any:
        return op.seen(every(whole))

    dispatch = every if op.shown == len(op.outputs) else seen
    function, transformed = node(op, raw, every_of)
    derived = function is not raw
    return call, dispatch


def _apart(whole: tuple[Any, ...], n: int) -> list[Any]:
    """A tensor that is given twice as two: a trace follows each input of a function to one gradient."""
    found: list[Any] = []
    for x in whole[:n]:
        twice = False
        for y in found:
            twice = twice or (x is y and x.requires_grad)
        found.append(x.view_as(x) if twice else x)
    return [*found, *whole[n:]]


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
                raise TypeError(f"{op.name}: {op.given(k)} is {why}")
        partner = _disjoint.ANY if op.kernel.alias else _disjoint.NONE
        read = [(k, x, partner) for k, x in zip(op.inputs, xs, strict=True)]
        _disjoint.check(op.name, read, [(op.given(k), y) for k, y in zip(op.outputs, ys, strict=False)])
        made = call((*xs, *scalars))
        news = list(made) if isinstance(made, tuple) else [made]
        for k, y, new in zip(op.outputs, ys, news, strict=False):
            if not isinstance(y, torch.Tensor):
                continue
            if y.device != new.device:
                raise ValueError(f"{op.name}: {op.given(k)} is on {y.device}, {op.inputs[0]} on {new.device}")
            for special in (FakeTensor, _dtensor.kind()):
                if isinstance(y, special) != isinstance(new, special):
                    raise TypeError(
                        f"{op.name}: {op.given(k)} is a {type(y).__name__}, the result a {type(new).__name__}"
                    )
        into(op.name, ys, news)
        return out
    wanted = op.signature.made(xs, scalars)
    op.check_out(ys, wanted, torch.Tensor)
    for k, y in zip(op.outputs, ys, strict=False):
        if y.device != xs[0].device:
            raise ValueError(f"{op.name}: {op.given(k)} is on {y.device}, {op.inputs[0]} on {xs[0].device}")
    run = op.kernel if xs[0].device.type == "cpu" else functools.partial(launch, op)
    kept = [room(xs[0], *w) for w in wanted[op.shown :]]
    run(*[x.detach().contiguous() for x in xs], *[y.detach() for y in ys], *kept, *scalars)
    _memory.written(ys)
    return out


register()
