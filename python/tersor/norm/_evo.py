"""EvoNorm as an operator, and its gradient. The one rule: spreads are made of the moments of the channels of samples, and a
second derivative goes through these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array, is_tensor, torch_module
from tersor._op import op
from tersor._reference import far, quiet, scaled, there, xp
from tersor._sample import Draw


def _sample(backward: bool) -> Any:
    """All variants, with scales and shifts or without, with a variance given or not."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        rng, seed, groups = draw.rng, draw.seed, 2
        # samples, channels that groups divide, and places
        n, c, size = math.prod(draw.lead), groups * (1 + seed % 2), draw.d
        variant = seed % 6
        x = draw.cast(rng.standard_normal((n, c, size)) * max(draw.scale, 0.1) + rng.standard_normal())
        weight, bias, v = (draw.cast(rng.uniform(-2, 2, c)) for _ in range(3))
        arrays = [
            x,
            None if seed // 6 % 3 == 1 else weight,
            None if seed // 6 % 3 == 2 else bias,
            v if variant in (0, 3) else None,
            rng.uniform(0.5, 2, c) if variant < 3 and seed // 18 % 2 else None,
        ]
        scalars = {"variant": variant, "groups": groups, "eps": 0.1}
        if not backward:
            return arrays, scalars
        with np.errstate(all="ignore"):
            own = np.stack([np.asarray(x, np.float64).mean(-1), np.asarray(x, np.float64).var(-1)], -1)
        incoming = rng.standard_normal(c) if arrays[4] is None and variant < 3 and x.size else np.zeros(c)
        return [draw.cast(rng.standard_normal(x.shape)), incoming, *arrays, own], {**scalars, "needs": 15}

    return draw_all


