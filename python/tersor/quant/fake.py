"""Quantization without leaving floats, with gradients. The one rule: it equals `dequantize` of `quantize` bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Level, Number, dtype_name, into, is_tensor
from tersor._op import op
from tersor._sample import Draw, Quantized
from tersor._values import check_dense, seeded, signed_word
from tersor.quant import _peers
from tersor.quant import _plain as plain
from tersor.quant._arguments import FORMS, ROUNDINGS, Array, code_range, detached, learned, one_of, within


def _rounded(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    arrays, scalars = Quantized("x", "scale", "zero_point", lo=-8, hi=7)(draw)
    return arrays, scalars | {"rounding": draw.seed // 3 % 4, "seed": draw.seed}


@op(
    sample=_rounded,
    exempt=("scale",),
    native=True,
    gradcheck=False,
    leading={"x": 1},
    local={"x": 0, "scale": 0, "zero_point": 0},
)
def _fake_quantize(
    x: Array,
    scale: Array,
    zero_point: Array = None,
    lo: int = -128,
    hi: int = 127,
    form: int = 0,
    rounding: int = 0,
    seed: int = 0,
) -> Array:
    """y = (clamp(round(x/s) + z, lo, hi) - z) s."""
    return plain.fake(x, scale, zero_point, lo, hi, form, rounding, seed)


@op(
    sample=Quantized("g", "x", "scale", "zero_point", lo=-8, hi=7),
    exempt=("scale",),
    native=True,
    leading={"g": 1, "x": 1},
    local={"g": 0, "x": 0, "scale": 0, "zero_point": 0},
)
def _fake_quantize_bwd(
    g: Array, x: Array, scale: Array, zero_point: Array = None, lo: int = -128, hi: int = 127, form: int = 0
) -> Array:
    """The straight-through gradient: g where the rounded value is within lo and hi, else 0."""
    return np.where(plain.fake_slopes(x, scale, zero_point, lo, hi, form)[0], g, 0)


@op(
    sample=Quantized("x", "scale", "z", lo=-8, hi=7, factor=0.5),
    exempt=("scale",),
    local={"x": 0, "scale": 0, "zero_point": 0},
    native=True,
    gradcheck=False,
)
def _fake_quantize_lsq(
    x: Array, scale: Array, zero_point: Array = None, lo: int = -128, hi: int = 127, form: int = 0, factor: float = 1.0
) -> Array:
    """As `_fake_quantize`, with gradients to the scale and the zero point."""
    return plain.fake(x, scale, zero_point, lo, hi, form)


@op(sample=Quantized("g", "x", "scale", "z", lo=-8, hi=7, factor=0.5), exempt=("scale",), native=True)
def _fake_quantize_lsq_bwd(
    g: Array,
    x: Array,
    scale: Array,
    zero_point: Array = None,
    lo: int = -128,
    hi: int = 127,
    form: int = 0,
    factor: float = 1.0,
) -> tuple[Array, Array, Array]:
    """g inside; the sums of g (r - x/s) inside and g (end - z) outside; the sum of -g s outside."""
    inside, to_s, to_z = plain.fake_slopes(x, scale, zero_point, lo, hi, form)
    wide = np.asarray(g, np.float64) * factor
    ds = plain.gather(wide * to_s, np.shape(scale))
    if zero_point is None or np.size(zero_point) == 0:
        return np.where(inside, g, 0), ds, np.zeros(np.shape(zero_point) if zero_point is not None else 0)
    return np.where(inside, g, 0), ds, plain.gather(wide * to_z, np.shape(zero_point))


def fake_quantize(
    x: Array,
    scale: Number,
    zero_point: Level = None,
    dtype: Any = "int8",
    *,
    grad: str = "ste",
    grad_scale: float | str = 1.0,
    rounding: str = "half_even",
    seed: int = 0,
    compat: str | None = None,
    out: Array = None,
) -> Array:
    r"""The numbers that x becomes as codes, :math:`(\mathrm{clamp}(\mathrm{round}(x/s) + z, lo, hi) - z)\,s`, with a gradient.

    With :math:`r = \mathrm{rne}(x/s)` and "inside" meaning :math:`lo \le r + z \le hi`:
    :math:`\partial\hat x/\partial x` is 1 inside and 0 outside (straight-through). With ``grad="lsq"`` also
    :math:`\partial\hat x/\partial s = r - x/s` inside and :math:`lo - z` or :math:`hi - z` outside, and
    :math:`\partial\hat x/\partial z = -s` outside.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
        A map, not a decision: NaN stays NaN, infinities clamp.
    scale : float or array
        Its shape is the granularity. A map does not look at it: one that falls to 0 or below as it is learned goes on by the
        formula, and `quantize` refuses it in the end; what learns it keeps it positive.
    zero_point : int, integer or float array like scale, optional
        A code, as of `quantize`. A learned one is a float tensor; it is rounded half to even.
    dtype : str, type or (int, int)
        "int2" to "int8", "uint1" to "uint8", a type of NumPy or torch of such a name, or the least and the largest code.
    grad : "ste" or "lsq"
        Whether the scale and the zero point have gradients too, summed in float64 in a fixed order. A scale that requires one
        is refused with "ste", which has none for it: detach it, if it is not to be learned.
    grad_scale : float or "lsq"
        Multiplies those gradients; "lsq" is :math:`1/\sqrt{N\,hi}` for N elements per scale.
    rounding : "half_even", "half_away", "toward_zero" or "stochastic"
        As in `quantize`; with "ste" alone. The gradient is that of the nearest code, whatever the rounding.
    seed : int
        Of stochastic rounding.
    compat : str, optional
        As in `quantize`; "torch" equals ``torch.fake_quantize_*`` on finite values. Where a peer's quotient is its own
        ("zeroq", "calibtip", and "torchao" and "ct" of 16-bit arrays), with "ste" alone.
    out : array or tensor, optional
        May be x itself.

    Returns
    -------
    array or tensor like x

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If shapes do not fit, a zero point is no code, codes do not fit a byte, a scale would be left without the gradient that
        it requires, or a rounding or a peer has no "lsq".

    Notes
    -----
    One read and one write of x; the gradient reads twice and writes once. Bengio, Léonard, Courville (2013) for x; Esser et
    al., "Learned Step Size Quantization" (2020), equation 3, for s; Bhalgat et al., "LSQ+" (2020), equation 4, for z.
    """
    name = "fake_quantize"
    detached(name, x)
    lo, hi = code_range(dtype, name)
    if compat not in _peers.FREE:
        within(name, zero_point, lo, hi)
    form, number = one_of(name, "compat", compat, FORMS), one_of(name, "rounding", rounding, ROUNDINGS)
    keywords = {} if out is None else {"out": out}
    if isinstance(grad_scale, str):
        one_of(name, "grad_scale", grad_scale, ("lsq",))
    own = _peers.made(compat, x, scale)
    if one_of(name, "grad", grad, ("ste", "lsq")) == "ste":
        learned(name, "scale", scale, "grad='lsq' gives one, ")
        learned(name, "zero_point", zero_point, "grad='lsq' gives one, ")
        if number == 3 and is_tensor(x):
            check_dense(name, "x", x)  # which word is an element's is told by its place among all of them
        number, seed = (number, signed_word(seeded(name, seed)))
        if own:
            return _as_peer(name, str(compat), x, scale, zero_point, (lo, hi, 0, number, seed), out)
        return _fake_quantize(x, scale, zero_point, lo, hi, form, number, seed, **keywords)
    if own:
        raise ValueError(f"{name}: grad='lsq' does not go with compat={compat!r} of {dtype_name(x.dtype)}")
    if number:
        raise ValueError(f"{name}: grad='lsq' rounds half to even, got rounding={rounding!r}")
    if grad_scale == "lsq":
        per_scale = math.prod(x.shape) // max(math.prod(getattr(scale, "shape", ())), 1)
        grad_scale = 1 / math.sqrt(max(per_scale * hi, 1))
    return _fake_quantize_lsq(x, scale, zero_point, lo, hi, form, float(grad_scale), **keywords)


def _as_peer(
    name: str, compat: str, x: Array, scale: Array, zero_point: Array, numbers: tuple[int, ...], out: Array
) -> Array:
    """The numbers of a quotient that is a peer's own; the gradient passes where that is rounded to a code."""
    _peers.check(name, x, scale, zero_point)
    fixed = x.detach() if is_tensor(x) else x
    v, one, after = _peers.quotient(compat, fixed, scale, zero_point)
    moved = _fake_quantize(v, one, after, *numbers)
    if after is not None:
        moved = moved + _peers.spread_like(after, moved)
    y = _peers.numbers(compat, moved, scale, zero_point, dtype_name(x.dtype))
    if is_tensor(x) and x.requires_grad:
        r = v.round() if after is None else v.round() + _peers.spread_like(after, v)
        y = y + (x - fixed).masked_fill(~((r >= numbers[0]) & (r <= numbers[1])), 0)  # no more than a gradient: it is 0
    if out is None:
        return y
    into(name, [out], [y])
    return out
