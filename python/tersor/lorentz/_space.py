"""What all of the Lorentz model is written with. The one rule: float64 inside, one rounding at the end."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tersor._arrays import axes, dtype_name, flag, move, whole
from tersor._reference import Array, dot, root, rounded, wide, xp
from tersor._values import check_curvature

F = TypeVar("F", bound=Callable[..., Any])

#: parameters that are one number for all rows, or one for each
NUMBERS = ("c", "t")
#: how far space parts may reach where that is asked for: their squares, and those of what a step makes of them, are numbers
REACH = {"float64": 2.0**150, "float32": 2.0**127, "bfloat16": 2.0**127, "float16": 2.0**15}


def check_same(who: str, x: Array, **others: Array) -> None:
    for name, y in others.items():
        if getattr(y, "dtype", None) != x.dtype:
            raise TypeError(f"{who}: {name} is {getattr(y, 'dtype', type(y).__name__)}, x is {x.dtype}")


def checked(c: Any) -> Any:
    """c, where it is a number that can be looked at."""
    return check_curvature("lorentz", c)


def along(*names: str) -> Callable[[F], F]:
    """A function of rows along the last axis, with ``dim`` and ``keepdim`` in its signature, as one of rows along any: the
    arrays of these names go there and back. Numbers per row end in an axis of 1 in place of the rows'."""

    def declare(f: F) -> F:
        signature = inspect.signature(f)
        places = {k: i for i, k in enumerate(signature.parameters) if k in NUMBERS}
        keeps = "keepdim" in signature.parameters

        @functools.wraps(f)
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
            if not -n <= dim < n:
                raise np.exceptions.AxisError(dim, n)
            at = dim - n if dim >= 0 else dim
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


def root_of(s: Array, c: Any) -> Array:
    return xp.sqrt(1 + c * dot(s, s))


def reach(x: Array) -> float:
    return REACH[dtype_name(x.dtype)]


def shortened(s: Array, most: Any) -> Array:
    """Rows of no more than this length."""
    n = root(dot(s, s))
    return s * xp.where(n > most, most / xp.where(n > most, n, 1.0), 1.0)


@along("x")
def time(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""The time part of points, :math:`t = \sqrt{1/c + \|s\|^2}`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; at 0 the time is infinite.
    dim : int
        The axis of the rows.

    Returns
    -------
    array or tensor [..., 1]
        Differentiable.

    Raises
    ------
    TypeError, ValueError
        If x is not a float array, or c is negative or not finite.
    """
    s = wide(x)
    return rounded(root_of(s, checked(c)) / (c**0.5 + 0 * s[..., :1]), x)
