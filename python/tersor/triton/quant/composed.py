"""Quantizers of the GPU made of the others' kernels and of torch's own operations. The one rule: what decides a code is a
division that is rounded once, so that it is the CPU's; around it stand sums, shifts and comparisons.
"""

import torch

from tersor.quant.qparams import affine_params
from tersor.triton.quant._grain import work
from tersor.triton.quant.affine import quantize
from tersor.triton.quant.encode import ranges
from tersor.triton.quant.fake import fake_quantize, limits
from tersor.triton.quant.packing import pack


def _cut(x, own):
    """x with each axis in two, the scales along it and the elements of each; ``own`` is the shape of the scales."""
    own = tuple(own) if len(own) == x.ndim else (1,) * x.ndim
    return x.reshape([size for n, m in zip(x.shape, own, strict=True) for size in (m, n // max(m, 1))])


def _beside(v, x):
    """A number for each scale as one that broadcasts with the elements of x."""
    if v.numel() == 1:
        return v.reshape(())
    cut = _cut(x, v.shape).shape
    return v.reshape([n if i % 2 == 0 else 1 for i, n in enumerate(cut)]).expand(cut).reshape(x.shape)


def _gathered(v, own):
    """The sums over the elements of each scale."""
    return _cut(v, own).sum(tuple(range(1, 2 * v.ndim, 2))).reshape(own) if v.ndim else v.reshape(own)


def fake_quantize_lsq(x, scale, zero_point, y, lo, hi, form, factor):
    """`fake_quantize_lsq`: inputs, outputs, scalars."""
    fake_quantize(x, scale, zero_point, y, lo, hi, form, 0, 0)


def fake_quantize_lsq_bwd(g, x, scale, zero_point, dx, ds, dz, lo, hi, form, factor):
    """`fake_quantize_lsq_bwd`: inputs, outputs, scalars. Sums are float64."""
    limits("fake_quantize_lsq_bwd", lo, hi)
    kind = work(x)
    u, z = x.to(kind), zero_point.to(x.device, torch.float64).round().to(kind)
    s = _beside(scale.to(x.device, torch.float32 if form == 1 else kind), u)
    z = _beside(z, u) if z.numel() else torch.zeros_like(u)
    v = u * (1 / s).to(kind) if form == 1 else u / s + (z if form == 2 else 0)
    first, last = (lo, hi) if form == 2 else (lo - z, hi - z)
    rounded = v.round()
    inside = (rounded >= first) & (rounded <= last)
    ends = v.clamp(first, last) - (z if form == 2 else 0)
    wide = g.double() * factor
    dx.copy_(torch.where(inside, g, 0))
    ds.copy_(_gathered(wide * torch.where(inside, rounded - v, ends), ds.shape))
    if dz.numel():
        dz.copy_(_gathered(wide * torch.where(inside, 0, -s), dz.shape))


def best_share(x, scale, zero_point, best, lo, hi, tried, step, power):
    """`best_share`: inputs, outputs, scalars. One walk of x for each share that is tried, and sums in float64."""
    u = x.to(work(x))
    u = torch.where(u.isfinite(), u, 0)
    y, s = torch.empty_like(u), scale.to(x.device, u.dtype)
    least = torch.full(scale.shape, torch.inf, dtype=torch.float64, device=x.device)
    best.copy_(scale)
    for i in range(tried):
        t = s * torch.full_like(s, 1 - step * i)
        t = torch.where(t > 0, t, s)
        fake_quantize(u, t, zero_point, y, lo, hi, 0, 0, 0)
        error = _gathered((u - y).double().abs() ** power, scale.shape)
        best.copy_(torch.where(error < least, t.to(best.dtype), best))
        least = torch.minimum(error, least)


def encode_affine(x, data, scale, zero_point, bits, group, saturate):
    """`encode_affine`: inputs, outputs, scalars."""
    if x.numel() == 0:
        return
    last, most = x.shape[-1], (1 << bits) - 1
    if group and last % group:
        raise ValueError(f"encode_affine: groups of {group} do not divide a last axis of {last}")
    s, z = affine_params(torch, *ranges("encode_affine", x, scale.shape, group, saturate), 0, most)
    scale.copy_(s)
    zero_point.copy_(z)
    q = torch.empty_like(x, dtype=torch.uint8)
    quantize(x, s, z, q, 0, most, 0, 0, 0, True)
    pack(q, data, bits, False)
