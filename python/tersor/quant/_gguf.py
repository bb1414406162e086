"""Blocks of 32 numbers as GGUF files hold them, written plainly. The rule of this file: every step is one of float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor.quant._plain import real

Array = Any
N = 32
#: twice the numbers of e2m1
_TWICE = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32)


@dataclass(frozen=True)
class Kind:
    """What a block is: its number among the kernels, and its bytes."""

    number: int
    bytes: int
    #: of a code of integers
    bits: int
    #: the code of 0; None: from the least number on
    centre: int | None = None


KINDS = {
    "q4_0": Kind(0, 18, 4, 8),
    "q4_1": Kind(1, 20, 4),
    "q5_0": Kind(2, 22, 5, 16),
    "q8_0": Kind(3, 34, 8, 0),
    "gguf_mxfp4": Kind(4, 17, 4, 0),
}
NUMBERED = {k.number: k for k in KINDS.values()}


def _bytes(v: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return v.astype("<f2").view(np.uint8)


def _halves(q: np.ndarray) -> np.ndarray:
    return q[..., : N // 2] & 15 | q[..., N // 2 :] << 4


def joined(q: np.ndarray, kind: Kind) -> list[np.ndarray]:
    """The bytes of a block after its numbers, of codes [..., 32] from 0 on."""
    if kind.bits == 8:
        return [q ^ 128]
    return [*([np.packbits(q >> 4, -1, bitorder="little")] if kind.bits == 5 else []), _halves(q)]


def codes(b: np.ndarray, kind: Kind) -> np.ndarray:
    """The inverse of `joined`, of whole blocks [..., bytes]."""
    if kind.bits == 8:
        return b[..., 2:] ^ 128
    q = np.concatenate([b[..., -N // 2 :] & 15, b[..., -N // 2 :] >> 4], -1)
    return q + (np.unpackbits(b[..., 2:6], axis=-1, bitorder="little") << 4) if kind.bits == 5 else q


def _inverse(d: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.where(d == 0, np.float32(0), np.float32(1) / d)


def _below(v: np.ndarray, most: int) -> np.ndarray:
    return np.nan_to_num(np.clip(np.trunc(v), 0, most)).astype(np.uint8)


def _half_scale(e: np.ndarray) -> np.ndarray:
    return np.ldexp(np.float32(1), e.astype(np.int32) - 128)


def encode(x: Array, kind: Kind) -> np.ndarray:
    """The bytes of rows of whole blocks."""
    x = np.asarray(real(x), np.float32)
    shape = (*x.shape[:-1], x.shape[-1] // N * kind.bytes)
    b = x.reshape(-1, N)
    b = np.where(np.isnan(b), np.float32(0), b)
    seen = np.where(np.isfinite(b), b, np.float32(0))
    amax = np.abs(seen).max(-1, keepdims=True, initial=0)
    with np.errstate(all="ignore"):
        if kind.number == 4:
            k = np.floor(np.log2(amax.astype(np.float64)).astype(np.float32)) - 2 + 127
            e = np.where(amax > 0, np.clip(k, 0, 254), 0).astype(np.uint8)
            middles = (_TWICE[1:] + _TWICE[:-1]) / 2 * _half_scale(e)
            q = (np.abs(b)[..., None] > middles[:, None]).sum(-1).astype(np.uint8)
            parts = [e, _halves(np.where((b < 0) & (q > 0), q + 8, q).astype(np.uint8))]
        elif kind.number == 3:
            d = amax / np.float32(127)
            v = np.clip(b * _inverse(d), -127, 127)
            r = np.trunc(v)
            r = np.where(np.abs(v - r) >= 0.5, r + np.copysign(np.float32(1), v), r)
            parts = [_bytes(d), np.nan_to_num(r).astype(np.int8).view(np.uint8)]
        elif kind.centre is None:
            low = seen.min(-1, keepdims=True)
            d = (seen.max(-1, keepdims=True) - low) / np.float32(15)
            q = _below((b - low) * _inverse(d) + np.float32(0.5), 15)
            parts = [_bytes(d), _bytes(low), _halves(q)]
        else:
            top = np.take_along_axis(seen, np.abs(seen).argmax(-1)[:, None], -1)
            d = top / np.float32(-kind.centre)
            q = _below(b * _inverse(d) + np.float32(kind.centre + 0.5), 2 * kind.centre - 1)
            parts = [_bytes(d), *joined(q, kind)]
    return np.concatenate(parts, -1).reshape(shape)


def decode(data: Array, kind: Kind) -> np.ndarray:
    """The numbers of blocks, float32."""
    shape = (*data.shape[:-1], data.shape[-1] // kind.bytes * N)
    b = np.ascontiguousarray(data).reshape(-1, kind.bytes)

    def half(at: int) -> np.ndarray:
        return np.ascontiguousarray(b[:, at : at + 2]).view("<f2").astype(np.float32)

    if kind.number == 3:
        return (b[:, 2:].view(np.int8) * half(0)).reshape(shape)
    q = codes(b, kind)
    if kind.number == 4:
        v = np.where(q < 8, _TWICE[q & 7], 0 - _TWICE[q & 7])
        return (v * _half_scale(b[:, :1])).reshape(shape)
    if kind.centre is None:
        return (q.astype(np.float32) * half(0) + half(2)).reshape(shape)
    return ((q.astype(np.float32) - kind.centre) * half(0)).reshape(shape)
