"""What the signature of an operator says: which arrays it takes, and what follows for its results.

The rule of this file: all of it is read from the Rust table, where the language is told (`rust/ops/src/signature.rs`); here
are the names, and shapes whose sizes may be symbols of torch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from tersor import _core
from tersor._arrays import FLOATS, dtype_name, sizes

SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a // b if b else 0,  # a kernel says that b may not be 0
    "&": operator.and_,
    "==": operator.eq,
    "<": operator.lt,
}
#: leading axes that broadcast
ROWS = ".."


class Signature:
    """The names and shapes of one operator.

    Attributes
    ----------
    inputs : names of the arrays that it takes; the first ``vectors`` of them are rows ``[..., d]``
    leads : how the leading axes of each are called: not at all, ``..`` where they broadcast, or by a name where they are alike
    cores : the last axes of each, as pairs of a letter and what is added to it; None for any shape
    optional : the inputs that may be absent; wider: those that may be float32 beside 16-bit data
    lists : the inputs and the results that are lists of arrays
    outputs : names of the results; shown: how many of them who calls is given, the others are kept for the backward
    rules : what the shape of each is: the place of the input it is like, "rows", "lead", or "sizes" of another kind
    leading : of inputs that go their own way along leading axes, all alike, how many last axes belong together
    scalars : names of the constants; kinds: "float", "int", "bool" or "needs" for each
    """

    def __init__(self, kernel: _core.Op) -> None:
        self.name = kernel.name
        self.inputs = tuple(name for name, *_ in kernel.inputs)
        self.optional = frozenset(name for name, optional, *_ in kernel.inputs if optional)
        self.leads = tuple(lead for *_, lead, _ in kernel.inputs)
        self.cores: tuple[Any, ...] = tuple(core for *_, core in kernel.inputs)
        self.wider = frozenset(kernel.wider)
        self.lists = frozenset(kernel.lists)
        self.outputs = tuple(name for name, *_ in kernel.outputs)
        self.scalars = tuple(name for name, _ in kernel.scalars)
        self.kinds = tuple(kind for _, kind in kernel.scalars)
        rows = [
            lead == ROWS and bool(core) and core[0][0] is not None
            for lead, core in zip(self.leads, self.cores, strict=True)
        ]
        self.vectors = (*rows, False).index(False)
        self.needs = self.kinds.index("needs") if "needs" in self.kinds else None
        self._made = [(shape, dtype, needed) for _, shape, dtype, needed, _ in kernel.outputs]
        self.shown = sum(not saved for *_, saved in kernel.outputs)
        self.rules = tuple(self._rule(shape) for shape, *_ in self._made)
        alike = {
            k: len(core)
            for k, lead, core in zip(self.inputs, self.leads, self.cores, strict=True)
            if lead.isidentifier()
        }
        self.leading = alike if all(self._led(shape) for shape, *_ in self._made) else {}

    def _led(self, shape: Any) -> bool:
        """Whether a result has the leading axes that are alike."""
        lead: str = self.leads[shape] if isinstance(shape, int) else shape[0] if len(shape) == 2 else ""
        return lead.isidentifier()

    def _rule(self, shape: Any) -> int | str:
        if isinstance(shape, int):
            return shape
        if shape == (ROWS, ()):
            return "lead"
        letter = self.cores[0][0][0] if self.vectors else None
        return "rows" if shape == (ROWS, (letter,)) else "sizes"

    def number(self, i: int) -> bool:
        """Whether input `i` is a number or one for each row, in an axis of its own."""
        return self.leads[i] == ROWS and self.cores[i] == [(None, 1)]

    def fits(self, name: str, own: str, first: str) -> bool:
        """Whether input `name` may be of type `own` where the data is of type `first`."""
        return own == first or (name in self.wider and own == "float32" and first in FLOATS[2:])

    def sizes(self, xs: Sequence[Any]) -> dict[str, Any]:
        """What the letters stand for, and ``..`` or the name of leading axes for these."""
        found: dict[str, Any] = {"": ()}
        widest = None
        for i, (lead, core, x) in enumerate(zip(self.leads, self.cores, xs, strict=True)):
            if core is None:
                continue
            shape = tuple(x.shape)
            if (self.inputs[i] in self.optional and shape == (0,)) or (not shape and self.number(i)):
                continue
            at = len(shape) - len(core)
            if (
                at < 0
                or (at and not lead)
                or (lead and lead != ROWS and found.setdefault(lead, shape[:at]) != shape[:at])
            ):
                raise self._misfit(i, shape)
            if i < self.vectors:
                # not that of one row for all; a bool, since symbols do not compare
                extent = bool(math.prod(shape[:at]) != 1), at
                if widest is None or extent > widest:
                    found[lead], widest = shape[:at], extent
            for (letter, more), n in zip(core, shape[at:], strict=True):
                own = n - more
                if own < 0 or own != (found.setdefault(letter, own) if letter else 0):
                    raise self._misfit(i, shape)
        return found

    def _misfit(self, i: int, shape: tuple[int, ...]) -> ValueError:
        axes = ["..."] if self.leads[i] else []
        for letter, more in self.cores[i]:
            axes.append(str(more) if letter is None else f"{letter} + {more}" if more else letter)
        want = ", ".join(axes)
        return ValueError(
            f"{self.name}: {self.inputs[i]} must be [{want}] as the other arrays are, got shape {[*sizes(shape)]}"
        )

    def unneeded(self, i: int, scalars: Sequence[Any]) -> bool:
        """Whether result `i` is left empty, since nobody needs it."""
        return bool(self._made[i][2] and self.needs is not None and not scalars[self.needs] >> i & 1)

    def made(self, xs: Sequence[Any], scalars: Sequence[Any]) -> list[Any]:
        """Shape and dtype of each result, of a list those of its entries; dtype is that of an input or a name."""
        known = self.sizes(xs)
        known |= zip(self.scalars, scalars, strict=True)
        out: list[Any] = []
        for i, (shape, dtype, _) in enumerate(self._made):
            if self.outputs[i] in self.lists:  # of each entry
                out.append([] if self.unneeded(i, scalars) else [(tuple(x.shape), x.dtype) for x in xs[shape]])
                continue
            kind = _dtype(dtype, xs, known)
            if self.unneeded(i, scalars):
                out.append(((0,), kind))
            elif isinstance(shape, int):
                out.append((tuple(xs[shape].shape), kind))
            elif len(shape) == 3:
                x, axes, group = shape
                out.append((grain(tuple(xs[x].shape), known[axes], known[group]), kind))
            else:
                lead, core = shape
                sizes = tuple(_size(s, known) for s in core)
                for n in sizes:
                    if n < 0:
                        raise ValueError(f"{self.name}: {self.outputs[i]} would have an axis of {n}")
                out.append(((*known[lead], *sizes), kind))
        return out


def grain(shape: tuple[int, ...], axes: int, group: int) -> tuple[int, ...]:
    """The shape of a scale: groups of the last axis, or the sizes of the axes whose bit is set, or (); below 0, so many groups
    before these axes."""
    if group < 0:
        return (-group, *(n if axes >> i & 1 else 1 for i, n in enumerate(shape)))
    if group:
        return (*shape[:-1], shape[-1] // group) if shape else ()
    return tuple(n if axes >> i & 1 else 1 for i, n in enumerate(shape)) if axes else ()


def _size(s: Any, known: dict[str, Any]) -> Any:
    if isinstance(s, int):
        return s
    if isinstance(s, str):
        n = known.get(s, 0)  # a letter of an array that is absent
        return math.prod(n) if isinstance(n, tuple) else n
    sign, *parts = s
    if sign == "?":
        test, a, b = parts
        return _size(a if _size(test, known) else b, known)
    a, b = parts
    return SIGNS[sign](_size(a, known), _size(b, known))


def _dtype(dtype: Any, xs: Sequence[Any], known: dict[str, Any]) -> Any:
    if isinstance(dtype, int):
        return xs[dtype].dtype
    if dtype == "compute":
        return "float64" if dtype_name(xs[0].dtype) == "float64" else "float32"
    if isinstance(dtype, str):
        return dtype
    if dtype[0] == "float":
        return FLOATS[known[dtype[1]]]
    _, test, a, b = dtype
    return _dtype(a if _size(test, known) else b, xs, known)


#: by `family.name`, as all that is kept of operators
KERNELS = {k.key: k for k in _core.ops()}
SIGNATURES = {key: Signature(k) for key, k in KERNELS.items()}
