"""Random projections and the Walsh-Hadamard transform on a GPU. The rule: entries are made in registers from
(seed, stream, row, column) as on the CPU, and nothing random is read from memory.

The integers are those of the contract, so bits, signs and sparse entries are the same as on the CPU, and so are normals (see
`_draw`). Projections made of transforms are torch's own operations around the kernels of the transform and of a column.
Sums are float32 (float64 for float64 data), in the order of the tiles.
"""

import math

import torch
import triton
import triton.language as tl

from tersor.random import TAGS
from tersor.triton._draw import entries
from tersor.triton._sparse_rows import check, product, written_out


@triton.jit(do_not_specialize=["seed", "stream", "param", "row", "rows", "col", "cols"])
def _product(
    x, y, n, seed, stream, param, row, rows, col, cols, scale,
    KIND: tl.constexpr, ADJOINT: tl.constexpr, WIDE: tl.constexpr,
    R: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """R rows of x times a tile of the matrix, A columns by B rows at a time; rows of the matrix go by multiples of B."""
    at = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R).to(tl.int64)[:, None]
    row, rows, col, cols = row.to(tl.int64), rows.to(tl.int64), col.to(tl.int64), cols.to(tl.int64)
    start = row // B * B
    KEPT: tl.constexpr = tl.float64 if WIDE else tl.float32
    if ADJOINT:
        j = tl.program_id(1).to(tl.int64) * A + tl.arange(0, A).to(tl.int64)
        total = tl.zeros([R, A], KEPT)
        for first in range(start, row + rows, B):
            b = (first - row + tl.arange(0, B).to(tl.int64))[None, :]
            v = tl.load(x + at * rows + b, mask=(at < n) & (b >= 0) & (b < rows), other=0.0).to(KEPT)
            p = entries(col + j, first, seed, stream, param, KIND, KIND, B).to(KEPT)
            total += tl.sum(v[:, None, :] * p[None, :, :], 2)
        out = j[None, :]
        tl.store(y + at * cols + out, (total * scale).to(y.dtype.element_ty), mask=(at < n) & (out < cols))
    else:
        first = start + tl.program_id(1).to(tl.int64) * B
        out = (first - row + tl.arange(0, B).to(tl.int64))[None, :]
        total = tl.zeros([R, B], KEPT)
        for c in range(0, cols, A):
            j = c + tl.arange(0, A).to(tl.int64)
            v = tl.load(x + at * cols + j[None, :], mask=(at < n) & (j[None, :] < cols), other=0.0).to(KEPT)
            p = entries(col + j, first, seed, stream, param, KIND, KIND, B).to(KEPT)
            total += tl.sum(v[:, :, None] * p[None, :, :], 1)
        kept = (at < n) & (out >= 0) & (out < rows)
        tl.store(y + at * rows + out, (total * scale).to(y.dtype.element_ty), mask=kept)


