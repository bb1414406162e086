"""Words of fixed point. The rule: a power of two is multiplied with exactly, and words are drawn as on the CPU."""

import torch
import triton
import triton.language as tl

from tersor.random import TAGS
from tersor.triton.quant._arithmetic import clamp, ends, uniform
from tersor.triton.quant._grain import type_of, work

BLOCK = 1024
_ROUNDING = TAGS["rounding"]


@triton.jit
def _even(v, WHOLE: tl.constexpr):
    """Half to even; from WHOLE on all numbers are integers."""
    a = tl.abs(v)
    r = tl.where(a < WHOLE, (a + WHOLE) - WHOLE, a)
    return tl.where(v < 0, -r, r)


@triton.jit
def _toward_zero(v, WHOLE: tl.constexpr):
    a = tl.abs(v)
    r = tl.where(a < WHOLE, (a + WHOLE) - WHOLE, a)
    r = tl.where(r > a, r - 1, r)
    return tl.where(v < 0, -r, r)


@triton.jit(do_not_specialize=["seed", "lo", "hi"])
def _fixed(
    x,
    y,
    n,
    seed,
    scale,
    unit,
    lo,
    hi,
    TAG: tl.constexpr,
    RANDOM: tl.constexpr,
    WHOLE: tl.constexpr,
    T: tl.constexpr,
    B: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    v = tl.load(x + at, live, 0).to(T) * tl.full([1], scale, T)
    v = clamp(v, lo.to(T), hi.to(T))
    if RANDOM:
        u = uniform(seed, at, TAG, T)
        r = _toward_zero(v, WHOLE)
        away = tl.where(v < 0, r - 1, r + 1)
        r = tl.where(u < tl.abs(v - r), away, r)
    else:
        r = _even(v, WHOLE)
    s = tl.full([1], unit, T)
    tl.store(y + at, ends((r + 0.0) * s, s, y.dtype.element_ty).to(y.dtype.element_ty), live)


@triton.jit(do_not_specialize=["lo", "hi"])
def _straight(g, x, dx, n, scale, lo, hi, WHOLE: tl.constexpr, T: tl.constexpr, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < n
    r = _even(tl.load(x + at, live, 0).to(T) * tl.full([1], scale, T), WHOLE)
    inside = (r >= lo.to(T)) & (r <= hi.to(T))
    tl.store(dx + at, tl.where(inside, tl.load(g + at, live, 0), 0), live)


def _ends(name, wl, fl, kind):
    """The least and the largest word, of float32 the last that is not beyond."""
    if not (2 <= wl <= 32 and -126 <= fl <= 126):
        raise ValueError(f"{name}: wl within 2 and 32 and fl within -126 and 126 are needed, got {wl} and {fl}")
    end = 1 << wl - 1
    return -end, end - (end >> 24 if kind == torch.float32 and wl > 25 else 1)


def _options(kind):
    whole = 2.0**52 if kind == torch.float64 else 2.0**23
    return {"WHOLE": whole, "T": type_of(kind), "B": BLOCK, "num_warps": 4, "enable_fp_fusion": False}


def fixed_point(x, y, wl, fl, random, seed):
    """GPU kernel of `fixed_point`: inputs, outputs, scalars."""
    kind, n = work(x), x.numel()
    lo, hi = _ends("fixed_point", wl, fl, kind)
    if n:
        numbers = (n, seed, 2.0**fl, 2.0**-fl, lo, hi)
        _fixed[(triton.cdiv(n, BLOCK),)](x, y, *numbers, TAG=_ROUNDING, RANDOM=bool(random), **_options(kind))


def fixed_point_bwd(g, x, dx, wl, fl):
    """GPU kernel of `fixed_point_bwd`: inputs, outputs, scalars."""
    kind, n = work(x), x.numel()
    lo, hi = _ends("fixed_point_bwd", wl, fl, kind)
    if n:
        _straight[(triton.cdiv(n, BLOCK),)](g, x, dx, n, 2.0**fl, lo, hi, **_options(kind))
