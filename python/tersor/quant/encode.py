"""Range, codes and packing in one read, and back. The one rule: an `Encoded` is what the separate steps would give."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import FLOATS, dtype_name, into
from tersor._op import OPS, op
from tersor._sample import Quantized
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array, detached, one_of
from tersor.quant._encoded import Encoded, check_parts
from tersor.quant._encoded import scheme as find_scheme
from tersor.quant.affine import quantize
from tersor.quant.packing import pack
from tersor.quant.qparams import affine_params, cast, choose_qparams, least, torch_module

#: elements of a group above which a group no longer fits the caches near a core: it is read twice, by all threads
_WIDE = 1 << 19


@op(sample=Quantized("x", bits=4), native=True, integer=True)
def _encode_symmetric(x: Array, bits: int = 8, group: int = 0, saturate: bool = False) -> tuple[Array, Array]:
    """s = amax/(2^(b-1) - 1), q = rne(x/s), packed unless they are int8."""
    most = (1 << bits - 1) - 1
    low, high = plain.extents(x, (*x.shape[:-1], x.shape[-1] // group if group else 1))
    amax = np.maximum(-low, high)
    s = least(np, amax / high.dtype.type(most), amax, most)
    q = plain.codes(x, s, None, -most, most).astype(np.int8)
    return q if bits == 8 else plain.pack(q, bits, False), s


@op(sample=Quantized("x", bits=4), native=True, integer=True)
def _encode_affine(x: Array, bits: int = 8, group: int = 0, saturate: bool = False) -> tuple[Array, Array, Array]:
    """s = (high - low)/(2^b - 1), z = rne(-low/s), q = rne(x/s) + z, packed."""
    low, high = plain.extents(x, (*x.shape[:-1], x.shape[-1] // group if group else 1))
    s, z = affine_params(np, low, high, 0, (1 << bits) - 1)
    q = plain.codes(x, s, z, 0, (1 << bits) - 1).astype(np.uint8)
    return plain.pack(q, bits, False), s, z.astype(np.uint8)


@op(sample=Quantized("data", "scale", "none", bits=4, dtype=True), exempt=("scale",), native=True)
def _decode(data: Array, scale: Array, zero_point: Array = None, bits: int = 8, last: int = 0, dtype: int = 1) -> Array:
    """The numbers of packed codes; without a zero point it is 2^(b-1), or 0 for int8."""
    signed = data.dtype == np.int8
    q = data if signed else plain.unpack(data, bits, last, False)
    if not signed and (zero_point is None or np.size(zero_point) == 0):
        zero_point = np.float32(1 << bits - 1)
    return OPS["quant.dequantize"].reference(q, scale, zero_point, dtype)


def encode(x: Array, scheme: str, *, nan: str = "raise", out: Encoded | None = None) -> Encoded:
    r"""Range, codes and packing in one read of x.

    Parameters
    ----------
    x : array or tensor ``[..., K]`` of float64, float32, float16 or bfloat16
    scheme : str
        ``<code>-row``, ``<code>-g<G>`` or ``<code>-tensor``: one scale per row of the last axis, per G elements of it, or
        for all. ``<code>`` is int2 to int8, symmetric with :math:`s = \max|x|/(2^{b-1} - 1)`, or uint1 to uint8, with a zero
        point. "int8-row" and "int4-g128" are the usual ones.
    nan : "raise" or "zero"
        What is not finite is an error; or it has no say in the range, NaN is the code of 0 and infinities are the ends.
    out : Encoded, optional
        Overwritten and returned; of the same scheme, shape and dtype. With nan="raise" the codes are made apart and copied,
        so that nothing is changed if there is an error; with nan="zero" they are made in place.

    Returns
    -------
    Encoded

    Raises
    ------
    TypeError
        If x is not a float array, or out is of another dtype.
    ValueError
        If x holds non-finite values or is 0-d, the scheme is unknown, or its groups do not divide the last axis.

    Notes
    -----
    Groups are measured and coded while they are in cache. Groups of more than 2^19 elements are read twice.
    """
    name = "encode"
    how, x = find_scheme(scheme), detached(name, x)
    saturate = one_of(name, "nan", nan, {"raise": False, "zero": True})
    if x.ndim == 0:
        raise ValueError(f"{name}: x needs a last axis, got a 0-d array")
    last, kind = x.shape[-1], dtype_name(x.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: x must be a float array, got {kind}")
    if how.group and last % how.group:
        raise ValueError(f"{name}: groups of {how.group} do not divide a last axis of {last}")
    target = None if out is None else _target(out, scheme, x)
    shape = tuple(x.shape)
    if how.group is None or how.elements(last) > _WIDE or last == 0:
        made = _in_two_reads(x, how, nan)
    else:
        keywords: dict[str, Any] = {"out": target} if target and saturate else {}
        try:
            made = (_encode_affine if how.affine else _encode_symmetric)(x, how.bits, how.group, saturate, **keywords)
        except ValueError as e:
            raise ValueError(str(e).replace("encode_affine", name, 1).replace("encode_symmetric", name, 1)) from None
    if out is None or target is None:
        data, steps, *zero = made
        return Encoded(data, steps, zero[0] if zero else None, scheme, shape, kind)
    if made[0] is not target[0]:
        into(name, target, made)
    return out


def _target(out: Any, scheme: str, x: Array) -> tuple[Array, ...]:
    """The arrays of an `Encoded` that is to be overwritten."""
    if not isinstance(out, Encoded):
        raise TypeError(f"encode: out must be an Encoded, got {type(out).__name__}")
    if out.dtype != dtype_name(x.dtype):
        raise TypeError(f"encode: out is of {out.dtype}, x of {dtype_name(x.dtype)}")
    if out.scheme != scheme or out.shape != tuple(x.shape):
        raise ValueError(f"encode: out is {out.scheme} of {out.shape}, x is to be {scheme} of {tuple(x.shape)}")
    if isinstance(out.data, np.ndarray) != isinstance(x, np.ndarray):
        raise TypeError("encode: out and x must be of the same library")
    return (out.data, out.scale) if out.zero_point is None else (out.data, out.scale, out.zero_point)


def _in_two_reads(x: Array, how: Any, nan: str) -> tuple[Array, ...]:
    """The same for groups that no cache holds: a range, then codes, each over all threads."""
    grain: dict[str, Any] = {"group": how.group} if how.group else {}
    if how.group == 0:
        grain = {"axis": tuple(range(x.ndim - 1))} if x.ndim > 1 else {}
    dtype: Any = how.codes
    if not how.affine:
        most = (1 << how.bits - 1) - 1
        dtype = (-most, most)
    scale, zero = choose_qparams(x, dtype, symmetric=not how.affine, nan=nan, **grain)
    if how.group == 0:
        shape = (*x.shape[:-1], 1)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    q = quantize(x, scale, zero if how.affine else None, dtype, nan=nan)
    data = q if how.raw else pack(q, how.bits)
    if not how.affine:
        return data, scale
    return data, scale, cast(np if isinstance(x, np.ndarray) else torch_module(), zero, "uint8")


def decode(e: Encoded, *, out: Array = None) -> Array:
    r"""The numbers of an `Encoded`, :math:`\hat x = (q - z)\,s`.

    Parameters
    ----------
    e : Encoded
    out : array or tensor, optional

    Returns
    -------
    array or tensor of the encoded one's shape and dtype

    Raises
    ------
    TypeError
        If e is not an Encoded.
    ValueError
        If its parts do not fit its scheme, shape and dtype.

    Notes
    -----
    One read of the codes, one write of the numbers.
    """
    name = "decode"
    if not isinstance(e, Encoded):
        raise TypeError(f"{name}: e must be an Encoded, got {type(e).__name__}")
    how = check_parts(name, e)
    keywords = {} if out is None else {"out": out}
    return _decode(e.data, e.scale, e.zero_point, how.bits, e.shape[-1], FLOATS.index(e.dtype), **keywords)
