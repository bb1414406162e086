r"""One operator for all norms: moments over an index set, then an affine map. The one rule: statistics are taken in float64
about a number of the segment itself, so that no ratio of mean to deviation costs a digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, Array, Labels, Number, Weight, as_type, dtype_name
from tersor._reference import far, quiet, scaled
from tersor._segments import Moments, constants, rounded_to, segments
from tersor.norm._arguments import alike, checked_eps
from tersor.norm._ops import MODES, _standardize


def standardize(
    x: Array,
    weight: Weight = None,
    bias: Weight = None,
    *,
    dim: int | Sequence[int] | None,
    mode: str = "var",
    eps: float = 1e-5,
    labels: Labels = None,
    num_segments: int | None = None,
    offsets: Labels = None,
    sample_weight: Number = None,
    correction: float = 0,
    mean: Number = None,
    var: Number = None,
    alpha: float | None = None,
    std: Number = None,
    segment_affine: bool = False,
    return_stats: bool = False,
) -> Any:
    r"""Standardisation over segments, :math:`y = \gamma \odot (x - \mu_s) r_s + \beta`.

    With weights w (1 if there are none), :math:`W = \sum_s w` and c the correction, the modes are "var":
    :math:`\mu = \sum_s wx/W`, :math:`v = \sum_s w(x-\mu)^2/(W - c)`, :math:`r = (v + \varepsilon)^{-1/2}`; "rms":
    :math:`\mu = 0`, :math:`v = \sum_s wx^2/W`; "abs": :math:`r = 1/(\sum_s w|x-\mu|/W + \varepsilon)`; "crms": :math:`\mu = 0`,
    :math:`v = (\sum x^2 + (\sum x)^2)/(d + 1)`.

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16
    weight, bias : of x's type, or float32 beside 16-bit x, optional
        γ and β; of a shape that broadcasts to x, or with ``segment_affine`` of one number for each segment.
    dim : int, several or None
        The axes that a segment extends over, all if None; the others are kept apart.
    mode : "var", "rms", "abs" or "crms"
    eps : float
    labels : int64, int32, uint8 or bool, optional
        To which segment an element belongs, along the one dim or broadcasting to x; -1 is in none: y is 0 there.
    num_segments : int, optional
        The largest label and one, if it is not said; under ``torch.compile`` it must be.
    offsets : int64 or int32 ``[S + 1]``, optional
        Runs of the one dim instead of labels.
    sample_weight : floats that broadcast to x, or along the one dim, optional
        How much an element counts in the statistics; 0 takes it out of them, and it is normalised like the others.
    correction : float
        Taken from W in the variance; NaN where nothing is left.
    mean, var : floats of the shape of the statistics, optional
        Constants in place of the statistics; with ``alpha`` mixed with them, :math:`\mu = \alpha\mu_0 + (1-\alpha)\mu_s`.
    alpha : float in [0, 1], optional
        The share of ``mean`` and ``var``; 1 if it is not said. "var" alone.
    std : floats that broadcast to x, optional
        Constants to divide by; the mean is the segment's.
    segment_affine : bool
    return_stats : bool
        Whether the statistics are given too.

    Returns
    -------
    array or tensor of x's shape and type, or with it Moments(count, mean, var) of float64
        Population variances. Differentiable, twice too, with respect to x, weight, bias and sample_weight, statistics too.

    Raises
    ------
    TypeError
        If types do not fit.
    ValueError
        If shapes do not go together, a label is outside, a weight is negative or not finite, ``eps`` is negative, or the mode
        is unknown.

    Notes
    -----
    A constant segment gives exactly β, whatever its size; without ``eps`` it is 0/0, NaN, as torch's. Segments of float64
    whose squares leave its range are met once more over a power of two: y and gradients are right at any size, and a variance
    that is returned is infinite where it is no number (on a GPU, squares must be numbers). Two reads and one write of x, one
    read where a segment fits into a cache. Bits do not depend on the number of threads. O(n).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import norm
    >>> norm.standardize(np.array([[1.0, 3.0], [5.0, 5.0]]), dim=-1, eps=0.0 + 1e-12).round(6)
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    eps = checked_eps("standardize", eps)
    alike("standardize", x, weight, bias)
    if mode not in ("var", "rms", "abs", "crms"):
        raise ValueError(f"standardize: mode must be 'var', 'rms', 'abs' or 'crms', got {mode!r}")
    given = mean is not None or var is not None
    if given and (mean is None or var is None):
        raise ValueError("standardize: mean and var are given together, got one of them")
    if alpha is not None and not given:
        raise ValueError(f"standardize: alpha={alpha} mixes with mean and var, which are not given")
    share = (1.0 if alpha is None else float(alpha)) if given else 0.0
    if not 0 <= share <= 1:
        raise ValueError(f"standardize: alpha must lie in [0, 1], got {alpha}")
    if (given or std is not None) and (mode != "var" or (given and std is not None)):
        raise ValueError(f"standardize: statistics are given in mode 'var' alone and once, got mode={mode!r}")
    if mode == "crms" and sample_weight is not None:
        raise ValueError("standardize: mode 'crms' completes a row, which has no sample_weight")
    if correction and (mode != "var" or std is not None):
        raise ValueError(f"standardize: a correction is of the variance, got correction={correction} in mode {mode!r}")
    seg = segments("standardize", x, dim, labels, num_segments, offsets, sample_weight, "sample_weight")
    if mode == "abs" or std is not None:
        y, stats = _scaled(x, seg, eps, std)
        y = _mapped(y, weight, bias, seg, segment_affine)
    else:
        y, *stats = _standardize(
            x,
            weight,
            bias,
            seg.labels,
            seg.weight,
            mean,
            var,
            seg.kept,
            seg.groups,
            MODES[mode],
            float(eps),
            float(correction),
            share,
            segment_affine,
        )
    return (y, Moments(*(s.reshape(seg.shape) for s in stats))) if return_stats else y


