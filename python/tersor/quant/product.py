r"""Products with packed weights: :math:`y = x\hat W^\top + b` with the codes of :math:`\hat W` multiplied as they are.

The rule of this file: weights are laid out once, by `prepack`, and no product makes a dense weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._arrays import Codes, Number, dtype_name, is_tensor, whole
from tersor._op import op
from tersor._reference import there
from tersor._sample import Draw
from tersor.quant import _panels as lay
from tersor.quant import _plain
from tersor.quant._arguments import Array, detached, one_of
from tersor.quant._encoded import Encoded, Scheme, check_parts
from tersor.quant._grids import NUMBERS, SMALL, like
from tersor.quant.encode import float_scales
from tersor.quant.packing import unpack
from tersor.quant.qparams import least

#: inputs of a group up to which sums of products of codes fit 32 bits
GROUP = 1 << 16
#: the same for int8 times int8, and for int8 less a zero point times int8
INT8 = (1 << 17) - 1
LONGEST = (1 << 31) // (255 * 128) - 1


def _weights(draw: Draw, bits: int, affine: bool, table: bool = False) -> tuple[Any, dict[str, Any]]:
    outs, inputs = 1 + draw.seed % 21, draw.d
    groups = 2 if inputs % 2 == 0 and draw.seed % 4 < 2 else 1
    q = draw.rng.integers(0, 1 << bits, (outs, inputs), np.uint8)
    if table and bits == 8:
        q &= 0xBF  # small floats, and none that is no number
    scale = draw.rng.uniform(0.01, 0.02, (outs, groups)).astype(np.float32)
    zero = draw.rng.integers(0, 1 << bits, (outs, groups)).astype(np.float32)
    given = [q, scale, zero if affine else None]
    sizes = {"outs": outs, "inputs": inputs, "bits": bits, "groups": groups, "affine": affine}
    return given, sizes


def _sample(*kinds: str) -> Any:
    """Rows, panels of both widths with zero points and without, a bias or none, and a table or none."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        bits, affine = (8, 4)[draw.seed % 2], draw.seed % 3 == 0
        table = not affine and draw.seed % 5 == 0
        given, sizes = _weights(draw, bits, affine, table)
        numbers = np.linspace(-1, 1, 16, dtype=np.float32)
        if bits == 8:
            numbers = NUMBERS["e4m3"].copy()
            numbers[np.isnan(numbers)] = 480, -480  # as the bits of those that are no number would be read
        outs = sizes["outs"]
        made = {
            "x": lambda: draw.normal(*draw.lead, draw.d),
            "g": lambda: draw.cast(draw.rng.standard_normal((*draw.lead, outs))),
            "w": lambda: lay.laid(given[0], given[1], given[2], bits, affine),
            "bias": lambda: draw.normal(outs) if draw.seed % 2 else None,
            "table": lambda: numbers if table else None,
        }
        # not of the first seeds, whose gradients are compared with differences: these see a rounding, gradients do not
        sizes["integers"] = "x" in kinds and not table and draw.seed % 7 > 2
        arrays = [made[k]() for k in kinds]
        return arrays, sizes | ({"needs": 1 if arrays[2] is None else 3} if "g" in kinds else {})

    return draw_all


