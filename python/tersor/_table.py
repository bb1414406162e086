"""Rows of a table of 16 bits for torch. The one rule: gradients of a row that is read often are added in float32, and rounded
once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Rows(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, table: Tensor) -> Tensor:
        return torch.nn.functional.embedding(rows, table)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        rows, table = inputs
        ctx.save_for_backward(rows)
        ctx.size = table.shape[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,), (rows,) = grads, ctx.saved_tensors
        # torch's own sum, of the order of the places for any number of threads, and with a gradient of its own
        wide = torch.ops.aten.embedding_dense_backward(g.float(), rows, ctx.size, -1, False)
        return None, wide.to(g.dtype)


def table_rows(rows: Tensor, table: Tensor) -> Tensor:
    """``table[rows]`` of a table [n, d]."""
    if table.dtype.itemsize > 2:
        return torch.nn.functional.embedding(rows, table)
    found: Tensor = _Rows.apply(rows, table)
    return found
