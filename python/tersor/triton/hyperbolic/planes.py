"""What follows the product in hyperbolic layers, on any device. The one rule: plain torch in float64, as the formula stands;
a kernel of its own would save the temporaries and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tersor.hyperbolic._smooth import arsinh_root, cosh_root, sinh_root


def _wide(*xs: Tensor) -> list[Tensor]:
    return [x.detach().double() for x in xs]


def _logits(t: Tensor, s: Tensor, n: Tensor, r: Tensor, c: Tensor, ball: bool) -> Tensor:
    s, beta = s.unsqueeze(-1), 4 * c * r * r
    a, b = (s / 2, s - 1) if ball else (sinh_root(4 * c * s), cosh_root(4 * c * s))
    # 4n q A(4cq²) with q = a t cosh β/n - b r sinh β/β; where n = 0, its slope in t is 4
    per = torch.where(n > 0, 1 / torch.where(n > 0, n, 1), 0)
    q = a * t * cosh_root(beta) * per - b * r * sinh_root(beta)
    bare = torch.where(n > 0, 0, 4) * (t - t.detach())
    return 4 * n * q * arsinh_root(4 * c * q * q) + bare


def _layer(t: Tensor, s: Tensor, n: Tensor, r: Tensor, c: Tensor, ball: bool) -> Tensor:
    y = _logits(t, s, n, r, c, ball)
    w = y * sinh_root(c * y * y)
    q = c * w.square().sum(-1, keepdim=True)
    return w / (1 + (1 + q).sqrt()) if ball else w * arsinh_root(q) / 2


def _backward(forward: Any, g: Tensor, xs: list[Tensor], ball: bool) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = [x.requires_grad_() for x in _wide(*xs)]
        return torch.autograd.grad(forward(*leaves, ball), leaves, g.detach().double())


def fc_rows(t: Any, s: Any, n: Any, r: Any, c: Any, y: Any, ball: bool, eps: float) -> None:
    from tersor.hyperbolic.conformal import project

    c = c.to(t.device)
    out = _layer(*_wide(t, s, n, r, c), ball).to(y.dtype)
    y.copy_(project(out, c.double(), eps) if ball else out)


def fc_rows_bwd(g: Any, t: Any, s: Any, n: Any, r: Any, c: Any, *rest: Any) -> None:
    for into, d in zip(rest[:5], _backward(_layer, g, [t, s, n, r, c.to(t.device)], rest[5]), strict=True):
        into.copy_(d)


def mlr_rows(t: Any, s: Any, n: Any, r: Any, c: Any, y: Any, ball: bool) -> None:
    y.copy_(_logits(*_wide(t, s, n, r, c.to(t.device)), ball))


def mlr_rows_bwd(g: Any, t: Any, s: Any, n: Any, r: Any, c: Any, *rest: Any) -> None:
    for into, d in zip(rest[:5], _backward(_logits, g, [t, s, n, r, c.to(t.device)], rest[5]), strict=True):
        into.copy_(d)


def square_norm(x: Any, q: Any) -> None:
    q.copy_(x.detach().double().square().sum(-1))


def square_norm_bwd(x: Any, g: Any, dx: Any) -> None:
    dx.copy_(2 * g.detach().double().unsqueeze(-1) * x.detach().double())
