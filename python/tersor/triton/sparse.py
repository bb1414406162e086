"""GPU kernels of products with sparse matrices, under the operators' names.

The rule: an index is compared with the shape as it is read, and an entry outside it takes part in nothing. Offsets are
64-bit; 16-bit floats are summed in float32. No atomics: every result is written by one program, in one order.
"""

import math

import torch
import triton
import triton.language as tl


@triton.jit
def _product(
    data,
    indices,
    indptr,
    x,
    bias,
    y,
    entries,
    rows,
    cols,
    n,
    x_row,
    x_column,
    y_row,
    y_column,
    row_blocks,
    column_blocks,
    lo: tl.float64,
    hi: tl.float64,
    BIAS: tl.constexpr,
    CLAMP: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
):
    """R rows and C columns of y = clamp(A x + bias): each sum runs over the entries of its row in order.

    Elements of x and y that follow one another in a row or a column are so far apart."""
    block = tl.program_id(0).to(tl.int64)
    col = block % column_blocks * C + tl.arange(0, C)
    block = block // column_blocks
    row = block % row_blocks * R + tl.arange(0, R)
    batch = block // row_blocks
    live = row < rows
    start = tl.maximum(tl.load(indptr + row, live, 0).to(tl.int64), 0)
    end = tl.minimum(tl.load(indptr + row + 1, live, 0).to(tl.int64), entries)
    total = tl.zeros([R, C], T)
    if BIAS:
        total += tl.load(bias + row, live, 0).to(T)[:, None]
    at_x = x + batch * cols * n
    for t in range(tl.max(end - start, 0)):
        at = start + t
        here = at < end
        k = tl.load(indices + at, here, 0).to(tl.int64)
        here = here & (k >= 0) & (k < cols)
        w = tl.load(data + at, here, 0).to(T)
        mask = here[:, None] & (col < n)[None, :]
        total += w[:, None] * tl.load(at_x + k[:, None] * x_row + col[None, :] * x_column, mask, 0).to(T)
    if CLAMP:
        total = tl.where(total < lo, lo, total).to(T)
        total = tl.where(total > hi, hi, total).to(T)
    mask = live[:, None] & (col < n)[None, :]
    at_y = y + batch * rows * n + row[:, None] * y_row + col[None, :] * y_column
    tl.store(at_y, total.to(y.dtype.element_ty), mask)


@triton.jit
def _sampled(
    a,
    b,
    places,
    indices,
    out,
    entries,
    batches,
    rows,
    cols,
    d,
    T: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
):
    """Inner products of rows of a and b for E entries, D columns at a time."""
    e = tl.program_id(0).to(tl.int64) * E + tl.arange(0, E)
    live = e < entries
    i = tl.load(places + e, live, 0).to(tl.int64)
    k = tl.load(indices + e, live, 0).to(tl.int64)
    live = live & (i >= 0) & (i < rows) & (k >= 0) & (k < cols)
    total = tl.zeros([E, D], T)
    for t in range(batches):
        for j in range(0, d, D):
            col = j + tl.arange(0, D)
            mask = live[:, None] & (col < d)[None, :]
            u = tl.load(a + (t * rows + i)[:, None] * d + col[None, :], mask, 0).to(T)
            v = tl.load(b + (t * cols + k)[:, None] * d + col[None, :], mask, 0).to(T)
            total += u * v
    tl.store(out + e, tl.sum(total, 1).to(out.dtype.element_ty), e < entries)


def _work(dtype):
    return tl.float64 if dtype == torch.float64 else tl.float32


def _multiply(data, indices, indptr, x, bias, y, lo=-math.inf, hi=math.inf, by_rows=False):
    """y = clamp(A x + bias), of x [..., K, N], or [..., K] by rows; an absent bias has no elements."""
    rows = indptr.numel() - 1
    if y.numel() == 0:
        return
    if by_rows:
        cols, batches, n = x.shape[-1], 1, x.numel() // x.shape[-1] if x.shape[-1] else y.numel() // rows
        strides = 1, cols, 1, rows
    else:
        *lead, cols, n = x.shape
        batches, strides = math.prod(lead), (n, 1, n, 1)
    tile = 4, min(triton.next_power_of_2(n), 128)
    blocks = triton.cdiv(rows, tile[0]), triton.cdiv(n, tile[1])
    _product[(batches * blocks[0] * blocks[1],)](
        data,
        indices,
        indptr,
        x,
        bias if bias.numel() else data,
        y,
        min(data.numel(), indices.numel()),
        rows,
        cols,
        n,
        *strides,
        *blocks,
        lo,
        hi,
        BIAS=bias.numel() > 0,
        CLAMP=lo > -math.inf or hi < math.inf,
        T=_work(x.dtype),
        R=tile[0],
        C=tile[1],
        enable_fp_fusion=True,
    )


