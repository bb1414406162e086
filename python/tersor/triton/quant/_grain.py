"""Which scale an element has, as numbers a kernel takes. The one rule: a scale's shape is its granularity."""

import math

import torch
import triton.language as tl


def work(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def type_of(kind):
    return tl.float64 if kind == torch.float64 else tl.float32


def launched(kind, zero, block):
    """How a kernel of scales and zero points, element by element, is compiled and launched."""
    return {
        "HAS_ZERO": zero.numel() > 0,
        "ONE_ZERO": zero.numel() == 1,
        "T": type_of(kind),
        "B": block,
        "num_warps": 4,
        "enable_fp_fusion": False,
    }


def fold(name, shape, scale):
    """The scale as (scale, width, high, wide, columns) of `slot`: at most two axes after folding, else spread out."""
    shape, own = tuple(shape), tuple(scale.shape)
    if math.prod(own) == 1 and all(m == 1 for m in own):
        own = (1,) * len(shape)
    if len(own) != len(shape) or any((m == 0 and n) or n % max(m, 1) for n, m in zip(shape, own, strict=True)):
        raise ValueError(f"{name}: a scale of shape {own} does not divide an array of shape {shape}")
    axes = [(1, 1)]
    for n, m in zip(shape, own, strict=True):
        last = axes[-1]
        if last[0] == last[1] or m == 1:
            axes[-1] = (last[0] * n, last[1] * m)
        else:
            axes.append((n, m))
    if len(axes) > 2:
        scale = scale.reshape(own)
        for axis, (n, m) in enumerate(zip(shape, own, strict=True)):
            scale = scale.repeat_interleave(n // m, axis)
        axes = [(scale.numel(), scale.numel())]
    (n1, m1), (n2, m2) = axes if len(axes) == 2 else [(1, 1), axes[0]]
    return scale.contiguous(), (max(n2, 1), max(n1 // max(m1, 1), 1), max(n2 // max(m2, 1), 1), m2)


def pair(name, shape, scale, zero):
    """Scales and zero points on the device and in the same places."""
    scale, place = (scale.reshape(1), None) if scale.numel() == 1 else fold(name, shape, scale)
    if zero.numel() > 1:
        zero, _ = fold(name, shape, zero)
        if zero.numel() != scale.numel():
            raise ValueError(f"{name}: {zero.numel()} zero points for {scale.numel()} scales")
    return scale, zero.reshape(-1), place or fold(name, shape, scale)[1]


def refuse_odd(name, odd):
    if bool(odd.any()):
        raise ValueError(f"{name}: x holds non-finite values (nan='zero' takes NaN for 0 and infinities for the ends)")