def _scaled(x: Array, seg: Any, eps: float, std: Any) -> tuple[Array, Any]:
    """Centred, and divided by what is given or by the mean magnitude. 16 bits by way of float32: what is centred leaves
    float16, as one over a small magnitude does."""
    given, x = x, as_type(x, "float32") if dtype_name(x.dtype) in FLOATS[2:] else x

    def centred(x: Array, r: Array = None) -> Any:
        own = (seg.labels, seg.weight, None, None, seg.kept, seg.groups)
        return _standardize(x, r, None, *own, MODES["centre"], 0.0, 0.0, 0.0, True)

    y, *stats = centred(x)
    with quiet(x):
        if std is not None:
            y = y / (std if isinstance(std, (int, float)) else rounded_to(std, y))
            if tuple(y.shape) != tuple(x.shape):
                raise ValueError(f"standardize: std must broadcast to x {tuple(x.shape)}, got shape {tuple(std.shape)}")
            return rounded_to(y, given), stats
        size = centred(abs(y))[2]
        # 1/(a + ε) as the weight of a segment: (x − μ) again, rounded once
        over = (size + eps).reshape(-1)
        if dtype_name(x.dtype) == "float64":  # a derivative of 1/a has the square of a
            e = far(over if isinstance(x, np.ndarray) else over.detach())
            over = scaled(scaled(0 * over + 1, e) / over, -e)
        else:
            over = 1 / over
        return rounded_to(centred(x, rounded_to(over, x))[0], given), stats


def _mapped(y: Array, weight: Array, bias: Array, seg: Any, segment_affine: bool) -> Array:
    """γy + β by the operator itself, of statistics that are 0 and 1."""
    if weight is None and bias is None:
        return y
    fixed = constants(y, math.prod(seg.shape), 0.0, 1.0)
    rest = (seg.kept, seg.groups, MODES["var"], 0.0, 0.0, 1.0, segment_affine)
    return _standardize(y, weight, bias, seg.labels, seg.weight, *fixed, *rest)[0]
