"""What must be seen before a matrix can be made of it. The one rule: where a trace hides it, this is said, and where torch
lets a trace end, it ends here.

The only module of the family that wants torch: who has a tensor imports it.
"""

from __future__ import annotations

from typing import Any

import torch

from tersor._func import bare

_OF_FUNC = torch._C._functorch
_FAKE = torch._C._TorchDispatchModeKey.FAKE


@torch.compiler.disable(
    reason="tersor.sparse: places are read where a matrix is made, which no trace can; make the matrix before, and give it its "
    "values by with_data"
)
def hidden(x: Any, whole: bool = False) -> str | None:
    """Where a tensor is whose numbers cannot be read, with its gradient if the whole of it is meant; None if they can."""
    if torch.compiler.is_compiling() or type(x).__name__ == "FakeTensor":
        return "in a trace"
    x = x if whole else bare(x, batches=False)
    if _OF_FUNC.is_functorch_wrapped_tensor(x):
        return "inside a transform of torch.func"
    if torch._C._get_dispatch_mode(_FAKE) is not None:
        return "in a trace"
    return "on meta" if x.device.type == "meta" else None


def read(who: str, name: str, x: Any) -> Any:
    """The numbers of a tensor of places as NumPy reads them, which must not write; the same for all of a batch."""
    where = hidden(x)
    x = bare(x, batches=False)
    if where is not None:
        raise TypeError(
            f"{who}: {name} must have values that can be read, got a tensor {where}; make the matrix before, and give it its "
            "values by with_data"
        )
    x = x.detach()
    if type(x) is not torch.Tensor:  # a subclass has its own ways, its plain part none
        x = x.as_subclass(torch.Tensor)
    with torch._C._DisableFuncTorch():  # whose transforms hide the memory of every tensor, also of none of theirs
        return x.cpu().numpy()


def nowhere(w: Any, mask: Any) -> str | None:
    """Where the places of a dense matrix are hidden; None if they can be seen."""
    if (where := hidden(w)) in ("on meta", "in a trace"):
        return where
    if torch._C._is_tracing():  # whose graph would have the places of this matrix alone
        return "in a trace"
    return "inside a transform of torch.func" if batched(w if mask is None else mask) else None


def batched(x: Any) -> bool:
    """Whether a tensor is a batch of torch.func.vmap, under whatever else it is wrapped in."""
    return bool(_OF_FUNC.is_batchedtensor(bare(x, batches=False)))
