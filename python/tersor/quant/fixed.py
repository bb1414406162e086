"""Fixed point, and scales that are powers of two of one another. The one rule: a power of two is multiplied with exactly, so
what is rounded is the number itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array, dtype_name, is_tensor, whole
from tersor._op import op
from tersor._sample import Quantized
from tersor._values import check_dense, seeded, signed_word
from tersor.quant import _plain as plain
from tersor.quant._arguments import detached, one_of, some_value


def _ends(wl: int, kind: Any) -> tuple[Any, Any]:
    """The least and the largest word; of float32 the last that is not beyond."""
    end = kind(2.0 ** (wl - 1))
    hi = kind(2.0 ** (wl - 1) - 1)
    return -end, hi if hi < end else np.nextafter(end, kind(0))


@op(
    sample=Quantized("x", wl=6, fl=1, random=True, seed=3),
    native=True,
    gradcheck=False,
    local={"x": 0},
)
def _fixed_point(x: Array, wl: int = 8, fl: int = 4, random: bool = False, seed: int = 0) -> Array:
    """y = clamp(round(x 2^fl), -2^(wl - 1), 2^(wl - 1) - 1) 2^-fl."""
    v = plain.real(x)
    lo, hi = _ends(wl, v.dtype.type)
    with np.errstate(all="ignore"):
        r = plain.rounded(np.clip(np.ldexp(v, fl), lo, hi), 3 if random else 0, seed)
        most = plain.MOST[dtype_name(np.asarray(x).dtype)]
        return np.clip(np.ldexp(r + 0, -fl), -most, most)


@op(sample=Quantized("g", "x", wl=6, fl=1), native=True, local={"g": 0, "x": 0})
def _fixed_point_bwd(g: Array, x: Array, wl: int = 8, fl: int = 4) -> Array:
    """The straight-through gradient: g where x, rounded half to even, is a word, else 0."""
    v = plain.real(x)
    lo, hi = _ends(wl, v.dtype.type)
    with np.errstate(all="ignore"):
        r = np.rint(np.ldexp(v, fl))
    return np.where((r >= lo) & (r <= hi), g, 0)


def fixed_point(x: Array, wl: int, fl: int, *, rounding: str = "stochastic", seed: int = 0, out: Array = None) -> Array:
    r"""The numbers that x becomes as words of fixed point, :math:`q\,2^{-fl}`,
    :math:`q = \mathrm{clamp}(\mathrm{round}(x 2^{fl}), -2^{wl - 1}, 2^{wl - 1} - 1)`.

    The gradient is straight-through: 1 where x, rounded half to even, is a word, else 0, whatever was drawn.

    Parameters
    ----------
    x : array or tensor of float64, float32, float16 or bfloat16
        A map, not a decision: NaN stays NaN, infinities clamp.
    wl : int
        The bits of a word, 2 to 32; float32 holds those beyond 24 bits to its own precision.
    fl : int
        How many of them are fractions, -126 to 126.
    rounding : "stochastic" or "half_even"
        Stochastic rounds away from zero with the probability of the fraction, so that the mean is x.
    seed : int
        Of stochastic rounding: element i uses word i of tag 32, as in `quantize`, whatever the threads.
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
        If wl, fl or seed are out of range, or rounding is unknown.

    Notes
    -----
    One read and one write of x; the gradient reads twice and writes once. Gupta et al., "Deep Learning with Limited Numerical
    Precision" (2015), section 3; Kummer et al., "Adaptive Precision Training" (2021).
    """
    name = "fixed_point"
    detached(name, x)
    random = one_of(name, "rounding", rounding, {"stochastic": True, "half_even": False})
    if random and is_tensor(x):
        check_dense(name, "x", x)  # which word is an element's is told by its place among all of them
    seed = signed_word(seeded(name, seed))
    keywords = {} if out is None else {"out": out}
    return _fixed_point(x, _word(name, wl), _fraction(name, fl), random, seed, **keywords)


def _word(name: str, wl: int) -> int:
    wl = whole(f"{name}: wl", wl)
    if not 2 <= wl <= 32:
        raise ValueError(f"{name}: wl must lie within 2 and 32, got {wl}")
    return wl


def _fraction(name: str, fl: int) -> int:
    fl = whole(f"{name}: fl", fl)
    if not -126 <= fl <= 126:
        raise ValueError(f"{name}: fl must lie within -126 and 126, got {fl}")
    return fl


def pow2_scale(s: Array) -> tuple[Any, Any]:
    r"""Scales as one scale and shifts: the least :math:`base\,2^{-k}` that is not below s, :math:`base = \max s`.

    Partial sums of groups with such scales are added by shifts.

    Parameters
    ----------
    s : float array or tensor
        Positive and finite: the largest magnitude or the scale of each group.

    Returns
    -------
    base : 0-d array or tensor like s
    k : int32 array or tensor of s's shape
        :math:`\lfloor \log_2 (base/s) \rfloor`, exact, by exponents and fractions.

    Raises
    ------
    TypeError
        If s is not a float array.
    ValueError
        If s is empty, or not positive and finite.

    Notes
    -----
    The shifts of ShiftQuant (Guo et al., 2024), whose rule for the groups themselves is not published in full.
    """
    name = "pow2_scale"
    s = detached(name, s)
    if not math.prod(s.shape):
        raise ValueError(f"{name}: s is empty, of shape {tuple(s.shape)}")
    if is_tensor(s):
        import torch

        wide, lib = s.double(), torch
    else:
        wide, lib = np.asarray(s, np.float64), np
    some_value(name, "s must be positive and finite", (wide > 0) & lib.isfinite(wide))
    base = s.max()
    (f, e), (top, most) = lib.frexp(wide), lib.frexp(wide.max())
    k = most - e - lib.where(top >= f, 0, 1)
    return (base, k.int()) if is_tensor(s) else (np.asarray(base), k.astype(np.int32))


#: the longest word, and the room that its whole part keeps
LONGEST, ROOM = 32, 8


def push_down(w: Array, *, resolution: int = 100, threshold: float = 1e-3, kl: str = "true") -> tuple[int, int]:
    r"""The shortest words of fixed point that keep the distribution of w: first the least fl, then with it the least wl.

    Both are found by bisection, for a divergence of the histograms of w and of its words (half to even) of at most the
    threshold.

    Parameters
    ----------
    w : float array or tensor
    resolution : int
        Bins of the histograms, over the range of w.
    threshold : float
        In nats.
    kl : "true" or "adapt_compat"
        With p the shares of w and q those of its words: the divergence :math:`\sum p \ln (p/q)`, infinite where q lacks a bin
        of w; or what AdaPT computes, the mean of :math:`e^q (q - p)`, accepted where it is at most 0 whatever the threshold.

    Returns
    -------
    wl, fl : int
        1 <= wl - fl, wl at most 32.

    Raises
    ------
    TypeError
        If w is not a float array.
    ValueError
        If w is empty or holds non-finite values, or an argument is out of range.

    Notes
    -----
    At most ten passes over w. Kummer et al., "Adaptive Precision Training" (2021), algorithm PushDown; its code tests the lower
    end of a bisection in place of the middle, which is not repeated.
    """
    name = "push_down"
    w = detached(name, w)
    true = one_of(name, "kl", kl, {"true": True, "adapt_compat": False})
    bins = whole(f"{name}: resolution", resolution)
    if bins < 1:
        raise ValueError(f"{name}: resolution must be at least 1, got {bins}")
    if not threshold >= 0:
        raise ValueError(f"{name}: threshold must not be negative, got {threshold}")
    if is_tensor(w):
        w = w.float().numpy(force=True) if dtype_name(w.dtype) != "float64" else w.numpy(force=True)
    w = plain.real(w)
    if not w.size:
        raise ValueError(f"{name}: w is empty, of shape {w.shape}")
    if not np.isfinite(w).all():
        raise ValueError(f"{name}: w holds non-finite values")
    ends = float(w.min()), float(w.max())
    if ends[0] == ends[1]:
        beside = max(0.5, abs(ends[0]) * 2.0**-20)  # half a unit is nothing beside a large number
        ends = ends[0] - beside, ends[1] + beside

    def shares(x: np.ndarray) -> np.ndarray:
        return np.histogram(np.clip(x, *ends), bins, ends)[0] / x.size

    p = shares(w)

    def keeps(wl: int, fl: int) -> bool:
        q = shares(_fixed_point(w, wl, fl))
        if not true:
            return float(np.mean(np.exp(q) * (q - p))) <= 0
        there = p > 0
        return bool((q[there] > 0).all()) and float(np.sum(p[there] * np.log(p[there] / q[there]))) <= threshold

    top = max(abs(float(w.min())), abs(float(w.max())))
    whole_bits = max(math.frexp(top)[1] + 1, 2)  # a sign, and what the largest magnitude takes
    most = LONGEST - min(whole_bits, LONGEST - 1)
    fl = _least(0, most, lambda fl: keeps(LONGEST, fl))
    wl = _least(max(fl + 1, 2), LONGEST, lambda wl: keeps(wl, fl))
    return wl, fl


def _least(low: int, high: int, good: Any) -> int:
    """The least of low to high that is good, where all after it are; high if none is."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle + 1, high)
    return low


