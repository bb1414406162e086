"""Quantized weights as the `compressed-tensors` package lays them out (format `pack-quantized`, release 0.20).

The rule of this file: what is written here, that package and `transformers` read back to the same numbers. A weight
``m.weight`` [n, k] becomes ``m.weight_packed`` (int32 words: offset-binary codes, the first in the lowest bits, rows padded
to whole words), ``m.weight_scale`` ([n, 1], or [n, k/g] with groups of g) and ``m.weight_shape`` (int64). That
of a convolution, which neither of them reads, lies so with a filter for a row, and has its own shape; experts in one tensor
are so many matrices, one after another, in that package too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FLOATS = ("F64", "F32", "F16", "BF16")
#: bits of a scale, by the type of the weight
SCALE = {"F64": 32, "F32": 32, "F16": 16, "BF16": 16}
#: the largest finite numbers of 16-bit floats
LARGEST = {"F16": 65504.0, "BF16": 3.3895313892515355e38}

_SCHEME = r"(?:int([2-8]?)-(?:row|g([1-9]\d*))(?:-(gptq|awq|adaround))?|uint([2-8])-(?:row|g([1-9]\d*)))"


@dataclass(frozen=True)
class Scheme:
    """``int8-row``, ``int4-g128-gptq``: the bits of a code, how many weights of a row share a scale (None: all), and how codes
    are found by what the layers are given ("gptq", "awq", "adaround"), if not by rounding to the nearest alone.
    ``int-g128-gptq`` has 0 bits: those of each weight are still to be chosen. ``uint4-g128`` has zero points.

    ``method`` is how scales are chosen, "minmax" or "mse"; a weight that is ``stacked`` is several matrices."""

    bits: int
    group: int | None
    solver: str = ""
    affine: bool = False
    method: str = "minmax"
    stacked: bool = False

    @classmethod
    def parse(cls, name: str) -> Scheme:
        if not isinstance(name, str):
            raise TypeError(f"scheme must be a string, got {type(name).__name__}")
        found = re.fullmatch(_SCHEME, name)
        if not found:
            near = re.search(r"(?<!\d)[2-8](?!\d)", name)  # int4, W4A16, q8_0
            # what most mean by so many bits
            usual = near and f"int{near[0]}-{'row' if near[0] == '8' else 'g128'}" + "".join(
                f"-{solver}" for solver in ("gptq", "awq", "adaround") if solver in name.lower()
            )
            meant = name.lower() if re.fullmatch(_SCHEME, name.lower()) else usual
            hint = (
                f", did you mean {meant}?"
                if meant
                else ": int<b>-row and int<b>-g<N> of 2 to 8 bits are known (int8-row, int4-g128), each with -gptq, -awq or "
                "-adaround too; uint<b> have zero points"
            )
            raise ValueError(f"scheme {name!r} is unknown{hint}")
        if found[4]:
            return cls(int(found[4]), int(found[5]) if found[5] else None, affine=True)
        if not found[1] and found[3] != "gptq":
            raise ValueError(f"scheme {name!r} has no width; widths are chosen by calibration alone: {name}-gptq")
        method = "mse" if found[3] else "minmax"
        return cls(int(found[1] or 0), int(found[2]) if found[2] else None, found[3] or "", method=method)

    def __str__(self) -> str:
        return self.codes + (f"-{self.solver}" if self.solver else "")

    @property
    def calibrated(self) -> bool:
        """Whether codes are found by what the layers are given."""
        return bool(self.solver)

    @property
    def codes(self) -> str:
        """The scheme without how codes are found."""
        return f"{'u' * self.affine}int{self.bits or ''}-{f'g{self.group}' if self.group else 'row'}"

    def words(self, k: int) -> int:
        """32-bit words in a packed row of ``k`` codes."""
        return -(-k * self.bits // 32)

    def scales(self, k: int) -> int:
        return k // self.group if self.group else 1

    def size(self, shape: Sequence[int], dtype: str) -> int:
        """Bits that the codes and scales of a weight take."""
        many, n, k = self.matrices(shape)
        zero = 32 * self.words(n) * self.scales(k) if self.affine else 0
        return many * (n * (32 * self.words(k) + SCALE[dtype] * self.scales(k)) + zero)

    def matrices(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """How many matrices a weight is, and their rows and columns: an expert is one of its own, a filter of a convolution a
        row."""
        if self.stacked:
            return math.prod(map(int, shape[:-2])), int(shape[-2]), int(shape[-1])
        return 1, int(shape[0]), math.prod(map(int, shape[1:]))


def layout(name: str, dtype: str, shape: Sequence[int], scheme: Scheme) -> list[tuple[str, str, tuple[int, ...]]]:
    """The tensors that stand for the weight ``name``: names, safetensors dtypes, shapes."""
    _, n, k = scheme.matrices(shape)
    lead = tuple(map(int, shape[:-2])) if scheme.stacked else ()
    zero = (name + "_zero_point", "I32", (*lead, scheme.words(n), scheme.scales(k)))
    return [
        (name + "_packed", "I32", (*lead, n, scheme.words(k))),
        (name + "_scale", "F32" if dtype == "F64" else dtype, (*lead, n, scheme.scales(k))),
        (name + "_shape", "I64", (len(shape),)),
        *([zero] if scheme.affine else []),
    ]


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Signed codes [n, k], one per byte, to words [n, ceil(k·bits/32)]."""
    from tersor import quant

    return np.asarray(quant.pack(codes, bits, "ct_dense"))