def _rows(indptr):
    lengths = (indptr[1:] - indptr[:-1]).long()
    return torch.repeat_interleave(torch.arange(len(lengths), device=indptr.device), lengths)


def _sample(a, b, indices, indptr, out):
    *lead, rows, d = a.shape
    entries = indices.numel()
    if entries == 0:
        return
    tile = 16, min(triton.next_power_of_2(max(d, 1)), 64)
    _sampled[(triton.cdiv(entries, tile[0]),)](
        a,
        b,
        _rows(indptr),
        indices,
        out,
        entries,
        math.prod(lead),
        rows,
        b.shape[-2],
        d,
        T=_work(a.dtype),
        E=tile[0],
        D=tile[1],
        enable_fp_fusion=True,
    )


def _transposed(data, indices, indptr, cols, perm, t_indices, t_indptr):
    """The transpose: as given, or made here."""
    if t_indptr.numel() == 0:
        perm = torch.argsort(indices, stable=True)
        t_indices = _rows(indptr)[perm]
        counts = torch.bincount(indices, minlength=cols)
        t_indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return data[perm], t_indices, t_indptr


def spmm(data, indices, indptr, x, bias, perm, t_indices, t_indptr, y, lo, hi):
    """GPU kernel of `spmm`: inputs, outputs, scalars."""
    _multiply(data, indices, indptr, x, bias, y, lo, hi)


def spmm_bwd(g, data, indices, indptr, x, y, perm, t_indices, t_indptr, ddata, dx, dbias, lo, hi, needs):
    """GPU kernels of `spmm_bwd`: a product with the transpose and a sampled product."""
    if lo > -math.inf or hi < math.inf:
        g = torch.where((y <= lo) | (y >= hi), 0, g)
    if needs & 1:
        _sample(g, x, indices, indptr, ddata)
    if needs & 2:
        transposed = _transposed(data, indices, indptr, x.shape[-2], perm, t_indices, t_indptr)
        _multiply(*transposed, g, g.new_empty(0), dx)
    if needs & 4:
        dbias.copy_(g.sum((*range(g.ndim - 2), -1)))


def sddmm(a, b, indices, indptr, perm, t_indices, t_indptr, data):
    """GPU kernel of `sddmm`: inputs, outputs, scalars."""
    _sample(a, b, indices, indptr, data)


def sddmm_bwd(g, a, b, indices, indptr, perm, t_indices, t_indptr, da, db, needs):
    """GPU kernels of `sddmm_bwd`: products with the matrix of g and with its transpose."""
    if needs & 1:
        _multiply(g, indices, indptr, b, g.new_empty(0), da)
    if needs & 2:
        transposed = _transposed(g, indices, indptr, b.shape[-2], perm, t_indices, t_indptr)
        _multiply(*transposed, a, g.new_empty(0), db)


#: bounds of the activations that are made of bounds, and the others, by their numbers
_BOUNDS = {0: (-math.inf, math.inf), 1: (0.0, math.inf), 2: (0.0, 6.0)}
_CURVES = {3: torch.nn.functional.gelu, 4: torch.nn.functional.silu}


def _wide(like, shape):
    return like.new_empty(shape, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)


def linear(data, indices, indptr, x, bias, perm, t_indices, t_indptr, y, act):
    """GPU kernel of `linear`: inputs, outputs, scalars."""
    if act in _BOUNDS:
        _multiply(data, indices, indptr, x, bias, y, *_BOUNDS[act], by_rows=True)
        return
    z = _wide(y, y.shape)
    _multiply(data, indices, indptr, x, bias, z, by_rows=True)
    y.copy_(_CURVES[act](z))


def linear_bwd(g, data, indices, indptr, x, bias, y, perm, t_indices, t_indptr, ddata, dx, dbias, act, needs):
    """GPU kernels of `linear_bwd`: the sums again where their slope is asked for, and the products of `spmm_bwd`."""
    if act in _CURVES:
        z = _wide(g, g.shape)
        _multiply(data, indices, indptr, x, bias, z, by_rows=True)
        with torch.enable_grad():
            z.requires_grad_()
            (g,) = torch.autograd.grad(_CURVES[act](z), z, g.to(z.dtype))
        g = g.to(x.dtype)
    elif act:
        lo, hi = _BOUNDS[act]
        g = torch.where((y <= lo) | (y >= hi), 0, g)
    rows, cols = g.shape[-1], x.shape[-1]
    flat = g.reshape(g.shape[:-1].numel(), rows)
    if needs & 1:
        _sample(flat.T.contiguous(), x.reshape(flat.shape[0], cols).T.contiguous(), indices, indptr, ddata)
    if needs & 2:
        transposed = _transposed(data, indices, indptr, cols, perm, t_indices, t_indptr)
        _multiply(*transposed, g.contiguous(), g.new_empty(0), dx, by_rows=True)
    if needs & 4:
        dbias.copy_(flat.sum(0))
