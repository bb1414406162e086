"""The one declaration per operator: reference, signature, types and documentation are the decorated function.

The rule of this file: whatever differs between operators is read from the declaration or from the Rust table
(`_signature`); nothing here names an operator. Every backend is ``kernel(*inputs, *outputs, *scalars)``.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tersor import _core, _lists
from tersor._arrays import (
    FLOATS,
    an_axis,
    as_words,
    axes,
    check_result,
    empty,
    flag,
    into,
    move,
    native,
    ordinary,
    sizes,
    whole,
)
from tersor._core import InternalError
from tersor._named import named
from tersor._options import Options
from tersor._signature import KERNELS, SIGNATURES

__all__ = ["OPS", "FormatError", "InternalError", "Op", "kernel", "op"]

R = TypeVar("R")

MISSING = object()
#: the most axes that a kernel takes
AXES = 16
#: every operator, by `family.name`: a family owns its names
OPS: dict[str, Op] = {}


class FormatError(ValueError):
    """A file is malformed: the message names the file and what is wrong with it."""


def kernel(key: str) -> Callable[..., None]:
    """The Rust kernel `family.name`, called as ``kernel(*inputs, *outputs, *scalars)`` on contiguous arrays."""
    return KERNELS[key]


def broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that all broadcast to, or None. Sizes may be symbols of torch, which NumPy would make numbers."""
    made: list[int] = []
    for at in range(1, max(map(len, shapes)) + 1):
        size = 1
        for n in (s[-at] for s in shapes if len(s) >= at):
            if n != 1:
                if size not in (1, n):
                    return None
                size = n
        made.insert(0, size)
    return tuple(made)