class _Spread:
    """What elements are divided by: of the batch a and px + q, of groups 1/d and σ(px); and what they come from."""

    def __init__(self, x: Array, kept: Array, v: Array, given: Array, variant: int, groups: int, eps: float, e: Array):
        n, c, size = x.shape
        # of what was divided by 2^e
        none = xp.zeros_like(kept[..., 0])
        small = scaled(none + eps, -2 * e)

        def root(v: Array) -> Array:
            """√(v + ε), of no spread the root of ε, whose own square may vanish."""
            bare = (e != 0) & (v == 0)
            return xp.where(bare, scaled(none + eps**0.5, -e), xp.where(bare, 1.0, v + small) ** 0.5)[..., None]

        mean, own = kept[..., 0], kept[..., 1]
        self.grouped, self.variant, self.given = variant > 2, variant, there(given)
        parts = mean.reshape(n, groups, c // groups) if self.grouped else mean
        vars_ = own.reshape(n, groups, c // groups) if self.grouped else own
        over = -1 if self.grouped else 0
        many = parts.shape[over]
        centre = parts.sum(over) / many
        shifted = parts - (centre[..., None] if self.grouped else centre)
        self.var = (vars_ + shifted * shifted).sum(over) / many
        self.count = many * size
        if self.grouped:
            square = (self.var + centre * centre) if variant == 5 else self.var
            self.p = scaled(_column(v, 1.0) + none[..., None], e[..., None])
            self.a = 1 / root(self._wide(square, c)[..., 0])
            self.centre = self._wide(0 * centre if variant == 5 else centre, c)
            return
        self.centre, self.var = centre[:, None], given if self.given else self.var
        self.a = scaled((given + eps) ** 0.5 + none, -e)[..., None] if self.given else root(self.var)
        self.q = root(own if variant == 0 else own + mean * mean)
        self.p = (_column(v, 1.0), scaled(self.q, e[..., None]), -1.0)[variant]
        self.own_centre = mean[..., None] if variant == 0 else 0.0
        right = self.p * x + self.q
        self.chosen = (right > self.a) | (right != right)
        self.divisor = xp.where(self.chosen, right, self.a + 0 * right)

    def _wide(self, v: Array, c: int) -> Array:
        """What groups [n, groups] know, for their channels [n, c, 1]."""
        many = c // v.shape[1]
        return (v[..., None] + _zeros(v, many)).reshape(v.shape[0], c)[..., None]


def _powers(x: Array, given: Array, variant: int, groups: int, eps: float) -> Array:
    """The powers of two [n, c] by which what shares a spread is divided where it is far, 0 elsewhere."""
    n, c, size = x.shape
    top = abs(x if isinstance(x, np.ndarray) else x.detach())
    top = xp.amax(top, -1) if size else top.sum(-1)
    if there(given):
        top = xp.maximum(top, abs(given) ** 0.5 + 0 * top)
    elif variant > 2:
        top = xp.amax(top.reshape(n, groups, c // groups), -1)[..., None] + 0 * top.reshape(n, groups, c // groups)
        top = top.reshape(n, c)
    elif n:
        top = xp.amax(top, 0) + 0 * top
    return far(xp.maximum(top, 0 * top + math.sqrt(eps)))


def _own(x: Array) -> Array:
    """Mean and variance of each channel of a sample, side by side."""
    size = x.shape[-1]
    mean = x.sum(-1) / size if size else x.sum(-1) + math.nan
    var = ((x - mean[..., None]) ** 2).sum(-1) / size if size else mean
    return np.stack([mean, var], -1) if isinstance(x, np.ndarray) else torch_module().stack([mean, var], -1)


def _zeros(like: Array, n: int) -> Array:
    return like.new_zeros(n) if is_tensor(like) else np.zeros(n)


def _sigmoid(z: Array) -> Any:
    if is_tensor(z):
        return torch_module().sigmoid(z)
    small = xp.exp(-abs(z))
    return xp.where(z < 0, small, 1) / (1 + small)


def _column(p: Array, absent: float) -> Array:
    return p[:, None] if there(p) else absent


@op(sample=_sample(False), exempt=("running_var",))
def _evonorm(
    x: Array,
    weight: Array = None,
    bias: Array = None,
    v: Array = None,
    running_var: Array = None,
    variant: int = 0,
    groups: int = 1,
    eps: float = 1e-3,
) -> tuple[Array, ...]:
    """γx/max(a, px + q) + β, or γxσ(vx)/d + β, and the variance of the batch."""
    with quiet(x):
        e = _powers(x, running_var, variant, groups, eps)
        x = scaled(x, -e[..., None])
        own = _own(x)
        by = _Spread(x, own, v, running_var, variant, groups, eps, e)
        z = x * _sigmoid(by.p * x) * by.a if by.grouped else x / by.divisor
        y = _column(weight, 1.0) * z + _column(bias, 0.0)
        if not by.grouped and not by.given and len(x):
            by.var = scaled(by.var, 2 * e[0])
        own = xp.stack([scaled(own[..., 0], e), scaled(own[..., 1], 2 * e)], -1)
        return y, _zeros(x, x.shape[1]) if by.grouped else by.var, own


@op(sample=_sample(True), tensors=True, exempt=("gvar", "running_var", "own"))
def _evonorm_bwd(
    g: Array,
    gvar: Array,
    x: Array,
    weight: Array = None,
    bias: Array = None,
    v: Array = None,
    running_var: Array = None,
    own: Array = ...,
    variant: int = 0,
    groups: int = 1,
    eps: float = 1e-3,
    needs: int = 15,
) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `evonorm`: what the map sends, and what it sends through each of the spreads that divide."""
    nothing = x.reshape(-1)[:0]
    with quiet(x):
        e = _powers(x, running_var, variant, groups, eps)
        x, back = scaled(x, -e[..., None]), e[..., None]
        # a second derivative goes through what is kept, and what is kept of what is far may be no number
        own = xp.where(back == 0, own, _own(x)) if isinstance(x, np.ndarray) else _own(x)
        by = _Spread(x, own, v, running_var, variant, groups, eps, e)
        h = g * _column(weight, 1.0)
        n, c, size = x.shape
        if by.grouped:
            sigma = _sigmoid(by.p * x)
            z = x * sigma * by.a
            along = by._wide((h * z).sum(-1).reshape(n, groups, c // groups).sum(-1), c)
            dx = h * by.a * sigma * (1 + by.p * x * (1 - sigma)) - (x - by.centre) * along * by.a**2 / by.count
            dv = scaled(h * x * z * (1 - sigma), back)
        else:
            z = x / by.divisor
            slope = -h * z / by.divisor
            k, rest = xp.where(by.chosen, slope, 0 * x), xp.where(by.chosen, 0 * x, slope)
            sent = (k * (scaled(x, back) + 1) if variant == 1 else k).sum(-1)[..., None]
            dx = h / by.divisor + k * by.p + (x - by.own_centre) * xp.where(sent == 0, sent, sent / by.q) / max(size, 1)
            if not by.given:
                sent = rest.sum(-1).sum(0)[:, None] / by.a + 2 * scaled(gvar[:, None], 2 * back)
                dx = dx + (x - by.centre) * sent / max(by.count, 1)
            dv = k * x
        return (
            scaled(dx, -back) if needs & 1 else nothing,
            (g * z).sum(-1).sum(0) if there(weight) and needs & 2 else nothing,
            g.sum(-1).sum(0) if there(bias) and needs & 4 else nothing,
            dv.sum(-1).sum(0) if there(v) and needs & 8 else nothing,
        )
