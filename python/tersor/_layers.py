"""What is a linear layer, whichever way its weight lies. The one rule: all who change weights by their inputs read them as
[out, in], a view of the parameter.
"""

from __future__ import annotations

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
