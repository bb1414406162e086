"""Types of what layers take. The one rule: under autocast as torch's own layers (distances and norms in float32, products in
the type that autocast names), elsewhere nothing is converted and what does not fit is an error of the layer's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tersor._arrays import FLOATS, dtype_name, sizes, whole
from tersor._autocast import autocast_type, off, to
from tersor._values import check_alike

T = TypeVar("T")
_KINDS = frozenset(getattr(torch, k) for k in FLOATS)


def exactly(function: Callable[..., T], *args: Any, **options: Any) -> T:
    """``function(*args, **options)``; under autocast with 16-bit floats as float32, and nothing lowered within."""
    first = args[0] if isinstance(args[0], Tensor) else args[0][0]
    if autocast_type(first) is None:
        return function(*args, **options)
    with off(first.device.type):
        given = {k: to(torch.float32, v) for k, v in options.items()}
        return function(*to(torch.float32, args), **given)


def lowered(x: Tensor, *others: Any) -> tuple[Any, ...]:
    """The operands of a product; under autocast in the type that it names."""
    kind = autocast_type(x)
    return (x, *others) if kind is None else to(kind, (x, *others))


def as_node(layer: nn.Module, x: Any) -> Any:
    """What a layer is in a graph of torch.fx that a model is traced into: one node, as torch's own are; else None.

    torch.jit.trace checks its graph without gradients, where other operators stand in it: with them it is refused.
    """
    who = type(layer).__name__
    if isinstance(x, Tensor):
        if torch.jit.is_tracing() and torch.is_grad_enabled():
            raise RuntimeError(
                f"{who}: torch.jit.trace is to be called under torch.no_grad(); torch.export keeps gradients"
            )
        return None
    if type(x).__name__ != "Proxy":
        return None
    name = next((k for k, module in x.tracer.root.named_modules() if module is layer), "")
    if not name:
        raise TypeError(
            f"{who}: torch.fx does not look into this layer; trace a model that has it, where it is one node"
        )
    return x.tracer.create_proxy("call_module", name, (x,), {})


def positive(layer: Any, **given: Any) -> None:
    """Refuses sizes that no layer has."""
    who = type(layer).__name__
    for name, value in given.items():
        if whole(f"{who}: {name}", value) < 1:
            raise ValueError(f"{who}: {name} must be positive, got {value}")


def check_images(layer: Any, x: Tensor) -> None:
    """Raises unless x is an image of the layer's channels, or several."""
    if x.ndim not in (3, 4) or x.shape[-3] != layer.in_channels:
        name, n = type(layer).__name__, layer.in_channels
        raise ValueError(f"{name}: images [B, {n}, H, W] or [{n}, H, W] are needed, got shape {sizes(x.shape)}")


def accept(layer: nn.Module, x: Any, size: int | None = None, dim: int = -1, like: Tensor | None = None) -> None:
    """Raises unless x is a tensor of floats with `size` elements along `dim`, of the type of the parameter `like`."""
    who = type(layer).__name__
    if not isinstance(x, Tensor):
        raise TypeError(f"{who}: the input must be a torch tensor, got {type(x).__name__}")
    if x.dtype not in _KINDS:
        raise TypeError(f"{who}: the input must be {', '.join(FLOATS[:-1])} or {FLOATS[-1]}, got {dtype_name(x.dtype)}")
    if x.layout != torch.strided:
        raise TypeError(f"{who}: the input must be dense, got the layout {x.layout}")
    for p in layer._parameters.values():  # layer.parameters() would be a third of the time of a small layer
        if p is not None:
            check_alike(who, input=x, parameters=p)
    if size is not None and (x.ndim <= max(dim, 0) or x.shape[dim] != size):
        axis = "the last axis" if dim == -1 else f"axis {dim}"
        raise ValueError(f"{who}: {axis} of the input must have {size} elements, got shape {sizes(x.shape)}")
    if (
        like is not None
        and like.dtype != x.dtype
        and (autocast_type(x) is None or torch.float64 in (like.dtype, x.dtype))
    ):
        mine, given = dtype_name(like.dtype), dtype_name(x.dtype)
        raise TypeError(
            f"{who}: the input is {given}, the parameters are {mine}; tersor does not convert silently: "
            f"x.to(torch.{mine}), layer.to(torch.{given}), or torch.autocast"
        )
