"""What losses have in common. The one rule: a word that is unknown is named with those that are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import cast, dtype_name, is_tensor, torch_module

#: what keeps the sum of as many rows as there may be within the type
_FEW = 2.0**-40


def checked_word(who: str, name: str, word: Any, words: tuple[str, ...]) -> None:
    if word not in words:
        raise ValueError(f"{who}: {name} must be one of {list(words)}, got {word!r}")


def checked_reduction(who: str, reduction: Any) -> None:
    checked_word(who, "reduction", reduction, ("mean", "sum", "none"))


def reduced(rows: Any, reduction: str, count: Any) -> Any:
    """The losses of rows, their sum, or that over `count`: a mean within the type comes where the sum is beyond it."""
    if reduction == "none":
        return rows
    if reduction == "sum":
        return rows.sum()
    lib: Any = torch_module() if is_tensor(rows) else np
    own = dtype_name(rows.dtype)
    total = rows.sum(dtype=lib.float64)
    if own != "float64":
        return cast(lib, total / count, own)
    beyond = lib.isinf(total)
    # infinities are chosen against before anything is divided, which would give the count a slope of NaN
    total = lib.where(beyond, (rows * _FEW).sum(), total)
    return total / count / lib.where(beyond, _FEW, 1.0)
