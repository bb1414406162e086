"""The operators under products with packed weights. The one rule: a reference multiplies with the weights that panels hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array, is_tensor
from tersor._op import op
from tersor._reference import there
from tersor._sample import Draw
from tersor.quant import _panels as lay
from tersor.quant import _plain
from tersor.quant._grids import NUMBERS
from tersor.quant.qparams import least

#: inputs of a group up to which sums of products of codes fit 32 bits
GROUP = 1 << 16
#: the same for int8 times int8, and for int8 less a zero point times int8
INT8 = (1 << 17) - 1
#: functions of a result, as kernels know them
AFTER = {None: 0, "relu": 1, "gelu": 2, "silu": 3}
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


def _sample_after(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    arrays, scalars = _sample("x", "w", "bias", "table")(draw)
    return arrays, scalars | {"activation": draw.seed % len(AFTER)}


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


def _sums(x: Array, w: Array, bias: Array, table: Array, outs: int, inputs: int, *rest: Any) -> Array:
    """x Ŵᵀ + b in float64."""
    *layout, integers = rest
    y = (_codes(x) if integers else np.asarray(x, np.float64)) @ lay.weights(w, table, outs, inputs, *layout).T
    return y + np.asarray(bias, np.float64) if there(bias) else y


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
    return _sums(x, w, bias, table, outs, inputs, bits, groups, affine, integers)


def _bent(v: Array, activation: int) -> Array:
    """v, max(v, 0), v Φ(v) or v / (1 + e^-v)."""
    with np.errstate(all="ignore"):
        if activation == AFTER["relu"]:
            return np.where(v < 0, 0, v)
        if activation == AFTER["gelu"]:
            return v * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(v * math.sqrt(0.5)))
        return v / (1 + np.exp(-v)) if activation else v


@op(sample=_sample_after, native=True, exempt=("table",))
def _packed_activated(
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
    activation: int = 0,
) -> Array:
    """f(x Ŵᵀ + b)."""
    return _bent(_sums(x, w, bias, table, outs, inputs, bits, groups, affine, integers), activation)


@op(
    unsampled="a sum in the middle of two codes may become either: held to `quantize` of the results", exempt=("table",)
)
def _packed_codes(
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
    activation: int = 0,
    scale: float = 1.0,
    zero_point: int = 0,
    lo: int = -128,
    hi: int = 127,
) -> Array:
    """clamp(rne(f(x Ŵᵀ + b) / s) + z, lo, hi)."""
    y = _bent(_sums(x, w, bias, table, outs, inputs, bits, groups, affine, integers), activation)
    return _plain.codes(y, scale, zero_point, lo, hi, 0, 0, 0).astype(np.int8 if lo < 0 else np.uint8)


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
