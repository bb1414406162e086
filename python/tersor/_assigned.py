"""What shell patterns give to names. The one rule: the first pattern that a name has decides, and one that decides of nothing
is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def matches(name: str, pattern: str) -> bool:
    """Whether a shell pattern is that of a tensor, or of the module whose tensor it is."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)


class Assigned(Generic[T]):
    """Schemes for some names, by patterns in the order in which they count.

    Parameters
    ----------
    given : mapping of patterns to schemes
    who : str
        The argument, for errors.
    read : callable
        ``read(scheme)`` makes of a scheme what names are given.

    Raises
    ------
    TypeError
        If it is no mapping of strings to strings.
    ValueError
        As of ``read``.
    """

    def __init__(self, given: Mapping[str, str] | None, who: str, read: Callable[[str], T]) -> None:
        pairs: Any = {} if given is None else given
        if not isinstance(pairs, Mapping) or not all(isinstance(s, str) for pair in pairs.items() for s in pair):
            raise TypeError(f"{who} must be a mapping of shell patterns to schemes, got {given!r:.80}")
        self.who = who
        self.of = {pattern: read(scheme) for pattern, scheme in pairs.items()}

    def __bool__(self) -> bool:
        return bool(self.of)

    def _first(self, name: str) -> str | None:
        return next((pattern for pattern in self.of if matches(name, pattern)), None)

    def find(self, name: str) -> T | None:
        """What a tensor is given, by its name or its module's; None if no pattern is its own."""
        pattern = self._first(name)
        return None if pattern is None else self.of[pattern]

    def check(self, names: Iterable[str], left: Mapping[str, str], error: type[ValueError] = ValueError) -> None:
        """Refuses a pattern that decides of none of the ``names``, tensors that are quantized; ``left`` says why others are
        not."""
        names = list(names)
        used = set(map(self._first, names))
        for pattern in self.of:
            if pattern in used:
                continue
            why = next((f" ({name}: {why})" for name, why in left.items() if matches(name, pattern)), "")
            taken = next((self._first(name) for name in names if matches(name, pattern)), None)
            others = f"; {taken!r} comes before it" if taken else ""
            raise error(f"{self.who}: no weight that is quantized is called {pattern!r}{others or why}")
