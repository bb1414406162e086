"""`running_rms_norm` for torch. The one rule: the backward pass is the declared one, in float64 where sums are taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Divided(torch.autograd.Function):
    """x/√(ψ + ε) γ + β."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        psi: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        carry: Any,
        share: Any,
        ratio: Any,
        gz: Tensor | None,
        eps: float,
        at: int,
        kind: str,
    ) -> Tensor:
        wide, shape = getattr(torch, kind), _along(x, at)
        y = x.to(wide) / _root(psi, eps, wide, shape)
        y = y if weight is None else y * weight.to(wide).reshape(shape)
        return (y if bias is None else y + bias.to(wide).reshape(shape)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, psi, weight, bias, carry, share, ratio, gz, eps, at, kind = inputs
        sent = [p if isinstance(p, Tensor) else None for p in (carry, share, ratio)]
        ctx.save_for_backward(x, psi, weight, *sent)
        ctx.numbers = [p if s is None else None for p, s in zip((carry, share, ratio), sent, strict=True)]
        ctx.biased = None if bias is None else bias.dtype
        ctx.gz, ctx.eps, ctx.at, ctx.wide = gz, eps, at, getattr(torch, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, psi, weight, *sent = ctx.saved_tensors
        carry, share, ratio = (n if s is None else s for n, s in zip(ctx.numbers, sent, strict=True))
        wide, shape = ctx.wide, _along(x, ctx.at)
        root = _root(psi, ctx.eps, wide, shape)
        z, g = x.to(wide) / root, g.to(wide)
        gz = _over(g * z, ctx.at)
        dw = None if weight is None else gz.to(weight.dtype)
        db = None if ctx.biased is None else _over(g, ctx.at).to(ctx.biased)
        r = torch.as_tensor(ratio, dtype=torch.float64, device=x.device)
        r = r if weight is None else r * weight.double()
        count = max(x.numel() // max(psi.numel(), 1), 1)
        mean = gz * r / count
        if ctx.gz is not None:
            ctx.gz.copy_(mean)
        gamma = mean * share if carry is None else carry + mean * share
        r = r.to(wide)
        h = g * (r if r.ndim == 0 else r.reshape(shape))
        dx = ((h - gamma.to(wide).reshape(shape) * z) / root).to(x.dtype)
        return dx, None, dw, db, *[None] * 7


def _along(x: Tensor, at: int) -> list[int]:
    """The shape in which what channels have goes with x."""
    return [n if i == at else 1 for i, n in enumerate(x.shape)]


def _over(x: Tensor, at: int) -> Tensor:
    """Sums for each channel, in float64."""
    others = [i for i in range(x.ndim) if i != at]
    return x.sum(others, dtype=torch.float64) if others else x.double()


def _root(psi: Tensor, eps: float, wide: torch.dtype, shape: list[int]) -> Tensor:
    return (psi.double() + eps).sqrt().to(wide).reshape(shape)
