"""A dense product and what follows it as one autograd node of torch. The one rule: only the inputs, t and one number per row
are saved, and rows go through product and operator in chunks that stay in cache.

`Rows` is the product of rows as they lie, `Images` that of the patches of images.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tersor import _core, _func, _memory, _torch
from tersor._op import OPS
from tersor.hyperbolic._planes import fc_rows, mlr_rows

_RAW = getattr(torch.ops, _torch.NAMESPACE)

Pair = tuple[int, int]

#: elements of t per chunk: 1 MiB of float32
CHUNK = 1 << 18


def _direct(x: Tensor) -> bool:
    """Whether kernels may be called on slices of this tensor."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class Rows:
    """Rows as they lie: t = x weightᵀ."""

    def forward(self, x: Tensor, weight: Tensor, n: Tensor, r: Tensor, c: Tensor, fc: bool) -> tuple[Tensor, ...]:
        """t and the squared norms by rows, and y."""
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous()
        shape = (*x.shape[:-1], weight.shape[0])
        if not _direct(x):
            t, s = torch.nn.functional.linear(rows, weight), _RAW.hyperbolic_square_norm(rows)
            y = after(t, s, n, r, c, fc)
            return t, s, y.view(shape)
        norm, kernel = (
            OPS["hyperbolic.square_norm"].kernel,
            OPS["hyperbolic.fc_rows" if fc else "hyperbolic.mlr_rows"].kernel,
        )
        constants = (False, 0.0) if fc else (False,)
        t, s = rows.new_empty(rows.shape[0], weight.shape[0]), rows.new_empty(rows.shape[0])
        y, across = torch.empty_like(t), weight.t()
        for at in _chunks(t):
            torch.mm(rows[at], across, out=t[at])
            norm(rows[at], s[at])
            kernel(t[at], s[at], n, r, c, y[at], *constants)
        return t, s, y.view(shape)

    def plain(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """t and the squared norms by torch's own operations, with a graph."""
        return torch.nn.functional.linear(x, weight), (x * x).sum(-1)

    def backward(
        self, g: Tensor, x: Tensor, weight: Tensor, saved: tuple[Tensor, ...], fc: bool, needs: tuple[bool, ...]
    ) -> tuple[Tensor, ...]:
        """dx, dweight through t, dn, dr, dc (of no numbers if it is not needed)."""
        t, s, n, r, c = saved
        rows, shape = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous(), x.shape
        g = g.reshape(t.shape).contiguous()
        if not _direct(x):
            dt, ds, dn, dr, dc = before(g, t, s, n, r, c, fc)
            dx = torch.addmm(rows * (2 * ds)[:, None], dt, weight).view(shape)
            return dx, dt.t() @ rows, dn, dr, dc
        kernel = OPS["hyperbolic.fc_rows_bwd" if fc else "hyperbolic.mlr_rows_bwd"].kernel
        dx, dw = torch.empty_like(rows), torch.zeros_like(weight)
        step = _step(t)
        dt, ds = t.new_empty(min(step, len(t)), t.shape[1]), s.new_empty(min(step, len(t)))
        parts = [torch.empty_like(n), torch.empty_like(r), torch.empty_like(c) if needs[3] else c.new_empty(0)]
        sums = [torch.zeros_like(p, dtype=torch.float64) for p in parts]
        for at in _chunks(t):
            own = slice(0, len(t[at]))
            kernel(g[at], t[at], s[at], n, r, c, dt[own], ds[own], *parts, False)
            if needs[0]:
                torch.mul(rows[at], ds[own].mul_(2).unsqueeze(1), out=dx[at])
                dx[at].addmm_(dt[own], weight)
            if needs[1]:
                dw.addmm_(dt[own].t(), rows[at])
            for total, part in zip(sums, parts, strict=True):
                total += part
        return dx.view(shape), dw, *[a.to(p.dtype) for a, p in zip(sums, parts, strict=True)]


class Images:
    """Patches of images [B, C, H, W], whose pixels are multiplied with `scale`: t is torch's convolution, channels last."""

    def __init__(self, stride: Pair, padding: Pair, dilation: Pair, scale: float) -> None:
        self.way, self.scale = (stride, padding, dilation), scale

    def box(self, x: Tensor, weight: Tensor) -> Tensor:
        """The kernel that adds up the squared norms of a patch."""
        return x.new_full((1, 1, *weight.shape[2:]), self.scale**2)

    def forward(self, x: Tensor, weight: Tensor, n: Tensor, r: Tensor, c: Tensor, fc: bool) -> tuple[Tensor, ...]:
        """As `Rows.forward`; channels come last."""
        last = torch.channels_last
        x = x.contiguous(memory_format=last)
        t = torch.conv2d(x, (weight * self.scale).contiguous(memory_format=last), None, *self.way)
        pixels = _RAW.hyperbolic_square_norm(x.permute(0, 2, 3, 1).contiguous()).unsqueeze(1)
        s = torch.conv2d(pixels, self.box(x, weight), None, *self.way).reshape(-1)
        b, o, height, width = t.shape
        t = t.permute(0, 2, 3, 1).contiguous().view(-1, o)
        y = after(t, s, n, r, c, fc)
        return t, s, y.view(b, height, width, o).permute(0, 3, 1, 2)

    def plain(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """As `Rows.plain`; channels come last."""
        t = torch.conv2d(x, weight * self.scale, None, *self.way)
        s = torch.conv2d((x * x).sum(1, keepdim=True), self.box(x, weight), None, *self.way)
        return t.movedim(1, -1), s[:, 0]

    def backward(
        self, g: Tensor, x: Tensor, weight: Tensor, saved: tuple[Tensor, ...], fc: bool, needs: tuple[bool, ...]
    ) -> tuple[Tensor, ...]:
        """dx, dweight through t, dn, dr, dc."""
        t, s, n, r, c = saved
        x = x.contiguous(memory_format=torch.channels_last)
        b, o, height, width = g.shape
        rows = g.permute(0, 2, 3, 1).contiguous().view(-1, o)
        dt, ds, dn, dr, dc = before(rows, t, s, n, r, c, fc)
        dt = dt.view(b, height, width, o).permute(0, 3, 1, 2)
        scaled = (weight * self.scale).contiguous(memory_format=torch.channels_last)
        back = torch.ops.aten.convolution_backward
        rest = (False, [0, 0], 1)
        dx, dw, _ = back(dt, x, scaled, None, *self.way, *rest, [needs[0], needs[1], False])
        if needs[0]:
            pixels = x.new_empty(b, 1, *x.shape[2:])
            ds = ds.view(b, 1, height, width)
            own = back(ds, pixels, self.box(x, weight), None, *self.way, *rest, [True, False, False])[0]
            dx = dx.addcmul(x, own, value=2)
        return dx, dw * self.scale if needs[1] else dw, dn, dr, dc


def _step(t: Tensor) -> int:
    return max(64, CHUNK // max(t.shape[1], 1))


def _chunks(t: Tensor) -> list[slice]:
    step = _step(t)
    return [slice(i, i + step) for i in range(0, len(t), step)]


def after(t: Tensor, s: Tensor, n: Tensor, r: Tensor, c: Tensor, fc: bool) -> Tensor:
    """`fc_rows` or `mlr_rows` of tangent vectors."""
    y: Tensor = (
        _RAW.hyperbolic_fc_rows(t, s, n, r, c, False, 0.0) if fc else _RAW.hyperbolic_mlr_rows(t, s, n, r, c, False)
    )
    return y


def before(g: Tensor, t: Tensor, s: Tensor, n: Tensor, r: Tensor, c: Tensor, fc: bool) -> tuple[Tensor, ...]:
    """Its gradient."""
    back = _RAW.hyperbolic_fc_rows_bwd if fc else _RAW.hyperbolic_mlr_rows_bwd
    d: tuple[Tensor, ...] = back(g, t, s, n, r, c, False)
    return d


class _Tangent(torch.autograd.Function):
    """The layer of tangent vectors with a product of either kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, r: Tensor, c: Tensor, product: Any, fc: bool) -> Tensor:
        n = torch.linalg.vector_norm(weight.flatten(1), dim=1)
        t, s, y = product.forward(x, weight, n, r, c, fc)
        ctx.save_for_backward(x, weight, t, s, n, r, c)
        ctx.product, ctx.fc = product, fc
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, t, s, n, r, c = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return (*_graphed(ctx, g, x, weight, r, c), None, None)
        dx, dw, dn, dr, dc = ctx.product.backward(g, x, weight, (t, s, n, r, c), ctx.fc, needs)
        per = torch.where(n > 0, dn / n, 0)
        dw = torch.addcmul(dw, weight, per.view(-1, *[1] * (weight.ndim - 1))) if needs[1] else None
        return dx if needs[0] else None, dw, dr, dc if needs[3] else None, None, None


def _layer(x: Tensor, weight: Tensor, r: Tensor, c: Tensor, product: Any, fc: bool) -> Tensor:
    """The layer operation by operation."""
    t, s = product.plain(x, weight)
    n = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    y: Tensor = (fc_rows if fc else mlr_rows)(t, s, n, r, c)
    return y.movedim(-1, 1) if isinstance(product, Images) else y


def _graphed(ctx: Any, g: Tensor, *inputs: Tensor) -> list[Tensor | None]:
    """The gradients with a graph of their own, for second derivatives: the layer once more, operation by operation."""
    needs = ctx.needs_input_grad[: len(inputs)]
    with torch.enable_grad():
        leaves = [a.view_as(a) for a in inputs]
        x, weight, r, c = leaves
        y = _layer(x, weight, r, c, ctx.product, ctx.fc)
        wanted = [a for a, need in zip(leaves, needs, strict=True) if need]
        found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
    return [next(found) if need else None for need in needs]


ROWS = Rows()


def tangent(x: Tensor, weight: Tensor, r: Tensor | None, c: Any, product: Any = ROWS, fc: bool = True) -> Tensor:
    """The layer (or its logits) with the weight [out, in, ...] and the biases r [out], as one node."""
    r = weight.new_zeros(weight.shape[0]) if r is None else r.contiguous()
    c = c if isinstance(c, Tensor) else torch.tensor(float(c), dtype=torch.float64)
    if not torch.compiler.is_compiling() and (
        _func.active() or any(_memory.lack(a) is not None for a in (x, weight, r, c))
    ):  # transforms, and what stands for tensors elsewhere, see through each operation
        return _layer(x, weight, r, c, product, fc)
    try:
        y: Tensor = _Tangent.apply(x, weight, r, c, product, fc)
        return y
    except RuntimeError as e:
        meant = _core.translate(str(e)) if "[tersor:" in str(e) else None
        if meant is None:
            raise
        raise meant from None
