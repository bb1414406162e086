"""What losses have in common. The one rule: a word that is unknown is named with those that are known."""

from __future__ import annotations

from typing import Any


def checked_word(who: str, name: str, word: Any, words: tuple[str, ...]) -> None:
    if word not in words:
        raise ValueError(f"{who}: {name} must be one of {list(words)}, got {word!r}")


def checked_reduction(who: str, reduction: Any) -> None:
    checked_word(who, "reduction", reduction, ("mean", "sum", "none"))
