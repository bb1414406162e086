"""The Fréchet mean as one node of torch's graph. The one rule: its gradient is made of the mean itself, as it stands in the
graph, so that derivatives of any order are those of the equation that it solves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tersor._library import opaque
from tersor._values import check_weights
from tersor.hyperbolic._newton import aligned, descend, hessian, part, pieces, pull, solve, unit_of


def _gradient(g: Tensor, x: Tensor, w: Tensor, c: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""With :math:`v = H^{-1}(1 - c\|\mu\|^2)g` the gradients are those of :math:`\langle v, G\rangle` at that μ."""

    def equation(x: Tensor, w: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        u, field = pull(x, w, c, at)
        return field, u

    _, back, u = torch.func.vjp(equation, x, w, c, has_aux=True)
    v = solve(hessian(u, w, c), (1 - c * (at * at).sum(-1, keepdim=True)) * g)
    found: tuple[Tensor, Tensor, Tensor] = back(v)
    return found


def _descend(x: Tensor, w: Tensor, c: Tensor, tol: float, max_iter: int) -> Tensor:
    check_weights("frechet_mean", w)  # which a graph that was compiled does not ask
    at: Tensor = descend(x, w, c, tol, max_iter)
    return at.clone()


def _descend_bwd(g: Tensor, x: Tensor, w: Tensor, c: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    unit = unit_of(x)
    shape, x, c, mean = c.shape, x / unit, aligned(c * unit * unit, w.ndim), at / unit
    with torch.no_grad():
        if x.shape[:-2] == w.shape[:-1]:
            dx, dw, dc = _gradient(g, x, w, c, mean)
        else:  # points of several means
            dx, dw, dc = torch.zeros_like(x), torch.empty_like(w), torch.zeros_like(c)
            for i in pieces(x, tuple(w.shape[:-1])):
                found = _gradient(part(g, i), part(x, i), part(w, i), part(c, i), part(mean, i))
                part(dx, i).add_(found[0])
                part(dw, i).copy_(found[1])
                (part(dc, i) if dc.ndim else dc).add_(found[2])
        dw, dc = dw * unit, dc * unit * unit * unit
    return dx.contiguous(), dw.contiguous(), dc.reshape(shape)


# Newton's method looks at its data: to what traces it is one operation, and so is its gradient
_solved = opaque(
    "hyperbolic_frechet_descend(Tensor x, Tensor w, Tensor c, float tol, int max_iter) -> Tensor",
    lambda x, w, c, tol, max_iter: x.new_empty((*w.shape[:-1], x.shape[-1])),
    CompositeExplicitAutograd=_descend,
)
_solved_bwd = opaque(
    "hyperbolic_frechet_descend_bwd(Tensor g, Tensor x, Tensor w, Tensor c, Tensor at) -> (Tensor, Tensor, Tensor)",
    lambda g, x, w, c, at: (x.new_empty(x.shape), w.new_empty(w.shape), c.new_empty(c.shape)),
    CompositeExplicitAutograd=_descend_bwd,
)


class Mean(torch.autograd.Function):
    r"""The root μ of :math:`G(x, w, c, \mu) = \sum_i w_i\log_0(-\mu \oplus x_i)`.

    A step u in the tangent space moves μ by :math:`(1 - c\|\mu\|^2)u` and G by -H u.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor, c: Tensor, tol: float, max_iter: int, still: bool) -> Tensor:
        at: Tensor = _solved(x, w, c, tol, max_iter)
        return at

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, c, _, _, ctx.still = inputs
        ctx.save_for_backward(x, w, c, output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        graph = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if ctx.still and not graph:
            return None, None, None, None, None, None
        x, w, c, at = ctx.saved_tensors
        if graph:
            ds = _gradient(g, x, w, c, at)
        else:
            ds = _solved_bwd(g, x, w, c, at)
        return (*[d if need else None for d, need in zip(ds, ctx.needs_input_grad, strict=False)], None, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        """Samples are a leading axis, or go one by one where each has a curvature of its own."""
        x, w, c = [a if at is None else a.movedim(at, 0) for a, at in zip(args, in_dims, strict=True)][:3]
        size = info.batch_size
        x, w = (a if at is not None else a.expand(size, *a.shape) for a, at in zip((x, w), in_dims, strict=False))
        if in_dims[2] is None and size:
            return Mean.apply(x, w, c, *args[3:]), 0
        each = c if c.ndim else c.expand(size)
        return torch.stack([Mean.apply(x[i], w[i], each[i], *args[3:]) for i in range(size)]), 0


def mean(x: Tensor, w: Tensor, c: Any, tol: float, max_iter: int, still: bool) -> Tensor:
    """The mean in the graph; `still`: what is made of it does not change with it to first order."""
    if not isinstance(c, Tensor):
        c = torch.tensor(float(c), dtype=torch.float64)
    at: Tensor = Mean.apply(x, w, c, tol, max_iter, still)
    return at
