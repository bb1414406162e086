"""Random projections of sparse rows on a GPU. The rule: places are checked before anything is read by them, and a result is
summed by one program, in the order of the entries.
"""

import torch
import triton
import triton.language as tl

from tersor.triton._draw import entries

#: numbers of sparse rows that are written out at a time
DENSE = 1 << 24


@triton.jit(do_not_specialize=["seed", "stream", "param", "row", "rows", "col", "cols"])
def _product(
    data, indices, indptr, y, seed, stream, param, row, rows, col, cols, scale,
    KIND: tl.constexpr, WIDE: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """B numbers of a row of y: the columns that the entries of a row of x meet, A at a time."""
    at = tl.program_id(0).to(tl.int64)
    row, rows, col, cols = row.to(tl.int64), rows.to(tl.int64), col.to(tl.int64), cols.to(tl.int64)
    first = row // B * B + tl.program_id(1).to(tl.int64) * B
    out = first - row + tl.arange(0, B).to(tl.int64)
    KEPT: tl.constexpr = tl.float64 if WIDE else tl.float32
    start, end = tl.load(indptr + at).to(tl.int64), tl.load(indptr + at + 1).to(tl.int64)
    total = tl.zeros([B], KEPT)
    for t in range(tl.cdiv(end - start, A)):
        e = start + t * A + tl.arange(0, A).to(tl.int64)
        j = tl.load(indices + e, mask=e < end, other=0).to(tl.int64)
        v = tl.load(data + e, mask=(e < end) & (j >= 0) & (j < cols), other=0.0).to(KEPT)
        p = entries(col + j, first, seed, stream, param, KIND, KIND, B).to(KEPT)
        total += tl.sum(v[:, None] * p, 0)
    tl.store(y + at * rows + out, (total * scale).to(y.dtype.element_ty), mask=(out >= 0) & (out < rows))


def product(data, indices, indptr, y, kind, seed, stream, param, row, rows, col, cols, scale):
    """y = x Pᵀ of a matrix whose columns can be drawn by themselves."""
    b = 32
    _product[(len(indptr) - 1, triton.cdiv(row + rows, b) - row // b)](
        data, indices, indptr, y, seed, stream, param, row, rows, col, cols, scale,
        KIND=kind, WIDE=data.dtype == torch.float64, A=16, B=b, enable_fp_fusion=False,
    )  # fmt: skip


def written_out(data, indices, indptr, y, last, made):
    """``made(rows of x, rows of y)`` of some rows of ``last`` numbers at a time."""
    ptr, many = indptr.long(), max(DENSE // max(last, 1), 1)
    kept = torch.float64 if data.dtype == torch.float64 else torch.float32
    for first in range(0, len(ptr) - 1, many):
        part = ptr[first : first + many + 1]
        lo, hi, n = int(part[0]), int(part[-1]), len(part) - 1
        x = torch.zeros(n, last, dtype=kept, device=y.device)
        at = torch.repeat_interleave(torch.arange(n, device=y.device), part.diff(), output_size=hi - lo)
        x.index_put_((at, indices[lo:hi].long()), data[lo:hi].to(kept), accumulate=True)
        done = torch.empty(n, y.shape[1], dtype=kept, device=y.device)
        made(x, done)
        y[first : first + n] = done


def check(data, indices, indptr, last):
    """Refuses what is no matrix with ``last`` columns, as the kernels of the CPU do."""
    ptr, at = indptr.long(), indices.long()
    end = int(ptr[-1])
    if len(data) != len(at):
        raise ValueError(f"data has {len(data)} entries, indices {len(at)}")
    if not 0 <= end <= len(at):
        raise ValueError(f"indptr ends at {end}, but {len(at)} entries are stored")
    if int(ptr[0]) or bool((ptr.diff() < 0).any()):
        raise ValueError("indptr must begin at 0 and not decrease")
    if bool(((at[:end] < 0) | (at[:end] >= last)).any()):
        raise ValueError(f"indices must be in 0 .. {last - 1}")
