"""Random projections and the Walsh-Hadamard transform on a GPU. The rule: entries are made in registers from
(seed, stream, row, column) as on the CPU, and nothing random is read from memory.

The integers are those of the contract, so bits, signs and sparse entries are the same as on the CPU. Normals are made with
the same float32 steps; launches forbid fused products (`enable_fp_fusion=False`), which would round some of them otherwise.
Sums are float32 (float64 for float64 data), in the order of the tiles.
"""

import math

import torch
import triton
import triton.language as tl

from tersor.random import TAGS

# as the constants of the kernels
_GAUSSIAN, _RADEMACHER, _SPARSE = TAGS["gaussian"], TAGS["rademacher"], TAGS["sparse"]


@triton.jit
def _flip(x, on):
    """x, or -x where the integer `on` is 1."""
    return tl.where(on == 1, -x, x)


@triton.jit
def _normals(w, v):
    """Box and Muller, by the same float32 steps as `random.rs`."""
    bits = ((w >> 8) + 1).to(tl.int32).to(tl.float32).to(tl.int32, bitcast=True) - 0x3F3504F3
    e = ((bits >> 23) - 24).to(tl.float32)
    f = ((bits & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = tl.full(f.shape, 0.06915147, tl.float32)
    p = p * f + -0.11789696
    p = p * f + 0.118730165
    p = p * f + -0.1238437
    p = p * f + 0.14218655
    p = p * f + -0.1666925
    p = p * f + 0.20002227
    p = p * f + -0.24999987
    p = p * f + 0.3333331
    f2 = f * f
    small = (f2 * f) * p + e * 1.4286068e-6 - 0.5 * f2
    r = tl.sqrt_rn(0.0 - 2.0 * (e * 0.69314575 + (f + small)))
    n = (v >> 8).to(tl.int32)
    q = (n + (1 << 21)) >> 22
    t = (n - (q << 22)).to(tl.float32) * 5.9604644775390625e-08
    z = t * t
    s = tl.full(z.shape, 41.487576, tl.float32)
    s = s * z + -76.69838
    s = s * z + 81.60521
    s = s * z + -41.3417
    c = tl.full(z.shape, 59.245964, tl.float32)
    c = c * z + -85.44374
    c = c * z + 64.93932
    c = c * z + -19.739208
    sin = t * 6.2831855 + t * (-1.7484556e-7 + z * s)
    cos = 1.0 + z * c
    odd = (q & 1) == 1
    x = _flip(tl.where(odd, sin, cos), ((q + 1) >> 1) & 1)
    y = _flip(tl.where(odd, cos, sin), (q >> 1) & 1)
    return r * x, r * y


@triton.jit
def _entries(a, first, seed, stream, threshold, KIND: tl.constexpr, B: tl.constexpr):
    """Entries of the columns a (int64) and the rows first .. first + B - 1, [len(a), B], float32; B divides first."""
    first = tl.to_tensor(first).to(tl.int64)  # a Python number, where a loop is interpreted
    low = (a & 0xFFFFFFFF).to(tl.uint32)[:, None]
    high = (a >> 32).to(tl.uint32)[:, None]
    last = (KIND + stream.to(tl.int64) * 256).to(tl.uint32)
    if KIND == 2:
        # one block of words holds 128 signs, and B divides 128
        b = first + tl.arange(0, B)[None, :]
        block = (first >> 7).to(tl.uint32) + tl.zeros_like(low)
        w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), block, low, high, tl.zeros_like(low) + last)
        word = (b >> 5) & 3
        w = tl.where(word == 0, w0, tl.where(word == 1, w1, tl.where(word == 2, w2, w3)))
        return 1.0 - 2.0 * ((w >> (b & 31).to(tl.uint32)) & 1).to(tl.float32)
    four = ((first >> 2) + tl.arange(0, B // 4)[None, :]).to(tl.uint32)
    four, low = tl.broadcast(four, low)
    high = tl.broadcast_to(high, four.shape)
    w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), four, low, high, tl.zeros_like(four) + last)
    if KIND == 1:
        e0, e1 = _normals(w0, w1)
        e2, e3 = _normals(w2, w3)
        return tl.interleave(tl.interleave(e0, e2), tl.interleave(e1, e3))
    w = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    sign = tl.where((w >> 31) == 1, -1.0, 1.0)
    return tl.where((w & 0x7FFFFFFF).to(tl.int64) < threshold, sign, 0.0)


@triton.jit(do_not_specialize=["seed", "stream", "threshold", "row", "rows", "col", "cols"])
def _product(
    x, y, n, seed, stream, threshold, row, rows, col, cols, scale,
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
            p = _entries(col + j, first, seed, stream, threshold, KIND, B).to(KEPT)
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
            p = _entries(col + j, first, seed, stream, threshold, KIND, B).to(KEPT)
            total += tl.sum(v[:, :, None] * p[None, :, :], 1)
        kept = (at < n) & (out >= 0) & (out < rows)
        tl.store(y + at * rows + out, (total * scale).to(y.dtype.element_ty), mask=kept)


def project(x, y, kind, seed, stream, threshold, row, rows, col, cols, scale, adjoint=False):
    """y = x Pᵀ, or x P for the adjoint."""
    if y.numel() == 0:
        return
    n = math.prod(y.shape[:-1])
    r, a, b = 4, 16, 32
    tiles = triton.cdiv(cols, a) if adjoint else triton.cdiv(row + rows, b) - row // b
    _product[(triton.cdiv(n, r), tiles)](
        x, y, n, seed, stream, threshold, row, rows, col, cols, scale,
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
