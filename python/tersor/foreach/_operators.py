"""The operators behind the functions of this family, with their float64 references. The one rule: a reference does to each
entry by itself what the kernel does in one walk, in NumPy or in torch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor import random
from tersor._arrays import Array, Arrays, dtype_name
from tersor._op import op
from tersor._reference import scaled, xp
from tersor._sample import Draw, Lists

#: digits and least exponent of the types that are rounded at random
HALVES = {"float16": (11, -14), "bfloat16": (8, -126)}


def _norm_sample(backward: bool = False) -> Any:
    def sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        samples = draw.seed % 3 == 1
        lists = Lists(draw, 3 if samples else None)
        n = len(lists.shapes)
        groups = (1, n, n // 2 + 2)[draw.seed // 3 % 3]
        ids = np.arange(n) if groups == n else draw.rng.integers(0, groups, n)
        batch = 3 if samples else 1
        arrays: list[Any] = [lists.normal(), ids.astype(np.int64)]
        if backward:
            norm = _norms.op.reference(  # type: ignore[attr-defined]
                [np.asarray(x, np.float64) for x in arrays[0]], arrays[1], groups, batch, samples, 2.0
            )
            arrays = [draw.rng.standard_normal((groups, batch)), *arrays, norm]
            return arrays, {"batch": batch, "samples": samples, "ord": 2.0}
        ord = 2.0 if lists.graded else (1.0, 2.0, math.inf)[draw.seed // 9 % 3]
        return arrays, {"groups": groups, "batch": batch, "samples": samples, "ord": ord}

    return sample


def _rows(x: Array, batch: int) -> Array:
    return x.reshape((batch, math.prod(x.shape) // max(batch, 1)))


@op(sample=_norm_sample(), exempt=("xs",))
def _norms(xs: Arrays, ids: Array, groups: int, batch: int, samples: bool, ord: float) -> Array:
    """The norm of every group of entries, of every sample apart."""
    zero: Any = 0.0 if isinstance(ids, np.ndarray) else ids.new_zeros(()).double()
    made = []
    of = ids.tolist()
    for group in range(groups):
        rows = [_rows(x, batch) for x, i in zip(xs, of, strict=True) if i == group]
        whole = xp.concatenate([abs(r) for r in rows], 1) if rows else None
        if whole is None or not math.prod(whole.shape):
            made.append([zero] * batch)
            continue
        top = whole.max(1) if isinstance(whole, np.ndarray) else whole.amax(1)
        if ord == math.inf:
            norm = top
        elif ord == 1:
            norm = whole.sum(1)
        else:
            fine = (top > 0) & (top < math.inf)
            e = xp.frexp(xp.where(fine, top, 1.0))[1] - 1
            e = e.astype(np.int64) if isinstance(e, np.ndarray) else e.long()
            norm = scaled(xp.sqrt((scaled(whole, -e[:, None]) ** 2).sum(1)), e)
        norm = xp.where(xp.isnan(top), math.nan, xp.where(top == math.inf, math.inf, norm))
        made.append([norm[b] for b in range(batch)])
    if isinstance(ids, np.ndarray):
        return np.asarray(made, np.float64).reshape(groups, batch)
    flat: list[Any] = [n.double() for row in made for n in row]
    return xp.stack(flat).reshape(groups, batch) if flat else ids.new_zeros((groups, batch)).double()


@op(sample=_norm_sample(backward=True), exempt=("xs",))
def _norms_bwd(g: Array, xs: Arrays, ids: Array, norm: Array, batch: int, samples: bool, ord: float) -> list[Array]:
    """Gradient of `norms` of order 2: g x/n, nothing where n = 0."""
    if ord != 2:
        raise ValueError("norms_bwd: only ord=2 has a gradient")
    made = []
    for x, i in zip(xs, ids.tolist(), strict=True):
        n, slope = norm[i][:, None], g[i][:, None]
        y = xp.where(n == 0, 0.0, _rows(x, batch) / xp.where(n == 0, 1.0, n) * slope)
        made.append(y.reshape(x.shape))
    return made


def _listed(name: str, i: int, n: int) -> str:
    """Entry i of the first list, or of all others one after another, as it stands in `lincomb`'s lists."""
    k, i = (0, i) if name == "first" else (1 + i // n, i % n)
    return f"lists[{k}][{i}]"


def _lincomb_sample(backward: bool = False) -> Any:
    def sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        lists, k = Lists(draw), 1 + draw.seed % 4
        first, others = lists.normal(), [x for _ in range(k - 1) for x in lists.normal()]
        c = draw.rng.standard_normal((len(first), k))
        if backward:
            return [lists.normal(), first, others, c], {"needs": (7, 1, 2, 4)[draw.seed // 4 % 4]}
        return [first, others, c], {}

    return sample


@op(sample=_lincomb_sample(), exempt=("first", "others", "c"), entry=_listed)
def _lincomb(first: Arrays, others: Arrays, c: Array) -> list[Array]:
    """The sum of c[i, k] times entry i of list k; the lists but the first stand one after another."""
    n, made = len(first), []
    for i, x in enumerate(first):
        y = c[i, 0] * x
        for k in range(1, c.shape[1]):
            y = y + c[i, k] * others[(k - 1) * n + i]
        made.append(y)
    return made


@op(sample=_lincomb_sample(backward=True), exempt=("gs", "first", "others", "c"))
def _lincomb_bwd(
    gs: Arrays, first: Arrays, others: Arrays, c: Array, needs: int = 7
) -> tuple[list[Array], list[Array], Array]:
    """Gradient of `lincomb`: c[i, k] g_i, and the products of g_i with entry i of list k."""
    n, k = c.shape
    lists = [first, *(others[j * n : (j + 1) * n] for j in range(k - 1))]
    dfirst = [c[i, 0] * g for i, g in enumerate(gs)] if needs & 1 else []
    dothers = [c[i, j] * g for j in range(1, k) for i, g in enumerate(gs)] if needs & 2 else []
    dc = 0 * c
    for i, g in enumerate(gs):
        for j in range(k):
            dc[i, j] = (g * lists[j][i]).sum()
    return dfirst, dothers, dc if needs & 4 else c.reshape(-1)[:0]


def _ema_sample(stochastic: bool = False) -> Any:
    def sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        lists = Lists(draw)
        targets, xs = lists.normal(), lists.normal()
        if draw.seed % 4 == 3:  # masters beside what they follow
            targets = [
                t.astype(np.float32) if dtype_name(x.dtype) in HALVES else t for t, x in zip(targets, xs, strict=True)
            ]
        scalars: dict[str, Any] = {"decay": (0.9, 0.999, 0.0, 1.0)[draw.seed // 4 % 4]}
        if stochastic:
            scalars |= {"seed": draw.seed - 2**31, "step": draw.seed % 2**24}
        return [targets, xs], scalars

    return sample


def _toward(t: Array, x: Array, decay: float) -> Array:
    if decay in (0.0, 1.0):
        return t if decay else x
    d = x - t
    return xp.where(xp.isfinite(d), t + (1 - decay) * d, decay * t + (1 - decay) * x)


@op(sample=_ema_sample(), exempt=("targets", "xs"))
def _ema(targets: Arrays, xs: Arrays, decay: float) -> list[Array]:
    """Every target on its way to its x."""
    return [_toward(t, x, decay) for t, x in zip(targets, xs, strict=True)]


@op(sample=_ema_sample(stochastic=True), exempt=("targets", "xs"), native=True)
def _ema_stochastic(targets: Arrays, xs: Arrays, decay: float, seed: int, step: int) -> list[Array]:
    """The same, where targets of 16 bits are rounded up with the probability that the rest says."""
    made = []
    for i, (t, x) in enumerate(zip(targets, xs, strict=True)):
        y = np.asarray(_toward(t.astype(np.float64), x.astype(np.float64), decay))
        if (name := dtype_name(t.dtype)) in HALVES and decay not in (0.0, 1.0):
            digits, least = HALVES[name]
            words = random.words(seed % 2**64, random.TAGS["rounding"], step, np.full(y.size, i), np.arange(y.size))
            place = np.maximum(np.frexp(y)[1] - 1, least) - (digits - 1)
            q = np.ldexp(np.abs(y), -place)
            up = (words.reshape(y.shape) >> 8) * 2.0**-24 < q - np.floor(q)
            y = np.where(np.isfinite(y), np.copysign(np.ldexp(np.floor(q) + up, place), y), y)
        made.append(y.astype(t.dtype))
    return made
