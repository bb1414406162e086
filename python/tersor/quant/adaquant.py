"""Weights, scales and zero points learned together. The one rule: the gradient of a layer's error is the Gram matrix's, what
rounding lets through is `fake_quantize`'s; of each row the best of all steps is kept.
"""

from __future__ import annotations

from typing import Any

from tersor._arrays import Level, Number, cast, dtype_name
from tersor._reference import quiet
from tersor.quant._adam import Adam
from tersor.quant._arguments import Array
from tersor.quant.adaround import prepared
from tersor.quant.affine import dequantize, quantize
from tersor.quant.fake import _fake_quantize_lsq_bwd
from tersor.quant.gptq import GPTQ


def adaquant(
    w: Array,
    h: Number,
    dtype: Any = "int4",
    *,
    scale: Number | None = None,
    zero_point: Level | None = None,
    group: int | None = None,
    symmetric: bool = True,
    method: str = "minmax",
    steps: int = 500,
    lr: float = 0.01,
) -> GPTQ:
    r"""Codes, scales and zero points with which a layer errs least in its results, all learned.

    .. math:: \min_{V, s, z} \mathrm{tr}(\Delta H \Delta^\top), \qquad
              \Delta = s\,\big(\mathrm{clamp}(\mathrm{rne}(V/s) + z, lo, hi) - z\big) - W

    by Adam from V = W, with the gradients of ``fake_quantize(grad="lsq")`` behind :math:`2 \Delta H`. A step is a share of s
    for V, of itself for s, of a code for z.

    Parameters
    ----------
    w, h, dtype, group, symmetric, method
        As of `adaround`.
    scale, zero_point : optional
        Where to begin, as of `quantize`: each row with its own [N, 1] or [N, K/G]. z is learned where there is one.
    steps : int
        Each is a product of w's shape by H. With none codes are the nearest.
    lr : float
        Adam's at first; it falls to 0 with the steps.

    Returns
    -------
    GPTQ
        With the scales, and int32 zero points, that were learned. ``error`` of no row is more than that of its nearest codes.

    Raises
    ------
    TypeError
        If w is not a float array, h not of float64 or float32, or steps no integer.
    ValueError
        If w or h holds non-finite values, shapes do not fit, or an argument is unknown or out of range.

    Notes
    -----
    :math:`2\,\mathrm{steps}\,N K^2` operations in the type of w (float32 for 16 bits) by the library's own product. Nothing is
    drawn. Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming" (2020),
    with the Gram matrix of all inputs in place of batches of them.
    """
    name = "adaquant"
    xp, w, h, of_h, ends, scale, zero = prepared(
        name, w, h, dtype, scale, zero_point, group, symmetric, method, steps, lr
    )
    n, k = w.shape
    compute = dtype_name(w.dtype)
    if getattr(scale, "ndim", 0) != 2 or len(scale) != n or not scale.shape[1] or k % scale.shape[1]:
        raise ValueError(f"{name}: scale must be of rows or of groups, ({n}, groups), got {_shape(scale)}")
    if zero is not None and _shape(zero) != _shape(scale):
        raise ValueError(f"{name}: zero_point must have shape {_shape(scale)} as scale, got {_shape(zero)}")
    s = cast(xp, scale, compute)
    if not bool(((s > 0) & xp.isfinite(s)).all()):
        raise ValueError(f"{name}: scales must be positive and finite")
    z = None if zero is None else cast(xp, zero, compute)
    groups, wide = s.shape[1], k // s.shape[1]
    best: Any = None
    unit: Any = None
    v = w
    adam = [Adam(xp, x) for x in (w.reshape(n, groups, wide), s, s)]
    for step in range(steps + 1):
        level = None if z is None else cast(xp, xp.round(z), "int32")
        codes = quantize(v, s, level, ends)
        delta = dequantize(codes, s, level, dtype=compute) - w
        slope = delta @ h
        error = (cast(xp, slope, "float64") * delta).sum(-1)
        if best is None:
            best = [codes, s, level, error]
            # rows that are exact have nothing to learn
            unit = xp.where(error > 0, 2 * k / xp.where(error > 0, error, xp.ones_like(error)), xp.zeros_like(error))
            with quiet(w):
                unit = cast(xp, unit, compute)[:, None]
        else:
            less = error < best[3]
            new = (codes, s, level, error)
            best = [
                x if x is None else xp.where(less if x.ndim == 1 else less[:, None], x, y)
                for x, y in zip(new, best, strict=True)
            ]
        to_v, to_s, to_z = _fake_quantize_lsq_bwd(slope * unit, v, s, level, *ends)
        rate = float(lr) * (1 - step / (steps + 1))
        each = s[:, :, None]
        # a step beyond the type is not taken: other rows have theirs
        with quiet(w):
            new = v - rate * (each * adam[0].step(to_v.reshape(n, groups, wide) * each)).reshape(n, k)
            v = xp.where(xp.isfinite(new), new, v)
            if z is not None:
                new = xp.clip(z - rate * adam[2].step(cast(xp, to_z, compute)), *ends)
                z = xp.where(xp.isfinite(new), new, z)
            new = s * xp.exp(-rate * adam[1].step(cast(xp, to_s, compute) * s))
            s = xp.where(xp.isfinite(new) & (new > 0), new, s)
    codes, s, level, error = best
    return GPTQ(codes, s, level, xp.clip(error, 0.0, None) * of_h)


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", ()))
