"""Arrays that are read on the CPU by what is no operator, and its answers. The one rule: numbers become wider, never narrower,
and what is refused is named with the values that were got.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import (
    FLOATS,
    INTEGERS,
    Array,
    check_order,
    dtype_name,
    is_distributed,
    is_tensor,
    ordinary,
    torch_module,
)

#: what counts as labels: those of classes, of hits, and codes
LABELS = (*INTEGERS, "bool")


def held(who: str, what: str, x: Any, kinds: tuple[str, ...] = FLOATS) -> np.ndarray:
    """`x` in memory of the CPU, without its gradient and of its own type; bfloat16, which NumPy lacks, as float32."""
    if not isinstance(x, np.ndarray) and not is_tensor(x):
        raise TypeError(f"{who}: {what} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    ordinary(who, f": {what}", x)
    kind = dtype_name(x.dtype)
    if kind not in kinds:
        raise TypeError(f"{who}: {what} must be of {', '.join(kinds)}, got {kind}")
    if isinstance(x, np.ndarray):
        check_order(who, what, x)
        return x.astype(np.float32) if kind == "bfloat16" else x
    if is_distributed(x):
        raise TypeError(f"{who}: {what} must be a plain tensor, got a DTensor; to_local() or full_tensor() make one")
    if tracing(x):
        torch_module()._dynamo.graph_break(
            msg=f"{who} reads the numbers of {what}, which are not there while code is traced: call it outside of that"
        )
    from tersor import _memory

    x = x.detach()
    if (why := _memory.lack(x)) is not None:
        raise TypeError(f"{who}: {what} must be a tensor whose numbers can be read, got {why}")
    return (x.float() if kind == "bfloat16" else x).cpu().numpy()


def tracing(x: Any) -> bool:
    """Whether torch.compile looks at what is done with `x`, which has no numbers then."""
    return is_tensor(x) and torch_module().compiler.is_compiling()


def read(who: str, what: str, x: Any, kinds: tuple[str, ...] = FLOATS) -> Any:
    """`held`, for what is only given to operators: where code is traced, a tensor without its gradient."""
    if not tracing(x):
        return held(who, what, x, kinds)
    if dtype_name(x.dtype) not in kinds:
        raise TypeError(f"{who}: {what} must be of {', '.join(kinds)}, got {dtype_name(x.dtype)}")
    return x.detach().cpu()


def answer(y: Any, x: Array) -> Any:
    """A result for who asked with `x`: a Python number or a NumPy array, or a tensor where x lies."""
    if is_tensor(x):
        if is_tensor(y):
            return y.to(x.device)
        import torch

        return torch.from_numpy(np.array(y)).to(x.device)
    return np.asarray(y).item() if np.ndim(y) == 0 else y
