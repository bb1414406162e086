r"""Products with packed weights: :math:`y = f(x\hat W^\top + b)` with the codes of :math:`\hat W` multiplied as they are.

The rule of this file: what becomes of a result (an activation, codes) is said in the call and done before it is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Codes, Number, dtype_name, is_tensor, whole
from tersor._values import called, number
from tersor.quant._arguments import Array, code_range, detached, one_of, within
from tersor.quant._encoded import Encoded
from tersor.quant._products import (
    AFTER,
    GROUP,
    INT8,
    LONGEST,
    _packed_activated,
    _packed_codes,
    _packed_int8,
    _packed_linear,
    _panels,
)
from tersor.quant.prepack import Packed, prepack


def packed_linear(
    x: Array,
    weight: Packed,
    bias: Array = None,
    *,
    activations: str = "float",
    activation: str | None = None,
    output_scale: float | None = None,
    output_zero_point: int = 0,
    output_dtype: Any = "int8",
    out: Array = None,
) -> Array:
    r"""A linear layer with packed weights, :math:`y = f(x\hat W^\top + b)`, or the codes of its results.

    Parameters
    ----------
    x : array or tensor ``[..., in]`` of float64, float32, float16 or bfloat16
    weight : Packed
        See `prepack`; an `Encoded` is packed first, at every call.
    bias : array or tensor ``[out]`` of x's dtype, optional
    activations : "float" or "int8"
        x as it is, multiplied and summed in float32 (float64 data in float64); or rounded as ``encode(x, "int8-row")``
        rounds it, q = rne(x/s) with s = max|x|/127 of each row, and multiplied and summed as integers.
    activation : "relu", "gelu" or "silu", optional
        f: max(v, 0), v Φ(v), v / (1 + e^-v), before the result is rounded.
    output_scale : float, optional
        With it results become codes, :math:`\mathrm{clamp}(\mathrm{round}(y/s) + z, lo, hi)`, as `quantize` makes them of
        float32 (float64 of float64): what `int8_matmul` goes on with.
    output_zero_point : int
        With output_scale, as is output_dtype.
    output_dtype : str, type or (int, int)
        As of `quantize`.
    out : array or tensor, optional
        Where the result goes; C-contiguous, of its shape and dtype. Not with gradients, nor of codes.

    Returns
    -------
    array or tensor ``[..., out]`` of x's dtype, or int8 or uint8 codes
        Differentiable, twice too, with respect to x and bias; through the rounding of activations as if it were not there.
        Where a gradient is recorded, f is torch's own, of the rounded product: it may differ in the last bits. Codes have no
        gradient.

    Raises
    ------
    TypeError
        If x and bias are not of one float type, or weight is not packed.
    ValueError
        If shapes do not go together; if ``activations="int8"`` meets weights that are numbers of a table, or groups of more
        than 65536 inputs, whose sums may not fit 32 bits; if an output_scale is not positive and finite, its zero point is no
        code, or results that are to be codes are not finite.

    Notes
    -----
    With float activations an output is right to 4 ε √in of Σ|x ŵ|, ε = 2^-23 (on AMX rows of 384 float32 numbers and more
    are two parts of 8 bits each, which take up to five sixths of it), unless numbers are so large that the sum of x times the
    codes, before the scale, is over 3e38: it is infinite then. With int8 activations the sums of groups are exact. What
    is not finite goes the way of IEEE; with int8 activations such a row is NaN throughout. Each output is summed in one fixed
    order: the same bits for any number of threads, and for any other rows beside it, except that float rows are summed in
    tiles of AMX where there are nine or more and the processor has it. O(rows · in · out), one read of the codes for up to 192
    rows.
    """
    name = "packed_linear"
    integers = one_of(name, "activations", activations, {"float": False, "int8": True})
    after = one_of(name, "activation", activation, AFTER)
    if isinstance(weight, Encoded):
        weight = prepack(weight)
    if not isinstance(weight, Packed):
        raise TypeError(f"{name}: weight must be a Packed (see prepack), got {type(weight).__name__}")
    if is_tensor(x) != is_tensor(weight.panels):
        held, given = ("tensors", "a NumPy array") if is_tensor(weight.panels) else ("NumPy arrays", "a tensor")
        raise TypeError(f"{name}: weight is packed of {held}, x is {given}")
    outs, inputs = weight.shape
    if getattr(x, "ndim", 0) < 1 or x.shape[-1] != inputs:
        shape = tuple(getattr(x, "shape", ()))
        raise ValueError(f"{name}: the last axis of x must have {inputs} elements, got shape {shape}")
    if bias is not None and tuple(bias.shape) != (outs,):
        raise ValueError(f"{name}: bias must have shape ({outs},), got {tuple(bias.shape)}")
    if integers and weight.table is not None:
        raise ValueError(f"{name}: int8 activations go with integer weights, these are numbers of a table")
    if integers and inputs // weight.groups > GROUP:
        raise ValueError(
            f"{name}: groups of {inputs // weight.groups} inputs are too long for sums of 32 bits with int8 activations: "
            f"at most {GROUP}"
        )
    keywords: dict[str, Any] = {} if out is None else {"out": out}
    sizes = (outs, inputs, weight.bits, weight.groups, weight.affine, integers)
    arrays = (x, weight.panels, bias, weight.table)
    if output_scale is None:
        codes: tuple[tuple[str, Any, Any], ...] = (
            ("output_zero_point", output_zero_point, 0),
            ("output_dtype", output_dtype, "int8"),
        )
        for of, given, plain in codes:
            if not isinstance(given, type(plain)) or given != plain:
                raise ValueError(f"{name}: {of} is of codes, which need an output_scale, got {given!r}")
    else:
        if out is not None:
            raise ValueError(f"{name}: out does not go with output_scale: codes are made apart")
        lo, hi = code_range(output_dtype, name)
        zero = whole(f"{name}: output_zero_point", output_zero_point)
        within(name, zero, lo, hi, "output_zero_point")
        step = number(name, "output_scale", output_scale)
        if not 0 < step < float("inf"):
            raise ValueError(f"{name}: output_scale must be positive and finite, got {step}")
        return called(name, _packed_codes, *map(_fixed, arrays), *sizes, after, step, zero, lo, hi)
    if after and out is None and recorded(x, bias):
        import torch

        return getattr(torch.nn.functional, str(activation))(_packed_linear(*arrays, *sizes))
    if after:
        return called(name, _packed_activated, *map(_fixed, arrays), *sizes, after, **keywords)
    return _packed_linear(*arrays, *sizes, **keywords)


def recorded(*xs: Array) -> bool:
    """Whether a gradient to one of these is recorded, or they are under a transform of torch.func."""
    if not any(map(is_tensor, xs)):
        return False
    import torch

    return torch._C._are_functorch_transforms_active() or (
        torch.is_grad_enabled() and any(is_tensor(x) and x.requires_grad for x in xs)
    )


def _fixed(x: Array) -> Array:
    return x.detach() if is_tensor(x) else x


def int8_matmul(
    a: Codes,
    b: Any,
    *,
    scale_a: Number = None,
    scale_b: Number = None,
    zero_point_a: int = 0,
    bias: Number = None,
) -> Array:
    r"""Products of int8 codes, :math:`Y = (A - z) B^\top`, exact, or scaled, :math:`s_a s_b Y + b`.

    Parameters
    ----------
    a : int8 or uint8 array or tensor ``[..., K]``
    b : int8 ``[O, K]``, or a Packed of int8 codes
        A Packed is laid out once for many calls; its codes are used and its scales are not.
    scale_a : number, or float array of ``[..., 1]`` or (), optional
        With it, or with scale_b, the result is float32.
    scale_b : number, or float array of ``[O]``, ``[O, 1]`` or (), optional
    zero_point_a : int
        The code of a that stands for 0.
    bias : float array ``[O]``, optional
        Added after the scales.

    Returns
    -------
    int32 ``[..., O]``, or float32 if there are scales

    Raises
    ------
    TypeError
        If a and b are not codes of one byte.
    ValueError
        If shapes do not go together, or sums of K products may not fit 32 bits: K over 131071, or 65792 with a zero point.

    Notes
    -----
    The integers are exact. O(M K O).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import quant
    >>> quant.int8_matmul(np.array([[1, 2, -3]], np.int8), np.array([[4, 5, 6], [0, 0, 1]], np.int8))
    array([[-4, -3]], dtype=int32)
    """
    name = "int8_matmul"
    a = detached(name, a)
    kind = dtype_name(a.dtype)
    if kind not in ("int8", "uint8"):
        raise TypeError(f"{name}: a must be int8 or uint8, got {kind}")
    zero = whole(f"{name}: zero_point_a", zero_point_a)
    least, most = (-128, 127) if kind == "int8" else (0, 255)
    if not least <= zero <= most:
        raise ValueError(f"{name}: zero_point_a must lie within {least} and {most}, got {zero}")
    if not isinstance(b, Packed):
        b = _laid(name, b)
    elif b.bits != 8 or b.affine or b.groups != 1 or b.table is not None:
        raise ValueError(f"{name}: b must be packed of int8 codes, a row with one scale, got {b!r}")
    outs, inputs = b.shape
    if a.ndim < 1 or a.shape[-1] != inputs:
        raise ValueError(f"{name}: the last axis of a must have {inputs} elements, got shape {tuple(a.shape)}")
    if kind == "uint8":  # the same bits, 128 less
        a, zero = _signed(a), zero - 128
    if inputs > (LONGEST if zero else INT8):
        raise ValueError(f"{name}: {inputs} products may not fit 32 bits: at most {LONGEST if zero else INT8}")
    y = _packed_int8(a, b.panels, outs, inputs)
    if zero:
        ones = np.ones((1, inputs), np.int8) if isinstance(a, np.ndarray) else a.new_ones((1, inputs))
        y = y - zero * _packed_int8(ones, b.panels, outs, inputs).reshape(outs)
    if scale_a is None and scale_b is None and bias is None:
        return y
    lead = tuple(a.shape[:-1])
    y = _single(y)
    for who, scale, shapes in (
        ("scale_b", scale_b, ((), (outs,), (outs, 1))),
        ("scale_a", scale_a, ((), (*lead, 1))),
        ("bias", bias, ((outs,),)),
    ):
        if scale is None:
            continue
        shape = tuple(getattr(scale, "shape", ()))
        if shape not in shapes:
            said = " or ".join(map(str, shapes))
            raise ValueError(f"{name}: {who} must have shape {said}, got {shape}")
        v = _single(scale) if hasattr(scale, "dtype") else scale
        if who == "bias":
            y = y + v
        else:
            y = y * (v.reshape(-1) if who == "scale_b" and shape else v)
    return y


def _single(x: Array) -> Array:
    """Numbers as float32."""
    return x.astype(np.float32) if isinstance(x, (np.ndarray, np.generic)) else x.float()


def _signed(a: Array) -> Array:
    """uint8 codes less 128, as int8."""
    if isinstance(a, np.ndarray):
        return (a ^ np.uint8(128)).view(np.int8)
    import torch

    return (a ^ 128).view(torch.int8)


def _laid(name: str, b: Array) -> Packed:
    """int8 codes [O, K] as panels, with scales of 1."""
    b = detached(name, b)
    if dtype_name(b.dtype) != "int8" or b.ndim != 2:
        raise TypeError(f"{name}: b must be int8 [O, K], got {dtype_name(b.dtype)} of shape {tuple(b.shape)}")
    outs, inputs = b.shape
    ones = np.ones((outs, 1), np.float32)
    if is_tensor(b):
        import torch

        ones = torch.ones((outs, 1), device=b.device)
    return Packed(_panels(b, ones, None, 8, False), None, (outs, inputs), 8, 1, False)