def project(x, y, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """y = x Pᵀ, or x P for the adjoint."""
    if y.numel() == 0:
        return
    n = math.prod(y.shape[:-1])
    r, a, b = 4, 16, 32
    tiles = triton.cdiv(cols, a) if adjoint else triton.cdiv(row + rows, b) - row // b
    _product[(triton.cdiv(n, r), tiles)](
        x, y, n, seed, stream, param, row, rows, col, cols, scale,
        KIND=kind, ADJOINT=adjoint, WIDE=x.dtype == torch.float64, R=r, A=a, B=b, enable_fp_fusion=False,
    )  # fmt: skip


def project_bwd(g, dx, *scalars):
    *rest, adjoint = scalars
    project(g, dx, *rest, not adjoint)


project_bwd_bwd = project


@triton.jit
def _butterflies(v, H: tl.constexpr, LEVELS: tl.constexpr):
    """The levels of strides H, 2H, … of H·2^LEVELS numbers."""
    for k in tl.static_range(LEVELS):
        pairs = tl.permute(tl.reshape(v, [1 << (LEVELS - 1 - k), 2, H << k]), [0, 2, 1])
        a, b = tl.split(pairs)
        v = tl.reshape(tl.permute(tl.join(a + b, a - b), [0, 2, 1]), [H << LEVELS])
    return v


@triton.jit
def _transform(x, y, stride, scale, LEVELS: tl.constexpr, W: tl.constexpr, WIDE: tl.constexpr):
    """2^LEVELS numbers `stride` apart, for W neighbours at once: element i·stride + w of a piece."""
    piece, group = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    SIZE: tl.constexpr = 1 << LEVELS
    i = tl.arange(0, SIZE * W).to(tl.int64)
    w = group * W + i % W
    at = piece * SIZE * stride + (i // W) * stride + w
    mask = w < stride
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float64 if WIDE else tl.float32)
    v = _butterflies(v, W, LEVELS)
    tl.store(y + at, (v * scale).to(y.dtype.element_ty), mask=mask)


@triton.jit
def _mix(x, y, h, k, inner, scale, K: tl.constexpr, W: tl.constexpr, WIDE: tl.constexpr):
    """H_K across k rows of `inner` numbers, W columns of them at once."""
    base = tl.program_id(0).to(tl.int64) * k * inner
    w = tl.program_id(1).to(tl.int64) * W + tl.arange(0, W).to(tl.int64)[None, :]
    r = tl.arange(0, K).to(tl.int64)[:, None]
    KEPT: tl.constexpr = tl.float64 if WIDE else tl.float32
    total = tl.zeros([K, W], KEPT)
    for c in range(k):
        sign = tl.load(h + r * k + c, mask=r < k, other=0.0).to(KEPT)
        total += sign * tl.load(x + base + c * inner + w, mask=w < inner, other=0.0).to(KEPT)
    tl.store(y + base + r * inner + w, (total * scale).to(y.dtype.element_ty), mask=(r < k) & (w < inner))


#: what one program transforms in registers
_MOST = 1 << 12


def fwht(x, y, ortho=False):
    """y = H x over the last axis."""
    from tersor.project.walsh import hadamard

    if y.numel() == 0:
        return
    n = x.shape[-1]
    inner = n & -n
    k = n // inner
    if k > 1:
        k, inner = 4 * k, inner // 4
    scale = 1 / math.sqrt(n) if ortho else 1.0
    wide = x.dtype == torch.float64
    kept = torch.float64 if wide else torch.float32
    # walks over the row: first neighbours, then what lies apart, the last one scales and rounds
    walks, stride = [], 1
    while stride < inner:
        size = min(inner // stride, _MOST if stride == 1 else _MOST // 16)
        walks.append((stride, size))
        stride *= size
    v = x
    for i, (stride, size) in enumerate(walks):
        last = i == len(walks) - 1 and k == 1
        to = y if last else torch.empty(x.shape, dtype=kept, device=x.device)
        w = min(stride, 16)
        _transform[(x.numel() // (size * stride), triton.cdiv(stride, w))](
            v, to, stride, scale if last else 1.0, LEVELS=size.bit_length() - 1, W=w, WIDE=wide
        )
        v = to
    if k > 1:
        h = torch.tensor(hadamard(k), dtype=torch.float32, device=x.device)
        _mix[(x.numel() // n, triton.cdiv(inner, 32))](v, y, h, k, inner, scale, K=32, W=32, WIDE=wide)
    elif not walks:
        y.copy_(x)


fwht_bwd = fwht_bwd_bwd = fwht


@triton.jit(do_not_specialize=["n", "a", "seed", "stream"])
def _fill(y, n, a, seed, stream, KIND: tl.constexpr, TAG: tl.constexpr, B: tl.constexpr):
    """The first n numbers of column a of words."""
    first = tl.program_id(0).to(tl.int64) * B
    at = first + tl.arange(0, B).to(tl.int64)[None, :]
    column = tl.zeros([1], tl.int64) + a
    tl.store(y + at, entries(column, first, seed, stream, 0, KIND, TAG, B).to(y.dtype.element_ty), mask=at < n)


class _Words:
    """What a kind draws, on the device of x."""

    def __init__(self, x, kind, seed, stream):
        self.wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.device, self.kind, self.seed, self.stream = x.device, kind, seed, stream

    def column(self, a, n, kind="rademacher"):
        y = torch.empty(n, dtype=self.wide, device=self.device)
        _fill[(triton.cdiv(n, 128),)](
            y, n, a, self.seed, self.stream, KIND=TAGS[kind], TAG=self.kind, B=128, enable_fp_fusion=False
        )
        return y

    def places(self, m):
        from tersor.project._forms import steps

        rounds, mask, shift = steps(self.seed, self.kind, self.stream, m)
        x = torch.arange(1 << m, device=self.device)
        for factor, added in rounds:
            x = (x * factor + added) & mask
            x = x ^ (x >> shift)
        return x


def _turn(v, ortho=False):
    y = torch.empty_like(v)
    fwht(v, y, ortho)
    return y


def _put(v, at, n):
    """The columns of v at a place among n, zeros elsewhere."""
    return torch.nn.functional.pad(v, (at, n - at - v.shape[1]))


def _srht(x, w, m, own, row, rows, col, cols, adjoint):
    n, places = 1 << m, w.places(m)[row : row + rows]
    if adjoint:
        return (_turn(x.new_zeros(len(x), n).index_copy(1, places, x)) * w.column(0, n))[:, col : col + cols]
    return _turn(_put(x, col, n) * w.column(0, n))[:, places]


def _spinner(x, w, m, own, row, rows, col, cols, adjoint):
    n, turns, done, parts = 1 << m, own >> 8, 0, []
    while done < rows:
        block, at = divmod(row + done, n)
        many = min(rows - done, n - at)
        v = _put(x[:, done : done + many], at, n) if adjoint else _put(x, col, n)
        for t in reversed(range(turns)) if adjoint else range(turns):
            signs = w.column(3 * block + t, n)
            v = _turn(v, t + 1 < turns) * signs if adjoint else _turn(v * signs, t + 1 < turns)
        parts.append(v[:, col : col + cols] if adjoint else v[:, at : at + many])
        done += many
    if not parts:
        return x.new_zeros(len(x), cols if adjoint else rows)
    return sum(parts) if adjoint else torch.cat(parts, 1)


def _fastfood(x, w, m, own, row, rows, col, cols, adjoint):
    n, short = 1 << m, 1 << (own >> 8 & 0xFF)
    b, places = w.column(0, short), w.places(m)
    g = w.column(2, n, "rademacher" if own >> 16 else "gaussian")
    norm = g.double().square().sum().sqrt().to(w.wide)
    if adjoint:
        v = x.new_zeros(len(x), n).index_copy(1, places, _turn(_put(x, row, n)) * g)
        return (_turn(v.reshape(len(x), n // short, short).sum(1)) * b / norm)[:, col : col + cols]
    v = _turn(_put(x, col, short) * b)[:, places & (short - 1)] * g
    return (_turn(v) / norm)[:, row : row + rows]


_FORMS = {TAGS["srht"]: _srht, TAGS["spinner"]: _spinner, TAGS["fastfood"]: _fastfood}


def project_transform(x, y, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """`project` of the kinds that are made of transforms."""
    if y.numel() == 0:
        return
    words = _Words(x, kind, seed, stream)
    v = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).to(words.wide)
    v = _FORMS[kind](v, words, param & 0xFF, param, row, rows, col, cols, adjoint)
    y.copy_((v * scale).reshape(y.shape))


def project_transform_bwd(g, dx, *scalars):
    *rest, adjoint = scalars
    project_transform(g, dx, *rest, not adjoint)


project_transform_bwd_bwd = project_transform


def project_csr(data, indices, indptr, y, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """`project` of sparse rows; those of the adjoint, and where there are no columns to draw, are written out."""
    check(data, indices, indptr, rows if adjoint else cols)
    scalars = (kind, seed, stream, param, row, rows, col, cols, scale)
    if y.numel() and (adjoint or kind in _FORMS):
        made = project_transform if kind in _FORMS else project
        written_out(data, indices, indptr, y, rows if adjoint else cols, lambda x, y: made(x, y, *scalars, adjoint))
    elif y.numel():
        product(data, indices, indptr, y, *scalars)
