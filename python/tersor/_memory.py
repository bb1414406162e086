"""Tensors whose elements do not lie in plain memory. The one rule: what goes to a kernel past torch's dispatcher is looked at
here first, and what no kernel can read is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import increment_version
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


def kind(x: Tensor) -> str | None:
    """What a tensor is that no operator takes, and what to do with it; None for others."""
    if x.is_nested:
        return "a nested tensor; take its parts by .unbind(), or .to_padded_tensor(0.0)"
    if x.is_quantized:
        return "a quantized tensor of torch; call .dequantize()"
    if x.layout is not torch.strided:
        return f"a tensor of layout {str(x.layout).removeprefix('torch.')}; call .to_dense()"
    return None


def lack(x: Tensor) -> str | None:
    """Why the elements of `x` cannot be read or written at its address; None where they can."""
    strange = kind(x)
    if strange is not None:
        return strange
    if _wrapped(x):
        return "inside a transform of torch.func"
    if isinstance(x, FakeTensor):
        return "a FakeTensor, which has no memory"
    if x.device.type == "meta":
        return "on meta, where there is no memory"
    if x.is_neg() or x.is_conj():
        return "a view that is negated or conjugated when it is read; call .resolve_neg() or .resolve_conj()"
    if is_traceable_wrapper_subclass(x):  # also where it has no elements: what is asked of it is asked of its parts
        return f"a {type(x).__name__}, which has no memory of its own"
    if not x.numel():
        return None
    try:
        there = x.data_ptr()
    except RuntimeError:
        there = 0
    return short(x) if there else f"a {type(x).__name__}, which has no memory of its own"


def short(x: Tensor) -> str | None:
    """Whether a plain tensor reaches past its storage, which others may have freed or made shorter."""
    held = x.untyped_storage().nbytes()
    if held == x.nbytes and x.is_contiguous():  # most are the whole of their storage
        return None
    end = x.storage_offset() + 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    enough = not x.numel() or held >= end * x.element_size()
    return None if enough else "a tensor whose storage was freed or made shorter"


def gone(x: Tensor) -> str | None:
    """As `short`, of any tensor: those that are traced, transformed or made of others are not looked at."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta"
    return short(x) if plain and not torch.compiler.is_compiling() and not _wrapped(x) else None


def written(ys: Sequence[Tensor]) -> None:
    """Counts a write that torch did not see: who saved these tensors, or keeps what was made of them, asks for the count."""
    for y in ys:
        increment_version(y)


@torch.compiler.disable(
    reason="tersor: numbers are read here, which no trace can; with fullgraph=True, call this function outside of it"
)
def check(who: str, **tensors: Any) -> None:
    """Refuses tensors without memory; anything that is no tensor passes."""
    for name, x in tensors.items():
        why = lack(x) if isinstance(x, Tensor) else None
        if why is not None:
            raise TypeError(f"{who}: {name} is {why}")
