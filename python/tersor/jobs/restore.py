"""Quantized folders read back as dense weights. The one rule: what is not understood whole is refused by name, never guessed.

Read are the integer and float formats of `compressed-tensors` (`pack-quantized`, `int-quantized`, `float-quantized`,
`naive-quantized`; 1 to 8 bits, symmetric or not, by tensor, channel, group or block), 8-bit floats with a scale per block, and
the words of GPTQ and AWQ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint._format import Entry
from tersor.jobs import gptq_awq
from tersor.jobs.declared import BESIDE, Known, layout, of

Get = Callable[[str], np.ndarray]


def _words(k: int, bits: int) -> int:
    return -(-k * bits // 32)


def _bits(name: str, words: int, k: int, said: list[Known]) -> int:
    """The width with which ``k`` codes fill so many words, of those that are said or else of all: the only one, or none."""
    widths = sorted({group.bits for group in said if group.bits})
    fits = [bits for bits in widths or range(1, 9) if _words(k, bits) == words]
    if len(fits) != 1:
        every = " or ".join(map(str, fits or widths)) or "1 to 8"
        which = f"may be of {every} bits, and nothing says of which" if fits else f"are not of {every} bits"
        raise FormatError(f"{name}: {words} words for rows of {k} codes {which}")
    return fits[0]


Lengths = tuple[range, range]


def _lengths(n: int, pieces: int) -> range:
    """All lengths of pieces, the last of which may be shorter, so many of which cover ``n``."""
    if pieces == 1:
        return range(n, _ANY)
    low = -(-n // pieces)
    return range(low, -(-n // (pieces - 1)))


_ANY = 1 << 62


def _both(a: range, b: range) -> range:
    return range(max(a.start, b.start), min(a.stop, b.stop))


def _spread(
    name: str,
    scale: np.ndarray,
    shape: tuple[int, ...],
    order: np.ndarray | None,
    said: list[Known],
    file: Callable[[], Lengths],
) -> np.ndarray:
    """A scale or zero point for every weight of the shape: by tensor, by row, by groups of columns, by blocks of both.

    ``file`` says of which lengths the blocks of all the file may be, where nothing else does.
    """
    n, k = shape[0], shape[-1]
    if scale.size == 1:
        return np.broadcast_to(scale.reshape(()), shape)
    if scale.ndim == 1 and scale.size == n:
        scale = scale[:, None]
    misfit = f"{name}: a scale of shape {scale.shape} does not fit a weight {shape}"
    if len(shape) != 2 or scale.ndim != 2 or not all(scale.shape) or not all(shape):
        raise FormatError(misfit)
    rows, columns = scale.shape
    if order is not None:
        if rows not in (1, n) or order.shape != (k,) or (k and not 0 <= int(order.min()) <= int(order.max()) < columns):
            raise FormatError(f"{name}: its g_idx does not name {columns} groups for {k} columns")
        return np.broadcast_to(scale, (n, columns))[:, order]
    if rows > n or columns > k:
        raise FormatError(misfit)
    high, wide = _block(name, misfit, (n, k), (rows, columns), said, file)
    return scale.repeat(high, 0)[:n].repeat(wide, 1)[:, :k]


def _block(
    name: str,
    misfit: str,
    shape: tuple[int, int],
    pieces: tuple[int, int],
    said: list[Known],
    file: Callable[[], Lengths],
) -> tuple[int, int]:
    """How many rows and columns share a scale."""
    if (pieces[0] in (1, shape[0])) and pieces[1] in (1, shape[1]):
        return shape[0] // pieces[0], shape[1] // pieces[1]
    blocks = {block for group in said if (block := group.block(*shape))}
    if blocks:
        # what is longer than the axis covers it all
        fits = {
            (min(block[0], shape[0]), min(block[1], shape[1]))
            for block in blocks
            if all(-(-n // b) == m for n, b, m in zip(shape, block, pieces, strict=True))
        }
        if len(fits) == 1:
            return fits.pop()
        if fits:
            raise FormatError(f"{name}: its blocks may be {' or '.join(f'{a} by {b}' for a, b in sorted(fits))}")
        if all(group.shared for group in said):
            raise FormatError(f"{misfit} in blocks of {' or '.join(f'{a} by {b}' for a, b in sorted(blocks))}")
    found = []
    for n, m, every in zip(shape, pieces, file(), strict=True):
        own = _both(_lengths(n, m), every)
        if m != 1 and len(own) != 1:
            raise FormatError(
                f"{misfit} in blocks of one length only, and nothing says which: config.json does, by block_structure or "
                "weight_block_size"
            )
        found.append(n if m == 1 else own.start)
    return found[0], found[1]


def unpacked(
    stem: str, names: Mapping[str, Any], get: Get, said: list[Known]
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Packed codes, less the middle of their range, their zero points likewise, and the bits of a code."""
    from tersor import quant

    name = stem + "weight_packed"
    for part in ("weight_scale", "weight_shape"):
        if stem + part not in names:
            raise FormatError(f"tensor {stem + part!r} is missing beside {name!r}")
    words, shape = get(name), tuple(int(n) for n in get(stem + "weight_shape").reshape(-1))
    if len(shape) < 2 or words.ndim != 2 or words.dtype != np.int32 or words.shape[0] != shape[0] or min(shape) < 0:
        raise FormatError(f"{name}: {words.dtype} {words.shape} is not the packed form of a weight {shape}")
    shape = shape[0], math.prod(shape[1:])  # a filter of a convolution is a row
    bits = _bits(name, words.shape[1], shape[1], said)
    codes = quant.unpack(words, bits, shape, "ct_dense")
    zero = None
    if stem + "weight_zero_point" in names:
        zero = get(stem + "weight_zero_point")
        scale = get(stem + "weight_scale")
        columns = scale.shape[-1] if scale.ndim == 2 else 1
        if zero.dtype == np.int32 and zero.shape == (_words(shape[0], bits), columns):
            zero = quant.unpack(zero, bits, (shape[0], columns), "ct_dense", axis=0)
        elif zero.dtype not in (np.int8, np.uint8):
            raise FormatError(f"{stem}weight_zero_point: {zero.dtype} {zero.shape} is not that of {bits}-bit codes")
    return codes, zero, bits


