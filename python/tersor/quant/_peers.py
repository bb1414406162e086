"""Scales, codes and numbers as other projects compute them. The one rule: what a kernel of ours does not compute to the bit is
computed as its project does, by the array's own library and in the array's own type; nothing is nearly a peer.

| preset | scale and zero point | code | number |
|---|---|---|---|
| torch, torchao | (hi - lo)/2 or hi - lo steps, z = lo - rne(low/s) | rne(x (1/s)) + z | (q - z) s |
| ct | the same, z = rne(lo - low/s) | rne(x/s + z) | (q - z) s |
| gptq | 2 max over the steps, or as torch | rne(x/s) + z | (q - z) s |
| repq | max - min over the steps, 0 not included, z = lo - rne(min/s) | rne(x/s) + z | (q - z) s |
| zeroq | S = steps/max(max - min, 1e-8), z = lo - rne(S min) | rne(S x + z) | (q - z)/S |
| calibtip | max - min over the steps, o = low - lo s | rne((x - o)/s) | q s + o |
| ivit | max over 2^(b-1) - 1, z = 0 | rne(x (1/s)) | q s |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Array, as_type, dtype_name, is_tensor
from tersor._reference import quiet
from tersor.quant import _plain as plain
from tersor.quant._arguments import some_value
from tersor.quant._ranges import spread

#: which kinds of ranges a peer's scales are for: symmetric, asymmetric
KINDS = {
    "torch": (True, False),
    "torchao": (True, False),
    "ct": (True, False),
    "gptq": (True, False),
    "repq": (False,),
    "zeroq": (False,),
    "calibtip": (False,),
    "ivit": (True,),
}
#: whose range is that of the numbers alone, 0 not included
WITHOUT_ZERO = ("repq", "zeroq")
#: who computes data of 16 bits in its own type, rounding every step
OWN_ARITHMETIC = ("torchao", "ct")
#: whose codes are of a quotient that is made here; the others are forms of the kernels
MADE = ("zeroq", "calibtip")
#: whose zero point is no code: an integer of any size, or a number in units of x
FREE = ("repq", "zeroq", "calibtip")
SMALL = ("float16", "bfloat16")


def own(compat: str | None, *arrays: Any) -> bool:
    """Whether a peer computes these in 16 bits: data, and scales that are arrays."""
    return compat in OWN_ARITHMETIC and all(dtype_name(v.dtype) in SMALL for v in arrays if hasattr(v, "dtype"))


def made(compat: str | None, x: Array, scale: Any) -> bool:
    """Whether codes are of a quotient that is made here."""
    return compat in MADE or own(compat, x, scale)


def _xp(x: Array) -> Any:
    if is_tensor(x):
        import torch

        return torch
    return np


def _as(v: Array, kind: Any) -> Array:
    """`v` in a type, which is told by its name or by an array of it."""
    kind = kind if isinstance(kind, str) else dtype_name(kind.dtype)
    return as_type(v if is_tensor(v) else np.asarray(v), kind)


def taken(compat: str, v: Array, x: Array) -> Array:
    """The end of a range in the type in which a peer computes with it."""
    return _as(v, x) if own(compat, x) else v


def qparams(compat: str, low: Array, high: Array, lo: int, hi: int, symmetric: bool) -> tuple[Array, Array]:
    """Scales and zero points of ranges, which are in the type that a peer computes them in."""
    xp, n = _xp(low), hi - lo
    kind = dtype_name(low.dtype)
    number = lambda v: xp.full_like(low, v)  # noqa: E731
    centre = 0 if lo < 0 else (lo + hi + 1) // 2
    largest = xp.maximum(-low, high)
    if compat == "calibtip":
        reach = high - low
        reach = xp.minimum(xp.maximum(xp.where(reach == 0, number(1), reach), number(1e-6)), number(1e5))
        s = reach / number(n)
        return s, low - number(lo) * s
    if compat == "zeroq":
        rise = number(1) / xp.maximum(high - low, number(1e-8)) * number(n)  # as torch divides a number by a tensor
        # 1/S in float64 gives S back; in float32 it would not
        return 1 / _as(rise, "float64"), lo - xp.round(rise * low)
    if compat == "repq":
        s = (high - low) / number(n)
        some_value("choose_qparams", "compat='repq' has no scale for equal numbers", s > 0)
        return s, _integer(lo + xp.round(-low / s))
    if compat == "ivit":
        s = xp.maximum(largest / number(hi), number(float(np.finfo(np.float32).eps)))
        return s, _integer(number(0))
    if compat == "gptq":
        if symmetric:
            low, high = xp.where(low < 0, -largest, low), largest
        flat = (low == 0) & (high == 0)
        low, high = xp.where(flat, number(-1), low), xp.where(flat, number(1), high)
        s = (high - low) / number(n)
        return s, _integer(number(lo + (n + 1) // 2) if symmetric else lo + xp.round(-low / s))
    if symmetric:
        s, z = largest / number(n / 2), number(centre)
    else:
        s, z = (high - low) / number(n), None
    if compat == "ct":
        if (
            z is None
        ):  # rounds the sum; of zeros it has 0/0, which as an integer is 0, and of a scale that vanished an infinity
            z = lo - low / s
            z = xp.round(_clip(xp, xp.where(xp.isnan(z), number(0), z), number(lo), number(hi)))
        return xp.where(s == 0, number(_finfo(kind, "eps")), s), _integer(z)
    # torchao's least scale is the smallest normal number of the type, that of torch's observers an epsilon of float32
    s = xp.maximum(s, number(_finfo(kind, "tiny") if compat == "torchao" else float(np.finfo(np.float32).eps)))
    if z is None:
        z = _clip(xp, lo - xp.round(low / s), number(lo), number(hi))
    return s, _integer(z)


def _finfo(kind: str, what: str) -> float:
    if kind == "bfloat16":
        return {"eps": 2.0**-7, "tiny": 2.0**-126}[what]
    return float(getattr(np.finfo(kind), what))


def _clip(xp: Any, v: Array, lo: Array, hi: Array) -> Array:
    return xp.minimum(xp.maximum(v, lo), hi)


def _integer(z: Array) -> Array:
    return _as(_as(z, "float32") if dtype_name(z.dtype) == "bfloat16" else z, "int32")


def _whole(v: Array, kind: Any, shape: tuple[int, ...]) -> Array:
    """A scale or a zero point as one number per element, in the type of what it meets."""
    v = _as(v, kind)
    return spread(v, shape) if v.ndim and tuple(v.shape) != (1,) * v.ndim else v.reshape(())


def spread_like(z: Array, v: Array) -> Array:
    """Zero points as one number per element of v."""
    return _whole(_numbers(v, z, None)[0], v, tuple(v.shape))


def _numbers(x: Array, scale: Array, zero_point: Array) -> tuple[Array, Array]:
    """Scales and zero points as arrays of x's library."""
    if is_tensor(x):
        import torch

        make = lambda v: torch.as_tensor(v, device=x.device).detach()  # noqa: E731
    else:
        make = np.asarray
    return make(scale), make(0 if zero_point is None else zero_point)


