"""The product of all experts of a mixture in one operator. The one rule: it is opaque to a graph, which knows the rows of all
experts together and not how many go to each.

Rows come sorted by their expert; those of none, at the end, give 0. What depends on the rows alone (gates, norms, biases,
weights of the choice) stays in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tersor import _torch, quant
from tersor._arrays import dtype_name
from tersor._library import opaque
from tersor.nn._product import _rounded
from tersor.quant import Encoded


def alike(layers: Sequence[Any]) -> bool:
    """Whether the layers differ in numbers alone, as those of one operator must."""
    first = layers[0] if len(layers) else None
    return first is not None and all(
        m.scheme == first.scheme
        and m.shape == first.shape
        and m.activations == first.activations
        and m.activation is None
        and m.dtype == first.dtype
        and (m.bias is None) == (first.bias is None)
        and (m.panels is None) == (first.panels is None)
        and (m.panels is not None or not m._released)
        for m in layers
    )


def multiplied(layers: Sequence[Any], x: Tensor, chosen: Tensor) -> Tensor:
    """Rows times the weights of their experts, plus their biases."""
    first = layers[0]
    integers = first.activations == "int8"
    if first._laid_out(x) is not None and first._sizes is not None:
        panels = [m.panels for m in layers]
        tables = [m.table for m in layers if m.table is not None]
        y = _product(x, chosen, [panels, tables, [], []], "", first._sizes, integers)
    else:
        parts: list[list[Tensor]] = [[m.data for m in layers], [], [], []]
        for at, name in ((1, "scale"), (2, "zero_point"), (3, "outer")):
            parts[at] = [m._buffers[name] for m in layers if m._buffers.get(name) is not None]
        y = _product(_rounded(x) if integers else x, chosen, parts, first.scheme, first.shape, False)
    if first.bias is None:
        return y
    bias = torch.stack([m.bias for m in layers]).to(y.dtype)
    return y + bias[chosen.clamp(max=len(layers) - 1)]


def _product(
    x: Tensor, chosen: Tensor, parts: Sequence[list[Tensor]], scheme: str, sizes: Sequence[int], integers: bool
) -> Tensor:
    y: Tensor = grouped(x, chosen, *parts, scheme, [int(n) for n in sizes], integers)
    return y


def _each(x: Tensor, chosen: Tensor, experts: int, width: int, one: Callable[[int, Tensor], Tensor]) -> Tensor:
    """What ``one(expert, rows)`` gives of the rows of each expert that has some."""
    y = x.new_zeros(len(x), width)
    if not len(x):
        return y
    least, most = int(chosen.min()), int(chosen.max())
    if not 0 <= least <= most <= experts:
        raise IndexError(f"QuantExperts: experts {least} to {most} are chosen, there are {experts}")
    start = 0
    for i, count in enumerate(torch.bincount(chosen, minlength=experts + 1)[:experts].tolist()):
        if count:
            y[start : start + count] = one(i, x[start : start + count])
            start += count
    return y


def _decoded(i: int, parts: Sequence[list[Tensor]], scheme: str, shape: Sequence[int], x: Tensor) -> Tensor:
    data, scale, zero, outer = (some[i] if some else None for some in parts)
    e = Encoded(data, scale, zero, scheme, (shape[0], shape[1]), dtype_name(x.dtype), outer)
    weight: Tensor = quant.decode(e)
    return weight


def _dealt(
    x: Tensor,
    chosen: Tensor,
    parts: Sequence[list[Tensor]],
    scheme: str,
    sizes: Sequence[int],
    integers: bool,
    *,
    back: bool,
) -> Tensor:
    """The product of each expert's rows with its weight, or, back, of what comes in for them."""

    def one(i: int, rows: Tensor) -> Tensor:
        if scheme:
            weight = _decoded(i, parts, scheme, sizes, rows)
            return rows @ (weight if back else weight.T)
        panels, tables, *_ = parts
        table = tables[i] if tables else _torch._ABSENT
        given = (rows.contiguous(), panels[i], _torch._ABSENT, table, *sizes[:4], bool(sizes[4]), integers)
        y: Tensor = (
            torch.ops.tersor.quant_packed_linear_bwd(*given, 1)[0]
            if back
            else torch.ops.tersor.quant_packed_linear(*given)
        )
        return y

    return _each(x, chosen, len(parts[0]), sizes[1 if back else 0], one)


def _keep(ctx: Any, inputs: Any, output: Tensor) -> None:
    _, chosen, *parts, scheme, sizes, integers = inputs
    ctx.save_for_backward(chosen, *(t for some in parts for t in some))
    ctx.lengths, ctx.rest = [len(some) for some in parts], (scheme, sizes, integers)


def _slopes(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    chosen, *flat = ctx.saved_tensors
    parts, at = [], 0
    for n in ctx.lengths:
        parts.append(flat[at : at + n])
        at += n
    dx = grouped_bwd(g.contiguous(), chosen, *parts, *ctx.rest)
    return dx, None, *([None] * n for n in ctx.lengths), None, None, None


#: panels and tables of ``sizes``, or codes of a scheme and their parts
_WEIGHTS = "Tensor[] first, Tensor[] second, Tensor[] third, Tensor[] fourth, str scheme, SymInt[] sizes, bool integers"
#: rows [n, in] times the weights of their experts
grouped = opaque(
    f"quant_experts(Tensor x, Tensor chosen, {_WEIGHTS}) -> Tensor",
    lambda x, chosen, *weights: x.new_empty(x.shape[0], weights[5][0]),
    _slopes,
    _keep,
    CompositeExplicitAutograd=lambda x, chosen, *weights: _dealt(x, chosen, weights[:4], *weights[4:], back=False),
)
#: the gradient of the rows
grouped_bwd = opaque(
    f"quant_experts_bwd(Tensor g, Tensor chosen, {_WEIGHTS}) -> Tensor",
    lambda g, chosen, *weights: g.new_empty(g.shape[0], weights[5][1]),
    CompositeExplicitAutograd=lambda g, chosen, *weights: _dealt(g, chosen, weights[:4], *weights[4:], back=True),
)
