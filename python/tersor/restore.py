"""Quantized folders read back as dense weights. The one rule: what is not understood whole is refused by name, never guessed.

Read are the integer and float formats of `compressed-tensors` (`pack-quantized`, `int-quantized`, `float-quantized`,
`naive-quantized`; 1 to 8 bits, symmetric or not, by tensor, channel, group or block) and 8-bit floats with a scale per block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tersor._op import FormatError

Get = Callable[[str], np.ndarray]

#: what stands beside a weight, and is used up when it is restored
BESIDE = ("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "weight_scale_inv")
FORMATS = (None, "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense")
#: of names that belong to formats which are not read
_FOREIGN = re.compile(r"(^|\.)(qweight|qzeros|absmax|SCB|quant_map|W_q|weight_global_scale|weight\._data|bitmask)$")


def check(settings: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Refuses what a folder's configuration or names say is in a format that is not read."""
    method = settings.get("quant_method", "compressed-tensors")
    if method not in ("compressed-tensors", "fp8"):
        raise FormatError(f"weights quantized by {method!r} are not read (compressed-tensors and fp8 are)")
    kinds = [settings.get("format")] if method != "fp8" else []
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        kinds.append(group.get("format") if isinstance(group, dict) else None)
    for kind in kinds:
        if kind not in (*FORMATS, "mixed-precision"):
            raise FormatError(f"the format {kind!r} is not read ({', '.join(f for f in FORMATS if f)} are)")
    for name in names:
        if _FOREIGN.search(name):
            raise FormatError(f"{name!r} belongs to a format that is not read")


def widths(settings: Mapping[str, Any]) -> list[int]:
    """The widths of codes that a configuration speaks of."""
    found = []
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
        if isinstance(bits, int) and bits not in found:
            found.append(bits)
    return found


def _words(k: int, bits: int) -> int:
    return -(-k * bits // 32)


def _bits(name: str, words: int, k: int, known: list[int]) -> int:
    """The width with which ``k`` codes fill so many words: of those known, or else the only one there is."""
    fits = [bits for bits in known if _words(k, bits) == words]
    if not known:
        fits = [bits for bits in range(1, 9) if _words(k, bits) == words]
        fits = [bits for bits in (8, 4) if bits in fits] or fits
    if len(fits) != 1:
        which = (
            f"are not of {' or '.join(map(str, known)) or '1 to 8'}"
            if not fits
            else f"may be of {fits[0]} or {fits[1]}"
        )
        raise FormatError(f"{name}: {words} words for rows of {k} codes {which} bits")
    return fits[0]


def _spread(name: str, scale: np.ndarray, shape: tuple[int, ...], order: np.ndarray | None) -> np.ndarray:
    """A scale or zero point for every weight of the shape: by tensor, by row, by groups of columns, by blocks of both."""
    n, k = shape[0], shape[-1]
    if scale.size == 1:
        return np.broadcast_to(scale.reshape(()), shape)
    if scale.ndim == 1 and scale.size == n:
        scale = scale[:, None]
    if len(shape) != 2 or scale.ndim != 2 or not all(scale.shape):
        raise FormatError(f"{name}: a scale of shape {scale.shape} does not fit a weight {shape}")
    rows, columns = scale.shape
    if order is not None:
        if rows not in (1, n) or order.shape != (k,) or (k and not 0 <= int(order.min()) <= int(order.max()) < columns):
            raise FormatError(f"{name}: its g_idx does not name {columns} groups for {k} columns")
        return np.broadcast_to(scale, (n, columns))[:, order]
    high, wide = -(-n // rows), -(-k // columns)
    if -(-n // high) != rows or -(-k // wide) != columns:
        raise FormatError(f"{name}: a scale of shape {scale.shape} does not fit a weight {shape}")
    return scale.repeat(high, 0)[:n].repeat(wide, 1)[:, :k]


def packed(stem: str, names: Mapping[str, Any], get: Get, known: list[int]) -> np.ndarray:
    """The float32 weight of packed codes."""
    from tersor import quant

    name = stem + "weight_packed"
    for part in ("weight_scale", "weight_shape"):
        if stem + part not in names:
            raise FormatError(f"tensor {stem + part!r} is missing beside {name!r}")
    words, shape = get(name), tuple(int(n) for n in get(stem + "weight_shape").reshape(-1))
    if len(shape) != 2 or words.ndim != 2 or words.dtype != np.int32 or words.shape[0] != shape[0]:
        raise FormatError(f"{name}: {words.dtype} {words.shape} is not the packed form of a weight {shape}")
    bits = _bits(name, words.shape[1], shape[1], known)
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
    return _restored(stem, codes, zero, names, get)


def _restored(stem: str, codes: np.ndarray, zero: np.ndarray | None, names: Mapping[str, Any], get: Get) -> np.ndarray:
    name = stem + "weight"
    inverse = (
        stem + "weight_scale_inv" in names
    )  # the name says so of fp8 checkpoints, the number is a scale all the same
    scale = get(stem + ("weight_scale_inv" if inverse else "weight_scale")).astype(np.float32)
    order = get(stem + "weight_g_idx").astype(np.int64) if stem + "weight_g_idx" in names else None
    if order is not None and order.size and (order < 0).all():
        order = None
    values = codes.astype(np.float32)
    if zero is not None:
        values -= _spread(name, zero.astype(np.float32), codes.shape, order)
    if inverse and scale.ndim == 2 and codes.ndim == 2:
        block = [max(1, -(-n // m)) for n, m in zip(codes.shape, scale.shape, strict=True)]
        power = [1 << (b - 1).bit_length() for b in block]  # a shorter last block: the length is a power of two
        fits = [-(-n // p) == m for n, p, m in zip(codes.shape, power, scale.shape, strict=True)]
        if all(fits):
            spread = scale.repeat(power[0], 0)[: codes.shape[0]].repeat(power[1], 1)[:, : codes.shape[1]]
            return values * spread
    return values * _spread(name, scale, codes.shape, order)


def dense(names: Mapping[str, Any], get: Get, known: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors, by name, with what is quantized restored; ``names`` says the safetensors dtype of each."""
    stems = {n.removesuffix("weight_packed") for n in names if n.rpartition(".")[2] == "weight_packed"}
    coded = {
        n.removesuffix("weight")
        for n, dtype in names.items()
        if n.rpartition(".")[2] == "weight" and (dtype in ("I8", "U8") or dtype.startswith("F8"))
        and (n + "_scale" in names or n + "_scale_inv" in names)
    }  # fmt: skip
    for name in names:
        module, dot, part = name.rpartition(".")
        stem = module + dot
        if part == "weight_packed":
            yield stem + "weight", packed(stem, names, get, known)
        elif part == "weight" and stem in coded:
            zero = get(stem + "weight_zero_point") if stem + "weight_zero_point" in names else None
            yield name, _restored(stem, get(name), zero, names, get)
        elif not (part in BESIDE and stem in stems | coded):
            yield name, get(name)