def check(name: str, x: Array, scale: Array, zero_point: Array, values: bool = False) -> None:
    """Refuses shapes that do not divide that of an array; and values that are no scale or zero point."""
    for what, v in (("scale", scale), ("zero_point", zero_point)):
        shape = tuple(getattr(v, "shape", ()))
        divides = len(shape) == x.ndim and all(a % b == 0 if b else not a for a, b in zip(x.shape, shape, strict=True))
        if not divides and shape != (1,) * len(shape):
            raise ValueError(f"{name}: {what} of shape {shape} does not divide an array of shape {tuple(x.shape)}")
    if values:
        xp = _xp(x)
        s, z = _numbers(x, scale, zero_point)
        some_value(name, "a scale is positive and finite", (s > 0) & xp.isfinite(s))
        some_value(name, "a zero point is finite", xp.isfinite(z))


def quotient(compat: str, x: Array, scale: Array, zero_point: Array) -> tuple[Array, Array, Array]:
    """What is rounded to a code, in float32 or float64, a scale of ones, and what is added to a code then, if anything is."""
    xp, shape = _xp(x), tuple(x.shape)
    s, z = _numbers(x, scale, zero_point)
    kind = dtype_name(x.dtype)
    if compat in MADE:
        kind = "float64" if kind == "float64" else "float32"
        v = _as(x, kind)
        with quiet(x):
            if compat == "zeroq":
                v = v * _whole(_rise(s, kind), kind, shape) + _whole(z, kind, shape)
            else:
                v = (v + -_whole(z, kind, shape)) / _whole(s, kind, shape)
        after = None
    else:
        with quiet(x):
            if compat == "ct":
                v, after = x / _whole(s, x, shape) + _whole(z, x, shape), None
            else:
                v, after = x * _whole(xp.ones_like(s) / s, x, shape), zero_point
        v = _as(v, "float32")
    # what was finite is a code, however large its quotient is
    most = float(plain.MOST["float64" if dtype_name(v.dtype) == "float64" else "float32"])
    return xp.where(xp.isfinite(x), xp.clip(v, -most, most), _as(x, v)), _as(xp.ones_like(s), "float32"), after


def _rise(s: Array, kind: str) -> Array:
    """S of 1/S."""
    return _as(1 / _as(s, "float64"), kind)


def numbers(compat: str, q: Array, scale: Array, zero_point: Array, kind: str) -> Array:
    """The numbers of codes, in a type."""
    s, z = _numbers(q, scale, zero_point)
    shape, wide = tuple(q.shape), "float64" if kind == "float64" else "float32"
    q = _as(q, wide)
    with quiet(q):
        if compat == "zeroq":
            y = (q - _whole(z, wide, shape)) / _whole(_rise(s, wide), wide, shape)
        elif compat == "calibtip":
            y = q * _whole(s, wide, shape) + _whole(z, wide, shape)
        else:
            y = (q - _whole(z, wide, shape)) * _whole(s, wide, shape)
        return _as(y, kind)
