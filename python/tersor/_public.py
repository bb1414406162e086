"""The border of the library: what a family offers speaks in its own name. The one rule: functions within may speak of their own
arguments, as what they say is given the name that the user knows on its way out (`_door`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, cast

import numpy as np

from tersor._arrays import in_trace
from tersor._door import Door
from tersor._named import named
from tersor._op import OPS
from tersor._said import fill
from tersor._values import KNOWN, SPEAKER

F = TypeVar("F", bound=Callable[..., Any])
#: families that are composed of what there is and declare no operator of their own
COMPOSED = ("embed",)


def _of_numpy(x: Any) -> bool:
    """Whether an argument is an array of NumPy, or a list of them."""
    return isinstance(x, np.ndarray) or (type(x) is list and bool(x) and isinstance(x[0], np.ndarray))


def _opened(door: Door, f: Callable[..., Any], home: str) -> Callable[..., Any]:
    check = door.check

    @named(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if door.matrices or door.kept:
            args, kwargs = door.read(args, kwargs)
        # in place of a context: this is on the way of every call; what a function of the user does is not ours
        first = not (in_trace() or door.calls_back or SPEAKER.name)
        calm = None
        if first:
            SPEAKER.name = door.name
            if any(map(_of_numpy, args)) or any(map(_of_numpy, kwargs.values())):
                calm = np.errstate(all="ignore")  # infinities and NaN are results, of compositions as of operators
                calm.__enter__()
        try:
            if check(args, kwargs):
                return door.alike(f, args, kwargs)
            return f(*args, **kwargs)
        except Exception as e:
            raise door.told(e, args, kwargs, lambda: f(*args, **kwargs)) from None
        finally:
            if calm is not None:
                calm.__exit__(None, None, None)
            if first:
                SPEAKER.name = ""

    call.__module__ = home  # where it is found again, by pickle too
    call.door = door  # type: ignore[attr-defined]
    return call


def opened(home: str) -> Callable[[F], F]:
    """Makes a function speak in its own name wherever it is called, as `open_doors` does of those that `home` offers."""

    def wrap(f: F) -> F:
        KNOWN.add(f.__name__)
        return cast(F, _opened(Door(f.__name__, f, rows=False), f, home))

    return wrap


def families() -> list[str]:
    """The names of all families."""
    return sorted({op.family for op in OPS.values()} | set(COMPOSED))


def offer(name: str, home: ModuleType, *others: ModuleType) -> None:
    """Lets other families have a function of one: the same object, as no family imports another."""
    for module in others:
        setattr(module, name, getattr(home, name))
        module.__all__ = sorted([*module.__all__, name])  # type: ignore[attr-defined]


def open_doors(module: ModuleType) -> None:
    """Makes the functions that a module offers speak in their own names; one with ``_ROWS`` says that all are about rows,
    one with ``_SAID`` what their docstrings repeat.

    Its classes stand where it offers them.
    """
    rows, said = getattr(module, "_ROWS", False), getattr(module, "_SAID", {})
    for kind in filter(inspect.isclass, map(vars(module).get, module.__all__)):
        kind.__module__ = module.__name__  # where it is found again, and what a pickle names
    names = [k for k in module.__all__ if inspect.isfunction(vars(module).get(k))]
    KNOWN.update(names)
    for name in names:
        f = getattr(module, name)
        fill(f, said)
        spec = getattr(f, "op", None)
        if spec is not None and spec.name == name:
            spec.door = Door(name, f, rows)
        elif not hasattr(f, "door"):
            setattr(module, name, _opened(Door(name, f, rows), f, module.__name__))
