"""The operators of reductions over segments. The one rule: a reference adds by the ids of elements, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array, dtype_name, torch_module
from tersor._op import op
from tersor._reference import quiet, there, xp
from tersor._sample import Draw
from tersor._segments import add, drawn, gathered, ids, shape_of, take


def _sample(*kinds: str, **scalars: Any) -> Any:
    """Arrays of any axes kept, with labels and weights or without."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        rng, shape = draw.rng, (*draw.lead, draw.d)
        kept = int(rng.integers(0, 1 << len(shape)))
        beside = [tuple(m if rng.random() < 0.5 else 1 for m in shape) for _ in range(2)]
        labels, groups = drawn(rng, np.empty(shape), beside[0], kept) if draw.seed % 3 == 1 else (None, 0)
        weight = draw.cast(rng.uniform(0.1, 2, beside[1])) if draw.seed // 3 % 2 and beside[1] != (0,) else None
        x = draw.normal(*shape)
        own = shape_of(x, kept, groups)
        made = {
            "x": x,
            "i": rng.integers(-50, 50, shape),
            "labels": labels,
            "weight": weight,
            "g": draw.cast(rng.standard_normal(own)),
        }
        wide = np.asarray(x, np.float64)
        if "count" in kinds:
            tall = None if weight is None else np.asarray(weight, np.float64)
            stats = _segment_moments.op.reference(wide, labels, tall, kept, groups)  # type: ignore[attr-defined]
            empty = stats[0] == 0
            made |= {k: np.where(empty, 1.0, s) for k, s in zip(("count", "mean", "var"), stats, strict=True)}
            made |= {k: np.where(empty, 0.0, rng.standard_normal(own)) for k in ("gcount", "gmean", "gvar")}
        if "total" in kinds:
            made["total"] = _segment_logsumexp.op.reference(wide, labels, kept, groups)[1]  # type: ignore[attr-defined]
        if "at" in kinds:
            made["at"] = _segment_extreme.op.reference(wide, labels, kept, groups, True)[1]  # type: ignore[attr-defined]
        given = dict(scalars)
        if "at" not in kinds:
            given |= {"kept": kept, "groups": groups}
        if "largest" in scalars:
            given["largest"] = bool(draw.seed // 6 % 2)
        if "kind" in scalars:
            given["kind"] = draw.seed // 6 % 2
        return [made[k] for k in kinds], given

    return draw_all


@op(
    sample=_sample("x", "labels", "weight"),
    exempt=("weight",),
    tolerance={"float64": 4000, "float32": 4, "float16": 4, "bfloat16": 4},
)
def _segment_moments(
    x: Array, labels: Array = None, weight: Array = None, kept: int = 0, groups: int = 0
) -> tuple[Array, Array, Array]:
    """W = Σw, μ = Σwx/W and v = Σw(x − μ)²/W of segments; NaN where W is 0."""
    with quiet(x):
        at, n = ids(x, labels, kept, groups)
        w = 0 * x + (weight if there(weight) else 1.0)
        count = add(w, at, n)
        safe = xp.where(count > 0, count, 1.0)
        mean = add(w * x, at, n) / safe
        var = add(w * (x - take(mean, at)) ** 2, at, n) / safe
        none, shape = 0 * count + math.nan, shape_of(x, kept, groups)
        found = (count, xp.where(count > 0, mean, none), xp.where(count > 0, var, none))
        first, second, third = (v.reshape(shape) for v in found)
        return first, second, third


@op(
    sample=_sample("gcount", "gmean", "gvar", "x", "labels", "weight", "count", "mean", "var", needs=3),
    exempt=("gcount", "gmean", "gvar", "count", "mean", "var", "weight"),
    tensors=True,
    tolerance={"float64": 8000, "float32": 16, "float16": 16, "bfloat16": 16},
)
def _segment_moments_bwd(
    gcount: Array,
    gmean: Array,
    gvar: Array,
    x: Array,
    labels: Array = None,
    weight: Array = None,
    count: Array = ...,
    mean: Array = ...,
    var: Array = ...,
    kept: int = 0,
    groups: int = 0,
    needs: int = 3,
) -> tuple[Array, Array]:
    """dx = w(b + c(x − μ)) with b = gμ/W and c = 2gv/W; dw = gW + gμ(x − μ)/W + gv((x − μ)² − v)/W."""
    with quiet(x):
        at, _ = ids(x, labels, kept, groups)
        b, c, m = (take(v, at) for v in (gmean / count, 2 * gvar / count, mean))
        d = take(gvar * var / count - gcount, at)
        u, w, nothing, none = x - m, weight if there(weight) else 1.0, x.reshape(-1)[:0], xp.zeros_like(b)
        # where the variance sends nothing, an infinite number has a slope like any other
        cu = xp.where(c == 0, none, c * u)
        dx = xp.where(at < 0, none, w * (b + cu)) if needs & 1 else nothing
        if not there(weight) or not needs & 2:
            return dx, nothing
        return dx, gathered(xp.where(at < 0, none, u * xp.where(c == 0, b, b + 0.5 * cu) - d), tuple(weight.shape))


@op(sample=_sample("x", "labels", "weight"), exempt=("weight",))
def _segment_sum(x: Array, labels: Array = None, weight: Array = None, kept: int = 0, groups: int = 0) -> Array:
    """Σwx of segments."""
    with quiet(x):
        at, n = ids(x, labels, kept, groups)
        return add(x * weight if there(weight) else x, at, n).reshape(shape_of(x, kept, groups))


@op(sample=_sample("g", "x", "labels", "weight", needs=3), exempt=("weight",), tensors=True)
def _segment_sum_bwd(
    g: Array, x: Array, labels: Array = None, weight: Array = None, kept: int = 0, groups: int = 0, needs: int = 3
) -> tuple[Array, Array]:
    """dx = wg of the segment, dw = Σxg."""
    with quiet(x):
        at, _ = ids(x, labels, kept, groups)
        g, nothing = take(g, at), x.reshape(-1)[:0]
        dx = (g * weight if there(weight) else g) if needs & 1 else nothing
        if not there(weight) or not needs & 2:
            return dx, nothing
        return dx, gathered(g * x, tuple(weight.shape))


@op(sample=_sample("x", "labels", largest=True), any_dtype=True)
def _segment_extreme(
    x: Array, labels: Array = None, kept: int = 0, groups: int = 0, largest: bool = True
) -> tuple[Array, Array]:
    """The largest or least of segments, and the place of the first; infinite and -1 where they are empty, NaN before all."""
    at, n = ids(x, labels, kept, groups)
    shape = shape_of(x, kept, groups)
    flat, at = x.reshape(-1), at.reshape(-1)
    whole, nan = "int" in dtype_name(x.dtype), flat != flat
    # the other way round without leaving the type, in which -x of the least integer lies nowhere
    key = xp.where(nan, xp.zeros_like(flat), flat)
    key = (~key if whole else -key) if largest else key
    if isinstance(x, np.ndarray):
        order = np.lexsort((np.arange(len(flat)), key, ~nan, at))
    else:
        torch = torch_module()
        order = torch.argsort(key, stable=True)
        order = order[torch.argsort((~nan[order]).int(), stable=True)]
        order = order[torch.argsort(at[order], stable=True)]
    kept_ids = at[order]
    head = xp.where(kept_ids >= 0, 0 * kept_ids + 1, 0 * kept_ids)
    if len(head) > 1:
        head[1:] = head[1:] * (kept_ids[1:] != kept_ids[:-1])
    first = order[head > 0]
    where = at[first]
    end: float = -math.inf if largest else math.inf
    if whole:
        limits = np.iinfo(dtype_name(x.dtype))
        end = limits.min if largest else limits.max
    if isinstance(x, np.ndarray):
        y, place = np.full(n, end, x.dtype), np.full(n, -1)
    else:
        y, place = x.new_full((n,), end), at.new_full((n,), -1)
    y[where], place[where] = flat[first], first
    return y.reshape(shape), place.reshape(shape)


@op(sample=_sample("g", "x", "at"), tensors=True)
def _segment_extreme_bwd(g: Array, x: Array, at: Array) -> Array:
    """g at the element that was the largest or least, 0 elsewhere."""
    flat, at = g.reshape(-1), at.reshape(-1)
    if isinstance(x, np.ndarray):
        dx = np.zeros(x.size)
        dx[at[at >= 0]] = flat[at >= 0]
        return dx.reshape(x.shape)
    return x.new_zeros(x.numel()).index_add(0, at[at >= 0], flat[at >= 0].to(x.dtype)).reshape(x.shape)


@op(sample=_sample("x", "labels"))
def _segment_logsumexp(x: Array, labels: Array = None, kept: int = 0, groups: int = 0) -> tuple[Array, Array]:
    """log Σ exp x of segments, -inf where they are empty, and the same in float64."""
    with quiet(x):
        top = _segment_extreme.op.reference(x, labels, kept, groups, True)[0].reshape(-1)  # type: ignore[attr-defined]
        at, n = ids(x, labels, kept, groups)
        still = xp.where(xp.isfinite(top), top, 0 * top)
        still = xp.where(xp.isfinite(still), still, xp.zeros_like(top))
        total = (still + xp.log(add(xp.exp(x - take(still, at)), at, n))).reshape(shape_of(x, kept, groups))
        return total, total


@op(sample=_sample("g", "x", "labels", "total"), exempt=("total",))
def _segment_logsumexp_bwd(
    g: Array, x: Array, labels: Array = None, total: Array = ..., kept: int = 0, groups: int = 0
) -> Array:
    """g exp(x − log Σ exp)."""
    with quiet(x):
        at, _ = ids(x, labels, kept, groups)
        return xp.where(at < 0, 0 * x, take(g, at) * xp.exp(x - take(total, at)))


@op(sample=_sample("i", "labels", kind=0), dtypes=("int64",), any_dtype=True, integer=True, native=True)
def _segment_whole(x: Array, labels: Array = None, kept: int = 0, groups: int = 0, kind: int = 0) -> Array:
    """The sums of integers, or how many elements of any type there are."""
    at, n = ids(x, labels, kept, groups)
    if isinstance(x, np.ndarray):
        out = np.zeros(n + 1, np.int64)
        np.add.at(out, np.where(at < 0, n, at).ravel(), np.ones(x.size, np.int64) if kind else x.ravel())
    else:
        torch = torch_module()
        v = torch.ones_like(x, dtype=torch.int64) if kind else x.long()
        out = v.new_zeros(n + 1).index_add(0, torch.where(at < 0, n, at).reshape(-1), v.reshape(-1))
    return out[:n].reshape(shape_of(x, kept, groups))


def _sample_rows(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    return [draw.rng.integers(0, 2, (math.prod(draw.lead), draw.d % 5), np.uint8)], {}


@op(sample=_sample_rows, dtypes=("uint8",), native=True, integer=True)
def _row_groups(rows: Array) -> tuple[Array, Array, Array, Array]:
    """The number of each row among the different ones, as they come; of these the first row and the count, and how many."""
    seen: dict[bytes, int] = {}
    ids = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in rows], np.int64)
    first, counts = np.full(len(ids), -1), np.zeros(len(ids), np.int64)
    for i in reversed(range(len(ids))):
        first[ids[i]] = i
        counts[ids[i]] += 1
    return ids, first, counts, np.array([len(seen)])
