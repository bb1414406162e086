"""What the arguments of the quantizers mean. The one rule: an argument is named with its function and with both values."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tersor._arrays import Array, dtype_name, is_tensor
from tersor._arrays import detached as detached  # its own door for quantizers
from tersor._values import float_name

ROUNDINGS = {"half_even": 0, "half_away": 1, "toward_zero": 2, "stochastic": 3}
#: divide, round, add z; multiply by 1/s in float32, round, add z; divide, add z, round
FORMS = {None: 0, "gptq": 0, "repq": 0, "torch": 1, "torchao": 1, "ivit": 1, "ct": 2}
#: peers that compute 16-bit data in its own arithmetic
OWN_ARITHMETIC = ("torchao", "ct")


def code_range(dtype: Any, name: str) -> tuple[int, int]:
    """The least and the largest code: of "int2" to "int8" and "uint1" to "uint8", or as they are given."""
    kind = dtype if isinstance(dtype, (str, tuple)) else float_name(dtype)
    if isinstance(kind, str):
        word, _, bits = kind.partition("int")
        if word in ("", "u") and bits.isdecimal() and (2 if word == "" else 1) <= int(bits) <= 8:
            half = 1 << int(bits) - 1
            return (0, 2 * half - 1) if word else (-half, half - 1)
    elif len(kind) == 2 and all(hasattr(v, "__index__") for v in kind):
        return operator.index(kind[0]), operator.index(kind[1])
    raise ValueError(f'{name}: dtype must be "int2" to "int8", "uint1" to "uint8" or (lo, hi), got {dtype!r}')


def one_of(name: str, argument: str, value: Any, known: Any) -> Any:
    if value not in known:
        raise ValueError(f"{name}: {argument} must be one of {', '.join(repr(k) for k in known)}, got {value!r}")
    return known[value] if isinstance(known, dict) else value


def form_of(name: str, compat: str | None, x: Array, scale: Array) -> int:
    form = one_of(name, "compat", compat, FORMS)
    small = ("float16", "bfloat16")
    kinds = [dtype_name(v.dtype) for v in (x, scale) if getattr(v, "ndim", 0)]
    if kinds and all(k in small for k in kinds):
        own_arithmetic(name, compat, kinds[0])
    return form


def own_arithmetic(name: str, compat: str | None, kind: str) -> None:
    """Refuses 16-bit data where a peer rounds after every step, so that no result would be its own."""
    if compat in OWN_ARITHMETIC and kind in ("float16", "bfloat16"):
        raise ValueError(f"{name}: {compat} divides {kind} in its own arithmetic, which is not reproduced")


def like(y: Array, x: Array) -> Array:
    """A result in the type of an argument."""
    return y.to(x.dtype) if is_tensor(y) else np.asarray(y, x.dtype)


def within(name: str, zero_point: Array, lo: int, hi: int) -> None:
    """Refuses a zero point that is no code: 0 could not be coded, and a reader takes it modulo the width.

    Not asked of what is traced, transformed or without data.
    """
    if zero_point is None:
        return
    if is_tensor(zero_point):
        import torch

        from tersor import _memory

        if torch.compiler.is_compiling() or _memory.lack(zero_point) is not None or not zero_point.numel():
            return
        least, most = (float(v) for v in torch.aminmax(zero_point.detach().double()))
    elif np.size(zero_point):
        least, most = float(np.min(zero_point)), float(np.max(zero_point))
    else:
        return
    if not (lo <= round(least) and round(most) <= hi if least == least else True):
        raise ValueError(f"{name}: zero_point must lie within {lo} and {hi}, got {least if least < lo else most:g}")
