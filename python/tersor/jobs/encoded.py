"""Quantized folders read as the codes that they hold. The one rule: no code is made anew, and what no `Encoded` can hold is
refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint._format import Entry
from tersor.jobs import gptq_awq, stacks
from tersor.jobs.declared import BESIDE, Known, layout, of
from tersor.jobs.restore import Get, quantized, unpacked
from tersor.quant import Encoded
from tersor.quant._unblocked import of_codes

_DENSE = "; tersor.convert.load reads it as a dense weight"


class Source(NamedTuple):
    """A weight of a file: the tensors that it is made of, the type of its scales, and how to read its codes."""

    parts: tuple[str, ...]
    scales: str
    read: Callable[[], Encoded]


def sources(names: Mapping[str, Entry], get: Get, groups: list[Known]) -> dict[str, Source]:
    """The weights in codes, by the name that a dense weight would have."""
    stems, coded, words = quantized(names)
    found = {}
    for base in sorted(experts := stacks.bases(names)):
        there = tuple(base + part for part in stacks.BESIDE if base + part in names)
        read = partial(stacks.encoded, base, names, get, of(stacks.module(base), groups), of_packed)
        found[base] = Source(there, names[f"{base}_scale"].dtype, read)
    stems = {stem for stem in stems if f"{stem}weight" not in experts}
    for stem in sorted(stems | coded | words):
        said = of(stem.removesuffix("."), groups)
        parts: tuple[str, ...]
        if stem in words:
            read, parts = partial(_of_words, stem, names, get, said), ("qweight", *gptq_awq.BESIDE)
        else:
            read = partial(_packed if stem in stems else _bytes, stem, names, get, said)
            parts = ("weight_packed" if stem in stems else "weight", *BESIDE)
        there = tuple(stem + part for part in parts if stem + part in names)
        kind = next((names[n].dtype for n in there if n.removeprefix(stem) in ("weight_scale", "scales")), "F32")
        found[f"{stem}weight"] = Source(there, kind, read)
    return found


def encoded(names: Mapping[str, Entry], get: Get, groups: list[Known]) -> Iterator[tuple[str, Encoded]]:
    """The codes of all weights that have some."""
    return ((name, source.read()) for name, source in sources(names, get, groups).items())


def _packed(stem: str, names: Mapping[str, Entry], get: Get, said: list[Known]) -> Encoded:
    codes, zero, bits = unpacked(stem, names, get, said)
    return of_packed(stem, codes, zero, bits, names, get)


def _bytes(stem: str, names: Mapping[str, Entry], get: Get, said: list[Known]) -> Encoded:
    name = f"{stem}weight"
    codes = get(name)
    if codes.dtype != np.int8 or codes.ndim != 2:
        raise FormatError(f"{name}: {names[name].dtype} {codes.shape} holds no codes of a linear layer{_DENSE}")
    zero = get(f"{name}_zero_point") if f"{name}_zero_point" in names else None
    return of_packed(stem, codes, zero, 8, names, get)


def _of_words(stem: str, names: Mapping[str, Entry], get: Get, said: list[Known]) -> Encoded:
    name, w = f"{stem}weight", gptq_awq.read(stem, names, get, layout(said))
    if w.order is not None:
        raise FormatError(f"{name}: its columns are assigned to groups one by one{_DENSE}")
    most = (1 << w.bits) - 1
    if w.zero.size and int(w.zero.max()) > most:
        raise FormatError(f"{name}: a zero point is {most + 1}, which is no code of {w.bits} bits{_DENSE}")
    k, groups = w.codes.shape[1], w.scale.shape[1]
    zero = None if (w.zero == 1 << w.bits - 1).all() else w.zero.astype(np.uint8)
    return of_codes(w.codes, zero, w.scale, w.bits, "row" if groups == 1 else f"g{k // groups}")


def of_packed(
    stem: str, codes: np.ndarray, zero: np.ndarray | None, bits: int, names: Mapping[str, Entry], get: Get
) -> Encoded:
    """Codes and zero points, less the middle of their range, with the scales that stand beside them."""
    name, (n, k) = f"{stem}weight", codes.shape
    if f"{name}_g_idx" in names and (get(f"{name}_g_idx") >= 0).any():
        raise FormatError(f"{name}: its columns are assigned to groups one by one{_DENSE}")
    scale = get(f"{name}_scale").astype(np.float32)
    if scale.ndim == 1 and scale.size == n:
        scale = scale[:, None]
    if scale.shape == (n, 1) and n:
        grain = "row"
    elif scale.size == 1:
        grain, scale = "tensor", scale.reshape(())
    elif scale.ndim == 2 and scale.shape[0] == n and scale.shape[1] and not k % scale.shape[1]:
        grain = f"g{k // scale.shape[1]}"
    else:
        raise FormatError(f"{name}: scales {scale.shape} are not by row, nor by groups that divide rows of {k}{_DENSE}")
    if zero is not None and zero.dtype == np.int8 and not zero.any():
        zero = None
    middle = 1 << bits - 1
    if zero is not None:
        if zero.size != scale.size:
            raise FormatError(f"{name}: zero points {zero.shape} do not go with scales {scale.shape}")
        zero = (zero.astype(np.int16) + (middle if zero.dtype == np.int8 else 0)).reshape(scale.shape).astype(np.uint8)
    # codes come less the middle of their range
    return of_codes((codes.astype(np.int16) + middle).astype(np.uint8), zero, scale, bits, grain)