class Op:
    """One operator: what the declaration and its signature say of it, and its NumPy path.

    Attributes
    ----------
    name : what it is called in its family and in errors; key: in the registry; symbol: in torch
    inputs, vectors, outputs, shown, rules, leading : see `Signature`
    optional : the inputs that may be None, coefficients: those that may be a Python number (their default is one)
    scalars : names of the constants, with their defaults
    """

    def __init__(self, reference: Callable[..., Any], options: Options) -> None:
        self.reference = reference
        self.name = reference.__name__.lstrip("_")
        self.family = ".".join(reference.__module__.split(".")[1:2]) or reference.__module__
        self.key = f"{self.family}.{self.name}"
        kernel = KERNELS.get(self.key)
        if kernel is None:
            raise LookupError(f"{self.name}: declared in {self.family}, of which the Rust table has no such kernel")
        self.kernel = kernel
        self.symbol = kernel.symbol
        self.signature = SIGNATURES[self.key]
        self.options = options
        self.sample = options.sample
        self.inputs = self.signature.inputs
        self.vectors = self.signature.vectors
        self.outputs = self.signature.outputs
        self.rules = self.signature.rules
        self.shown = self.signature.shown
        self.lists = self.signature.lists
        self.leading = self.signature.leading if options.leading is None else options.leading
        every = inspect.signature(reference).parameters
        # keyword-only parameters say which axis the rows lie along: not the kernel's business, see `along`
        parameters = {k: p for k, p in every.items() if p.kind is not p.KEYWORD_ONLY}
        self.axis = "dim" in every
        self.keepdim = "keepdim" in every
        self.parameters = tuple(parameters)
        # `...` stands for no default, where Python asks for one: behind what may be absent
        self.defaults = {k: p.default for k, p in parameters.items() if p.default not in (p.empty, ...)}
        self.scalars = {k: self.defaults.get(k) for k in self.parameters if k not in self.inputs}
        self.optional = self.signature.optional
        self.coefficients = frozenset(k for k in self.inputs if isinstance(self.defaults.get(k), float))
        self.exempt = self.optional | self.coefficients | frozenset(options.exempt)
        self.n = len(self.inputs)
        #: which parameters are True or False
        self.flags = [self.n + i for i, kind in enumerate(self.signature.kinds) if kind == "bool"]
        self.fast = _core.Fast(
            self.kernel,
            [self.defaults.get(k, MISSING) for k in self.parameters],
            MISSING,
            [k in self.exempt for k in self.inputs],
            np.ndarray,
            np.empty,
        )
        self.torch: Callable[..., Any] = functools.partial(_load_torch, self)
        #: of an operator that users call: tells what was wrong with the arguments
        self.door: Any = None

    def __repr__(self) -> str:
        return f"<tersor op {self.key}>"

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        """Arguments in the order of the parameters, split into arrays and scalars."""
        names = self.parameters
        if len(args) > len(names):
            raise TypeError(f"{self.name}: takes {len(names)} arguments, got {len(args)}")
        values, used = list(args), 0
        for k in names[len(args) :]:
            if k in kwargs:
                values.append(kwargs[k])
                used += 1
            elif k in self.defaults:
                values.append(self.defaults[k])
            else:
                raise TypeError(f"{self.name}: argument {k} is missing")
        if used < len(kwargs):
            k = next(k for k in kwargs if k not in names[len(args) :])
            twice = "given twice" if k in names else "unknown"
            raise TypeError(f"{self.name}: argument {k} is {twice}")
        for k, words in self.options.words.items():
            i = names.index(k)
            if isinstance(values[i], str):
                if values[i] not in words:
                    raise ValueError(f"{self.name}: {k} must be a number or one of {list(words)}, got {values[i]!r}")
                values[i] = words[values[i]]
        for i in self.flags:  # torch would take anything for one
            if type(values[i]) is not bool:
                values[i] = flag(f"{self.name}: {names[i]}", values[i])
        return values[: self.n], values[self.n :]

    def along(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operator on rows along axis ``dim``: that axis moves to the end, and in the results back to its place.

        Numbers per row lose the axis unless ``keepdim``. A row number with axes has one of size 1 in place of the rows'.
        """
        kwargs = dict(kwargs)
        dim = whole(f"{self.name}: dim", kwargs.pop("dim", -1))
        keep = self.keepdim and flag(f"{self.name}: keepdim", kwargs.pop("keepdim", False))
        if dim == -1 and not keep:
            return call(*args, **kwargs)
        out = kwargs.pop("out", None)
        xs, scalars = self.bind(args, kwargs)
        n = max((axes(x) for x in xs[: self.vectors]), default=0)
        at = an_axis(self.name, dim, n) - n
        if at != -1:
            xs = [move(x, n, at, -1) for x in xs]
        result = call(*xs, *scalars)
        ys = list(result) if isinstance(result, tuple) else [result]
        for i, rule in enumerate(self.rules[: self.shown]):
            if rule != "lead":
                ys[i] = move(ys[i], n, -1, at)
            elif keep:
                numpy = isinstance(ys[i], np.ndarray)
                ys[i] = np.expand_dims(ys[i], at) if numpy else ys[i].unsqueeze(at)
        if out is not None:
            into(self.name, list(out) if isinstance(out, tuple) else [out], ys)
            return out
        return ys[0] if len(ys) == 1 else tuple(ys)

    def typed(self, xs: Sequence[Any], kinds: Sequence[str]) -> list[int]:
        """The places of the arrays that must be of one float type; scales and coefficients are exempt."""
        found: list[int] = []
        for i, (k, x, kind) in enumerate(zip(self.inputs, xs, kinds, strict=True)):
            if k not in self.exempt and kind in FLOATS and (x.ndim or not found):
                found.append(i)
        return found

    def dtypes(self, xs: Sequence[Any], kinds: Sequence[str]) -> None:
        """Arrays of different float types in one call are an error."""
        first, *others = self.typed(xs, kinds) or [0]
        for i in others:
            if not self.signature.fits(self.inputs[i], kinds[i], kinds[first]):
                raise TypeError(
                    f"{self.name}: {self.inputs[i]} is {kinds[i]}, {self.inputs[first]} is {kinds[first]}; "
                    "tersor does not convert silently"
                )

    def broadcast(self, xs: list[Any], expand: Callable[[Any, tuple[int, ...]], Any]) -> list[Any]:
        """Leading axes of the rows as NumPy broadcasts them.

        Kernels take one row for all, or all rows; whatever lies between is expanded here.
        """
        v = self.vectors
        if v == 0:
            return xs
        there = [i for i, k in enumerate(self.inputs) if k not in self.optional or tuple(xs[i].shape) != (0,)]
        if len(there) < self.n:  # what is absent goes with anything
            rest = [self.inputs[i] for i in there]
            made = iter(self._together([xs[i] for i in there], rest, sum(i < v for i in there), expand))
            return [next(made) if i in there else x for i, x in enumerate(xs)]
        return self._together(xs, self.inputs, v, expand)

    def _together(
        self, xs: list[Any], inputs: Sequence[str], v: int, expand: Callable[[Any, tuple[int, ...]], Any]
    ) -> list[Any]:
        """`broadcast` of arrays that are all there, the first `v` of them rows."""
        for k, x in zip(inputs[:v], xs[:v], strict=True):
            if x.ndim == 0:
                raise ValueError(f"{self.name}: {k} needs a last axis, got a 0-d array")
        d = xs[0].shape[-1]
        lead = tuple(xs[0].shape[:-1])
        plain = True
        for k, x in zip(inputs[1:], xs[1:], strict=True):
            i = inputs.index(k)
            if i < v:
                if x.shape[-1] != d:
                    raise ValueError(f"{self.name}: last axes differ: {inputs[0]} has {d}, {k} has {x.shape[-1]}")
                plain = plain and tuple(x.shape[:-1]) == lead
            else:
                plain = plain and (x.ndim == 0 or (k not in self.coefficients and tuple(x.shape) == lead))
        if plain:
            return xs
        # a coefficient has a last axis of one ([B, 1]); other row scalars have none
        leads = [
            (tuple(x.shape[:-1]) if k in self.coefficients or i < v else tuple(x.shape))
            for i, (k, x) in enumerate(zip(inputs, xs, strict=True))
        ]
        for k, x in zip(inputs[v:], xs[v:], strict=True):
            if k in self.coefficients and x.ndim and x.shape[-1] != 1:
                raise ValueError(
                    f"{self.name}: {k} must be a number or end in an axis of 1, got shape {tuple(x.shape)}"
                )
        widest = broadcast(leads)
        if widest is None:
            shapes = ", ".join(f"{k} {sizes(x.shape)}" for k, x in zip(inputs, xs, strict=True))
            raise ValueError(f"{self.name}: shapes do not broadcast: {shapes}")
        lead = widest
        out = []
        wide = False
        for i, (x, own) in enumerate(zip(xs, leads, strict=True)):
            number = x.ndim == 0 and inputs[i] in self.coefficients
            if number or own == lead or (math.prod(own) == 1 and len(own) <= len(lead)):
                wide = wide or (i < v and own == lead)
                out.append(x)
                continue
            tail = (d,) if i < v else (1,) if inputs[i] in self.coefficients else ()
            out.append(expand(x, lead + tail))
            wide = wide or i < v
        if not wide:
            out[0] = expand(out[0], (*lead, d))
        return out

    def numpy(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.lists:
            return _lists.numpy(self, args, kwargs)
        out = None
        if "out" in kwargs:  # what was given stays as it is, for errors to look at
            kwargs = dict(kwargs)
            out = kwargs.pop("out")
        xs, scalars = self.bind(args, kwargs)
        y = self.fast((*xs, *scalars), out)
        if y is not None:
            return y
        kinds = []
        for i, (k, x) in enumerate(zip(self.inputs, xs, strict=True)):
            if type(x) is not np.ndarray:
                x = xs[i] = self._array(k, x)
            kinds.append(x.dtype.name)
        self.dtypes(xs, kinds)
        xs = self.broadcast(xs, np.broadcast_to)
        if max(x.ndim for x in xs) > AXES:
            return self.folded(self.numpy, xs, scalars, out)
        wanted = self.signature.made(xs, scalars)
        buffers = [native(self.name, k, x) for k, x in zip(self.inputs, xs, strict=True)]
        ys: list[Any] = []
        if out is not None:
            ys = list(out) if isinstance(out, tuple) else [out]
            self.check_out(ys, wanted, np.ndarray)
        ys += [empty(self.name, shape, dtype) for shape, dtype in wanted[len(ys) :]]
        self.kernel(*buffers, *[as_words(y) for y in ys], *scalars)
        return self.seen(ys)

    def seen(self, ys: Sequence[Any]) -> Any:
        """Of all results, those that who called is given."""
        return ys[0] if self.shown == 1 else tuple(ys[: self.shown])

    def folded(self, call: Callable[..., Any], xs: list[Any], scalars: list[Any], out: Any) -> Any:
        """Along more axes than the kernels have: the leading ones as one, and the results in their shape again."""
        rows = self.vectors
        cores = dict(self.leading)
        if rows:
            cores = {k: int(i < self.vectors or k in self.coefficients) for i, k in enumerate(self.inputs)}
        leads, flat = [], []
        for k, x in zip(self.inputs, xs, strict=True):
            at = x.ndim - cores.get(k, x.ndim)
            leads.append(tuple(x.shape[:at]))
            flat.append(x.reshape((math.prod(x.shape[:at]), *x.shape[at:])) if at > 0 else x)
            if flat[-1].ndim > AXES or (not rows and k in cores and leads[-1] != leads[0]):
                raise ValueError(f"{self.name}: {k} has {x.ndim} axes, at most {AXES} are taken here; reshape it")
        lead = max(leads[: max(self.vectors, 1)], key=math.prod)
        made = call((*flat, *scalars), {})
        back = []
        for y, rule in zip(made if isinstance(made, tuple) else (made,), self.rules[: self.shown], strict=True):
            own = {"lead": lead, "rows": (*lead, *y.shape[-1:]), "sizes": (*lead, *y.shape[1:])}
            back.append(y.reshape(xs[rule].shape if isinstance(rule, int) else own[rule]))
        if out is not None:
            into(self.name, list(out) if isinstance(out, tuple) else [out], back)
            return out
        return back[0] if len(back) == 1 else tuple(back)

    def given(self, k: str) -> str:
        """What the output for result `k` is called: of several each by its name."""
        return "out" if self.shown == 1 else f"out for {k}"

    def check_out(self, ys: list[Any], wanted: list[Any], kind: Any) -> None:
        if len(ys) != self.shown:
            raise ValueError(f"{self.name}: out has {len(ys)} arrays, {self.shown} are needed")
        for k, y, (shape, dtype) in zip(self.outputs, ys, wanted, strict=False):
            check_result(self.name, self.given(k), y, shape, dtype, kind)

    def no_array(self, first: Any) -> TypeError:
        """What to raise for a first argument that is neither of NumPy nor of torch."""
        return TypeError(
            f"{self.name}: {self.inputs[0]} must be a NumPy array or a torch tensor, got {type(first).__name__}"
        )

    def _array(self, name: str, x: Any) -> np.ndarray:
        if isinstance(x, np.ndarray):
            ordinary(self.name, f": {name}", x)
            return np.asarray(x)
        if x is None and name in self.optional:
            return np.empty(0, np.float32)
        if isinstance(x, (int, float, np.generic)) and (name in self.coefficients or name in self.exempt):
            return np.asarray(x, np.float64)
        raise TypeError(f"{self.name}: {name} must be a NumPy array like the first argument, got {type(x).__name__}")


def _load_torch(spec: Op, *args: Any) -> Any:
    """The torch path before first use: imports it, if the argument is a tensor at all."""
    first = args[0][0] if args[0] else None
    if not spec.lists and not any(t.__module__.partition(".")[0] == "torch" for t in type(first).__mro__):
        raise spec.no_array(first)
    from tersor import _torch  # which makes known what is declared: an import is run even where calls are traced

    return _torch.entry(spec)(*args)


def op(**options: Any) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Declares an operator; the decorated function is its float64 reference.

    Its options are the fields of `Options`.

    A keyword-only ``dim`` (and ``keepdim``) in the signature lets the caller say which axis the rows lie along.
    """

    def declare(reference: Callable[..., R]) -> Callable[..., R]:  # takes out= besides the reference's own
        spec = Op(reference, Options(**options))
        OPS[spec.key] = spec
        fast, axis = spec.fast, spec.axis
        if spec.lists:

            @named(reference)
            def over_lists(*args: Any, **kwargs: Any) -> R:
                made: R = _lists.call(spec, args, kwargs)
                return made

            over_lists.op = spec  # type: ignore[attr-defined]
            return over_lists

        @named(reference)
        def call(*args: Any, **kwargs: Any) -> R:
            if not args and spec.parameters[0] in kwargs:
                args = (kwargs.pop(spec.parameters[0]),)
            try:
                if kwargs and axis and ("dim" in kwargs or "keepdim" in kwargs):
                    return spec.along(call, args, kwargs)
                if args and isinstance(args[0], np.ndarray):
                    if not kwargs or (len(kwargs) == 1 and "out" in kwargs):
                        y = fast(args, kwargs["out"]) if kwargs else fast(args)
                        if y is not None:
                            return y
                    return spec.numpy(args, kwargs)
                return spec.torch(args, kwargs)
            except Exception as e:
                if spec.door is None:
                    raise
                raise spec.door.told(e, args, kwargs, lambda: again(args, kwargs)) from None

        def again(args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
            """The same for a trace that has to see it fail: nobody is told within."""
            rows = axis and ("dim" in kwargs or "keepdim" in kwargs)
            return spec.along(call, args, kwargs) if rows else spec.torch(args, kwargs)

        call.op = spec  # type: ignore[attr-defined]
        return call

    return declare
