"""Standardisation over segments and its gradient. The one rule: a reference adds by the ids of elements, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array
from tersor._op import op
from tersor._reference import far, quiet, scaled, there, xp
from tersor._sample import Draw
from tersor._segments import add, drawn, gathered, ids, largest, shape_of, take

MODES = {"var": 0, "rms": 1, "crms": 2, "centre": 3}


def _sample(backward: bool) -> Any:
    """Arrays of any axes kept, with labels and weights or without, in all modes; statistics of their own for the backward."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        rng, shape = draw.rng, (*draw.lead, draw.d)
        n = len(shape)
        kept = int(rng.integers(0, 1 << n))
        mode, labelled, weighted = (
            draw.seed % 4,
            draw.seed // 4 % 3 == 1,
            draw.seed // 12 % 3 == 1 and draw.seed % 4 != 2,
        )
        sizes = tuple(m if kept >> i & 1 else 1 for i, m in enumerate(shape))
        beside = tuple(m if rng.random() < 0.5 else 1 for m in shape)
        labels, groups = drawn(rng, np.empty(shape), beside, kept) if labelled else (None, 0)
        sample_weight = draw.cast(rng.uniform(0.1, 2, beside)) if weighted and beside != (0,) else None
        by_segment = bool(draw.seed // 36 % 2)
        own = (-groups * math.prod(sizes),) if groups else (math.prod(sizes),)
        affine: tuple[int, ...] | None = own if by_segment else tuple(m if rng.random() < 0.5 else 1 for m in shape)
        affine = affine if affine != (0,) and draw.seed // 72 % 3 else None
        made = [draw.cast(rng.standard_normal(affine)) if affine else None for _ in range(2)]
        x = draw.cast(rng.standard_normal(shape) * max(draw.scale, 0.1) + rng.standard_normal())
        mixed = mode == 0 and draw.seed // 216 % 3 == 1 and own != (0,)
        fixed = [rng.standard_normal(own), rng.uniform(0.5, 2, own)] if mixed else [None, None]
        scalars = {"kept": kept, "groups": groups, "mode": mode, "eps": 0.1, "correction": 0.0}
        scalars |= {"alpha": (1.0, 0.25)[draw.seed // 648 % 2] if mixed else 0.0, "by_segment": by_segment}
        arrays = [x, *made, labels, sample_weight, *fixed]
        if not backward:
            return arrays, scalars
        with np.errstate(all="ignore"):
            wide = [np.asarray(a, np.float64) if a is not None and a.dtype.kind not in "iu" else a for a in arrays]
            _, *stats = _standardize.op.reference(*wide, **scalars)  # type: ignore[attr-defined]
        # a statistic of an empty segment has no gradient
        stats = [np.where(np.isfinite(s), s, 0.0) for s in stats]
        incoming = [np.where(stats[0] > 0, rng.standard_normal(stats[0].shape), 0.0) for _ in range(3)]
        return [draw.cast(rng.standard_normal(shape)), *incoming, *arrays, *stats], {**scalars, "needs": 15}

    return draw_all


def _powers(x: Array, w: Array, at: Array, n: int, mode: int, eps: float, alpha: float, fixed: Any) -> Array:
    """The powers of two by which segments that are far are divided, 0 for those that are not: near 1 comes what is largest of
    their elements that count, √ε and what is given."""
    with quiet(x):
        x = x if isinstance(x, np.ndarray) else x.detach()
        x = xp.where(w > 0, x, 0 * x)
        top = largest(abs(x), at, n)
        # large numbers that are equal have no spread, which is measured by what else there is
        gaps = [largest(xp.where(w > 0, take(top, at) - sign * x, 0 * x), at, n) for sign in (1, -1)]
        equal = (mode in (0, 3)) & (top > 1) & ((gaps[0] == 0) | (gaps[1] == 0))
        top = xp.where(top > math.sqrt(eps), top, 0 * top + math.sqrt(eps))
        for f in [abs(fixed[0]), abs(fixed[1]) ** 0.5] if alpha else []:
            top = xp.where(top > f.reshape(-1), top, f.reshape(-1))
        return xp.where(equal, 0, far(top)) * (alpha != 1)


def _unit(
    stats: Any, mode: int, eps: float, correction: float, alpha: float, fixed: Any, e: Array
) -> tuple[Array, Array]:
    """μ and r of segments over 2^e."""
    w, mean, var = stats
    free = w - correction
    mu, v = mean, xp.where(free > 0, var * w / xp.where(free > 0, free, 1.0), math.nan)
    if mode in (1, 2):
        mu, v = 0 * mean, var + mean**2
    if mode == 2:
        v = (w * v + (w * mean) ** 2) / (w + 1)
    if mode == 3:
        return mean, scaled(0 * w + 1, e)
    if alpha == 1:
        mu, v = (f.reshape(mean.shape) for f in fixed)
        return mu, (v + eps) ** -0.5
    if alpha:
        given = [scaled(f.reshape(mean.shape), -k * e) for k, f in enumerate(fixed, 1)]
        mu, v = (alpha * f + (1 - alpha) * a for f, a in zip(given, (mu, v), strict=True))
    return mu, (v + scaled(0 * w + eps, -2 * e)) ** -0.5


def _stats(x: Array, w: Array, at: Array, n: int) -> tuple[Array, Array, Array]:
    """W, mean and variance of segments."""
    count = add(w, at, n)
    safe = xp.where(count > 0, count, 1.0)
    mean = add(w * x, at, n) / safe
    var = add(w * (x - take(mean, at)) ** 2, at, n) / safe
    none = 0 * count + math.nan
    return count, xp.where(count > 0, mean, none), xp.where(count > 0, var, none)


def _affine(p: Array, absent: float, x: Array, at: Array, by_segment: bool) -> Array:
    if not there(p):
        return absent
    return take(p, at) if by_segment else p


@op(
    sample=_sample(False),
    exempt=("sample_weight", "mean_given", "var_given"),
    tolerance={"float64": 4000, "float32": 8, "float16": 8, "bfloat16": 8},
)
def _standardize(
    x: Array,
    weight: Array = None,
    bias: Array = None,
    labels: Array = None,
    sample_weight: Array = None,
    mean_given: Array = None,
    var_given: Array = None,
    kept: int = 0,
    groups: int = 0,
    mode: int = 0,
    eps: float = 1e-5,
    correction: float = 0.0,
    alpha: float = 0.0,
    by_segment: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """y = γ(x − μ)r + β by segments, and their weights, means and variances."""
    with quiet(x):
        at, n = ids(x, labels, kept, groups)
        w = 0 * x + (sample_weight if there(sample_weight) else 1.0)
        fixed = (mean_given, var_given)
        e = _powers(x, w, at, n, mode, eps, alpha, fixed)
        x = scaled(x, -take(e, at))
        stats = _stats(x, w, at, n)
        mu, r = _unit(stats, mode, eps, correction, alpha, fixed, e)
        count, stats = stats[0], (stats[0], scaled(stats[1], e), scaled(stats[2], 2 * e))
        if alpha == 1:
            stats = (0 * count, mean_given.reshape(-1) + 0 * count, var_given.reshape(-1) + 0 * count)
        gamma, beta = (_affine(p, a, x, at, by_segment) for p, a in ((weight, 1.0), (bias, 0.0)))
        y = gamma * (x - take(mu, at)) * take(r, at) + beta
        y = xp.where(at < 0, 0 * x, y)
        shape = shape_of(x, kept, groups)
        return (y, *(s.reshape(shape) for s in stats))


@op(
    sample=_sample(True),
    tensors=True,
    exempt=("gcount", "gmean", "gvar", "count", "mean", "var", "sample_weight", "mean_given", "var_given"),
    tolerance={"float64": 8000, "float32": 16, "float16": 16, "bfloat16": 16},
)
def _standardize_bwd(
    g: Array,
    gcount: Array,
    gmean: Array,
    gvar: Array,
    x: Array,
    weight: Array = None,
    bias: Array = None,
    labels: Array = None,
    sample_weight: Array = None,
    mean_given: Array = None,
    var_given: Array = None,
    count: Array = ...,
    mean: Array = ...,
    var: Array = ...,
    kept: int = 0,
    groups: int = 0,
    mode: int = 0,
    eps: float = 1e-5,
    correction: float = 0.0,
    alpha: float = 0.0,
    by_segment: bool = False,
    needs: int = 15,
) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `standardize`: with :math:`h = \gamma g`, :math:`H = \sum h`, :math:`A = \sum hz`, statistics send back
    :math:`w(B + C(x - \mu))`."""
    with quiet(x):
        nothing = x.reshape(-1)[:0]
        at, n = ids(x, labels, kept, groups)
        fixed, w = (mean_given, var_given), xp.ones_like(x) * (sample_weight if there(sample_weight) else 1.0)
        e = _powers(x, w, at, n, mode, eps, alpha, fixed)
        x = scaled(x, -take(e, at))
        # what is known of far segments may be no number
        known = [s.reshape(-1) for s in (count, mean, var)]
        stats = [xp.where(e == 0, *both) for both in zip(known, _stats(x, w, at, n), strict=True)]
        w_s, mean_s, var_s = stats
        mu, r = _unit(stats, mode, eps, correction, alpha, fixed, e)
        gamma = _affine(weight, 1.0, x, at, by_segment)
        inside = xp.where(at < 0, 0 * x, 0 * x + 1)
        g = xp.where(at < 0, 0 * g, g)
        z = xp.where(at < 0, 0 * x, (x - take(mu, at)) * take(r, at))
        h = g * gamma
        total, along = add(h, at, n), add(h * z, at, n)
        some = w_s > 0
        over = xp.where(some, w_s, 1.0)
        free = xp.where(some, w_s - correction, 1.0)
        part = 1 - alpha
        none = 0 * total
        b, c, d = [
            lambda: (
                -part * r * total / over,
                -part * r * r * along / free,
                0.5 * -part * r * r * along * var_s * w_s / free**2,
            ),
            lambda: (-r * r * along * mean_s / over, -r * r * along / over, 0.5 * -r * r * along * var_s / over),
            lambda: (-r * r * along * mean_s, -r * r * along / (w_s + 1), none),
            lambda: (-r * total / over, none, none),
        ][mode]()
        # of x over 2^e; what comes in is of statistics of x itself
        gv = gvar.reshape(-1)
        r, b = scaled(r, -e), scaled(b, -e) + gmean.reshape(-1) / over
        c = scaled(c, -e) + 2 * scaled(gv, e) / over
        d = d + scaled(gv, 2 * e) * var_s / over - gcount.reshape(-1)
        if alpha == 1:
            some = some & False
        b, c, d = (xp.where(some, v, none) for v in (b, c, d))
        u = x - take(mean_s, at)
        u = xp.where(xp.isnan(u), 0 * x, u)
        dx = inside * (h * take(r, at)) + w * (take(b, at) + take(c, at) * u)
        dx = xp.where(at < 0, 0 * x, dx) if needs & 1 else nothing

        def sent(p: Array, v: Array, bit: int) -> Array:
            if not there(p) or not needs & bit:
                return nothing
            return add(v, at, n).reshape(p.shape) if by_segment else gathered(v, tuple(p.shape))

        dw = nothing
        if there(sample_weight) and needs & 8:
            b, c = scaled(b, e), scaled(c, e)
            dw = inside * (take(b, at) * u + 0.5 * take(c, at) * u * u - take(d, at))
            dw = gathered(dw, tuple(sample_weight.shape))
        return dx, sent(weight, g * z, 2), sent(bias, g, 4), dw
