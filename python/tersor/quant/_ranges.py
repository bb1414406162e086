"""Ranges that leave out a little of the data, so that the rest is nearer. The one rule: what is measured here is where scales
end; how scales and zero points follow is told once, in `tersor.quant.qparams`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, dtype_name
from tersor._op import op
from tersor._reference import wide, xp
from tersor._sample import Draw, Quantized
from tersor._signature import grain
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array

#: of 2^2 to 2^8 codes, the clip in units of the spread that loses least of a normal (the root of its variance) and of a Laplace
#: distribution (the mean distance from its mean): the zeros of the derivative of what is lost by rounding and by clipping,
#: Banner et al., "Post training 4-bit quantization of convolutional networks for rapid-deployment" (2019), equations 6 and 10
CLIPS = {
    "gauss": (1.7106, 2.1516, 2.5591, 2.9362, 3.2869, 3.6151, 3.9240),
    "laplace": (2.8307, 3.8972, 5.0286, 6.2048, 7.4131, 8.6456, 9.8968),
}


def _shares(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    (x,), _ = Quantized("x")(draw)
    return [x], {
        "low": (0.0, 0.003, 0.25)[draw.seed % 3],
        "high": (1.0, 0.997, 0.5)[draw.seed % 3],
        "magnitude": draw.seed % 2 == 1,
    }


@op(sample=_shares, native=True, tolerance=dict.fromkeys(FLOATS, 1.0), gradcheck=False)
def _row_quantiles(
    x: Array, low: float = 0.0, high: float = 1.0, magnitude: bool = False, saturate: bool = False
) -> tuple[Array, Array]:
    """Two quantiles of the finite numbers of each row, or of their magnitudes; then the first is negative."""
    v, kind = wide(x), _compute(x)
    d = v.shape[-1]
    if not d:
        none = _cast(v.sum(-1)[..., None], kind)
        return none, none
    seen = xp.isfinite(v)
    v = xp.where(seen, abs(v) if magnitude else v, math.inf)
    v = np.sort(v, -1) if isinstance(v, np.ndarray) else v.sort(-1).values
    n = wide(seen.sum(-1)[..., None])

    def at(share: float) -> Array:
        r = (n - 1) * share
        i = xp.floor(r)
        t = r - i
        first = _long(i).clip(0, d - 1)
        after = xp.minimum(first + 1, _long(n - 1).clip(0, d - 1))
        a, b = (np.take_along_axis(v, k, -1) if isinstance(v, np.ndarray) else v.gather(-1, k) for k in (first, after))
        return xp.where(n > 0, xp.where(t < 0.5, a + (b - a) * t, b - (b - a) * (1 - t)), 0.0)

    a, b = at(low), at(high)
    return _cast(-a if magnitude else a, kind), _cast(b, kind)


def _compute(x: Array) -> str:
    return "float64" if dtype_name(x.dtype) == "float64" else "float32"


def _cast(v: Array, kind: str) -> Array:
    if isinstance(v, np.ndarray):
        return v.astype(kind)
    import torch

    return v.to(getattr(torch, kind))


def _long(v: Array) -> Array:
    return v.astype(np.int64) if isinstance(v, np.ndarray) else v.long()


def _codes(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    (x,), _ = Quantized("x")(draw)
    return [x], {"codes": (4, 16, 256)[draw.seed % 3], "symmetric": draw.seed % 2 == 1}


@op(sample=_codes, native=True, integer=True)
def _row_threshold(x: Array, codes: int = 256, symmetric: bool = True, saturate: bool = False) -> Array:
    """The threshold of each row's magnitudes from which a histogram in codes is nearest to the histogram itself."""
    bins, kind = 2048, _compute(x)
    rows = np.asarray(x, np.float64).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    made = np.zeros((len(rows), 1))
    for number, row in enumerate(rows):
        row = row[np.isfinite(row)]
        low, high = max(0.0, -row.min(initial=0)), row.max(initial=0)
        most = max(low, high)
        if most == 0:
            continue
        h = np.bincount(np.minimum((np.abs(row) / most * bins).astype(np.int64), bins - 1), minlength=bins).astype(
            float
        )
        levels = max(int(np.rint(codes * (0.5 if symmetric else 1 / (1 + min(low, high) / most)))), 1)
        loss, places = np.full(bins + 1, np.inf), np.flatnonzero(h)
        for i in range(levels, bins + 1):
            some = places[places < i]
            if not some.size:
                continue
            p, kept = h[some], h[some]
            p[-1] += h[i:].sum()
            group = np.searchsorted(np.arange(levels + 1) * i // levels, some, "right") - 1
            share = np.bincount(group, kept, levels) / np.maximum(np.bincount(group, minlength=levels), 1)
            q, p = share[group] / kept.sum(), p / h.sum()
            loss[i] = float((p * np.log(p / q)).sum())
        made[number] = most * (np.flatnonzero(loss <= loss.min() + 1e-9)[-1] / bins)
    return made.reshape(*x.shape[:-1], 1).astype(kind)


@op(sample=Quantized("x", axes=1, laplace=True), native=True, tolerance=dict.fromkeys(FLOATS, 16.0), gradcheck=False)
def _value_spread(
    x: Array, axes: int = 0, group: int = 0, laplace: bool = False, saturate: bool = False
) -> tuple[Array, Array]:
    """The mean of each scale's finite elements, and the mean distance from it, or the root of the mean of its square."""
    kind, shape = _compute(x), grain(tuple(x.shape), axes, group)
    seen = xp.isfinite(x)
    v = xp.where(seen, wide(x), 0.0)
    n = gathered(wide(seen), shape).clip(1)
    mean = gathered(v, shape) / n
    far = xp.where(seen, v - spread(mean, tuple(x.shape)), 0.0)
    away = gathered(abs(far), shape) / n if laplace else xp.sqrt(gathered(far * far, shape) / n)
    return _cast(mean, kind), _cast(away, kind)


def _cut(shape: tuple[int, ...], scales: tuple[int, ...]) -> list[int]:
    """The sizes of the scales and of their elements, axis by axis."""
    if not scales:
        scales = (1,) * len(shape)
    return [size for n, m in zip(shape, scales, strict=True) for size in (m, n // max(m, 1))]


def gathered(v: Array, scales: tuple[int, ...]) -> Array:
    """The sums over the elements of each scale."""
    if not v.ndim:
        return v.reshape(scales)
    return v.reshape(_cut(tuple(v.shape), scales)).sum(tuple(range(1, 2 * v.ndim, 2))).reshape(scales)


def spread(s: Array, shape: tuple[int, ...]) -> Array:
    """A scale of one size per axis as one number per element."""
    cut = _cut(shape, tuple(s.shape))
    s = s.reshape([n if i % 2 == 0 else 1 for i, n in enumerate(cut)])
    return (np.broadcast_to(s, cut) if isinstance(s, np.ndarray) else s.expand(cut)).reshape(shape)


@op(
    sample=Quantized("x", "scale", "zero_point", lo=-8, hi=7, tried=20, step=0.025),
    exempt=("scale",),
    native=True,
    integer=True,
)
def _best_share(
    x: Array,
    scale: Array,
    zero_point: Array = None,
    lo: int = -128,
    hi: int = 127,
    tried: int = 20,
    step: float = 0.025,
    power: float = 2.0,
) -> Array:
    """Of s, (1 - step) s, ... the largest scale with the least sum of |x - x^|^p, of elements that are finite."""
    x, s = plain.real(x), np.asarray(scale)
    x = np.where(np.isfinite(x), x, x.dtype.type(0))
    least, best = np.full(s.shape, np.inf), s
    for i in range(tried):
        t = s.astype(x.dtype) * x.dtype.type(1 - step * i)
        t = np.where(t > 0, t, s.astype(x.dtype))
        far = np.abs(np.asarray(x - plain.fake(x, t, zero_point, lo, hi, 0), np.float64)) ** power
        error = plain.gather(far, s.shape)
        best, least = np.where(error < least, t.astype(s.dtype), best), np.minimum(error, least)
    return best


def rows(x: Array, axes: int, group: int) -> Array:
    """The elements of each scale side by side: as they lie for rows and groups, copied for columns."""
    if not x.ndim:
        return x.reshape(1, 1)
    shape = tuple(x.shape)
    cut = _cut(shape, grain(shape, axes, group))
    order = [*range(0, len(cut), 2), *range(1, len(cut), 2)]
    x = x.reshape(cut)
    x = x.transpose(order) if isinstance(x, np.ndarray) else x.permute(order)
    return x.reshape(math.prod(cut[::2]), math.prod(cut[1::2]))


def clipped(
    method: str, x: Array, extent: tuple[Array, Array], codes: int, symmetric: bool, options: dict[str, Any]
) -> tuple[Array, Array]:
    """The range of each scale by a method, within its extent.

    ``options`` are the axes, the group and saturate of the scales, and the share or the distribution that was asked for.
    """
    low, high = extent
    axes, group, saturate = options["axes"], options["group"], options["saturate"]
    if method == "percentile":
        share = options["percentile"] / 100
        below = 0.0 if symmetric else (100 - options["percentile"]) / 100
        least, most = _row_quantiles(rows(x, axes, group), share if symmetric else below, share, symmetric, saturate)
    elif method == "entropy":
        most = _row_threshold(rows(x, axes, group), codes, symmetric, saturate)
        least = -most
    else:
        laplace = options["distribution"] == "laplace"
        mean, far = _value_spread(x, axes, group, laplace, saturate)
        reach = far * CLIPS[options["distribution"]][codes.bit_length() - 3]
        least, most = mean - reach, mean + reach
    # numbers that lie on one side of 0 may have none beyond it
    return xp.maximum(low, xp.minimum(least.reshape(low.shape), xp.zeros_like(low))), xp.minimum(
        high, xp.maximum(most.reshape(high.shape), xp.zeros_like(high))
    )
