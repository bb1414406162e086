"""GPU kernels of a selection: the steps of `select.rs` under the operators' names.

The rule: numbers are bits. Kernels read integers of the width of a float and compute with unsigned 64-bit keys; what is
added up across programs is whole numbers, so the results are the same bits as on a CPU and in every run.
"""

import torch
import triton
import triton.language as tl

from tersor._keys import FORMATS, INF, WIDTH
from tersor._values import signed_word

BLOCK = 1024
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
TYPES = {name: getattr(torch, name) for name in FORMATS}


@triton.jit
def _word(words, i):
    """An unsigned constant that a launcher has put into memory: Python's integers become signed ones on the way."""
    return tl.load(words + i).to(tl.uint64, bitcast=True)


@triton.jit
def _keys(x, at, live, words, SIGNED: tl.constexpr, NAN: tl.constexpr):
    """Magnitude: bits << 1. Value: bits | 2^(B-1) if it is positive or zero, else ~bits."""
    ones, top = _word(words, 0), _word(words, 1)
    bits = tl.load(x + at, live, 0).to(tl.int64).to(tl.uint64, bitcast=True) & ones
    double = (bits + bits) & ones
    key = double
    if SIGNED:
        key = tl.where(bits > top, bits ^ ones, bits | top)
    if NAN:
        key = tl.where(double > _word(words, 2), _word(words, 3), key)
    return key


