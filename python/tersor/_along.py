"""Functions of rows that are no single operator, along any axis. The one rule: an axis is moved where an operator would
move it, and numbers per row are refused as an operator refuses them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from tersor._arrays import an_axis, axes, flag, move, whole
from tersor._named import named

F = TypeVar("F", bound=Callable[..., Any])

#: parameters that are one number for all rows, or one for each
NUMBERS = ("c", "t")


def along(*names: str) -> Callable[[F], F]:
    """A function of rows along the last axis, with ``dim`` and ``keepdim`` in its signature, as one of rows along any: the
    arrays of these names go there and back. Numbers per row end in an axis of 1 in place of the rows'."""

    def declare(f: F) -> F:
        signature = inspect.signature(f)
        places = {k: i for i, k in enumerate(signature.parameters) if k in NUMBERS}
        keeps = "keepdim" in signature.parameters

        @named(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            dim = whole(f"{f.__name__}: dim", kwargs.get("dim", -1))
            for k, i in places.items():
                v: Any = kwargs.get(k, args[i] if i < len(args) else None)
                if axes(v) and v.shape[dim if dim < v.ndim else -1] != 1:
                    raise ValueError(
                        f"{f.__name__}: {k} must be a number or end in an axis of 1, got shape {tuple(v.shape)}"
                    )
            if dim == -1:
                return f(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            n = max((axes(given.get(k)) for k in names), default=0)
            at = an_axis(f.__name__, dim, n) - n
            moved = {k: move(given[k], n, at, -1) for k in (*names, *places) if given.get(k) is not None}
            given = given | moved | {"dim": -1}
            if not keeps:
                y = f(**given)
                return move(y, y.ndim, -1, at)
            keep = flag(f"{f.__name__}: keepdim", given.pop("keepdim", False))
            y = f(**given, keepdim=True)
            y = move(y, y.ndim, -1, at)
            return y if keep else y.squeeze(at)

        return call  # type: ignore[return-value]

    return declare
