"""Kernels of infinitely wide layers. The one rule: what goes from layer to layer is ρ and the gap 1 - ρ, since near 1 the one
and near 0 the other has lost the digits that deep layers need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor, torch_module, whole
from tersor._reference import quiet, rounded, wide
from tersor._values import check_values

Array = Any

_PI, _A = math.pi, math.asin(2 / 3)
#: θ - sin θ below 0.3: coefficients of θ², and beyond, of θ³
_SMALL = [(-1) ** n / math.factorial(2 * n + 3) for n in range(7)]
#: polynomials whose networks are the best classifiers of data of 2, 3, 5, 9 dimensions as depth grows
POLYNOMIALS = {
    "poly2": (0, 1 / 2, 0, 0, 0, 0, 0, 1 / 2),
    "poly3": (0, 1 / 2, 0, 1 / 2),
    "poly5": (0, 1 / 4, 1 / 2, 1 / 4),
    "poly9": (0, 1 / 16, 7 / 8, 1 / 16),
}
#: of bfloat16 too, which NumPy does not know
_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
#: coefficients of the longest polynomial that is written in 1 + ρ too
_LONGEST = 66
_KINDS = ("relu", "erf", "sine", "exp", *POLYNOMIALS)


def _horner(coefficients: Sequence[float], x: Array) -> Array:
    total: Array = x * 0
    for c in reversed(coefficients):
        total = total * x + c
    return total


#: ρ and 1 - ρ
Pair = tuple[Array, Array]


def _rest(xp: Any, t: Array) -> Array:
    """t - sin t for t in [0, π], with its digits at 0."""
    small = xp.where(t < 0.3, t, 0.0)
    return xp.where(t < 0.3, small * small * small * _horner(_SMALL, small * small), t - xp.sin(t))


def _relu(xp: Any, pair: Pair) -> tuple[Pair, Array]:
    r, s = pair
    v = 1 + r
    inside = (s > 0) & (v > 0)  # at the ends the angle has no derivative, and what is made of it has
    # the angle to the nearer end, of the gap to that end: the other gap has lost its digits
    left = inside & (s > 1)
    u = xp.where(inside, xp.where(left, v, s), 1.0)
    t = 2 * xp.arcsin(xp.sqrt(u / 2))
    rest = _rest(xp, t)
    value = (u * t - rest) / _PI
    # what is neither inside nor beyond is no number, and stays
    gap = xp.where(left, 1 - value, (u * (_PI - t) + rest) / _PI)
    gap = xp.where(inside, gap, xp.where(s >= 2, 1.0, s))
    slope = xp.where(left, t, _PI - t) / _PI
    # of all correlations it makes such as are far from -1
    value = xp.where(left, value, 1 - gap)
    return (value, gap), xp.where(inside, slope, xp.where(s <= 0, 1.0, xp.where(s >= 2, 0.0, s)))


def _erf(xp: Any, pair: Pair) -> tuple[Pair, Array]:
    a, b, s = 2 / 3, 2 / 3 * pair[0], pair[1]
    root = xp.sqrt(1 - b * b)
    near = s < 1
    c = xp.where(near, b, 0.0)
    # arcsin a - arcsin b where they are near each other; a - b is a·s, which the difference has no digits of
    sine = a * xp.where(near, s, 0.0) * (a + c) / (a * xp.sqrt(1 - c * c) + c * math.sqrt(1 - a * a))
    value = xp.arcsin(b) / _A
    return (value, xp.where(near, xp.arcsin(xp.where(near, sine, 0.0)) / _A, 1 - value)), 2 / 3 / root / _A


def _sine(xp: Any, pair: Pair) -> tuple[Pair, Array]:
    r, s = pair
    gap = 2 * xp.cosh(1 - s / 2) * xp.sinh(s / 2) / math.sinh(1)
    return (xp.sinh(r) / math.sinh(1), gap), xp.cosh(r) / math.sinh(1)


def _exp(xp: Any, pair: Pair) -> tuple[Pair, Array]:
    value = xp.exp(-pair[1])
    return (value, -xp.expm1(-pair[1])), value


def _turned(coefficients: Sequence[float]) -> list[float] | None:
    """The coefficients in 1 + ρ, each rounded once: near -1 terms cancel, and of the best polynomials the first ones all do."""
    if not 2 <= len(coefficients) <= _LONGEST:
        return None
    exact = [Fraction(c) for c in coefficients]
    return [
        float(sum(c * math.comb(i, j) * (-1) ** (i - j) for i, c in enumerate(exact) if i >= j))
        for j in range(len(exact))
    ]


def _slopes(coefficients: Sequence[float]) -> list[float]:
    return [i * c for i, c in enumerate(coefficients)][1:]


def _polynomial(xp: Any, coefficients: Sequence[float], turned: list[float] | None, pair: Pair) -> tuple[Pair, Array]:
    r, s = pair
    # 1 - ρⁱ = s·(1 + ρ + … + ρⁱ⁻¹)
    tails = [math.fsum(coefficients[j + 1 :]) for j in range(len(coefficients) - 1)]
    value, slope = _horner(coefficients, r), _horner(_slopes(coefficients), r)
    if turned is not None:
        # (1 + v)ⁱ stays below e: what is added does not outgrow what it makes
        near = (len(coefficients) - 1) * (1 + r) < 1
        v = xp.where(near, 1 + r, 0.0)
        value = xp.where(near, _horner(turned, v), value)
        slope = xp.where(near, _horner(_slopes(turned), v), slope)
    return (value, s * _horner(tails, r)), slope


_NAMED = {name: _turned(c) for name, c in POLYNOMIALS.items()}


def _formula(who: str, kind: Any) -> tuple[Any, bool]:
    """The function from a correlation and its gap to those after one layer, each by its own formula, and the slope there; and
    whether it is odd in the correlation."""
    name = kind if isinstance(kind, str) else None
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"{who}: kind must be one of {', '.join(_KINDS)} or coefficients, got {kind!r}")
        if kind not in POLYNOMIALS:
            return {"relu": _relu, "erf": _erf, "sine": _sine, "exp": _exp}[kind], kind in ("erf", "sine")
        kind = POLYNOMIALS[kind]
    try:
        coefficients = [float(c) for c in kind]
    except (TypeError, ValueError):
        raise TypeError(
            f"{who}: kind must be a name or a sequence of coefficients, got {type(kind).__name__}"
        ) from None
    if not all(c >= 0 for c in coefficients) or abs(math.fsum(coefficients) - 1) > 1e-12:
        raise ValueError(f"{who}: coefficients must not be negative and add up to 1, got {coefficients}")
    turned = _NAMED[name] if name else _turned(coefficients)
    return lambda xp, pair: _polynomial(xp, coefficients, turned, pair), not any(coefficients[::2])


def _layer(who: str, kind: Any) -> tuple[Any, bool]:
    """The same, with the correlation as it follows from the gap where that is the smaller of the two: it has more digits."""
    formula, odd = _formula(who, kind)

    def step(xp: Any, pair: Pair) -> tuple[Pair, Array]:
        (value, gap), slope = formula(xp, pair)
        return (xp.where(gap < 0.5, 1 - gap, value), gap), slope

    return step, odd


def _folded(xp: Any, odd: bool, pair: Pair) -> tuple[Array | None, Pair]:
    """Where an odd function turns the sign, and |ρ| with its gap: near -1 a gap has lost the digits of 1 + ρ."""
    r, s = pair
    below = r < 0 if odd else None
    return below, pair if below is None else (xp.where(below, -r, r), xp.where(below, 1 + r, s))


def _unfolded(xp: Any, below: Array | None, value: Array) -> Array:
    return value if below is None else xp.where(below, -value, value)


def _pair(who: str, rho: Array, gap: Array | None) -> tuple[Any, Pair]:
    """The library, and ρ and 1 - ρ in float64."""
    check_values(who, "rho", rho)
    xp: Any = torch_module() if is_tensor(rho) else np
    if gap is not None:
        check_values(who, "gap", gap)
        if is_tensor(gap) != is_tensor(rho) or tuple(gap.shape) != tuple(rho.shape):
            raise ValueError(f"{who}: gap must be like rho, of shape {tuple(rho.shape)}, got {tuple(gap.shape)}")
    s = 1 - wide(rho) if gap is None else wide(gap)
    slack = 8 * _EPS[dtype_name(rho.dtype)]
    s = xp.where((s < 0) & (s >= -slack), 0.0, xp.where((s > 2) & (s <= 2 + slack), 2.0, s))
    # a small ρ has digits that its gap has not
    return xp, (1 - s if gap is not None else xp.where(abs(wide(rho)) < 1, wide(rho), 1 - s), s)


def _checked(who: str, xp: Any, s: Array) -> None:
    if xp is np and bool(np.any((s < 0) | (s > 2))):
        raise ValueError(f"{who}: correlations must be in [-1, 1], got 1 - {float(s[(s < 0) | (s > 2)].ravel()[0])}")


def dual(rho: Array, kind: Any = "relu", *, gap: Array | None = None) -> tuple[Array, Array]:
    r"""The dual of an activation φ, :math:`\check\varphi(\rho) = \mathbb E\,\varphi(u)\varphi(v)` for normal u, v of variance 1
    and correlation ρ, with φ scaled so that :math:`\check\varphi(1) = 1`; and its slope.

    =========  =================================================================
    kind       :math:`\check\varphi(\rho)`
    =========  =================================================================
    relu       :math:`(\sqrt{1-\rho^2} + \rho(\pi - \theta))/\pi`, θ = arccos ρ
    erf        arcsin(2ρ/3)/arcsin(2/3)
    sine       sinh ρ/sinh 1
    exp        :math:`e^{\rho - 1}`
    poly d     the polynomial that is best as depth grows, d = 2, 3, 5, 9
    =========  =================================================================

    Parameters
    ----------
    rho : array or tensor, any float type
        Correlations. NumPy's outside [-1, 1] by more than 8 ε are refused; torch's give what the formula gives there,
        NaN where it gives nothing, and of relu ρ above 1 and 0 below -1.
    kind : str, or the coefficients of a polynomial, not negative, of sum 1
    gap : array or tensor like rho, or None
        1 - ρ, with the digits that ρ has not: of unit vectors :math:`\|x-y\|^2/2`. Read in place of rho.

    Returns
    -------
    value, slope : arrays or tensors like rho

    Raises
    ------
    TypeError
        If rho is no float array or kind neither a name nor numbers.
    ValueError
        If a correlation or kind is unknown, or gap is not like rho.

    Notes
    -----
    Computed in float64. Daniely, Frostig, Singer, "Toward deeper understanding of neural networks" (2016); Radhakrishnan,
    Belkin, Uhler, "Wide and deep neural networks achieve consistency for classification" (2023).
    """
    step, odd = _layer("dual", kind)
    xp, pair = _pair("dual", rho, gap)
    _checked("dual", xp, pair[1])
    with quiet(rho):
        below, pair = _folded(xp, odd, pair)
        (value, _), slope = step(xp, pair)
    return rounded(_unfolded(xp, below, value), rho), rounded(slope, rho)


def ntk(rho: Array, depth: int, kind: Any = "relu", *, gap: Array | None = None, which: str = "ntk") -> Array:
    r"""The kernel of an infinitely wide network of some depth, by its recursion.

    .. math:: \Sigma_0 = \Theta_0 = \rho, \qquad \Sigma_{l+1} = \check\varphi(\Sigma_l), \qquad
       \Theta_{l+1} = \Sigma_{l+1} + \Theta_l\,\check\varphi'(\Sigma_l)

    Parameters
    ----------
    rho, kind, gap : see `dual`
    depth : int
        Hidden layers; 0 gives rho.
    which : "ntk" or "nngp"
        :math:`\Theta`, of training by gradients, or :math:`\Sigma`, of random weights.

    Returns
    -------
    array or tensor like rho

    Raises
    ------
    TypeError, ValueError
        As `dual`; if depth is negative or over a million, or which is unknown.

    Notes
    -----
    Some ten operations for each number and layer, in float64, on ρ and on gaps: relative errors of neither grow where
    they are small.
    Jacot, Gabriel, Hongler, "Neural tangent kernel" (2018).
    """
    (step, odd), depth = _layer("ntk", kind), whole("ntk: depth", depth)
    if not 0 <= depth <= 10**6:
        raise ValueError(f"ntk: depth must be in 0..1000000, got {depth}")
    if which not in ("ntk", "nngp"):
        raise ValueError(f"ntk: which must be 'ntk' or 'nngp', got {which!r}")
    xp, pair = _pair("ntk", rho, gap)
    _checked("ntk", xp, pair[1])
    with quiet(rho):
        below, pair = _folded(xp, odd, pair)
        theta = pair[0]
        for _ in range(depth):
            pair, slope = step(xp, pair)
            theta = pair[0] + theta * slope
    return rounded(_unfolded(xp, below, theta if which == "ntk" else pair[0]), rho)
