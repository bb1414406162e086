"""Blocks of GGUF as codes with their scales beside them, as layers and other files hold them. The one rule: numbers stay what
they are, or the blocks are refused by name.
"""

from __future__ import annotations

import math

import numpy as np

from tersor._arrays import is_tensor
from tersor._op import FormatError
from tersor.quant._encoded import Encoded
from tersor.quant._gguf import KINDS, N, codes
from tersor.quant.packing import pack


def of_codes(q: np.ndarray, zero: np.ndarray | None, scale: np.ndarray, bits: int, grain: str) -> Encoded:
    """Codes from 0 on, with zero points or around the middle of their range, as an `Encoded` holds them."""
    if zero is None and bits == 8:
        return Encoded((q ^ 128).view(np.int8), scale, None, f"int8-{grain}", q.shape, "float32")
    kind = "int" if zero is None else "uint"
    return Encoded(pack(q, bits), scale, zero, f"{kind}{bits}-{grain}", q.shape, "float32")


def unblocked(name: str, e: Encoded) -> Encoded:
    """Blocks of 32 as int4, int5 or int8 with a scale for each, or as mxfp4; NumPy arrays, of a matrix called ``name``."""
    kind = KINDS[e.scheme]
    if e.scheme == "q4_1" or len(e.shape) != 2:
        why = "" if len(e.shape) != 2 else ": its blocks start at a number that is no multiple of their scale"
        raise FormatError(f"{name}: {e.scheme} of {tuple(e.shape)} is no matrix of symmetric codes{why}")
    data = e.data.detach().cpu().numpy() if is_tensor(e.data) else np.asarray(e.data)
    n, k = map(int, e.shape)
    b = np.ascontiguousarray(data).reshape(n, k // N, kind.bytes)
    q = codes(b, kind).reshape(n, k)
    if e.scheme == "gguf_mxfp4":
        power = np.ascontiguousarray(b[..., 0])
        if power.size and power.max() == 255:
            raise FormatError(f"{name}: a scale of {e.scheme} is 2^128, which mxfp4 has no number for")
        return Encoded(pack(q, 4), power, None, "mxfp4", (n, k), e.dtype)
    scale = np.ascontiguousarray(b[..., :2]).view("<f2")[..., 0].astype(np.float32)
    if not math.isfinite(float(np.abs(scale).max(initial=0))):
        raise FormatError(f"{name}: a scale of {e.scheme} is not finite")
    return of_codes(q, None, scale, kind.bits, f"g{N}")
