"""What is wrong with an argument of a public function, in the words of who called. The one rule: what an argument must be is
read from its annotation.

Functions that are one operator are looked at after they fail, since a look would cost as much as the call; others before, since
NumPy and torch would take much of what is refused here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tersor._arrays import (
    BYTES,
    FLOATS,
    INTEGERS,
    check_order,
    dtype_name,
    in_trace,
    integer,
    is_number,
    is_tensor,
    ordinary,
    sizes,
)
from tersor._bits import is_packed, unpacked
from tersor._matrix import SparseMatrix, matrix_of
from tersor._op import OPS
from tersor._values import KNOWN, out_of_range

#: the annotations that say what an array is made of
TYPES: dict[str, tuple[str, ...]] = {
    "Array": FLOATS,
    "Ranked": (*FLOATS, *BYTES),
    "Number": FLOATS,
    "Weight": FLOATS,  # of the type of the data or wider: the operator says
    "Level": (*FLOATS, *INTEGERS),
    "Values": (*FLOATS, *INTEGERS),
    "Codes": ("int8", "uint8", "int32"),
    "Integers": INTEGERS,
    "Mask": ("bool",),
    "Kept": ("bool",),  # a mask of weights: its bits are read before (`tersor._bits`)
    "Bits": ("uint8",),
    "Labels": (*INTEGERS, "bool"),
    "Words": ("uint32",),
}
#: those that autocast makes one
DATA = ("Array", "Weight")
#: those that may be a number instead
NUMBERS = ("Number", "Level")
#: arrays beside the rows of a function, which may be one number for all
PER_ROW = ("weights", "bias", "mean")
#: parameters of functions about rows that are one number for all of them or one for each
ROW_NUMBERS = ("c", "t", "r", "beta")


def _integers(v: Any) -> bool:
    several = (isinstance(v, Sequence) and not isinstance(v, (str, bytes))) or getattr(v, "ndim", 0) == 1
    return several and all(map(integer, v))


#: the annotations that say what else an argument is: a test, and what it must be in words
SCALARS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (integer, "an integer"),
    "float": (is_number, "a number"),
    "bool": (lambda v: isinstance(v, (int, np.bool_)), "True or False"),
    "str": (lambda v: isinstance(v, str), "a string"),
    "Sequence[int]": (_integers, "a sequence of integers"),
    "tuple[int, ...]": (_integers, "a tuple of integers"),
    "None": (lambda v: v is None, "None"),
}
#: who may stand before a message that is made inside
INNER = re.compile(r"(\w+): ")
MODELS = {"lorentz", "project", "prune"}
#: what NumPy and torch say where shapes do not fit
_SHAPES = re.compile(
    "must match|broadcast|multiplied|core dimension|not aligned|doesn't match|inconsistent|expanded size"
)
#: what is no array, by the annotation that asks for it
_A = {"SparseMatrix": "a CSR", "SparseFactor": "a CSR", "Encoded": "an Encoded"}
_MATRICES = ("SparseMatrix", "SparseFactor")
_PLAIN = (TypeError, ValueError, RuntimeError, NotImplementedError, MemoryError, np.exceptions.AxisError)
#: what dynamo says where an operator refuses stand-ins of tensors
_MEANT = re.compile(r"^Dynamo failed to run FX node with fake tensors: .*: got (\w+Error)\((['\"])(.*)\2\)$", re.DOTALL)
_RAISED: dict[str, type[Exception]] = {k.__name__: k for k in _PLAIN[:-1]}


def _words(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _what(x: Any) -> str:
    """What was given in place of a number or a word."""
    if isinstance(x, (int, float, str)):  # of which a trace does not ask what else they have
        return type(x).__name__
    if getattr(x, "is_nested", False) and not isinstance(x, type):  # which has no shape
        return "a nested tensor"
    if hasattr(x, "ndim") and hasattr(x, "dtype"):
        return f"{type(x).__name__} ({dtype_name(x.dtype)} of shape {tuple(x.shape)})"
    return f"the class {x.__name__}" if isinstance(x, type) else type(x).__name__


def _native_float(x: Any) -> bool:
    """Whether an array is of the four float types, as fast as it can be told; no for bfloat16 arrays of NumPy."""
    kind = x.dtype
    if isinstance(x, np.ndarray):
        return bool(kind.kind == "f" and kind.isnative and kind.itemsize <= 8)
    return bool(kind.is_floating_point and kind.itemsize > 1)


def _unlike(x: Any, y: Any) -> bool:
    """Whether autocast makes the types of a tensor and of another, or of a matrix, one."""
    if not is_tensor(x):
        return False
    from tersor import _autocast

    return _autocast.unlike((x, y))


def _settle(values: Sequence[Any]) -> None:
    """Makes sizes numbers that a trace takes for symbols: nothing can be asked of a text that speaks of symbols."""
    for v in values:
        if isinstance(v, (list, tuple)):
            _settle(v)
        elif isinstance(v, int):
            range(v)
        elif not isinstance(v, (float, str, type)) and hasattr(v, "shape"):
            sizes(v.shape)


class Door:
    """What a public function is called and what its arguments must be."""

    def __init__(self, name: str, f: Callable[..., Any], rows: bool) -> None:
        self.name = name
        self.rows = rows
        self.arrays: list[tuple[int, str, str, bool]] = []
        self.scalars: list[tuple[int, str, list[tuple[Callable[[Any], bool], str]]]] = []
        self.matrices: list[tuple[int, str]] = []
        self.kept: list[tuple[int, str]] = []
        self.calls_back = False
        self.names = tuple(inspect.signature(f).parameters)
        for i, (k, p) in enumerate(inspect.signature(f).parameters.items()):
            said = str(p.annotation).removesuffix(" | None")
            kind = "Number" if rows and said == "Any" and k in ROW_NUMBERS else said
            kind = "out" if k == "out" and said == "Array" else kind
            self.calls_back |= said.startswith("Callable")
            at = i if p.kind is p.POSITIONAL_OR_KEYWORD else 1 << 30
            if kind in TYPES or kind in _A or kind == "out":
                self.arrays.append((at, k, kind, p.default is None or said != str(p.annotation)))
                if kind in _MATRICES:
                    self.matrices.append((at, k))
                if kind == "Kept":
                    self.kept.append((at, k))
            elif said.startswith("Callable"):
                none = [SCALARS["None"]] if said != str(p.annotation) else []
                self.scalars.append((at, k, [(callable, "callable"), *none]))
            else:
                some = ["str" if s.startswith("Literal[") else s for s in str(p.annotation).split(" | ")]
                if all(s in SCALARS for s in some):
                    self.scalars.append((at, k, [SCALARS[s] for s in some]))

    def plain(self, who: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuses numbers and words of wrong types."""
        for at, k, kinds in self.scalars:
            if at < len(args) or k in kwargs:
                x = args[at] if at < len(args) else kwargs[k]
                if not any(test(x) for test, _ in kinds):
                    must = " or ".join(word for _, word in kinds)
                    raise TypeError(f"{who}: {k} must be {must}, got {_what(x)}")

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Refuses wrong types and arrays that are no plain ones; whether types are unlike and autocast makes them one."""
        if self.scalars:
            self.plain(self.name, args, kwargs)
        first: tuple[str, Any] | None = None
        matrix: Any = None
        unlike = False
        for at, k, kind, optional in self.arrays:
            x = args[at] if at < len(args) else kwargs.get(k, self)
            if x is self or (x is None and optional):
                continue
            if kind in _A:
                if not any(t.__name__ == kind for t in type(x).__mro__):
                    raise TypeError(f"{self.name}: {k} must be {_A[kind]}, got {type(x).__name__}")
                if kind in _MATRICES and k != "pattern" and isinstance(x, SparseMatrix):
                    matrix = x
                continue
            if not isinstance(x, np.ndarray) and not is_tensor(x):
                if kind in NUMBERS and is_number(x):
                    continue
                must = "a number or an array" if kind in NUMBERS else "a NumPy array or a torch tensor"
                raise TypeError(f"{self.name}: {k} must be {must}, got {type(x).__name__}")
            if type(x) is not np.ndarray:
                ordinary(self.name, f": {k}", x)
            if kind == "out":
                check_order(self.name, k, x)
                continue
            if TYPES[kind] is not FLOATS or not _native_float(x):
                self._typed(k, kind, x)
            if self.rows and kind in ("Array", "Ranked") and not x.ndim and k not in PER_ROW:
                raise ValueError(f"{self.name}: {k} needs a last axis, got a 0-d array")
            if first is None:
                first = k, x
            elif is_tensor(x) != is_tensor(first[1]):
                like = "torch tensor" if is_tensor(first[1]) else "NumPy array"
                raise TypeError(f"{self.name}: {k} must be a {like} like {first[0]}, got {type(x).__name__}")
            elif kind in DATA and x.ndim and x.dtype != first[1].dtype and first[1].ndim:
                unlike = _unlike(first[1], x)
                if not unlike and kind == "Array":
                    raise TypeError(
                        f"{self.name}: {k} is {dtype_name(x.dtype)}, {first[0]} is {dtype_name(first[1].dtype)}; "
                        "tersor does not convert silently"
                    )
        # of a matrix of arrays, a constant, dynamo reads no type
        if matrix is None or first is None or (in_trace() and not is_tensor(matrix._data)):
            return unlike
        if matrix.dtype != first[1].dtype:
            return unlike or _unlike(first[1], matrix)
        return unlike

    def types(self, args: tuple[Any, ...]) -> None:
        """Refuses arrays of wrong types."""
        for at, k, kind, _ in self.arrays:
            if kind in TYPES and at < len(args):
                self._typed(k, kind, args[at])

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with sparse matrices of other libraries and layouts made our own, and masks of bits masks."""
        for at, k in (*self.matrices, *self.kept):
            x = args[at] if at < len(args) else kwargs.get(k)
            made = self._mask(k, x, args, kwargs) if (at, k) in self.kept else matrix_of(self.name, k, x)
            if made is x:
                continue
            if at < len(args):
                args = (*args[:at], made, *args[at + 1 :])
            else:
                kwargs = kwargs | {k: made}
        return args, kwargs

    def _mask(self, k: str, x: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A mask whose bits are given, of the shape of the weights, which are the first array; others as they are."""
        at, first, *_ = self.arrays[0]
        w: Any = args[at] if at < len(args) else kwargs.get(first)
        if not is_packed(x) or not hasattr(w, "shape"):
            return x
        if type(x) is not np.ndarray:
            ordinary(self.name, f": {k}", x)
        return unpacked(self.name, k, x, tuple(w.shape))

    def alike(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The call with arguments of unlike types in one, and nothing lowered within."""
        from tersor import _autocast

        given, named, kind = list(args), dict(kwargs), ""
        for at, k, of, _ in self.arrays:
            x = given[at] if at < len(given) else named.get(k)
            typed = isinstance(x, SparseMatrix) and k != "pattern"
            if x is None or (not typed and (of not in DATA or not x.ndim)):
                continue
            kind = x.device.type if of in DATA else kind
            (x,) = _autocast.alike([x])
            if at < len(given):
                given[at] = x
            else:
                named[k] = x
        with _autocast.off(kind):
            return f(*given, **named)

    def _typed(self, k: str, kind: str, x: Any) -> None:
        name = dtype_name(x.dtype)
        if name not in TYPES[kind]:
            hint = f"; {k} != 0 makes one" if kind in ("Mask", "Kept") else ""
            raise TypeError(f"{self.name}: {k} must be {_words(TYPES[kind])}, got {name}{hint}")
        check_order(self.name, k, x)

    def told(
        self, e: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any], again: Callable[[], Any] | None = None
    ) -> Exception:
        """The error of a call as its caller is to see it; `again` makes the call once more, where a trace has to see it fail
        with sizes that are numbers."""
        tracing = in_trace()
        if tracing:
            _settle((*args, *kwargs.values()))
        try:
            self.check(args, kwargs)
        except (TypeError, ValueError) as better:
            return better
        if tracing and again is not None and not self.calls_back:
            try:
                again()
            except Exception as settled:
                e = settled
        text = str(e)
        if tracing and (meant := _MEANT.search(text)):
            e, text = _RAISED[meant[1]](meant[3]), meant[3]
        if isinstance(e, OverflowError) or "Expected a value of type" in text:  # the second is what torch says
            for k, v in (*zip(self.names, args, strict=False), *kwargs.items()):
                if isinstance(v, int) and v.bit_length() > 63:
                    return out_of_range(self.name, k, v)
        found = INNER.match(text)
        if found and found[1] == self.name:
            return e
        if (
            found
            and (found[1] in KNOWN | MODELS or found[1] in {op.name for op in OPS.values()})
            and isinstance(e, _PLAIN)
        ):
            return type(e)(f"{self.name}{text[found.end(1) :]}")
        if self.calls_back:  # what a function of the user raises is the user's
            return e
        if _SHAPES.search(text) and isinstance(e, (ValueError, RuntimeError, IndexError)):
            given = [
                (k, x)
                for k, x in (*zip(self.names, args, strict=False), *kwargs.items())
                if not isinstance(x, (int, float))
            ]
            shapes = ", ".join(f"{k} {tuple(x.shape)}" for k, x in given if hasattr(x, "shape"))
            return ValueError(f"{self.name}: shapes do not go together: {shapes}")
        if isinstance(e, (TypeError, ValueError)) and type(e) in _PLAIN:
            return type(e)(f"{self.name}: {text.removeprefix(f'{self.name}() ')}")  # of arguments Python speaks so
        return e