def widen(octets: np.ndarray, dtype: str) -> np.ndarray:
    """Floats of a safetensors dtype as NumPy has them: bfloat16 and float64 as float32, the others as they are."""
    if dtype == "BF16":
        return _bfloat16(octets.view("<u2"))
    x = octets.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    with np.errstate(over="ignore"):  # what float32 does not reach becomes infinite, and is refused as such
        return x.astype(np.float32) if dtype == "F64" else x


def _stored(scale: np.ndarray, dtype: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales as a file of ``dtype`` keeps them, and as float32.

    Never zero, which the scale of a row of zeros might become, and the next larger one where rounding down, among numbers
    without all their digits, would take the largest code ``most`` past its range; the next smaller one where readers that
    compute in ``dtype`` would make that code infinite.
    """
    if dtype not in ("F16", "BF16"):
        return scale, scale
    if dtype == "F16":
        words = np.maximum(scale, np.finfo(np.float16).smallest_subnormal).astype(np.float16).view(np.uint16)
    else:  # to the nearest, ties to even; finite and positive, so no carry goes astray
        bits = scale.astype(np.float32).view(np.uint32)
        words = np.maximum((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, 1).astype(np.uint16)

    def value(words: np.ndarray) -> np.ndarray:
        return words.view(np.float16).astype(np.float32) if dtype == "F16" else _bfloat16(words)

    with np.errstate(over="ignore"):  # what is beyond float32 is beyond the largest of 16 bits
        words = np.where(value(words) * (most + 0.5) < scale * float(most), words + np.uint16(1), words)
        words = np.where(value(words) * float(most) > LARGEST[dtype], words - np.uint16(1), words)
    return words.view(np.float16) if dtype == "F16" else words, value(words)


def _bfloat16(words: np.ndarray) -> np.ndarray:
    return (words.astype(np.uint32) << 16).view(np.float32)


def encode(rows: np.ndarray, dtype: str, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """Packed words and scales, as `layout` says them, of some rows of a weight stored as ``dtype``.

    Codes are made with the scale that is stored: for 16-bit floats it is rounded first.
    """
    from tersor import quant

    n, k = rows.shape
    if scheme.method == "minmax" and dtype in ("F32", "F64") and (scheme.bits == 8 or k * scheme.bits % 32 == 0):
        e = quant.encode(rows, scheme.codes)
        # rows that fill words are packed as theirs are
        words = pack(np.asarray(e.data), 8) if scheme.bits == 8 else np.asarray(e.data).reshape(n, -1).view("<i4")
        return words, np.asarray(e.scale).reshape(n, -1)
    kept, exact = scales(rows, dtype, scheme)
    return pack(quant.quantize(rows, exact, None, f"int{scheme.bits}"), scheme.bits), kept


def encode_affine(rows: np.ndarray, dtype: str, scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with zero points [n, groups], which a file has packed down the rows; from the least to the largest of a group,
    0 among them."""
    from tersor import quant

    n = len(rows)
    most, kind = (1 << scheme.bits) - 1, f"uint{scheme.bits}"
    grain: dict[str, Any] = {"group": scheme.group} if scheme.group else {"axis": 0}
    scale, own = quant.choose_qparams(rows, kind, symmetric=False, method=scheme.method, **grain)
    # a code more or less at either end is what the zero point is rounded by
    kept, exact = _stored(np.asarray(scale).reshape(n, -1), dtype, most)
    if scheme.method == "minmax":
        low = np.minimum(rows.reshape(n, exact.shape[1], -1).min(-1), 0).astype(np.float32)
        zero = np.clip(np.rint(-low / exact), 0, most).astype(np.uint8)
    else:
        zero = np.asarray(own).reshape(n, -1).astype(np.uint8)
    return np.asarray(quant.pack(quant.quantize(rows, exact, zero, kind), scheme.bits, "ct_dense")), kept, zero


def scales(rows: np.ndarray, dtype: str, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """The scales of some rows as a file of ``dtype`` keeps them, and as float32."""
    from tersor import quant

    grain: dict[str, Any] = {"group": scheme.group} if scheme.group else {"axis": 0}
    scale, _ = quant.choose_qparams(rows, f"int{scheme.bits}", method=scheme.method, **grain)
    # codes of scales that are searched for use the whole range
    most = (1 << (scheme.bits - 1)) - (scheme.method == "minmax")
    return _stored(np.asarray(scale).reshape(len(rows), -1), dtype, most)


def stored(scale: np.ndarray, dtype: str) -> np.ndarray:
    """Scales that a file of ``dtype`` holds exactly, as it keeps them: 16-bit words of bfloat16."""
    if dtype == "BF16":
        return (scale.view(np.uint32) >> 16).astype(np.uint16)
    return scale.astype(np.float16) if dtype == "F16" else scale


#: under this the metadata of a file names the weights in it whose rows are inputs
TURNED = "tersor.transposed"
#: and under this the scheme of each weight that has another than that of the file
OWN = "tersor.schemes"
SAID = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}


def weights_said(bits: int, group: int | None, affine: bool = False) -> dict[str, Any]:
    """How weights are quantized, in the words of ``config.json``."""
    return {
        "num_bits": bits,
        "type": "int",
        "symmetric": not affine,
        "dynamic": False,
        "strategy": "group" if group else "channel",
        "group_size": group,
    }
