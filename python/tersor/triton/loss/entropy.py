"""GPU kernels of the cross entropy of rows, as `entropy.rs` has it. The rule: 1 − p of the label is the sum of the others'
shares, and a label that is no class makes its row NaN, since the GPU would have to be waited for.

Data of 32 bits is computed in float64, of 16 bits in float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from tersor._body import plain
from tersor._op import OPS
from tersor._reference import there
from tersor.loss._entropy import SCALE
from tersor.triton._math import log1p
from tersor.triton._rows import _stored, _tile


@triton.jit
def _known(x, target, w, row, live, d, ignore, T: tl.constexpr):
    """Of each row: whether it counts, its label, the logit and the weight of that; NaN where the label is no class."""
    t = tl.load(target + row, live, 0).to(tl.int64)
    counts = live & (t != ignore)
    inside = counts & (t >= 0) & (t < d)
    lost = tl.where(counts & (inside == 0), float("nan"), 0.0).to(T)
    xt = tl.load(x + row * d + t, inside, 0.0).to(T) + lost
    return counts, t, xt, tl.load(w + t, inside, 0.0).to(T)


@triton.jit
def _entropy(more, below, half, wt, total, share, even, SHARE: tl.constexpr, EVEN: tl.constexpr, S: tl.constexpr):
    """ce, of log Σ e^{x − m}, of half of how far the label is below the top, and of the scaled Σ w (m − x)."""
    log = log1p(more)
    ce = 0 * log
    if SHARE:
        u = wt * share
        ce += u * log + 2 * u * tl.where(u == 0, 0, half)
    if EVEN:
        ce += log * (total * even) + below * (even / S)
    return ce


@triton.jit
def _doubt(other, gamma):
    """(1 − p_t)^γ"""
    some = other > 0
    return tl.where(some, tl.exp(tl.log(tl.where(some, other, 1)) * gamma), other)


@triton.jit
def _forward(
    x, target, w, sums, loss, tops, mores, rests, belows, rows, d, ignore,
    share: tl.float64, even: tl.float64, gamma: tl.float64,
    SHARE: tl.constexpr, EVEN: tl.constexpr, FOCAL: tl.constexpr, S: tl.constexpr, T: tl.constexpr, R: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    col, live = tl.arange(0, D).to(tl.int64), row < rows
    counts, t, xt, wt = _known(x, target, w, row, live, d, ignore, T)
    top = tl.full([R], float("-inf"), T)
    for i in range(0, d, D):
        mask = counts[:, None] & (col + i < d)[None, :]
        v = tl.load(x + row[:, None] * d + (col + i)[None, :], mask, float("-inf")).to(T)
        top = tl.maximum(top, tl.max(v, 1))
    more, small = tl.full([R], -1.0, T), tl.zeros([R], T)
    rest, below = tl.zeros([R], T), tl.zeros([R], T)
    for i in range(0, d, D):
        mask = counts[:, None] & (col + i < d)[None, :]
        v = tl.load(x + row[:, None] * d + (col + i)[None, :], mask, 0.0).to(T)
        k = tl.load(w + col + i, col + i < d, 0.0).to(T)[None, :]
        less = v - top[:, None]
        e = tl.where(mask, tl.exp(less), 0)
        # those at the top are 1 each: whole numbers, of which 1 is taken, and apart what is less
        first = mask & (v == top[:, None])
        more += tl.sum(tl.where(first, 1.0, 0.0).to(T), 1)
        small += tl.sum(tl.where(first, 0, e), 1)
        rest += tl.sum(tl.where((col + i)[None, :] == t[:, None], 0, e), 1)
        below += tl.sum(tl.where(mask & (k != 0), k * (S * top[:, None] - S * v), 0), 1)
    lost = (top - top) + 0 * xt
    more += small + tl.where(xt == float("-inf"), top - top, lost)
    rest += tl.where(xt == float("-inf"), top - top, lost)
    total, share, even = tl.load(sums).to(T), tl.full([R], share, T), tl.full([R], even, T)
    ce = _entropy(more, below, 0.5 * top - 0.5 * xt, wt, total, share, even, SHARE, EVEN, S)
    if FOCAL:
        a = _doubt(rest / (more + 1), tl.full([R], gamma, T))
        ce = a * tl.where(a == 0, 0, ce)  # the limit, where all other classes are at -inf
    tl.store(loss + row, tl.where(counts, ce, 0), live)
    tl.store(tops + row, tl.where(counts, top, 0).to(tl.float64), live)
    tl.store(mores + row, tl.where(counts, more, 0).to(tl.float64), live)
    tl.store(rests + row, tl.where(counts, rest, 0).to(tl.float64), live)
    tl.store(belows + row, tl.where(counts, below, 0).to(tl.float64), live)


@triton.jit
def _backward(
    g, x, target, w, sums, tops, mores, rests, belows, dx, rows, d, ignore,
    share: tl.float64, even: tl.float64, gamma: tl.float64,
    SHARE: tl.constexpr, EVEN: tl.constexpr, FOCAL: tl.constexpr, S: tl.constexpr, T: tl.constexpr, R: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    col, live = tl.arange(0, D).to(tl.int64), row < rows
    counts, t, xt, wt = _known(x, target, w, row, live, d, ignore, T)
    top, more = tl.load(tops + row, live, 0.0).to(T), tl.load(mores + row, live, 0.0).to(T)
    rest, below = tl.load(rests + row, live, 0.0).to(T), tl.load(belows + row, live, 0.0).to(T)
    total, share, even = tl.load(sums).to(T), tl.full([R], share, T), tl.full([R], even, T)
    gamma = tl.full([R], gamma, T)
    p, other = tl.exp(xt - top) / (more + 1), rest / (more + 1)
    a, k = tl.full([R], 1.0, T) + 0 * more, 0 * more
    if FOCAL:
        ce = _entropy(more, below, 0.5 * top - 0.5 * xt, wt, total, share, even, SHARE, EVEN, S)
        a = _doubt(other, gamma)
        some = (other > 0) & (p > 0)
        k = tl.where(some, gamma * ce * p * _doubt(tl.where(some, other, 1), gamma - 1), k)
    u = wt * share
    at = a * ((p * total - wt) * even - u * other) - k * other
    slope = tl.load(g + row, live, 0.0).to(T)
    idle = slope == 0  # of rows that nobody asks for, whatever they hold
    to_p = slope * tl.where(idle, 0, a * (u + total * even) + k) / (more + 1)
    at = slope * tl.where(idle, 0, at)
    to_w = slope * a * even
    for i in range(0, d, D):
        place = row[:, None] * d + (col + i)[None, :]
        mask = live[:, None] & (col + i < d)[None, :]
        v = tl.load(x + place, mask, 0.0).to(T)
        c = tl.load(w + col + i, col + i < d, 0.0).to(T)[None, :]
        e = tl.exp(v - top[:, None])
        y = e * tl.where(e == 0, 0, to_p[:, None]) - c * to_w[:, None]
        y = tl.where((col + i)[None, :] == t[:, None], at[:, None], y)
        y = tl.where(counts[:, None], y, 0)
        tl.store(dx + place, _stored(y, dx), mask)


def _launch(kernel: Any, x: Any, weight: Any, arrays: Any, scalars: Any) -> None:
    """Runs a kernel on rows: the weights and their sum follow logits and labels."""
    d = x.shape[-1]
    rows, (ignore, smoothing, gamma) = x.numel() // max(d, 1), scalars
    work = torch.float64 if x.dtype in (torch.float64, torch.float32) else torch.float32
    size = _tile(rows, d, 1024 if work == torch.float64 else 2048, False)
    w = weight if there(weight) else torch.ones(d, dtype=work, device=x.device)
    before, after = arrays
    kernel[(triton.cdiv(rows, size[0]),)](
        *before, w, w.to(work).sum(), *after, rows, d, ignore, 1 - smoothing, smoothing / d, gamma,
        SHARE=smoothing < 1, EVEN=smoothing > 0, FOCAL=gamma > 0, S=SCALE,
        T=tl.float64 if work == torch.float64 else tl.float32, R=size[0], D=size[1], enable_fp_fusion=False,
    )  # fmt: skip


def cross_entropy(
    logits: Any, target: Any, weight: Any, loss: Any, top: Any, more: Any, rest: Any, below: Any,
    ignore_index: int, label_smoothing: float, gamma: float,
) -> None:  # fmt: skip
    """GPU kernel of `cross_entropy`."""
    outputs, scalars = (loss, top, more, rest, below), (ignore_index, label_smoothing, gamma)
    if not logits.numel():
        plain(OPS["loss.cross_entropy"], logits, target, weight, *outputs, *scalars)
        return
    _launch(_forward, logits, weight, ((logits, target), outputs), scalars)


def cross_entropy_bwd(
    g: Any, logits: Any, target: Any, weight: Any, top: Any, more: Any, rest: Any, below: Any, dlogits: Any, dweight: Any,
    ignore_index: int, label_smoothing: float, gamma: float, needs: int,
) -> None:  # fmt: skip
    """GPU kernel of `cross_entropy_bwd`; weights get theirs by the reference."""
    kept, scalars = (top, more, rest, below), (ignore_index, label_smoothing, gamma)
    if not logits.numel() or (needs & 2 and there(weight)):
        given = (g, logits, target, weight, *kept)
        plain(OPS["loss.cross_entropy_bwd"], *given, dlogits, dweight, *scalars, needs)
    elif needs & 1:
        _launch(_backward, logits, weight, ((g, logits, target), (*kept, dlogits)), scalars)
