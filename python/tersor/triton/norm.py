"""GPU kernels of norms of rows. The rule: as in Rust, a weight that is absent is one of ones."""

import math

import torch
import triton
import triton.language as tl

from tersor._reference import far, scaled
from tersor.triton._dots import dot, get
from tersor.triton._rows import launcher
from tersor.triton._standardize import standardize as standardize
from tersor.triton._standardize import standardize_bwd as standardize_bwd


@triton.jit
def _square(v, W: tl.constexpr):
    """|x|^2"""
    return (dot(v[0], v[0], W),)


@triton.jit
def _slope(v, W: tl.constexpr):
    """|x|^2, <g, w x>"""
    g, x, w = v
    return dot(x, x, W), dot(g, w * x, W)


@triton.jit
def _scale(p, n):
    """r = 1/sqrt(s/d + eps)"""
    eps, per = n
    return (1 / tl.sqrt(get(p[0]) * per + eps),), ()


@triton.jit
def _scale_bwd(p, n):
    eps, per = n
    r = 1 / tl.sqrt(get(p[0]) * per + eps)
    return (r, get(p[1]) * per * r * r), ()


@triton.jit
def _scaled(v, k):
    x, w = v
    return (w * (x * k[0]),)


@triton.jit
def _turned(v, k):
    """dx = r (w g - k x), dw = r g x"""
    g, x, w = v
    return (w * g - x * k[1]) * k[0], g * (x * k[0])


def _mean(dtype, d, eps, needs=0):
    return eps, 1 / max(d, 1)


def _absent(p):
    return tuple(p.shape) == (0,)


def _weighted(launch):
    """With ones where the weight is absent, and room for gradients that nobody needs."""

    def run(*args):
        d = args[0].shape[-1]
        if d:
            args = [a.new_ones(d, dtype=args[0].dtype) if torch.is_tensor(a) and a.shape == (0,) else a for a in args]
        launch(*args)

    return run


def _near(x, eps):
    """Rows of float64 over powers of two, the powers and r, if the squares of any of them leave float64."""
    if x.dtype != torch.float64 or not x.numel():
        return None
    size = x.square().mean(-1, keepdim=True) + eps
    lost = ~((size >= 2.0**-960) & (size < math.inf))
    if not bool(lost.any()):
        return None
    e = far(x.abs().amax(-1, keepdim=True)) * lost
    rows = scaled(x, -e)
    square = rows.square().mean(-1, keepdim=True)
    return rows, e, 1 / (square + scaled(torch.full_like(square, eps), -2 * e)).sqrt()


def _ranged(launch):
    """Without the kernel where squares leave float64."""

    def run(x, weight, y, eps):
        if (near := _near(x, eps)) is None:
            launch(x, weight, y, eps)
            return
        rows, _, r = near
        y.copy_(weight * (rows * r))

    return run


def _ranged_bwd(launch):
    def run(g, x, weight, dx, dweight, eps, needs):
        if (near := _near(x, eps)) is None:
            launch(g, x, weight, dx, dweight, eps, needs)
            return
        rows, e, r = near
        up, z = weight * g, rows * r
        if needs & 1:
            dx.copy_(scaled(r * (up - z * (up * z).mean(-1, keepdim=True)), -e))
        if needs & 2:
            dweight.copy_((g * z).sum_to_size(dweight.shape))

    return run


_forward = launcher("norm", "rms_norm", _square, _scale, _scaled, constants=_mean, curved=False)
_backward = launcher("norm", "rms_norm_bwd", _slope, _scale_bwd, _turned, constants=_mean, curved=False)
rms_norm = _weighted(_ranged(_forward))
rms_norm_bwd = _weighted(_ranged_bwd(_backward))


def _standard(x):
    """What `standardize` is told of the last axis, and room for its statistics."""
    rows = x.numel() // max(x.shape[-1], 1)
    return (1 << (x.ndim - 1)) - 1, [x.new_empty(rows, dtype=torch.float64) for _ in range(3)]


def _normed(x, weight, bias, y, layer, eps):
    nothing = x.new_empty(0)
    if layer:
        kept, stats = _standard(x)
        standardize(x, weight, bias, *(nothing,) * 4, y, *stats, kept, 0, 0, eps, 0.0, 0.0, False)
        return
    rms_norm(x, weight, y, eps)
    if not _absent(bias):
        y += bias


def _sent(g, x, weight, bias, dx, dweight, dbias, layer, eps, needs):
    nothing = x.new_empty(0)
    if layer:
        kept, stats = _standard(x)
        none = [torch.zeros_like(p) for p in stats]
        how = (kept, 0, 0, eps, 0.0, 0.0, False)
        standardize(x, nothing, nothing, *(nothing,) * 4, torch.empty_like(x), *stats, *how)
        given = (g, *none, x, weight, bias, *(nothing,) * 4, *stats)
        standardize_bwd(*given, dx, dweight, dbias, nothing, *how, needs)
        return
    rms_norm_bwd(g, x, weight, dx, dweight, eps, needs & 3)
    if needs & 4 and not _absent(bias):
        dbias.copy_(g.double().sum_to_size(bias.shape))


def add_norm(x, residual, weight, bias, inner_weight, inner_bias, y, s, layer, inner, eps, scale):
    """Launchers of the norms, and torch's sum: what is normalised is the sum as it is kept."""
    if not x.numel():
        return
    if inner:
        _normed(x, inner_weight, inner_bias, s, layer, eps)
        s += residual
    else:
        torch.add(residual, x, out=s)
    _normed(s, weight, bias, y, layer, eps)
    if scale != 1:
        y *= scale


def add_norm_bwd(gy, gs, x, weight, bias, inner_weight, inner_bias, s, *rest):
    """Launchers of the norms' gradients, and torch's sum."""
    dx, dresidual, dweight, dbias, dinner_weight, dinner_bias, layer, inner, eps, scale, needs = rest
    if not x.numel():
        for d in (dweight, dbias, dinner_weight, dinner_bias):
            d.zero_()
        return
    ds = torch.empty_like(x)
    _sent(gy * scale if scale != 1 else gy, s, weight, bias, ds, dweight, dbias, layer, eps, 1 | needs >> 1 & 6)
    ds += gs
    if needs & 2:
        dresidual.copy_(ds)
    if inner:
        own = torch.empty_like(x)
        _sent(ds, x, inner_weight, inner_bias, own, dinner_weight, dinner_bias, layer, eps, 1 | needs >> 3 & 6)
        ds = own
    if needs & 1:
        dx.copy_(ds)
