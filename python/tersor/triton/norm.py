"""GPU kernels of norms of rows. The rule: as in Rust, a weight that is absent is one of ones."""

import torch
import triton
import triton.language as tl

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


def _weighted(launch):
    """With ones where the weight is absent, and room for gradients that nobody needs."""

    def run(*args):
        d = args[0].shape[-1]
        if d:
            args = [a.new_ones(d, dtype=args[0].dtype) if torch.is_tensor(a) and a.shape == (0,) else a for a in args]
        launch(*args)

    return run


rms_norm = _weighted(launcher("norm", "rms_norm", _square, _scale, _scaled, constants=_mean, curved=False))
rms_norm_bwd = _weighted(launcher("norm", "rms_norm_bwd", _slope, _scale_bwd, _turned, constants=_mean, curved=False))