@triton.jit
def _here(n, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    return at, at < n


@triton.jit
def _count(
    x,
    n,
    words,
    prefixes,
    many,
    counts,
    size,
    SIGNED: tl.constexpr,
    NAN: tl.constexpr,
    ALL: tl.constexpr,
    B: tl.constexpr,
):
    at, live = _here(n, B)
    key = _keys(x, at, live, words, SIGNED, NAN)
    digit = ((key >> _word(words, 4)) & _word(words, 6)).to(tl.int64)
    for p in range(many):
        hit = live
        if not ALL:
            hit = live & ((key >> _word(words, 5)) == _word(prefixes, p))
        tl.atomic_add(counts + p * size.to(tl.int64) + digit, tl.full([B], 1, tl.int64), mask=hit)


@triton.jit
def _tally(x, n, words, thresholds, many, out, SIGNED: tl.constexpr, NAN: tl.constexpr, B: tl.constexpr):
    at, live = _here(n, B)
    key = _keys(x, at, live, words, SIGNED, NAN)
    for t in range(many):
        threshold = _word(thresholds, t)
        tl.atomic_add(out + 2 * t, tl.sum((live & (key > threshold)).to(tl.int64), 0))
        tl.atomic_add(out + 2 * t + 1, tl.sum((live & (key == threshold)).to(tl.int64), 0))


@triton.jit
def _places(x, n, words, above, equal, SIGNED: tl.constexpr, NAN: tl.constexpr, B: tl.constexpr):
    """How many keys of each block lie above the threshold and how many have it."""
    at, live = _here(n, B)
    key, threshold = _keys(x, at, live, words, SIGNED, NAN), _word(words, 4)
    tl.store(above + tl.program_id(0), tl.sum((live & (key > threshold)).to(tl.int64), 0))
    tl.store(equal + tl.program_id(0), tl.sum((live & (key == threshold)).to(tl.int64), 0))


@triton.jit
def _mask(x, n, words, upto, equal, kept, out, SIGNED: tl.constexpr, NAN: tl.constexpr, B: tl.constexpr):
    """`upto` counts the equals up to the end of each block; those from place kept[0] to kept[1] are in."""
    at, live = _here(n, B)
    key, threshold = _keys(x, at, live, words, SIGNED, NAN), _word(words, 4)
    same = (live & (key == threshold)).to(tl.int64)
    first = tl.load(upto + tl.program_id(0)) - tl.load(equal + tl.program_id(0))
    place = first + tl.cumsum(same, 0) - same
    stays = (same > 0) & (place >= tl.load(kept)) & (place < tl.load(kept + 1))
    tl.store(out + at, ((key > threshold) | stays).to(tl.uint8), live)


@triton.jit
def _apply(x, mask, n, out, B: tl.constexpr):
    at, live = _here(n, B)
    keep = tl.load(mask + at, live, 0) != 0
    tl.store(out + at, tl.load(x + at, live & keep, 0), live)


@triton.jit
def _gather(x, indices, n, d, k, out, B: tl.constexpr):
    at, live = _here(n, B)
    index = tl.load(indices + at, live, 0)
    inside = live & (index >= 0) & (index < d)
    tl.store(out + at, tl.load(x + at // k * d + index, inside, 0), live)


@triton.jit
def _scatter(g, indices, n, d, k, out, B: tl.constexpr):
    at, live = _here(n, B)
    index = tl.load(indices + at, live, 0)
    inside = live & (index >= 0) & (index < d)
    tl.store(out + at // k * d + index, tl.load(g + at, live, 0), inside)


@triton.jit
def _topk(x, n, words, k, out, WIDTH: tl.constexpr, SIGNED: tl.constexpr, NAN: tl.constexpr, B: tl.constexpr):
    """A row per program: the k-th largest key bit by bit from the top, then the places of the keys from it on."""
    row = tl.program_id(0).to(tl.int64)
    threshold = _word(words, 3) & _word(words, 4)
    bit = _word(words, 1)
    for _ in range(WIDTH):
        above = tl.zeros([], tl.int64)
        for i in range(0, n, B):
            at = i + tl.arange(0, B)
            key = _keys(x + row * n, at, at < n, words, SIGNED, NAN)
            above += tl.sum(((at < n) & (key >= (threshold | bit))).to(tl.int64), 0)
        threshold = tl.where(above >= k, threshold | bit, threshold)
        bit = bit >> _word(words, 5)
    left = tl.zeros([], tl.int64) + k
    for i in range(0, n, B):
        at = i + tl.arange(0, B)
        key = _keys(x + row * n, at, at < n, words, SIGNED, NAN)
        left -= tl.sum(((at < n) & (key > threshold)).to(tl.int64), 0)
    done = row * k
    for i in range(0, n, B):
        at = i + tl.arange(0, B)
        key = _keys(x + row * n, at, at < n, words, SIGNED, NAN)
        same = ((at < n) & (key == threshold)).to(tl.int64)
        first = (same > 0) & (tl.cumsum(same, 0) <= left)
        stays = ((at < n) & (key > threshold)) | first
        tl.store(out + done + tl.cumsum(stays.to(tl.int64), 0) - 1, at.to(tl.int64), stays)
        done += tl.sum(stays.to(tl.int64), 0)
        left -= tl.sum(first.to(tl.int64), 0)


@triton.jit
def _groups(x, total, n, m, words, out, SIGNED: tl.constexpr, NAN: tl.constexpr, M: tl.constexpr, B: tl.constexpr):
    """B groups of m elements: the rank of each among its group, all pairs at once."""
    group = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    place = tl.arange(0, M)
    at = group[:, None] * m + place[None, :]
    live = (place < m)[None, :] & (at < total)
    key = _keys(x, at, live, words, SIGNED, NAN)
    mine, other = key[:, :, None], key[:, None, :]
    earlier = (place[None, :] < place[:, None])[None, :, :]
    before = ((other > mine) | ((other == mine) & earlier)) & (place < m)[None, None, :]
    tl.store(out + at, (tl.sum(before.to(tl.int32), 2) < n).to(tl.uint8), live)


def _grid(n):
    return (triton.cdiv(n, BLOCK),)


def _bits(x):
    return x.view(WORDS[x.element_size()])


def _constants(x, format, nan, *more):
    """The bits of an array in a format, and the constants of its keys."""
    width = WIDTH[format]
    ones = (1 << width) - 1
    words = [ones, 1 << (width - 1), INF[format] << 1, ones if nan == 1 else 0, *more]
    bits = _bits(x.to(TYPES[FORMATS[format]]))
    return bits, torch.tensor([signed_word(w) for w in words], dtype=torch.int64, device=x.device)


def magnitude_count(x, prefixes, start, counts, format, shift, bits, signed, nan):
    if counts.data_ptr() != start.data_ptr():
        counts.copy_(start)
    whole = shift + bits == WIDTH[format]
    tail = 0 if whole else shift + bits
    data, words = _constants(x, format, nan, shift, tail, (1 << bits) - 1)
    if x.numel() and len(prefixes):
        _count[_grid(x.numel())](
            data, x.numel(), words, prefixes, len(prefixes), counts, 1 << bits,
            SIGNED=signed, NAN=nan > 0, ALL=whole, B=BLOCK,
        )  # fmt: skip


def magnitude_tally(x, thresholds, tally, format, signed, nan):
    tally.zero_()
    data, words = _constants(x, format, nan)
    if x.numel() and len(thresholds):
        _tally[_grid(x.numel())](
            data, x.numel(), words, thresholds, len(thresholds), tally, SIGNED=signed, NAN=nan > 0, B=BLOCK
        )


def magnitude_mask(x, mask, tally, threshold, keep, high, format, signed, nan):
    data, words = _constants(x, format, nan, threshold & (1 << 64) - 1)
    grid, n = _grid(x.numel()), x.numel()
    above, equal = torch.zeros((2, max(grid[0], 1)), dtype=torch.int64, device=x.device)
    if n:
        _places[grid](data, n, words, above, equal, SIGNED=signed, NAN=nan > 0, B=BLOCK)
    tally[0], tally[1] = above.sum(), equal.sum()
    stay = tally[1].clamp(max=keep)
    first = tally[1] - stay if high else torch.zeros_like(stay)
    if n:
        kept = torch.stack([first, first + stay])
        _mask[grid](
            data, n, words, equal.cumsum(0), equal, kept, mask.view(torch.uint8), SIGNED=signed, NAN=nan > 0, B=BLOCK
        )


def apply_mask(x, mask, y):
    if x.shape != mask.shape:
        raise ValueError(f"apply_mask: x has shape {tuple(x.shape)}, mask {tuple(mask.shape)}")
    if x.numel():
        _apply[_grid(x.numel())](_bits(x), mask.view(torch.uint8), x.numel(), _bits(y), B=BLOCK)


def apply_mask_bwd(g, mask, dx):
    apply_mask(g, mask, dx)


def gather_rows(x, indices, values):
    if indices.numel():
        n, d, k = indices.numel(), x.shape[-1], indices.shape[-1]
        _gather[_grid(n)](_bits(x), indices, n, d, k, _bits(values), B=BLOCK)


def gather_rows_bwd(g, x, indices, dx):
    dx.zero_()
    if indices.numel():
        n, d, k = indices.numel(), x.shape[-1], indices.shape[-1]
        _scatter[_grid(n)](_bits(g), indices, n, d, k, _bits(dx), B=BLOCK)


def topk_indices(x, indices, k, magnitude, nan):
    n = x.shape[-1]
    if not 0 <= k <= n:
        raise ValueError(f"topk_indices: k = {k} of rows of {n}")
    if nan == 0 and not torch.isfinite(x).all():
        raise ValueError("topk_indices: non-finite values in x")
    format = FORMATS.index(str(x.dtype).rpartition(".")[2])
    data, words = _constants(x, format, nan, 0, 1)
    if indices.numel():
        _topk[(x.numel() // n,)](
            data, n, words, k, indices, WIDTH=WIDTH[format], SIGNED=not magnitude, NAN=nan > 0, B=BLOCK
        )


def nm_mask(x, mask, n, m, format, signed, nan):
    if not 1 <= m <= 16 or not 0 <= n <= m or x.shape[-1] % m:
        raise ValueError(f"nm_mask: {n} of {m} of rows of {x.shape[-1]}")
    if nan == 0 and not torch.isfinite(x).all():
        raise ValueError(f"nm_mask: non-finite values in {'score' if signed else 'w'}")
    data, words = _constants(x, format, nan)
    if x.numel():
        groups, wide = x.numel() // m, triton.next_power_of_2(m)
        block = max(512 // (wide * wide), 1)
        _groups[(triton.cdiv(groups, block),)](
            data, x.numel(), n, m, words, mask.view(torch.uint8), SIGNED=signed, NAN=nan > 0, M=wide, B=block
        )