STRATEGIES = {"min": min, "mean": lambda a, b: math.ceil((a + b) / 2), "max": max}


def push_up(wl: int, fl: int, *, diversity: float, strategy: str = "min") -> tuple[int, int]:
    r"""Longer words where gradients point everywhere: with :math:`L = \ln g - 1 > 0`, fractions grow by
    :math:`s_1 = \max(\lceil 1/L^2 \rceil, 1)`, :math:`s_2 = \max(\min(\lceil 32 L^2 \rceil, 32) - fl, 0)`, or between, and else
    by 1.

    Parameters
    ----------
    wl, fl : int
        The words now, as of `push_down`.
    diversity : float
        :math:`g = \sum \|\nabla_i\| / \|\sum \nabla_i\|` of the last gradients, positive.
    strategy : "min", "mean" or "max"
        Of s_1 and s_2; the mean is rounded up.

    Returns
    -------
    wl, fl : int
        fl at most 24, and wl at least fl + 8 and at most 32.

    Raises
    ------
    TypeError
        If wl or fl are not integers.
    ValueError
        If an argument is out of range or the strategy unknown.

    Notes
    -----
    Kummer et al., "Adaptive Precision Training" (2021), algorithm PushUp; the room of 8 bits keeps results from overflowing.
    """
    name = "push_up"
    wl, fl = _word(name, wl), whole(f"{name}: fl", fl)
    if not 0 <= fl <= LONGEST:
        raise ValueError(f"{name}: fl must lie within 0 and {LONGEST}, got {fl}")
    choose = one_of(name, "strategy", strategy, STRATEGIES)
    if not (diversity > 0 and math.isfinite(diversity)):
        raise ValueError(f"{name}: diversity must be positive and finite, got {diversity}")
    step, excess = 1, math.log(diversity) - 1
    if excess > 0:
        least = max(math.ceil(1 / excess**2), 1) if excess > 1e-8 else LONGEST
        step = choose(least, max(min(math.ceil(LONGEST * excess**2), LONGEST) - fl, 0))
    fl = min(fl + step, LONGEST)
    wl = min(max(wl, fl) + 1, LONGEST)
    fl = min(fl, LONGEST - ROOM)
    return max(wl, fl + ROOM), fl