def packed(stem: str, names: Mapping[str, Any], get: Get, said: list[Known], file: Callable[[], Lengths]) -> np.ndarray:
    """The float32 weight of packed codes."""
    codes, zero, _ = unpacked(stem, names, get, said)
    return restored(stem, codes, zero, names, get, said, file).reshape(get(stem + "weight_shape").reshape(-1))


def _scale(
    stem: str, names: Mapping[str, Any], get: Get, shape: tuple[int, ...], said: list[Known]
) -> tuple[np.ndarray, list[Known]]:
    """The scales of a weight, and what is said of it or follows from them."""
    # the name says inverse of fp8 checkpoints, the number is a scale all the same
    inverse = stem + "weight_scale_inv" in names
    scale = get(stem + ("weight_scale_inv" if inverse else "weight_scale")).astype(np.float32)
    n, k = shape[0], shape[-1]
    grouped = not inverse and scale.ndim == 2 and scale.shape[0] == n and (n > 1 or stem + "weight_packed" in names)
    if grouped and scale.shape[1] and not k % scale.shape[1] and not any(group.shared for group in said):
        said = [Known(shared=(1, k // scale.shape[1]))]  # groups of a row are of one length, whole ones
    return scale, said


def tiles(
    stem: str,
    names: Mapping[str, Any],
    get: Get,
    shape: tuple[int, ...],
    said: list[Known],
    file: Callable[[], Lengths],
) -> tuple[np.ndarray, int, int]:
    """The scales of a matrix of bytes, and how many rows and columns share one."""
    scale, said = _scale(stem, names, get, shape, said)
    if len(shape) == 2 and scale.size == 1:
        return scale.reshape(1, 1), max(shape[0], 1), max(shape[1], 1)
    scale = scale[:, None] if scale.ndim == 1 and scale.size == shape[0] else scale
    misfit = f"{stem}weight: a scale of shape {scale.shape} does not fit a weight {shape}"
    if (
        len(shape) != 2
        or scale.ndim != 2
        or not all(scale.shape)
        or scale.shape[0] > shape[0]
        or scale.shape[1] > shape[1]
    ):
        raise FormatError(misfit)
    return scale, *_block(f"{stem}weight", misfit, shape, scale.shape, said, file)


def restored(
    stem: str,
    codes: np.ndarray,
    zero: np.ndarray | None,
    names: Mapping[str, Any],
    get: Get,
    said: list[Known],
    file: Callable[[], Lengths],
) -> np.ndarray:
    """The float32 weight of codes and zero points, less the middle of their range."""
    name = stem + "weight"
    scale, said = _scale(stem, names, get, codes.shape, said)
    order = get(stem + "weight_g_idx").astype(np.int64) if stem + "weight_g_idx" in names else None
    if order is not None and order.size and (order < 0).all():
        order = None
    values = codes.astype(np.float32)
    if zero is not None:
        values -= _spread(name, zero.astype(np.float32), codes.shape, order, said, file)
    return values * _spread(name, scale, codes.shape, order, said, file)


def file_lengths(names: Mapping[str, Entry], stems: Iterable[str]) -> Lengths:
    """The lengths that the blocks of all weights in codes may have, if they are the same ones in all of them."""
    high, wide = range(1, _ANY), range(1, _ANY)
    for stem in stems:
        scale = names.get(stem + "weight_scale_inv") or names.get(stem + "weight_scale")
        shape = names[stem + "weight"].shape
        if scale is None or len(shape) != 2 or len(scale.shape) != 2 or 0 in (*shape, *scale.shape):
            continue
        if all(m in (1, n) for n, m in zip(shape, scale.shape, strict=True)):
            continue  # by tensor, row or column, and no blocks
        high = _both(high, _lengths(shape[0], scale.shape[0]))
        wide = _both(wide, _lengths(shape[1], scale.shape[1]))
    return high, wide


def quantized(names: Mapping[str, Entry]) -> tuple[set[str], set[str], set[str]]:
    """What the names of packed weights begin with, those of weights with a byte for a code, and those of GPTQ and AWQ."""
    stems = {n.removesuffix("weight_packed") for n in names if n.rpartition(".")[2] == "weight_packed"}
    coded = {
        n.removesuffix("weight")
        for n, e in names.items()
        if n.rpartition(".")[2] == "weight" and (e.dtype in ("I8", "U8") or e.dtype.startswith("F8"))
        and (n + "_scale" in names or n + "_scale_inv" in names)
    }  # fmt: skip
    return stems, coded, {n.removesuffix("qweight") for n in names if n.rpartition(".")[2] == "qweight"}


def dense(names: Mapping[str, Entry], get: Get, groups: list[Known]) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors, by name, with what is quantized restored; ``names`` says the type and shape of each, ``groups`` what a
    configuration says."""
    stems, coded, words = quantized(names)
    file = cache(lambda: file_lengths(names, coded))
    for name in names:
        module, dot, part = name.rpartition(".")
        stem = module + dot
        if part == "weight_packed":
            yield stem + "weight", packed(stem, names, get, of(module, groups), file)
        elif part == "weight" and stem in coded:
            zero = get(stem + "weight_zero_point") if stem + "weight_zero_point" in names else None
            yield name, restored(stem, get(name), zero, names, get, of(module, groups), file)
        elif part == "qweight":
            yield stem + "weight", gptq_awq.dense(gptq_awq.read(stem, names, get, layout(of(module, groups))))
        elif not (part in BESIDE and stem in stems | coded) and not (part in gptq_awq.BESIDE and stem in words):
            yield name, get(name)
