"""Chunks of rows in torch. The one rule: a node of the graph saves the inputs alone, and a chunk is computed again for its
gradient; what has no kernels for that goes in chunks only where nothing is recorded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tersor import _core, _func, _memory


class _Chunks(torch.autograd.Function):
    """f of rows [n, d] and of parameters in float64, `step` rows at a time."""

    @staticmethod
    def forward(ctx: Any, f: Any, fast: Any, step: int, o: int, x: Tensor, *params: Tensor | None) -> Tensor:
        ctx.f, ctx.fast, ctx.step = f, fast, step
        ctx.save_for_backward(x, *params)
        y = x.new_empty(len(x), o)
        for i in range(0, len(x), step):
            fast.forward(x[i : i + step], y[i : i + step], *params)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        needs = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():  # for second derivatives, the whole once more
            leaves = [a if a is None else a.view_as(a) for a in ctx.saved_tensors]
            return (None, None, None, None, *_slopes(ctx.f(*leaves), leaves, needs, g))
        x, *params = ctx.saved_tensors
        dx = torch.empty_like(x)
        sums = [torch.zeros_like(p) if need else None for p, need in zip(params, needs[1:], strict=True)]
        for i in range(0, len(x), ctx.step):
            at = slice(i, i + ctx.step)
            dx[at], *parts = ctx.fast.backward(g[at], x[at], *params)
            for total, part in zip(sums, parts, strict=True):
                if total is not None:
                    total += part
        return (None, None, None, None, dx if needs[0] else None, *sums)


def _slopes(y: Tensor, leaves: list[Any], needs: tuple[bool, ...], g: Tensor) -> list[Tensor | None]:
    wanted = [a for a, need in zip(leaves, needs, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
    return [next(found) if need else None for need in needs]


def apply(f: Any, fast: Any, x: Tensor, params: tuple[Tensor | None, ...], c: Any, o: int, step: int) -> Tensor:
    """See `by_chunks`."""
    given = [x, *(p for p in (*params, c) if isinstance(p, Tensor))]
    if (
        torch.compiler.is_compiling()
        or _func.active()
        or any(a.device.type != "cpu" or _memory.lack(a) is not None for a in given)
        or (fast is None and torch.is_grad_enabled() and any(a.requires_grad for a in given))
    ):  # what sees through each operation, has no memory to cut, or is recorded operation by operation
        return f(x, *params, c)
    number = c.double() if isinstance(c, Tensor) else torch.tensor(float(c), dtype=torch.float64)
    rows = x.reshape(math.prod(x.shape[:-1]), -1).contiguous()
    each = [p if p is None else p.double() for p in (*params, number)]
    if fast is None:
        return torch.cat([f(part, *each) for part in rows.split(step)]).view(*x.shape[:-1], o)
    try:
        y: Tensor = _Chunks.apply(f, fast, step, o, rows, *each)
    except RuntimeError as e:
        meant = _core.translate(str(e)) if "[tersor:" in str(e) else None
        if meant is None:
            raise
        raise meant from None
    return y.view(*x.shape[:-1], o)
