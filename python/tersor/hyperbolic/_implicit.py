"""The Fréchet mean as one node of torch's graph. The one rule: its gradient is made of the mean itself, as it stands in the
graph, so that derivatives of any order are those of the equation that it solves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tersor.hyperbolic._newton import descend, hessian, pull, solve


class Mean(torch.autograd.Function):
    r"""The root μ of :math:`G(x, w, c, \mu) = \sum_i w_i\log_0(-\mu \oplus x_i)`.

    A step u in the tangent space moves μ by :math:`(1 - c\|\mu\|^2)u` and G by -H u: with
    :math:`v = H^{-1}(1 - c\|\mu\|^2)g` the gradients are those of :math:`\langle v, G\rangle` at that μ.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, c: Any, tol: float, max_iter: int, still: bool) -> Tensor:
        at: Tensor = descend(x, w, c, tol, max_iter)
        ctx.save_for_backward(x, w, at, *[c] if isinstance(c, Tensor) else [])
        ctx.c, ctx.still = None if isinstance(c, Tensor) else c, still
        return at

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        graph, needed, nothing = torch.is_grad_enabled(), ctx.needs_input_grad, [None] * 3
        if ctx.still and not graph:
            return (*nothing, *nothing)
        x, w, at, *rest = ctx.saved_tensors
        with torch.enable_grad():
            leaves = [a.view_as(a) if graph else a.detach().requires_grad_() for a in (x, w, *rest)]
            x, w, c = leaves if rest else (*leaves, ctx.c)
            u, field = pull(x, w, c, at)
            with torch.set_grad_enabled(graph):
                v = solve(hessian(u, w, c), (1 - c * (at * at).sum(-1, keepdim=True)) * g)
            wanted = [a for a, need in zip(leaves, needed, strict=False) if need]
            found = iter(torch.autograd.grad(field, wanted, v, create_graph=graph))
        return (*[next(found) if need else None for need in needed[:3]], *nothing)
