"""What may be taken for a dense linear layer. The one rule: its weight is [out, in], or it is refused by the name of its
class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def weight_of(who: str, linear: Any) -> Tensor:
    """The weight of a ``torch.nn.Linear`` or of what derives from it."""
    if isinstance(linear, nn.Linear):
        if not isinstance(linear.weight, Tensor) or isinstance(linear.weight, nn.UninitializedParameter):
            raise TypeError(f"{who}: linear has no weight yet: a lazy layer gets it in its first call")
        return linear.weight.detach()
    kind = type(linear).__name__
    hint = ""
    if kind == "Conv1D":
        hint = "; its weight is [in, out]: make a torch.nn.Linear of the transposed weight"
    elif isinstance(linear, type):
        kind = f"the class {linear.__name__}"
    elif isinstance(linear, Tensor):
        hint = "; the constructor takes an encoded or a sparse weight"
    raise TypeError(f"{who}: linear must be a torch.nn.Linear, got {kind}{hint}")
