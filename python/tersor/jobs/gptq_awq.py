"""Weights as files of GPTQ and AWQ hold them: inputs by outputs, codes side by side in 32-bit words. The one rule: what the
configuration does not say in so many words is refused, since another layout would give other weights without an error.

GPTQ (https://arxiv.org/abs/2210.17323, as AutoGPTQ and GPTQModel write it): ``qweight`` [in·b/32, out], a dense stream of
codes down each column; ``qzeros`` [groups, out·b/32] with z - 1, or with z where ``checkpoint_format`` is "gptq_v2"; ``g_idx``
the group of each input. AWQ (https://arxiv.org/abs/2306.00978, version "gemm"): 4 bits, ``qweight`` [in, out/8], ``qzeros``
[groups, out/8], the eight codes of a word in the order 0 2 4 6 1 3 5 7. Both: ``scales`` [groups, out], w = (q - z) s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._op import FormatError

METHODS = ("gptq", "awq")
#: widths of codes of GPTQ
BITS = (2, 3, 4, 8)
#: what stands beside the words
BESIDE = ("qzeros", "scales", "g_idx")
#: which output each of the eight codes of a word of AWQ is of
_ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])


@dataclass(frozen=True)
class Words:
    """What a configuration says of them: the method, bits of a code, and what is added to the zero points that are stored."""

    method: str
    bits: int
    added: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Words:
        method = settings["quant_method"]
        bits = settings.get("bits", settings.get("w_bit"))
        if method == "awq":
            version = str(settings.get("version", "gemm")).lower()
            if bits != 4 or version != "gemm":
                raise FormatError(f"AWQ of {bits} bits, version {version!r}, is not read (4 bits, 'gemm' is)")
            return cls(method, 4, 0)
        form = settings.get("checkpoint_format", "gptq")
        if form not in ("gptq", "gptq_v2"):
            raise FormatError(f"the checkpoint_format {form!r} of GPTQ is not read ('gptq' and 'gptq_v2' are)")
        if settings.get("pack_dtype", "int32") != "int32":
            raise FormatError(f"GPTQ in words of {settings['pack_dtype']!r} is not read (int32 is)")
        dynamic = settings.get("dynamic") or {}
        if not isinstance(dynamic, dict) or not all(pattern.startswith("-:") for pattern in dynamic):  # those are dense
            raise FormatError("GPTQ with settings of their own for some modules ('dynamic') is not read")
        if bits not in BITS:
            raise FormatError(f"GPTQ of {bits!r:.20} bits is not read (2, 3, 4 and 8 are)")
        return cls(method, bits, 1 if form == "gptq" else 0)


@dataclass(frozen=True)
class Read:
    """A weight [out, in]: codes, zero points and scales [out, groups], and each input's group where they are not in order."""

    codes: np.ndarray
    zero: np.ndarray
    scale: np.ndarray
    order: np.ndarray | None
    bits: int


def _turned(codes: np.ndarray) -> np.ndarray:
    """Codes in the order of the outputs."""
    words = codes.reshape(*codes.shape[:-1], -1, 8)
    turned = np.empty_like(words)
    turned[..., _ORDER] = words
    return turned.reshape(codes.shape)


def read(stem: str, names: Mapping[str, Any], get: Callable[[str], np.ndarray], how: Words) -> Read:
    """The parts of a weight, as `Read` has them."""
    from tersor import quant

    name, bits = f"{stem}qweight", how.bits
    for part in ("qzeros", "scales"):
        if stem + part not in names:
            raise FormatError(f"tensor {stem + part!r} is missing beside {name!r}")
    words, zeros, scale = get(name), get(f"{stem}qzeros"), get(f"{stem}scales").astype(np.float32)
    for part, x in (("qweight", words), ("qzeros", zeros)):
        if x.dtype != np.int32 or x.ndim != 2:
            raise FormatError(f"{stem}{part}: {x.dtype} {x.shape} holds no words of codes")
    down = how.method == "gptq"
    rows = words.shape[0] * 32 // bits if down else words.shape[0]
    outs = words.shape[1] if down else words.shape[1] * 8
    groups = scale.shape[0] if scale.ndim == 2 else 0
    if scale.shape != (groups, outs) or not groups or zeros.shape != (groups, outs * bits // 32) or outs * bits % 32:
        raise FormatError(f"{name}: {words.shape} does not go with scales {scale.shape} and qzeros {zeros.shape}")
    order = None
    if down and f"{stem}g_idx" in names:
        order = get(f"{stem}g_idx").astype(np.int64)
        if order.ndim != 1 or order.size > rows or order.size * bits <= (words.shape[0] - 1) * 32:
            raise FormatError(f"{stem}g_idx: {order.shape} is not a group for each of {rows} inputs")
        if order.size and not 0 <= int(order.min()) <= int(order.max()) < groups:
            raise FormatError(f"{stem}g_idx: names groups that are not among the {groups} there are")
        rows = order.size
    codes = quant.unpack(words, bits, (rows, outs), "ct_dense", axis=0 if down else 1, dtype="uint8")
    zero = quant.unpack(zeros, bits, (groups, outs), "ct_dense", dtype="uint8")
    if not down:
        codes, zero = _turned(codes), _turned(zero)
    if order is None and rows % groups:
        raise FormatError(f"{name}: {groups} groups do not divide {rows} inputs, and nothing says which are whose")
    if order is None or (not rows % groups and np.array_equal(order, np.arange(rows) // (rows // groups))):
        order = None
    # the number that is meant, which may be one more than the largest code
    zero = zero.astype(np.int16) + how.added
    return Read(np.ascontiguousarray(codes.T), np.ascontiguousarray(zero.T), np.ascontiguousarray(scale.T), order, bits)


def dense(w: Read) -> np.ndarray:
    """The float32 weight [out, in]."""
    values = w.codes.astype(np.float32)
    groups = w.scale.shape[1]
    each = np.arange(values.shape[1]) // (values.shape[1] // groups) if w.order is None else w.order
    values -= w.zero.astype(np.float32)[:, each]
    values *= w.scale[:, each]
    return values
