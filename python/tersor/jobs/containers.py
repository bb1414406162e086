"""Codes as the tensors of a format of files. The one rule: codes, zero points and scales stay what they are; what a format has
no place for is refused with its name and the weight's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tersor._op import FormatError
from tersor.jobs import compressed
from tersor.jobs.gptq_awq import BITS
from tersor.quant import Encoded, pack, repack, unpack
from tersor.quant._encoded import scheme as scheme_of
from tersor.quant._gguf import KINDS, N, joined
from tersor.quant._unblocked import unblocked


class Part(NamedTuple):
    """A tensor of a file: its name, safetensors type, shape and numbers."""

    name: str
    dtype: str
    data: np.ndarray


class Grain(NamedTuple):
    """What a configuration says of a weight: the bits of a code, how many of a row share a scale (0: all), whether zero points
    are those of symmetric codes."""

    bits: int
    group: int
    symmetric: bool


@dataclass(frozen=True)
class Codes:
    """A weight [n, k] in codes from 0 on, one a byte or packed; zero points and scales [n, groups]."""

    name: str
    e: Encoded
    grain: Grain

    @classmethod
    def of(cls, name: str, e: Encoded) -> Codes:
        if e.scheme in KINDS:
            e = unblocked(name, e)
        how = scheme_of(e.scheme)
        if how.places or how.power or len(e.shape) != 2:
            raise FormatError(f"{name}: {e.scheme} of {e.shape} is no matrix of integers")
        return cls(name, e, Grain(how.bits, how.group or 0, e.zero_point is None))

    @property
    def stem(self) -> str:
        if self.name.rpartition(".")[2] != "weight":
            raise FormatError(f"{self.name}: is not called weight, which the format wants")
        return self.name.removesuffix("weight")

    @property
    def groups(self) -> int:
        return self.e.shape[1] // self.grain.group if self.grain.group else 1

    @property
    def scale(self) -> np.ndarray:
        s = np.asarray(self.e.scale, np.float32)
        return np.ascontiguousarray(
            np.broadcast_to(s.reshape(-1, self.groups) if s.ndim else s, (self.e.shape[0], self.groups))
        )

    @property
    def zero(self) -> np.ndarray:
        middle = np.uint8(1 << self.grain.bits - 1)
        z = np.asarray(middle if self.e.zero_point is None else self.e.zero_point)
        return np.broadcast_to(z.reshape(-1, self.groups) if z.ndim else z, (self.e.shape[0], self.groups))

    def codes(self) -> np.ndarray:
        data = np.asarray(self.e.data)
        return (data.view(np.uint8) ^ 128) if data.dtype == np.int8 else unpack(data, self.grain.bits, self.e.shape)

    def words(self, layout: str) -> np.ndarray:
        """The codes in a layout of `tersor.quant.pack`."""
        data, bits, shape = np.asarray(self.e.data), self.grain.bits, self.e.shape
        dense = self.codes() if data.dtype == np.int8 else data
        return np.asarray(repack(dense, bits, shape, "dense", layout))


def _half(c: Codes, what: str) -> np.ndarray:
    """Scales as float16, if they are."""
    with np.errstate(over="ignore"):
        half = c.scale.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), c.scale):
        raise FormatError(
            f"{c.name}: its scales are no numbers of float16, which {what} has; a model of 16 bits has such ones from the start"
        )
    return half


def _ct(c: Codes, kind: str) -> list[Part]:
    kind = "F32" if kind not in compressed.FLOATS or kind == "F64" else kind
    parts = [
        Part(c.stem + "weight_packed", "I32", c.words("ct_dense")),
        Part(c.stem + "weight_scale", kind, compressed.stored(c.scale, kind)),
        Part(c.stem + "weight_shape", "I64", np.array(c.e.shape, "<i8")),
    ]
    if not c.grain.symmetric:
        parts.append(
            Part(c.stem + "weight_zero_point", "I32", np.asarray(pack(c.zero, c.grain.bits, "ct_dense", axis=0)))
        )
    return parts


def _gptq(layout: str) -> Callable[[Codes, str], list[Part]]:
    def parts(c: Codes, kind: str) -> list[Part]:
        (n, k), bits = c.e.shape, c.grain.bits
        if bits not in BITS or n * bits % 32 or k * bits % 32:
            raise FormatError(f"{c.name}: {n} by {k} codes of {bits} bits fill no words of GPTQ, which has {BITS} bits")
        if layout == "gptq_v1" and not c.zero.all():
            raise FormatError(f"{c.name}: a zero point is 0, which GPTQ's first version has no word for: --to gptq_v2")
        zero = np.ascontiguousarray(c.zero.T)
        return [
            Part(c.stem + "qweight", "I32", c.words(layout)),
            Part(c.stem + "qzeros", "I32", np.asarray(pack(zero, bits, layout, axis=-1))),
            Part(c.stem + "g_idx", "I32", (np.arange(k) // (c.grain.group or max(k, 1))).astype("<i4")),
            Part(c.stem + "scales", "F16", np.ascontiguousarray(_half(c, "GPTQ").T)),
        ]

    return parts


def _awq(c: Codes, kind: str) -> list[Part]:
    (n, k), bits = c.e.shape, c.grain.bits
    if bits != 4 or n % 8:
        raise FormatError(f"{c.name}: {n} by {k} codes of {bits} bits; AWQ has 4 bits, and eight outputs a word")
    return [
        Part(c.stem + "qweight", "I32", c.words("awq")),
        Part(c.stem + "qzeros", "I32", np.asarray(pack(np.ascontiguousarray(c.zero.T), 4, "awq"))),
        Part(c.stem + "scales", "F16", np.ascontiguousarray(_half(c, "AWQ").T)),
    ]


def block(c: Codes) -> Encoded:
    """Codes as blocks of GGUF: larger groups say their scale once for each 32."""
    name = {4: "q4_0", 5: "q5_0", 8: "q8_0"}.get(c.grain.bits)
    (n, k), group = c.e.shape, c.grain.group or c.e.shape[1]
    if name is None or not c.grain.symmetric:
        kind = f"{c.grain.bits} bits" + ("" if c.grain.symmetric else " with zero points")
        raise FormatError(f"{c.name}: codes of {kind}; GGUF has symmetric ones of 4, 5 and 8 bits")
    if group % N or k % N:
        raise FormatError(f"{c.name}: groups of {group} are no whole blocks of {N}, as GGUF has them")
    d = np.repeat(_half(c, "GGUF"), group // N, 1)[..., None].view(np.uint8)
    q = c.codes().reshape(n, k // N, N)
    octets = np.concatenate([d, *joined(q, KINDS[name])], -1)
    return Encoded(octets.reshape(n, -1), None, None, name, (n, k), "float32")


def _one(to: str, grains: Mapping[str, Grain]) -> Grain:
    """The only bits and group that there are, as formats with one setting want them."""
    kinds = {(g.bits, g.group) for g in grains.values()}
    if len(kinds) > 1:
        many = ", ".join(f"{b} bits by {g or 'row'}" for b, g in sorted(kinds))
        raise FormatError(f"{to} has one width and one size of groups for all weights, here are {many}")
    bits, group = next(iter(kinds))
    return Grain(bits, group, all(g.symmetric for g in grains.values()))


def _said_ct(grains: Mapping[str, Grain], left: Sequence[str]) -> dict[str, Any]:
    kinds = sorted(set(grains.values()))
    groups = {
        f"group_{i}": {
            "targets": ["Linear"] if len(kinds) == 1 else sorted(m for m, g in grains.items() if g == kind),
            "weights": compressed.weights_said(kind.bits, kind.group or None, not kind.symmetric),
        }
        for i, kind in enumerate(kinds)
    }
    if len(kinds) == 1:  # see `compressed.configuration`
        return {**compressed.SAID, "ignore": list(left), "dequantize": True, "config_groups": groups}
    return {**compressed.SAID, "ignore": [], "config_groups": groups}


def _said_gptq(form: str) -> Callable[[Mapping[str, Grain], Sequence[str]], dict[str, Any]]:
    def said(grains: Mapping[str, Grain], left: Sequence[str]) -> dict[str, Any]:
        how = _one("GPTQ", grains)
        settings = {
            "quant_method": "gptq",
            "bits": how.bits,
            "group_size": how.group or -1,
            "desc_act": False,
            "sym": how.symmetric,
            "checkpoint_format": form,
            "pack_dtype": "int32",
        }
        # as GPTQModel names the modules that have no codes
        return settings | ({"dynamic": {f"-:^{m.replace('.', chr(92) + '.')}$": {} for m in left}} if left else {})

    return said


def _said_awq(grains: Mapping[str, Grain], left: Sequence[str]) -> dict[str, Any]:
    how = _one("AWQ", grains)
    return {
        "quant_method": "awq",
        "bits": 4,
        "group_size": how.group or -1,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": list(left) or None,
    }


@dataclass(frozen=True)
class Container:
    """A format: the tensors of a weight, and what config.json says; whether a file without one can be read."""

    parts: Callable[[Codes, str], list[Part]]
    said: Callable[[Mapping[str, Grain], Sequence[str]], dict[str, Any]]
    alone: bool = False


CONTAINERS = {
    "ct": Container(_ct, _said_ct, alone=True),
    "gptq": Container(_gptq("gptq_v1"), _said_gptq("gptq")),
    "gptq_v2": Container(_gptq("gptq_v2"), _said_gptq("gptq_v2")),
    "awq": Container(_awq, _said_awq),
}
