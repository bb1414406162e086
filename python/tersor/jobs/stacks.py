"""Experts that lie in one tensor ``[experts, rows, columns]``, read as so many matrices. The one rule: each is read as if it
stood alone, under the name that a dense model has (``experts.gate_up_proj`` of ``experts.gate_up_proj_packed``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint._format import Entry
from tersor.jobs import declared, restore
from tersor.jobs.declared import Known
from tersor.jobs.restore import Get, Lengths
from tersor.quant import Encoded

#: what stands beside the words of a weight
BESIDE = ("_packed", "_scale", "_shape", "_zero_point")


class Stack(NamedTuple):
    """The matrices of one tensor, one below the other, with what `restore` wants to know of one weight."""

    codes: np.ndarray
    zero: np.ndarray | None
    bits: int
    names: Mapping[str, Entry]
    get: Get
    shape: tuple[int, ...]


def bases(names: Mapping[str, Entry]) -> set[str]:
    """The names of the dense tensors."""
    found = {n.removesuffix("_packed") for n, e in names.items() if n.endswith("_packed") and _stacked(e)}
    for base in found:
        for part in ("_scale", "_shape"):
            if base + part not in names:
                raise FormatError(f"tensor {base + part!r} is missing beside {base + '_packed'!r}")
    return found


def _stacked(e: Entry) -> bool:
    return e.dtype == "I32" and len(e.shape) == 3


def module(base: str) -> str:
    """What a configuration calls the module that holds a tensor."""
    return base.removesuffix(".weight")


def _read(base: str, names: Mapping[str, Entry], get: Get, said: list[Known]) -> Stack:
    parts = {f"weight{part}": get(base + part) for part in BESIDE if base + part in names}
    shape = tuple(int(n) for n in parts["weight_shape"].reshape(-1))
    words, scale = parts["weight_packed"], parts["weight_scale"]
    if len(shape) != 3 or words.shape[:2] != shape[:2] or scale.shape[:2] != shape[:2] or scale.ndim != 3:
        raise FormatError(f"{base}: words {words.shape} and scales {scale.shape} are not those of experts {shape}")
    zeros = parts.get("weight_zero_point")
    if zeros is not None and len(zeros) != len(words):
        raise FormatError(f"{base}_zero_point: {zeros.shape} is not that of {len(words)} experts")
    own = {k: names[base + k.removeprefix("weight")] for k in parts}
    codes, zero, bits = [], [], 0
    for i in range(len(words)):
        one = parts | {k: parts[k][i] for k in parts if k != "weight_shape"} | {"weight_shape": np.array(shape[1:])}
        found = restore.unpacked("", own, one.__getitem__, said)
        codes.append(found[0])
        zero += [] if found[1] is None else [found[1]]
        bits = found[2]
    if not codes:
        raise FormatError(f"{base}: there are no experts")
    flat = parts | {"weight_scale": scale.reshape(-1, scale.shape[2])}
    return Stack(np.concatenate(codes), np.concatenate(zero) if zero else None, bits, own, flat.__getitem__, shape)


def _no_blocks() -> Lengths:
    return range(1, 1 << 62), range(1, 1 << 62)


def dense(base: str, names: Mapping[str, Entry], get: Get, said: list[Known]) -> np.ndarray:
    """The float32 weights of packed experts."""
    s = _read(base, names, get, said)
    return restore.restored("", s.codes, s.zero, s.names, s.get, said, _no_blocks).reshape(s.shape)


def every(names: Mapping[str, Entry], get: Get, groups: list[Known]) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors as `restore.dense` has them, experts among them."""
    experts = bases(names)
    beside = {base + part for base in experts for part in BESIDE}
    for base in sorted(experts):
        yield base, dense(base, names, get, declared.of(module(base), groups))
    yield from restore.dense({name: e for name, e in names.items() if name not in beside}, get, groups)


def encoded(
    base: str, names: Mapping[str, Entry], get: Get, said: list[Known], of_packed: Callable[..., Encoded]
) -> Encoded:
    """Their codes, which ``of_packed`` makes an `Encoded` of matrices of."""
    s = _read(base, names, get, said)
    try:
        e = of_packed("", s.codes, s.zero, s.bits, s.names, s.get)
    except FormatError as error:
        raise FormatError(f"{base}: {error}") from None
    lead = s.shape[:2]
    parts = {k: v.reshape(*lead, math.prod(v.shape) // max(math.prod(lead), 1)) for k, v in e.parts.items()}
    return replace(e, shape=s.shape, **parts)
