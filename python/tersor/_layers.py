"""What is a linear layer, whichever way its weight lies. The one rule: all who change weights by their inputs read them as
[out, in], a view of the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def transposed(layer: Any) -> bool:
    """Whether a layer is transformers' Conv1D (of GPT-2 and its like): linear, with a weight [in, out]."""
    kind = type(layer)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def linear(layer: Any) -> bool:
    import torch

    return isinstance(layer, torch.nn.Linear) or transposed(layer)


def matrix(layer: Any) -> Any:
    """The weight of a layer, rows for outputs: a view, whose writes are the parameter's."""
    return layer.weight.t() if transposed(layer) else layer.weight


def sizes(layer: Any) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    n, k = matrix(layer).shape
    return int(n), int(k)


def in_short(done: str, left: Mapping[str, str], smaller: Mapping[str, str] | None = None) -> str:
    """What was done with the layers of a model, how many were left, and a line for each that has something to say."""
    rest = "".join(f"\n  {name}: {why}" for name, why in (*left.items(), *(smaller or {}).items()))
    return f"{done}, {len(left)} left{':' if rest else ''}{rest}"
