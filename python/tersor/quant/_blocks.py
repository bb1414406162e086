"""Operators of encodings whose codes are no integers: places in a table, small floats, the blocks of GGUF files.

The rule of this file: these are kernels and their definitions; `encode` and `decode` are what users call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import FLOATS
from tersor._op import op
from tersor._reference import there
from tersor._sample import Draw, Quantized
from tersor.quant import _gguf as gguf
from tersor.quant import _plain as plain
from tersor.quant._grids import (
    SMALL,
    TABLES,
    Small,
    byte_scales,
    micro_power,
    table_codes,
    table_scale,
)

Array = Any


def _group(draw: Draw) -> int:
    return draw.d // 2 if draw.d % 2 == 0 and draw.d and draw.seed % 2 else 0


def _numbers(draw: Draw) -> np.ndarray:
    (x,), _ = Quantized("x")(draw)
    if draw.seed % 5 == 0 and x.size:
        x[..., :2] = 0
    return x


def _sample_table(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    peer = draw.seed % 4 == 1
    table = TABLES[("fp4", "nf4", "dynamic8")[draw.seed % 3]]
    return [_numbers(draw), table], {"group": _group(draw), "peer": peer}


def _small(draw: Draw) -> Small:
    return list(SMALL.values())[draw.seed % 5]


def _sample_float(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    small, x = _small(draw), _numbers(draw)
    outer = None
    if draw.seed % 3 == 0:
        top = np.max(np.abs(plain.real(x)), initial=0) / (448 * small.most)
        outer = np.asarray(top or 1.0, np.float32)
    return [x, outer], {
        "exponent": small.exponent,
        "mantissa": small.mantissa,
        "group": _group(draw),
        "scaling": draw.seed // 3 % 4,
    }


def _sample_decode(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    small, rng, group = _small(draw), draw.rng, _group(draw)
    table, bits = (TABLES["nf4"], 4) if draw.seed % 4 == 0 else (small.numbers, small.bits)
    table = np.where(np.isfinite(table), table, np.float32(0))
    codes = rng.integers(0, 1 << bits, (*draw.lead, draw.d)).astype(np.uint8)
    shape = (*draw.lead, draw.d // group if group else 1)
    kind = draw.seed % 3
    scale = rng.integers(100, 120, shape, np.uint8) if kind else rng.uniform(0.5, 1.5, shape).astype(np.float32)
    outer = np.asarray(0.37, np.float32) if kind == 2 else None
    data = plain.pack(codes, bits, False)
    return [data, scale, table, outer], {"bits": bits, "last": draw.d, "dtype": FLOATS.index(draw.dtype)}


def _sample_gguf(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    kind = list(gguf.KINDS.values())[draw.seed % 5]
    x = draw.rng.standard_normal((*draw.lead, 32 * (1 + draw.d % 3)))
    if draw.seed % 4 == 0 and x.size:
        x[..., :32] = 0
    dtype = "float32" if draw.dtype == "float64" else draw.dtype
    return [Draw(dtype=dtype).cast(x)], {"kind": kind.number, "bytes": kind.bytes}


def _sample_of_gguf(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    (x,), scalars = _sample_gguf(draw)
    kind, dtype = gguf.NUMBERED[scalars["kind"]], draw.dtype if draw.dtype != "float64" else "float32"
    return [gguf.encode(x, kind)], {"kind": kind.number, "last": x.shape[-1], "dtype": FLOATS.index(dtype)}


_SINGLE = ("float32", "float16", "bfloat16")


@op(sample=_sample_table, exempt=("table",), native=True, integer=True)
def _encode_table(
    x: Array, table: Array, group: int = 0, peer: bool = False, saturate: bool = False
) -> tuple[Array, Array]:
    """s = max|x|, q the place of the number nearest to x/s, packed."""
    low, high = plain.extents(x, (*x.shape[:-1], x.shape[-1] // group if group else 1))
    s, by = table_scale(np.maximum(-low, high), peer)
    x, by = plain.real(x), plain.spread(by, x.shape)
    with np.errstate(all="ignore"):
        v = np.where(np.isnan(x), x.dtype.type(0), x)
        v = v * by if peer else v / by
    return plain.pack(table_codes(v, table, peer), 4 if len(table) == 16 else 8, False), s


@op(sample=_sample_float, exempt=("outer",), native=True, integer=True)
def _encode_float(
    x: Array,
    outer: Array = None,
    exponent: int = 2,
    mantissa: int = 1,
    group: int = 0,
    scaling: int = 0,
    saturate: bool = False,
) -> tuple[Array, Array]:
    """s = 2^k, or an e4m3 times the outer scale; the small floats nearest to x/s, packed."""
    small = Small(exponent, mantissa)
    low, high = plain.extents(x, (*x.shape[:-1], x.shape[-1] // group if group else 1))
    amax, x = np.maximum(-low, high), plain.real(x)
    v = np.where(np.isnan(x), x.dtype.type(0), x)
    with np.errstate(all="ignore"):
        if there(outer):
            kind = x.dtype.type
            over = kind(plain.real(outer).reshape(()))
            scale = np.maximum(SMALL["e4m3"].codes(amax / kind(small.most) / over), 1)
            v = v / plain.spread(SMALL["e4m3"].numbers[scale].astype(kind) * over, x.shape)
        else:
            k = micro_power(amax, small, scaling)
            scale = (k + 127).astype(np.uint8)
            v = np.ldexp(v, -plain.spread(k, x.shape))
    return plain.pack(small.codes(v), small.bits, False), scale


@op(sample=_sample_decode, exempt=("scale", "table", "outer"), native=True)
def _decode_table(
    data: Array, scale: Array, table: Array, outer: Array = None, bits: int = 4, last: int = 0, dtype: int = 1
) -> Array:
    """table[q] s."""
    q = plain.unpack(data, bits, last, False)
    kind = np.float64 if dtype == 0 else np.float32
    s = byte_scales(scale, outer, kind) if scale.dtype == np.uint8 else np.asarray(scale).astype(kind)
    return plain.number(np.asarray(table)[q].astype(kind), plain.spread(s, q.shape), FLOATS[dtype])


@op(sample=_sample_gguf, dtypes=_SINGLE, native=True, integer=True)
def _encode_gguf(x: Array, kind: int = 0, bytes: int = 18, saturate: bool = False) -> Array:
    """Blocks of 32 numbers as GGUF files hold them."""
    return gguf.encode(x, gguf.NUMBERED[kind])


@op(sample=_sample_of_gguf, dtypes=_SINGLE, native=True)
def _decode_gguf(data: Array, kind: int = 0, last: int = 0, dtype: int = 1) -> Array:
    """The numbers of blocks."""
    return np.clip(gguf.decode(data, gguf.NUMBERED[kind]), -plain.MOST[FLOATS[dtype]], plain.MOST[FLOATS[dtype]])
