"""What the arguments of the quantizers mean. The one rule: an argument is named with its function and with both values."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tersor import _values
from tersor._arrays import Array, is_tensor
from tersor._arrays import detached as detached  # its own door for quantizers
from tersor._values import float_name

ROUNDINGS = {"half_even": 0, "half_away": 1, "toward_zero": 2, "stochastic": 3}
#: divide, round, add z; multiply by 1/s in float32, round, add z; divide, add z, round
FORMS = {None: 0, "gptq": 0, "repq": 0, "torch": 1, "torchao": 1, "ivit": 1, "ct": 2, "zeroq": 0, "calibtip": 0}


def code_range(dtype: Any, name: str) -> tuple[int, int]:
    """The least and the largest code: of "int2" to "int8" and "uint1" to "uint8", or as they are given."""
    kind = dtype if isinstance(dtype, (str, tuple)) else float_name(dtype)
    if isinstance(kind, str):
        word, _, bits = kind.partition("int")
        if word in ("", "u") and bits.isdecimal() and (2 if word == "" else 1) <= int(bits) <= 8:
            half = 1 << int(bits) - 1
            return (0, 2 * half - 1) if word else (-half, half - 1)
    elif len(kind) == 2 and all(hasattr(v, "__index__") for v in kind):
        lo, hi = (operator.index(v) for v in kind)
        if not (-128 <= lo < hi <= 127 or 0 <= lo < hi <= 255):
            what = "do not fit a byte: -128 <= lo < hi <= 127 or 0 <= lo < hi <= 255"
            raise ValueError(f"{name}: codes from {lo} to {hi} {what}")
        return lo, hi
    raise ValueError(f'{name}: dtype must be "int2" to "int8", "uint1" to "uint8" or (lo, hi), got {dtype!r}')


def one_of(name: str, argument: str, value: Any, known: Any) -> Any:
    return _values.one_of(f"{name}: {argument}", value, known)


def learned(name: str, what: str, v: Any, instead: str = "") -> None:
    """Refuses an argument that requires a gradient where it would get none: a silence that trains nothing."""
    if is_tensor(v) and v.requires_grad:
        import torch

        if torch.is_grad_enabled():
            raise ValueError(
                f"{name}: {what} requires a gradient and would get none: {instead}{what}.detach() asks for none"
            )


def known(v: Array) -> bool:
    """Whether the values of an array may be looked at: not of what is traced, transformed or without data."""
    if not is_tensor(v):
        return True
    import torch

    from tersor import _memory

    return not torch.compiler.is_compiling() and _memory.lack(v) is None


def some_value(name: str, what: str, good: Array) -> None:
    """Refuses arrays that are not good everywhere, where that can be seen."""
    if known(good) and not bool(good.all()):
        raise ValueError(f"{name}: {what}")


def held(name: str, **arrays: Array) -> None:
    """Refuses tensors without memory, by name, where their values decide."""
    if any(map(is_tensor, arrays.values())):
        from tersor import _memory

        _memory.check(name, **arrays)


def like(y: Array, x: Array) -> Array:
    """A result in the type of an argument."""
    return y.to(x.dtype) if is_tensor(y) else np.asarray(y, x.dtype)


def within(name: str, zero_point: Array, lo: int, hi: int, what: str = "zero_point") -> None:
    """Refuses a zero point that is no code: 0 could not be coded, and a reader takes it modulo the width.

    Not asked of what is traced, transformed or without data.
    """
    if zero_point is None:
        return
    if is_tensor(zero_point):
        if not known(zero_point) or not zero_point.numel():
            return
        import torch

        least, most = (float(v) for v in torch.aminmax(zero_point.detach().double()))
    elif np.size(zero_point):
        least, most = float(np.min(zero_point)), float(np.max(zero_point))
    else:
        return
    if not (lo <= round(least) and round(most) <= hi if least == least else True):
        raise ValueError(f"{name}: {what} must lie within {lo} and {hi}, got {least if least < lo else most:g}")
