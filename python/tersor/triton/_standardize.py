"""GPU kernels of `standardize` where segments are rows: layer, group and instance norms. The rule: moments about a number of
the row itself, in float64; other segments go by their tables, and what has neither runs the reference.
"""

import math

import triton
import triton.language as tl

from tersor._body import plain
from tersor._op import OPS
from tersor.triton import _by_segments
from tersor.triton._rows import _stored, _tile


@triton.jit
def _unit(mean, var, d, eps, correction, MODE: tl.constexpr):
    """μ and r of rows of d numbers."""
    mu = mean
    if MODE == 0:
        v = tl.where(d > correction, var * (d / (d - correction)), float("nan"))
    else:
        v = var + mean * mean
        mu = 0 * mean
    if MODE == 2:
        v = (d * v + (d * mean) * (d * mean)) / (d + 1)
    return mu, 1 / tl.sqrt(v + eps)


@triton.jit
def _read(x, row, col, d, mask):
    return tl.load(x + row[:, None] * d + col[None, :], mask, 0.0).to(tl.float64)


@triton.jit
def _of_place(p, row, col, skip, per, times, run, mask, absent: tl.constexpr, THERE: tl.constexpr):
    """A scale or shift of each element."""
    if THERE:
        at = (row // skip % per)[:, None] * times + (col // run)[None, :]
        return tl.load(p + at, mask, 0.0).to(tl.float64)
    else:
        return tl.full(mask.shape, absent, tl.float64)


@triton.jit
def _forward(
    x,
    weight,
    bias,
    y,
    count,
    mean,
    var,
    rows,
    d,
    skip,
    per,
    times,
    run,
    eps: tl.float64,
    correction: tl.float64,
    MODE: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    live = row < rows
    n = tl.full([R], 0, tl.float64) + d
    first = tl.load(x + row * d, live, 0.0).to(tl.float64)
    # of others less infinity nothing is left
    first = tl.where(tl.abs(first) < float("inf"), first, 0)
    total = tl.zeros([R], tl.float64)
    for i in range(0, d, D):
        col = i + tl.arange(0, D).to(tl.int64)
        mask = live[:, None] & (col < d)[None, :]
        total += tl.sum(tl.where(mask, _read(x, row, col, d, mask) - first[:, None], 0), 1)
    m = first + total / n
    squares = tl.zeros([R], tl.float64)
    rest = tl.zeros([R], tl.float64)
    for i in range(0, d, D):
        col = i + tl.arange(0, D).to(tl.int64)
        mask = live[:, None] & (col < d)[None, :]
        u = tl.where(mask, _read(x, row, col, d, mask) - m[:, None], 0)
        squares += tl.sum(u * u, 1)
        rest += tl.sum(u, 1)
    v = (squares - rest * rest / n) / n
    tl.store(count + row, n, live)
    tl.store(mean + row, m, live)
    tl.store(var + row, v, live)
    if MODE == 3:
        mu, r = m, tl.full([R], 1, tl.float64)
    else:
        mu, r = _unit(m, v, n, eps, correction, MODE)
    for i in range(0, d, D):
        col = i + tl.arange(0, D).to(tl.int64)
        mask = live[:, None] & (col < d)[None, :]
        z = (_read(x, row, col, d, mask) - mu[:, None]) * r[:, None]
        gamma = _of_place(weight, row, col, skip, per, times, run, mask, 1.0, SCALED)
        beta = _of_place(bias, row, col, skip, per, times, run, mask, 0.0, SHIFTED)
        at = y + row[:, None] * d + col[None, :]
        tl.store(at, _stored(gamma * z + beta, at), mask)


@triton.jit
def _backward(
    g,
    x,
    weight,
    gmean,
    gvar,
    mean,
    var,
    dx,
    rows,
    d,
    skip,
    per,
    times,
    run,
    eps: tl.float64,
    correction: tl.float64,
    MODE: tl.constexpr,
    SCALED: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    live = row < rows
    n = tl.full([R], 0, tl.float64) + d
    m = tl.load(mean + row, live, 0.0)
    if MODE == 3:
        mu, r = m, tl.full([R], 1, tl.float64)
    else:
        mu, r = _unit(m, tl.load(var + row, live, 1.0), n, eps, correction, MODE)
    total = tl.zeros([R], tl.float64)
    along = tl.zeros([R], tl.float64)
    for i in range(0, d, D):
        col = i + tl.arange(0, D).to(tl.int64)
        mask = live[:, None] & (col < d)[None, :]
        h = _read(g, row, col, d, mask) * _of_place(weight, row, col, skip, per, times, run, mask, 1.0, SCALED)
        z = (_read(x, row, col, d, mask) - mu[:, None]) * r[:, None]
        total += tl.sum(tl.where(mask, h, 0), 1)
        along += tl.sum(tl.where(mask, h * z, 0), 1)
    # what statistics send back: b + c (x - mean)
    b = -r * total / n
    c = -r * r * along / (n - correction)
    if MODE == 1:
        b = -r * r * along * m / n
    if MODE == 2:
        b = -r * r * along * m
        c = -r * r * along / (n + 1)
    if MODE == 3:
        b = -total / n
        c = tl.zeros([R], tl.float64)
    b += tl.load(gmean + row, live, 0.0).to(tl.float64) / n
    c += 2 * tl.load(gvar + row, live, 0.0).to(tl.float64) / n
    for i in range(0, d, D):
        col = i + tl.arange(0, D).to(tl.int64)
        mask = live[:, None] & (col < d)[None, :]
        h = _read(g, row, col, d, mask) * _of_place(weight, row, col, skip, per, times, run, mask, 1.0, SCALED)
        u = _read(x, row, col, d, mask) - m[:, None]
        u = tl.where(u == u, u, 0)
        at = dx + row[:, None] * d + col[None, :]
        tl.store(at, _stored(h * r[:, None] + (b[:, None] + c[:, None] * u), at), mask)


def _given(p):
    return tuple(p.shape) != (0,)


def _place(x, p, kept, by_segment):
    """(skip, per, times, run): an element has number (row // skip % per) · times + col // run of `p`; None if no such are."""
    rows = math.prod(x.shape[:kept])
    if by_segment:
        return 1, rows, 1, max(x.numel() // max(rows, 1), 1)
    own = (1,) * (x.ndim - p.ndim) + tuple(p.shape)
    for i in range(kept + 1):
        for k in range(i, kept + 1):
            for j in range(kept, x.ndim + 1):
                if own == (*(1,) * i, *x.shape[i:k], *(1,) * (kept - k), *x.shape[kept:j], *(1,) * (x.ndim - j)):
                    return tuple(math.prod(x.shape[a:b]) for a, b in ((k, kept), (i, k), (kept, j), (j, x.ndim)))
    return None


def _as_rows(x, affine, others, kept, groups, by_segment):
    """How many axes are kept, and where scales and shifts of rows are; None where segments are no rows of memory."""
    axes = (kept + 1).bit_length() - 1
    if groups or kept & (kept + 1) or axes > x.ndim or not x.numel() or any(_given(p) for p in others):
        return None
    places = {_place(x, p, axes, by_segment) for p in affine if _given(p)} or {(1, 1, 1, max(x.numel(), 1))}
    return None if len(places) > 1 or None in places else (axes, *places.pop())


def _launch(kernel, x, axes, *args, **constants):
    rows = math.prod(x.shape[:axes])
    d = x.numel() // rows
    tile = _tile(rows, d, 1024, False)
    kernel[(triton.cdiv(rows, tile[0]),)](
        *args[:-6], rows, d, *args[-6:], **constants, R=tile[0], D=tile[1], num_warps=4, enable_fp_fusion=False
    )


def standardize(*args):
    """GPU kernel of `standardize`: inputs, outputs, scalars."""
    x, weight, bias, *others, y, count, mean, var, kept, groups, mode, eps, correction, _, by_segment = args
    how = _as_rows(x, (weight, bias), others, kept, groups, by_segment)
    if how is None:
        return _by_segments.forward(*args) or plain(OPS["norm.standardize"], *args)
    axes, *place = how
    constants = {"MODE": mode, "SCALED": _given(weight), "SHIFTED": _given(bias)}
    return _launch(_forward, x, axes, x, weight, bias, y, count, mean, var, *place, eps, correction, **constants)


def standardize_bwd(*args):
    """GPU kernel of `standardize_bwd`: inputs, outputs, scalars. Scales and shifts get theirs by torch's own sums."""
    g, _, gmean, gvar, x, weight, bias, *others, count, mean, var = args[:14]
    dx, dweight, dbias, _, kept, groups, mode, eps, correction, _, by_segment, needs = args[14:]
    how = _as_rows(x, (weight, bias), others, kept, groups, by_segment)
    if how is None:
        return _by_segments.backward(*args) or plain(OPS["norm.standardize_bwd"], *args)
    axes, *place = how
    if needs & 1:
        constants = {"MODE": mode, "SCALED": _given(weight)}
        given = (g, x, weight, gmean, gvar, mean, var, dx, *place, eps, correction)
        _launch(_backward, x, axes, *given, **constants)
    shape = (*x.shape[:axes], *(1,) * (x.ndim - axes))
    if needs & 2 and _given(weight):
        mu, r = (v.reshape(shape) for v in _by_segments.unit(count, mean, var, mode, eps, correction, 0.0, ()))
        z = (x.double() - mu) * r
        dweight.copy_(_gathered(g * z, shape, weight, by_segment))
    if needs & 4 and _given(bias):
        dbias.copy_(_gathered(g.double(), shape, bias, by_segment))
    return None


def _gathered(v, shape, p, by_segment):
    return v.sum_to_size(shape).reshape(p.shape) if by_segment else v.sum_to_size(p.shape)
