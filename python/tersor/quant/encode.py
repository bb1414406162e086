"""Range, codes and packing in one read, and back. The one rule: an `Encoded` is what the separate steps would give; how its
codes are made is its scheme's.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, Level, Number, dtype_name, flag, into, is_tensor, whole
from tersor._op import OPS, op
from tersor._reference import quiet
from tersor._sample import Quantized
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array, detached, known, one_of, some_value, within
from tersor.quant._blocks import _decode_gguf, _decode_table, _encode_float, _encode_gguf, _encode_table
from tersor.quant._encoded import Encoded, Scheme, check_parts
from tersor.quant._encoded import scheme as find_scheme
from tersor.quant._grids import SMALL, like
from tersor.quant._micro import micro_integers, micro_scales
from tersor.quant._nested import nest, unnested
from tersor.quant._peers import SMALL as SMALL_FLOATS
from tersor.quant.affine import quantize
from tersor.quant.packing import pack
from tersor.quant.qparams import _value_range as choose_range
from tersor.quant.qparams import affine_params, cast, choose_qparams, least, torch_module

#: elements of a group above which a group no longer fits the caches near a core: it is read twice, by all threads
_WIDE = 1 << 19
F32_MAX = float(np.finfo(np.float32).max)
#: operators whose names users do not know
_INNER = re.compile("encode_(affine|symmetric|table|float|gguf)|value_range|choose_qparams|quantize")
#: peers whose codes and zero points are integers of a byte
INTEGER_PEERS = ("torch", "torchao", "ct", "gptq", "ivit")
SCALINGS = {"floor": 0, "even": 1, "ceil": 2, "rceil": 3}


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


def encode(
    x: Array,
    scheme: str,
    *,
    block: int | None = None,
    scaling: str = "floor",
    nested: bool = False,
    scale: Number = None,
    zero_point: Level = None,
    method: str = "minmax",
    compat: str | None = None,
    nan: str = "raise",
    out: Encoded | None = None,
) -> Encoded:
    r"""Range, codes and packing in one read of x.

    Parameters
    ----------
    x : array or tensor ``[..., K]`` of float64, float32, float16 or bfloat16
    scheme : str
        ``<code>-row``, ``<code>-g<G>`` or ``<code>-tensor``: one scale per row of the last axis, per G elements of it, or
        for all. ``<code>`` is int2 to int8, symmetric with :math:`s = \max|x|/(2^{b-1} - 1)`, or uint1 to uint8, with a zero
        point. "int8-row" and "int4-g128" are the usual ones.

        "nf4", "fp4" and "dynamic8": places in a table of 16 numbers, or of 256, of two that are equally near the lower one,
        with :math:`s = \max|x|` of 64 elements.

        "mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3" and "mxfp8_e5m2" of OCP: small floats with a power of two for 32
        elements; "mxint8": integers from -127 to 127, of 64ths of such a power; "nvfp4": e2m1 with an e4m3 for 16 elements,
        and one float32 over all, max|x|/2688. With ``-row`` or ``-g<G>`` after them these share a scale among so many.

        "q4_0", "q4_1", "q5_0", "q8_0" and "gguf_mxfp4": the blocks of 32 elements of GGUF files (the last is not mxfp4:
        ties go to the smaller number, and there is no -0), of float32 and 16-bit arrays.
    block : int, optional
        How many elements share a scale, where the scheme does not say it.
    scaling : "floor", "even", "ceil" or "rceil"
        Of the mx schemes, the exponent of a scale: :math:`\lfloor\log_2\max|x|\rfloor - \lfloor\log_2 m\rfloor` with the
        largest number m of a code, as OCP has it, which cuts off up to 25 % of the largest elements (e2m1; 12.5 % e4m3, 6 %
        e2m3, 0.8 % mxint8); the same of max|x| rounded to the digits of the codes; the same with
        :math:`\lceil\log_2\max|x|\rceil`; or :math:`\lceil\log_2(\max|x|/m)\rceil`, the least that cuts nothing off.
    nested : bool
        Of nf4, fp4 and dynamic8: scales are coded too, less their mean, by dynamic8 with one scale for 256 of them. The name
        of such a scheme ends in ``-nested``. Codes are decided by the scales as they were.
    scale, zero_point : number or array, optional
        Of integer schemes: scales that are known, as learned or calibrated ones are, ``[..., 1]``, ``[..., K/G]`` or ``[]``,
        and of uint schemes their zero points, rounded half to even. Codes then have the whole range of their bits, -8 to 7 of
        int4.
    method : "minmax", "mse", "percentile", "entropy" or "aciq"
        Of integer schemes, how scales are chosen, as of `choose_qparams`: "mse" searches for where to cut off, and of 4 bits
        loses a tenth to a quarter less than the largest magnitude does. All but "minmax" use the whole range of codes.
    compat : str, optional
        "bnb": the codes of bitsandbytes for nf4, fp4 and dynamic8: x times 1/s instead of x/s, and fp4's two codes for zero.
        Its bytes of two codes hold them in the other order, ``pack(codes, 4, "bnb")``. "gguf": of the blocks of GGUF files,
        which are its package's without a word too. "torch", "torchao", "ct", "gptq" or, of
        int codes, "ivit": scales and codes of integers as `choose_qparams` and `quantize` have them of that peer, in two reads.
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
        If x holds non-finite values, or numbers of float64 that the scales of mx, nvfp4 or nested schemes do not reach, or is
        0-d, the scheme is unknown, or its groups do not divide the last axis; if block, scaling, nested, scale, zero_point or
        compat do not go with the scheme, or a scale with compat or has not the shape of its groups; if the scale of a GGUF
        block is beyond float16.

    Notes
    -----
    Groups are measured and coded while they are in cache. Groups of integers of more than 2^19 elements, and all of nvfp4,
    are read twice. nf4: Dettmers et al., "QLoRA" (2023). mx: OCP, "Microscaling Formats" 1.0 (2023).
    """
    name = "encode"
    if block is not None and whole(f"{name}: block", block) < 1:
        raise ValueError(f"{name}: block must be at least 1, got {block}")
    how, x = find_scheme(scheme, name, block, flag(f"{name}: nested", nested)), detached(name, x)
    saturate = one_of(name, "nan", nan, {"raise": False, "zero": True})
    number = one_of(name, "scaling", scaling, SCALINGS)
    one_of(name, "compat", compat, (None, "bnb", "gguf", *INTEGER_PEERS))
    peer = compat == "bnb"
    if number and (not (how.small or how.power) or how.outer):
        raise ValueError(f"{name}: scaling={scaling!r} goes with mx schemes, got {scheme}")
    if peer and not how.table:
        raise ValueError(f"{name}: compat='bnb' goes with nf4, fp4 and dynamic8, got {scheme}")
    if compat == "gguf" and not how.block:
        raise ValueError(f"{name}: compat='gguf' goes with q4_0, q4_1, q5_0, q8_0 and gguf_mxfp4, got {scheme}")
    if compat in INTEGER_PEERS and how.own:
        raise ValueError(f"{name}: compat={compat!r} goes with codes of integers, got {scheme}")
    if scale is None and zero_point is not None:
        raise ValueError(f"{name}: zero_point goes with scale, got {type(zero_point).__name__} and None")
    if scale is not None and (how.own or (zero_point is not None) != how.affine):
        raise ValueError(f"{name}: a scale goes with int schemes, and with zero_point with uint ones, got {scheme}")
    if scale is not None and compat is not None:
        raise ValueError(f"{name}: compat={compat!r} makes scales of its own, and scale is given")
    one_of(name, "method", method, ("minmax", "mse", "percentile", "entropy", "aciq"))
    if method != "minmax" and (how.own or scale is not None or compat is not None):
        what = f"{scheme}" if how.own else "scale or compat"
        raise ValueError(f"{name}: method={method!r} chooses scales of integer schemes, and not with {what}")
    if x.ndim == 0:
        raise ValueError(f"{name}: x needs a last axis, got a 0-d array")
    last, kind = x.shape[-1], dtype_name(x.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: x must be a float array, got {kind}")
    if how.block and kind == "float64":
        raise TypeError(f"{name}: {scheme} is made of float32 or 16-bit arrays, got float64")
    if how.group and last % how.group:
        raise ValueError(f"{name}: groups of {how.group} do not divide a last axis of {last}")
    target = None if out is None else _target(out, how.name, x)
    if method != "minmax" and last:
        try:
            scale, zero_point = _ranged(x, how, method, nan)
        except ValueError as e:
            raise ValueError(_INNER.sub(name, str(e), count=1)) from None
    shape = tuple(x.shape)
    keywords: dict[str, Any] = {}
    if target and saturate and not how.nested and scale is None:
        keywords["out"] = target if len(target) > 1 else target[0]
    try:
        if scale is not None:
            parts = _with_scale(x, how, scale, zero_point, nan)
        else:
            parts = _made(x, how, saturate, number, compat, keywords)
    except ValueError as e:
        raise ValueError(_INNER.sub(name, str(e), count=1)) from None
    if out is None or target is None:
        return Encoded(
            parts["data"], parts.get("scale"), parts.get("zero_point"), how.name, shape, kind, parts.get("outer")
        )
    if parts["data"] is not target[0]:
        into(name, list(out.parts.values()), [parts[k] for k in out.parts])
    elif how.outer:
        into(name, [out.outer], [parts["outer"]])
    return out


def _made(
    x: Array, how: Scheme, saturate: bool, scaling: int, compat: str | None, keywords: dict[str, Any]
) -> dict[str, Array]:
    """The parts of an `Encoded`, by name."""
    made: tuple[Array, ...]
    if how.block:
        return {"data": _encode_gguf(x, how.block.number, how.block.bytes, saturate, **keywords)}
    group, peer = how.group, compat == "bnb"
    if how.table:
        if how.nested:
            _reach(x, F32_MAX, False, how.name, saturate)
        data, scale = _encode_table(x, like(how.places, x), group or 0, peer, saturate, **keywords)
        made = (data, *nest(scale, peer)) if how.nested else (data, scale)
        return dict(zip(("data", "scale", "outer"), made, strict=False))
    elif how.small:
        small, outer = SMALL[how.small], None
        # the largest scale is 2^127, and what all are measured by is a float32: float64 alone reaches further
        most = F32_MAX if how.outer else 2.0 ** (127 + math.frexp(small.most)[1])
        _reach(x, most, not how.outer, how.name, saturate)
        if how.outer:
            outer = _over(x, 448 * small.most, saturate)
        made = _encode_float(x, outer, small.exponent, small.mantissa, group or 0, scaling, saturate, **keywords)
        return {"data": made[0], "scale": made[1]} | ({} if outer is None else {"outer": outer})
    elif how.power:
        _reach(x, 2.0**128, True, how.name, saturate)
        made = micro_integers(x, how.steps(tuple(x.shape)), group or 0, scaling, saturate)
    elif compat or group is None or how.elements(x.shape[-1]) > _WIDE or x.shape[-1] == 0:
        made = _in_two_reads(x, how, "zero" if saturate else "raise", compat)
    else:
        made = (_encode_affine if how.affine else _encode_symmetric)(x, how.bits, group, saturate, **keywords)
    return dict(zip(("data", "scale", "zero_point"), made, strict=False))


def _grain(x: Array, how: Scheme) -> dict[str, Any]:
    """Which elements share a scale, as `choose_qparams` takes it."""
    if how.group:
        return {"group": how.group}
    return {"axis": tuple(range(x.ndim - 1))} if how.group == 0 and x.ndim > 1 else {}


def _ranged(x: Array, how: Scheme, method: str, nan: str) -> tuple[Array, Array]:
    """Scales and zero points by a method."""
    scale, zero = choose_qparams(x, how.codes, symmetric=not how.affine, method=method, nan=nan, **_grain(x, how))
    steps = how.steps(tuple(x.shape))
    return scale.reshape(steps), zero.reshape(steps) if how.affine else None


def _with_scale(x: Array, how: Scheme, scale: Array, zero_point: Array, nan: str) -> dict[str, Array]:
    """The same with scales that are given."""
    xp: Any = np if isinstance(x, np.ndarray) else torch_module()
    steps, parts = how.steps(tuple(x.shape)), {}
    for name, v in (("scale", scale), ("zero_point", zero_point)):
        if v is None:
            continue
        v = detached("encode", v) if isinstance(v, np.ndarray) or is_tensor(v) else v
        v = xp.asarray(v) if xp is np else xp.as_tensor(v, device=x.device)
        if tuple(v.shape) not in ((), steps):
            raise ValueError(
                f"encode: {name} must have shape {steps} for {how.name} of {tuple(x.shape)}, got {tuple(v.shape)}"
            )
        kind = "uint8" if name == "zero_point" else "float64" if dtype_name(x.dtype) == "float64" else "float32"
        if kind == "uint8":
            some_value("encode", "a zero point is finite", xp.isfinite(v))
            within("encode", v, 0, (1 << how.bits) - 1)
            v = v if "int" in dtype_name(v.dtype) else xp.round(v)
        with quiet(v):
            v = cast(xp, v, kind)
        parts[name] = (
            np.array(np.broadcast_to(v, steps))
            if xp is np
            else v.expand(steps).clone(memory_format=xp.contiguous_format)
        )
    q = quantize(x, parts["scale"], parts.get("zero_point"), how.codes, nan=nan)
    return {"data": q if how.raw else pack(q, how.bits), **parts}


def _over(x: Array, most: float, saturate: bool) -> Array:
    """max|x| over what the codes and scales of one byte reach, as a float32 that is positive and finite."""
    xp: Any = np if isinstance(x, np.ndarray) else torch_module()
    low, high = choose_range(x, 0, 0, saturate)
    amax = cast(xp, xp.clip(xp.maximum(-low, high).reshape(()), None, F32_MAX), "float32")
    amax = np.asarray(amax) if xp is np else amax
    return xp.asarray(least(xp, amax / xp.full_like(amax, most), amax, most))


def _reach(x: Array, most: float, below: bool, scheme: str, saturate: bool) -> None:
    """Refuses numbers of float64 that the scales of a scheme do not reach: they would come back as the largest that do."""
    if dtype_name(x.dtype) != "float64" or not known(x):
        return
    top = max(abs(float(v)) for v in choose_range(x, 0, 0, saturate))
    if top > most or (below and top == most):
        raise ValueError(f"encode: {scheme} reaches {most:g}, x holds {top:g}")


def _target(out: Any, scheme: str, x: Array) -> tuple[Array, ...]:
    """The arrays of an `Encoded` that is to be overwritten."""
    if not isinstance(out, Encoded):
        raise TypeError(f"encode: out must be an Encoded, got {type(out).__name__}")
    if out.dtype != dtype_name(x.dtype):
        raise TypeError(f"encode: out is of {out.dtype}, x of {dtype_name(x.dtype)}")
    if out.scheme != scheme or tuple(out.shape) != tuple(x.shape):
        raise ValueError(f"encode: out is {out.scheme} of {out.shape}, x is to be {scheme} of {tuple(x.shape)}")
    if isinstance(out.data, np.ndarray) != isinstance(x, np.ndarray):
        raise TypeError("encode: out and x must be of the same library")
    return tuple(v for k, v in out.parts.items() if k != "outer")


def _in_two_reads(x: Array, how: Any, nan: str, compat: str | None) -> tuple[Array, ...]:
    """The same for groups that no cache holds: a range, then codes, each over all threads."""
    dtype: Any = how.codes
    if not how.affine and not compat:
        most = (1 << how.bits - 1) - 1
        dtype = (-most, most)
    scale, zero = choose_qparams(x, dtype, symmetric=not how.affine, nan=nan, compat=compat, **_grain(x, how))
    if how.group == 0:
        shape = (*x.shape[:-1], 1)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    q = quantize(x, scale, zero if how.affine else None, dtype, nan=nan, compat=compat)
    if dtype_name(scale.dtype) in SMALL_FLOATS:  # of a peer's own arithmetic; exact
        scale = cast(np if isinstance(x, np.ndarray) else torch_module(), scale, "float32")
    data = q if how.raw else pack(q, how.bits)
    if not how.affine:
        return data, scale
    return data, scale, cast(np if isinstance(x, np.ndarray) else torch_module(), zero, "uint8")


def float_scales(e: Encoded, how: Scheme) -> Array:
    """The scales of an `Encoded` as floats: those of one byte are places in a table too."""
    if how.nested:
        return unnested(e.scale, e.outer)
    if how.power:
        return micro_scales(e.scale)
    if not how.small:
        return e.scale
    if e.outer is None:
        table, outer = like("e8m0", e.scale), like("e8m0", e.scale)[127]
    else:
        table, outer = like("e4m3", e.scale), e.outer
    return _decode_table(e.scale, outer, table, None, 8, e.scale.shape[-1], FLOATS.index("float32"))


def decode(e: Encoded, *, out: Array = None) -> Array:
    r"""The numbers of an `Encoded`, :math:`\hat x = (q - z)\,s`, or the number that q is the code of times s.

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
    last, dtype = e.shape[-1], FLOATS.index(e.dtype)
    if how.block:
        return _decode_gguf(e.data, how.block.number, last, dtype, **keywords)
    if how.places:
        scale, outer = (float_scales(e, how), None) if how.nested else (e.scale, e.outer)
        return _decode_table(e.data, scale, like(how.places, e.data), outer, how.bits, last, dtype, **keywords)
    return _decode(e.data, float_scales(e, how), e.zero_point, how.bits, last, dtype, **keywords)
