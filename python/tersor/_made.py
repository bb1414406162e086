"""What classes are made of. The one rule: what is wrong with it is said when it is made, by the name of the class that is made,
whatever it is made of.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from tersor._door import INNER, MODELS, Door
from tersor._named import named
from tersor._values import KNOWN, out_of_range

#: the classes whose making is looked at
_MADE: set[str] = set()


def open_layers(module: ModuleType) -> None:
    """Makes the classes that a module offers look at what they are made of, as functions do, in the name of the class that is
    made; those that begin as torch's own stay so."""
    for kind in filter(inspect.isclass, map(vars(module).get, module.__all__)):
        for base in kind.__mro__:
            init = vars(base).get("__init__")
            if init is None or not base.__module__.startswith(f"{module.__name__}."):
                continue
            if not hasattr(init, "__wrapped__"):
                door = Door(base.__name__, init, rows=False)
                base.__init__ = _looked_at(door, init)  # type: ignore[misc]
                for name, way in [*vars(base).items()]:
                    if isinstance(way, classmethod) and not name.startswith("_"):
                        f = way.__func__
                        made = _looked_at(Door(name, f, rows=False), f, name)
                        setattr(base, name, classmethod(made))
        _MADE.add(kind.__name__)


def _told(door: Door, who: str, e: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Exception:
    """The error of a constructor: of what it is made of it says nothing, of sizes that torch refuses which they are."""
    text = str(e)
    if isinstance(e, OverflowError) or "verflow" in text:
        for k, v in (*zip(door.names, args, strict=False), *kwargs.items()):
            if isinstance(v, int) and v.bit_length() > 63:
                return out_of_range(who, k, v)
    if "DefaultCPUAllocator" in text:
        return MemoryError(f"{who}: {text.partition('memory: ')[2] or text}")
    if "negative dimension" in text:
        return ValueError(f"{who}: sizes must not be negative, got {text.rpartition(': ')[2]}")
    found = INNER.match(text)
    if found and found[1] != who.partition(".")[0] and found[1] in KNOWN | MODELS | _MADE:
        return type(e)(f"{who}{text[found.end(1) :]}")
    return e


def _looked_at(door: Door, way: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """A constructor, or by its name another way to make a class; it speaks for the class that it is called on."""

    @named(way)
    def make(it: Any, *args: Any, **kwargs: Any) -> Any:
        who = f"{it.__name__}.{name}" if name else type(it).__name__
        door.plain(who, (it, *args), kwargs)
        try:
            return way(it, *args, **kwargs)
        except (TypeError, ValueError, OverflowError, RuntimeError) as e:
            told = _told(door, who, e, (it, *args), kwargs)
            if told is e:
                raise
            raise told from None

    return make
