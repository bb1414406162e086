"""Differences of all pairs in torch, as sums over them. The one rule: an array of N·M·d elements is never whole, and what
differentiates one of the three sums is another one, so that derivatives of any order keep to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: elements of differences at a time: 2 MiB of float64
CHUNK = 1 << 18


def _by_rows(width: int, x: Tensor, y: Tensor, *each: Tensor, of: Callable[..., Tensor]) -> Tensor:
    """`of` the differences [..., n, M, d] and the same rows of `each`, which gives [..., n, width]; as many rows of x together
    as there is room for.

    Differences are taken as they are: of near pairs far out products of matrices would leave nothing.
    """
    # made before the blocks: what is kept between them would lie in their room
    whole = x.new_empty((*x.shape[:-1], width))
    step = max(1, CHUNK // max(1, y.numel()))
    for i in range(0, x.shape[-2], step):
        rows = slice(i, i + step)
        differences = x[..., rows, None, :] - y[..., None, :, :]
        whole[..., rows, :] = of(differences, *[a[..., rows, :] for a in each])
    return whole


class _Sum(torch.autograd.Function):
    """What the sums share: all arguments are kept, and a batch of samples is a leading axis."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @classmethod
    def over(cls, info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, int]:
        last = max(a.ndim - (at is not None) for a, at in zip(args, in_dims, strict=True))
        whole = []
        for a, at in zip(args, in_dims, strict=True):
            a = a[None] if at is None else a.movedim(at, 0)
            a = a.reshape(a.shape[0], *(1,) * (last + 1 - a.ndim), *a.shape[1:])
            whole.append(a.expand(info.batch_size, *a.shape[1:]))
        return cls.apply(*whole), 0


class Square(_Sum):
    r""":math:`\|x_i - y_j\|^2`"""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, int]:
        return Square.over(info, in_dims, *args)

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return _by_rows(y.shape[-2], x, y, of=lambda d: (d * d).sum(-1))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return 2 * Pull.apply(g, x, y), 2 * Pull.apply(g.mT, y, x)


class Pull(_Sum):
    r""":math:`\sum_j f_{ij}(x_i - y_j)`"""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, int]:
        return Pull.over(info, in_dims, *args)

    @staticmethod
    def forward(f: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return _by_rows(x.shape[-1], x, y, f, of=lambda d, f: (f[..., None, :] @ d)[..., 0, :])

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> Any:
        f, x, y = ctx.saved_tensors
        return Along.apply(h, x, y), f.sum(-1, keepdim=True) * h, -(f.mT @ h)


class Along(_Sum):
    r""":math:`\langle h_i, x_i - y_j\rangle`"""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, int]:
        return Along.over(info, in_dims, *args)

    @staticmethod
    def forward(h: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return _by_rows(y.shape[-2], x, y, h, of=lambda d, h: (d @ h[..., None])[..., 0])

    @staticmethod
    def backward(ctx: Any, k: Tensor) -> Any:
        h, x, y = ctx.saved_tensors
        return Pull.apply(k, x, y), k.sum(-1, keepdim=True) * h, -(k.mT @ h)
