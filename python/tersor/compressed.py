"""Quantized weights as the `compressed-tensors` package lays them out (format `pack-quantized`, release 0.20).

The rule of this file: what is written here, that package and `transformers` read back to the same numbers. A weight
``m.weight`` [n, k] becomes ``m.weight_packed`` (int32 words: offset-binary codes, the first in the lowest bits, rows padded
to whole words), ``m.weight_scale`` ([n, 1], or [n, k/g] with groups of g) and ``m.weight_shape`` (int64).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from tersor._op import FormatError

PARTS = ("weight_packed", "weight_scale", "weight_shape")
FLOATS = ("F64", "F32", "F16", "BF16")

# tables that are looked up, not multiplied with: readers leave them packed
_TABLE = re.compile(r"(^|[._])(\w*embed\w*|wte|wpe|shared)([._]|$)")
# routers of mixtures of experts, which choose by small differences
_ROUTER = re.compile(r"(^|\.)(gate|router)\.weight$")
# models whose layers are not torch.nn.Linear but its transpose, which the format has no word for
_TRANSPOSED = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}


@dataclass(frozen=True)
class Scheme:
    """``int8-row``, ``int4-g128``: the bits of a code, and how many weights of a row share a scale (None: all)."""

    bits: int
    group: int | None

    @classmethod
    def parse(cls, name: str) -> Scheme:
        found = re.fullmatch(r"int([48])-(?:row|g([1-9]\d*))", name)
        if not found:
            raise ValueError(f"scheme {name!r} is unknown: int8-row, int4-row, int8-g128 and int4-g128 are known")
        return cls(int(found[1]), int(found[2]) if found[2] else None)

    def __str__(self) -> str:
        return f"int{self.bits}-{f'g{self.group}' if self.group else 'row'}"

    def words(self, k: int) -> int:
        """32-bit words in a packed row of ``k`` codes."""
        return -(-k * self.bits // 32)

    def scales(self, k: int) -> int:
        return k // self.group if self.group else 1


@dataclass(frozen=True)
class Choice:
    """What becomes of the tensors of a model: those to quantize, and why other matrices are not."""

    quantized: tuple[str, ...]
    dense: Mapping[str, str]

    @property
    def ignore(self) -> list[str]:
        """Modules that readers must take as dense."""
        left = sorted(name.removesuffix(".weight") for name in self.dense)
        return left if "lm_head.weight" in self.quantized else sorted({*left, "lm_head"})


def is_table(name: str) -> bool:
    """Whether a weight is a table of embeddings, by its name."""
    return bool(_TABLE.search(name))


def choose(
    tensors: Iterable[tuple[str, str, Sequence[int]]],
    scheme: Scheme,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    embeddings: bool = False,
    model_type: str | None = None,
) -> Choice:
    """Which of ``tensors`` (name, safetensors dtype, shape) to quantize: matrices named ``<module>.weight``."""
    quantized, dense = [], {}
    for name, dtype, shape in tensors:
        if not name.endswith(".weight") or len(shape) != 2 or dtype not in FLOATS or not all(shape):
            continue
        table = is_table(name)
        if any(fnmatchcase(name, pattern) for pattern in exclude):
            dense[name] = "excluded"
        elif include and not any(fnmatchcase(name, pattern) for pattern in include):
            dense[name] = "not included"
        elif table and not embeddings:
            dense[name] = "an embedding table"
        elif _ROUTER.search(name) and not include:
            dense[name] = "a router"
        elif model_type in _TRANSPOSED and not table:
            dense[name] = f"{model_type} keeps it transposed, which the format cannot say"
        elif scheme.group and shape[1] % scheme.group:
            dense[name] = f"rows of {shape[1]} do not divide into groups of {scheme.group}"
        else:
            quantized.append(name)
    return Choice(tuple(quantized), dense)


def layout(name: str, dtype: str, shape: Sequence[int], scheme: Scheme) -> list[tuple[str, str, tuple[int, ...]]]:
    """The three tensors that stand for the weight ``name``: names, safetensors dtypes, shapes."""
    module = name.removesuffix("weight")
    n, k = shape
    return [
        (module + "weight_packed", "I32", (n, scheme.words(k))),
        (module + "weight_scale", "F32" if dtype == "F64" else dtype, (n, scheme.scales(k))),
        (module + "weight_shape", "I64", (2,)),
    ]


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Signed codes [n, k], one per byte, to words [n, ceil(k·bits/32)]."""
    n, k = codes.shape
    per_word = 32 // bits
    offset = np.zeros((n, -(-k // per_word) * per_word), np.uint8)
    np.add(codes.view(np.uint8), np.uint8(1 << (bits - 1)), out=offset[:, :k])
    if bits == 4:
        offset = (offset[:, 0::2] & 15) | (offset[:, 1::2] << 4)
    return np.ascontiguousarray(offset).view("<i4")


def unpack(words: np.ndarray, bits: int, k: int) -> np.ndarray:
    """The signed codes [n, k] of packed rows."""
    octets = np.ascontiguousarray(words, "<i4").view(np.uint8)
    if bits == 4:
        octets = np.stack([octets & 15, octets >> 4], -1).reshape(len(octets), -1)
    return (octets[:, :k] - np.uint8(1 << (bits - 1))).view(np.int8)


def widen(octets: np.ndarray, dtype: str) -> np.ndarray:
    """Floats of a safetensors dtype as NumPy has them: bfloat16 and float64 as float32, the others as they are."""
    if dtype == "BF16":
        return (octets.view("<u2").astype(np.uint32) << 16).view(np.float32)
    x = octets.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return x.astype(np.float32) if dtype == "F64" else x


def _stored(scale: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Scales as a file of ``dtype`` keeps them, and as float32: never zero, which the scale of a row of zeros might become."""
    if dtype == "F16":
        half = np.maximum(scale, np.finfo(np.float16).smallest_subnormal).astype(np.float16)
        return half, half.astype(np.float32)
    if dtype == "BF16":  # to the nearest, ties to even; finite and positive, so no carry goes astray
        bits = scale.astype(np.float32).view(np.uint32)
        words = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return words, (words.astype(np.uint32) << 16).view(np.float32)
    return scale, scale


def encode(rows: np.ndarray, dtype: str, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """Packed words and scales, as `layout` says them, of some rows of a weight stored as ``dtype``.

    Codes are made with the scale that is stored: for 16-bit floats it is rounded first.
    """
    from tersor import quant

    n, k = rows.shape
    if dtype in ("F32", "F64") and (scheme.bits == 8 or k % 8 == 0):
        e = quant.encode(rows, str(scheme))
        # 4-bit rows that fill words are packed as theirs are
        words = pack(np.asarray(e.data), 8) if scheme.bits == 8 else np.asarray(e.data).reshape(n, -1).view("<i4")
        return words, np.asarray(e.scale).reshape(n, -1)
    grain = {"group": scheme.group} if scheme.group else {"axis": 0}
    scale = np.asarray(quant.choose_qparams(rows, f"int{scheme.bits}", **grain)[0]).reshape(n, -1)
    kept, exact = _stored(scale, dtype)
    return pack(quant.quantize(rows, exact, None, f"int{scheme.bits}"), scheme.bits), kept


def width(words: int, k: int) -> int | None:
    """The bits of codes of which ``k`` fill ``words`` words; None where both widths would, or neither."""
    fits = [bits for bits in (4, 8) if Scheme(bits, None).words(k) == words]
    return fits[0] if len(fits) == 1 else None


def restore(module: str, words: np.ndarray, scale: np.ndarray, shape: Iterable[int], bits: int) -> np.ndarray:
    """The dense float32 weight of a quantized module."""
    n, k = (int(s) for s in shape)
    groups = scale.shape[-1] if scale.ndim == 2 else 0
    if words.shape != (n, Scheme(bits, None).words(k)) or scale.shape != (n, groups) or not groups or k % groups:
        raise FormatError(
            f"{module}: {bits}-bit weight_packed {words.shape} and weight_scale {scale.shape} do not make a weight {(n, k)}"
        )
    codes = unpack(words, bits, k).reshape(n, groups, -1)
    return (codes * scale[..., None].astype(np.float32)).reshape(n, k)


def configuration(scheme: Scheme, choice: Choice, *, embeddings: bool) -> dict[str, Any]:
    """``quantization_config`` of ``config.json``."""
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": True,
        "dynamic": False,
        "strategy": "group" if scheme.group else "channel",
        "group_size": scheme.group,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": choice.ignore,
        "config_groups": {
            "group_0": {"targets": ["Linear", "Embedding"] if embeddings else ["Linear"], "weights": weights}
        },
    }