def _sample_panels(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    bits, affine = (8, 4)[draw.seed % 2], draw.seed % 3 == 0
    given, _ = _weights(draw, bits, affine)
    return given, {"bits": bits, "affine": affine}


def _sample_int8(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    (q, _, _), sizes = _weights(draw, 8, False)
    a = draw.rng.integers(-128, 128, (*draw.lead, draw.d), np.int8)
    w = lay.laid(q, np.ones((len(q), 1), np.float32), None, 8, False)
    return [a, w], {"outs": sizes["outs"], "inputs": draw.d}


def _like(w: np.ndarray, x: Array) -> Array:
    if not is_tensor(x):
        return w
    import torch

    return torch.from_numpy(w).to(x.dtype)


def _codes(x: Array) -> Array:
    """What activations are where they are rounded to int8 by rows: q·s, in float64; NaN where a number is not finite."""
    x = _plain.real(x)
    with np.errstate(all="ignore"):
        amax = np.abs(x).max(-1, keepdims=True, initial=0)
        s = least(np, amax / x.dtype.type(127), amax, 127)
        q = np.rint(x / s).astype(np.float64) * s
    return np.where(np.isfinite(amax), q, np.nan)


@op(sample=_sample_panels, integer=True, native=True, exempt=("scale", "zero_point"))
def _panels(q: Array, scale: Array, zero_point: Array = None, bits: int = 8, affine: bool = False) -> Array:
    """Codes [out, in], scales and zero points [out, groups] in the order in which products read them."""
    u = (q.view(np.uint8) + np.uint8(1 << bits - 1)) if q.dtype == np.int8 else q
    return lay.laid(u, scale, zero_point, bits, affine)


@op(sample=_sample("x", "w", "bias", "table"), native=True, exempt=("table",))
def _packed_linear(
    x: Array,
    w: Array,
    bias: Array = None,
    table: Array = None,
    outs: int = 0,
    inputs: int = 0,
    bits: int = 8,
    groups: int = 1,
    affine: bool = False,
    integers: bool = False,
) -> Array:
    """x Ŵᵀ + b, with x or its rounding to int8 by rows."""
    numbers = lay.weights(w, table, outs, inputs, bits, groups, affine)
    y = (_codes(x) if integers else np.asarray(x, np.float64)) @ numbers.T
    return y + np.asarray(bias, np.float64) if there(bias) else y


@op(sample=_sample("g", "w", "bias", "table"), tensors=True, exempt=("table",))
def _packed_linear_bwd(
    g: Array,
    w: Array,
    bias: Array = None,
    table: Array = None,
    outs: int = 0,
    inputs: int = 0,
    bits: int = 8,
    groups: int = 1,
    affine: bool = False,
    integers: bool = False,
    needs: int = 3,
) -> tuple[Array, Array]:
    """dx = g Ŵ, db = Σ g; the rounding of x is passed straight through."""
    none = g.reshape(-1)[:0]
    dx = g @ _like(lay.weights(w, table, outs, inputs, bits, groups, affine), g) if needs & 1 else none
    return dx, g.reshape(-1, outs).sum(0) if there(bias) and outs and needs & 2 else none


@op(sample=_sample_int8, integer=True, native=True)
def _packed_int8(a: Array, w: Array, outs: int = 0, inputs: int = 0) -> Array:
    """Σ a b of int8 codes, as int32."""
    codes = lay.weights(w, None, outs, inputs, 8, 1, False)
    return (a.astype(np.float64) @ codes.T).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights laid out for products, as `prepack` makes them.

    Attributes
    ----------
    panels : uint8 array or tensor
        Scales, zero points and codes, sixteen outputs beside each other. What bytes they are belongs to the version of tersor
        that made them: keep an `Encoded`, and pack it again.
    table : float32 [16] or [256], or None
        The numbers that codes stand for, where they are no integers: any 16, or all of e4m3 or e5m2.
    shape : (out, in)
    bits : 4 or 8, of a code as it lies there
    groups : int
        How many scales an output has.
    affine : bool
        Whether every group has its zero point.
    """

    panels: Any
    table: Any
    shape: tuple[int, int]
    bits: int
    groups: int
    affine: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the panels."""
        return int(np.prod(self.panels.shape))

    def __repr__(self) -> str:
        return f"Packed({self.bits} bits, {self.shape}, {self.groups} groups, {self.nbytes} bytes)"


def prepack(weight: Encoded, table: Number = None) -> Packed:
    r"""Lays encoded weights out for `packed_linear`, once: codes in the order in which a product reads them.

    Parameters
    ----------
    weight : Encoded of ``[out, in]``
        Of any scheme of integers of `encode`, of codes of 4 bits that are places in a table (nf4, fp4, mxfp4, nvfp4, nested or
        not), or of small floats (mxfp6, mxfp8).
        Codes of up to 4 bits lie in 4 bits, others in 8; floats of 6 bits as the same numbers of e4m3.
    table : float32 array or tensor [16], optional
        The numbers that codes of 4 bits are places in, instead of those of the scheme: of nf4 and its like, or of int4, whose
        place 0 is the code -8. With `gptq(codebook=)` these are the codebook.

    Returns
    -------
    Packed

    Raises
    ------
    TypeError
        If weight is not an Encoded, or its scales are float64 (encode the weight as float32); if a table is not float32.
    ValueError
        If its parts do not fit, it is not ``[out, in]``, or a table is given that is not 16 finite numbers for codes of 4 bits
        without zero points; if its scheme is dynamic8, or one of GGUF; if codes of floats are no finite number.

    Notes
    -----
    One read and one write of the codes.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import quant
    >>> w = quant.prepack(quant.encode(np.eye(4, dtype=np.float32), "int8-row"))
    >>> quant.packed_linear(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32), w)
    array([[1., 2., 3., 4.]], dtype=float32)
    """
    who = "prepack"
    if not isinstance(weight, Encoded):
        raise TypeError(f"{who}: weight must be an Encoded, got {type(weight).__name__}")
    how = check_parts(who, weight)
    if len(weight.shape) != 2:
        raise ValueError(f"{who}: weight must be [out, in], got shape {tuple(weight.shape)}")
    floats = bool(how.small) and how.bits > 4
    if how.block or (how.places and how.bits != 4 and not floats):
        raise ValueError(f"{who}: codes of {weight.scheme} are not multiplied as they are; decode them")
    scale, zero = float_scales(weight, how), weight.zero_point
    if dtype_name(scale.dtype) != "float32":
        raise TypeError(f"{who}: scales must be float32, got {dtype_name(scale.dtype)}; encode a float32 weight")
    outs, inputs = weight.shape
    groups = inputs // how.group if how.group and inputs else 1
    if table is not None:
        table = _sixteen(who, table, how, scale)
    elif how.places:
        table = like(_wide(how.small) if floats else how.places, scale)
    plain = how.affine or table is not None
    q = weight.data if how.raw else unpack(weight.data, how.bits, weight.shape, dtype="uint8" if plain else "int8")
    if floats:
        q = _floats(who, q, how.small)
    if how.group is None:
        scale = scale.reshape(1, 1) + _zeros(scale, outs)
        zero = None if zero is None else zero.reshape(1, 1) + _zeros(zero, outs)
    elif not inputs:
        scale, zero = _zeros(scale, outs), None if zero is None else _zeros(zero, outs)
    if zero is not None:
        zero = zero.astype(np.float32) if isinstance(zero, np.ndarray) else zero.float()
    bits = 4 if how.bits <= 4 else 8
    return Packed(_panels(q, scale, zero, bits, how.affine), table, (outs, inputs), bits, groups, how.affine)


def _wide(small: str) -> str:
    """The float of 8 bits that has all numbers of this one."""
    return "e5m2" if small == "e5m2" else "e4m3"


def _floats(who: str, q: Array, small: str) -> Array:
    """Codes of a small float as those of the one of 8 bits."""
    own, wide = SMALL[small], SMALL[_wide(small)]
    if own is not wide:
        places = wide.codes(own.numbers)
        if not is_tensor(q):
            return places[q]
        import torch

        return torch.tensor(places.tolist(), dtype=torch.uint8, device=q.device)[q.long()]
    if q.shape[0] and q.shape[1] and int((q & 127).max()) > own.top:
        raise ValueError(f"{who}: weight holds codes of {small} that are no finite number")
    return q


def _sixteen(who: str, table: Array, how: Scheme, like: Array) -> Array:
    """A table that somebody gave, checked."""
    if how.bits != 4 or how.affine:
        raise ValueError(f"{who}: a table goes with codes of 4 bits without zero points, got {how.name}")
    if is_tensor(table) != is_tensor(like) or dtype_name(getattr(table, "dtype", "")) != "float32":
        raise TypeError(f"{who}: table must be float32 of the library of weight, got {type(table).__name__}")
    if tuple(table.shape) != (16,) or not bool(abs(table).max() < float("inf")):
        raise ValueError(f"{who}: table must be 16 finite numbers, got shape {tuple(table.shape)}: {table}")
    return table


def _zeros(like: Array, n: int) -> Array:
    return np.zeros((n, 1), like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(n, 1)


def packed_linear(
    x: Array, weight: Packed, bias: Array = None, *, activations: str = "float", out: Array = None
) -> Array:
    r"""A linear layer with packed weights, :math:`y = x\hat W^\top + b`.

    Parameters
    ----------
    x : array or tensor ``[..., in]`` of float64, float32, float16 or bfloat16
    weight : Packed
        See `prepack`; an `Encoded` is packed first, at every call.
    bias : array or tensor ``[out]`` of x's dtype, optional
    activations : "float" or "int8"
        x as it is, multiplied and summed in float32 (float64 data in float64); or rounded as ``encode(x, "int8-row")``
        rounds it, q = rne(x/s) with s = max|x|/127 of each row, and multiplied and summed as integers.
    out : array or tensor, optional
        Where the result goes; C-contiguous, of its shape and dtype. Not with gradients.

    Returns
    -------
    array or tensor ``[..., out]`` of x's dtype
        Differentiable, twice too, with respect to x and bias; through the rounding of activations as if it were not there.

    Raises
    ------
    TypeError
        If x and bias are not of one float type, or weight is not packed.
    ValueError
        If shapes do not go together; if ``activations="int8"`` meets weights that are numbers of a table, or groups of more
        than 65536 inputs, whose sums may not fit 32 bits.

    Notes
    -----
    With float activations an output is right to 4 ε √in of Σ|x ŵ|, ε = 2^-23 (on AMX rows of 384 float32 numbers and more
    are two parts of 8 bits each, which take up to five sixths of it), unless numbers are so large that the sum of x times the
    codes, before the scale, is over 3e38: it is infinite then. With int8 activations the sums of groups are exact. What
    is not finite goes the way of IEEE; with int8 activations such a row is NaN throughout. Each output is summed in one fixed
    order: the same bits for any number of threads, and for any other rows beside it, except that float rows are summed in
    tiles of AMX where there are nine or more and the processor has it. O(rows · in · out), one read of the codes for up to 96
    rows.
    """
    name = "packed_linear"
    integers = one_of(name, "activations", activations, {"float": False, "int8": True})
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
    return _packed_linear(x, weight.panels, bias, weight.table, *sizes, **keywords)


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
