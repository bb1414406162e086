"""Which names a user means. The one rule: a pattern names tensors or their modules, and one that names nothing is an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tersor._assigned import matches
from tersor.checkpoint._format import Misuse


def _sequence(argument: str, patterns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(patterns, (str, bytes)) or not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"{argument} must be a sequence of shell patterns, got {patterns!r}")
    return tuple(patterns)


class Patterns:
    """What is included and what is excluded; everything is included where nothing is said.

    Parameters
    ----------
    include, exclude : sequences of shell patterns
    who : str
        Who was called, for errors.

    Raises
    ------
    TypeError
        If one of them is a string, whose letters would be taken for patterns.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = (), who: str = "") -> None:
        self.who = f"{who}: " if who else ""
        self.include = _sequence(f"{self.who}include", include)
        self.exclude = _sequence(f"{self.who}exclude", exclude)

    def included(self, name: str) -> bool:
        """Whether the name is asked for by a pattern."""
        return any(matches(name, p) for p in self.include)

    def excluded(self, name: str) -> bool:
        return any(matches(name, p) for p in self.exclude)

    def wants(self, name: str) -> bool:
        return (not self.include or self.included(name)) and not self.excluded(name)

    def check(self, names: Iterable[str]) -> None:
        """Refuses a pattern that matches none of the names."""
        names = list(names)
        for argument, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(matches(name, pattern) for name in names):
                    raise Misuse(f"{self.who}{argument}: no tensor and no module is called {pattern!r}")
