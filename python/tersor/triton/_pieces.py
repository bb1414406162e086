"""Segments on a GPU in pieces, one for each program. The rule: pieces of a segment are joined in their order, and nothing is
added by atomics, so that every run gives the same bits.
"""

import torch
import triton
import triton.language as tl

#: segments of a program that joins pieces
JOINED = 128


@triton.jit
def _piece(starts, pieces):
    """Which run and piece of it a program takes, where the run begins, and the first and last place of the piece."""
    s, p = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    start = tl.load(starts + s)
    n = tl.load(starts + s + 1) - start
    return s, p, start, start + n * p // pieces, start + n * (p + 1) // pieces


@triton.jit
def _place(order, s, start, i, count, inner, mask, LISTED: tl.constexpr):
    """Where element i of the list is in memory."""
    if LISTED:
        return tl.load(order + i, mask, 0)
    else:
        j = i - start
        return (j // inner * count + s) * inner + j % inner


@triton.jit
def _step(order, s, start, at, high, count, inner, LISTED: tl.constexpr, D: tl.constexpr):
    """Which of the next D elements of a piece there are, and where."""
    i = at + tl.arange(0, D).to(tl.int64)
    mask = i < high
    return mask, _place(order, s, start, i, count, inner, mask, LISTED)


@triton.jit
def _weight(weight, place, mask, WEIGHTED: tl.constexpr):
    if WEIGHTED:
        return tl.load(weight + place, mask, 0.0).to(tl.float64)
    else:
        return tl.where(mask, 1.0, 0.0).to(tl.float64)


def _walk(kernel, r, ins, outs, *scalars, **constants):
    """A kernel over all pieces of all segments, then."""
    lists = (r.starts if r.order is None else r.order, r.starts)
    if r.count:
        kernel[(r.count, r.pieces)](
            *ins, *lists, *outs, r.count, r.inner, r.pieces, *scalars, **constants, LISTED=r.order is not None, D=r.tile,
            enable_fp_fusion=False,
        )  # fmt: skip


def _join(kernel, r, *args, **constants):
    if r.count:
        grid = (triton.cdiv(r.count, JOINED),)
        kernel[grid](*args, r.count, r.pieces, **constants, D=JOINED, enable_fp_fusion=False)


def _room(r, like, n, dtype=torch.float64):
    return like.new_empty((n, r.count, r.pieces), dtype=dtype)
