r"""Maps of the Poincaré ball, the open ball :math:`\{x : c\|x\|^2 < 1\}` of sectional curvature :math:`-c`.

Every function takes its curvature last, as a number, a 0-d array or an array that broadcasts over rows (``[..., 1]``), and
differentiates with respect to it. ``c = 0`` is Euclidean space (distances and the exponential map of a point keep the
conformal factor 2 of the ball's metric), in value and in gradient. A Python number stays float64 inside; an array is
what its dtype says.

float32 and smaller data is computed in float64 and rounded once; float64 data is summed in twice its precision (Dot2),
so that results keep their digits at any radius. Notation: :math:`\lambda_x = 2/(1 - c\|x\|^2)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._op import op
from tersor._sample import Rows

__all__ = ["dist", "expmap0", "logmap0", "mobius_add"]

Array = Any


def _dot(x: Array, y: Array) -> Array:
    return np.sum(x * y, -1, keepdims=True)


def _tanh_root(z: Array) -> Array:
    r = np.sqrt(z)
    return np.where(r > 0, np.tanh(r) / np.where(r > 0, r, 1), 1)


def _artanh_root(z: Array) -> Array:
    r = np.sqrt(z)
    return np.where(r > 0, np.arctanh(r) / np.where(r > 0, r, 1), 1)


def _arsinh_root(u: Array) -> Array:
    r = np.sqrt(u)
    return np.where(r > 0, np.arcsinh(r) / np.where(r > 0, r, 1), 1)


def _slope(z: Array, closed: Array, *series: float) -> Array:
    """A derivative by its closed form, near 0 by the start of its series."""
    return np.where(z < 1e-3, sum(c * z**k for k, c in enumerate(series)), closed)


def _tanh_root_d(z: Array) -> Array:
    t = _tanh_root(z)
    z1 = np.where(z < 1e-3, 1, z)
    return _slope(z, (1 - t - z * t * t) / (2 * z1), -1 / 3, 4 / 15, -17 / 105, 248 / 2835, -1382 / 31185)


def _artanh_root_d(z: Array) -> Array:
    z1 = np.where(z < 1e-3, 1, z)
    return _slope(z, (1 / (1 - z) - _artanh_root(z)) / (2 * z1), 1 / 3, 2 / 5, 3 / 7, 4 / 9, 5 / 11)


def _arsinh_root_d(u: Array) -> Array:
    u1 = np.where(u < 1e-3, 1, u)
    return _slope(
        u,
        (1 / np.sqrt(1 + u) - _arsinh_root(u)) / (2 * u1),
        -1 / 6,
        3 / 20,
        -15 / 112,
        35 / 288,
        -315 / 2816,
    )


def _like(total: Array, c: Array) -> Array:
    """The gradient of a curvature: per row, or summed where one number served all rows."""
    return total.reshape(np.shape(c)) if np.size(c) == total.size else np.sum(total).reshape(np.shape(c))


@op(sample=Rows("tangent"), checks_inside=True)
def expmap0(x: Array, c: Any = 1.0, eps: float = 0.0) -> Array:
    r"""Exponential map at the origin, :math:`\exp_0^c(x) = \tanh(\sqrt c\,\|x\|)\, \frac{x}{\sqrt c\,\|x\|}`.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Tangent vectors at the origin.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x.
    eps : float
        How far inside the ball results stay, :math:`\|y\| \le (1 - eps)/\sqrt c`. 0 is as far out as the type has numbers
        (at most 2 machine epsilons inside); a negative number is the margin of geoopt and HypLL (4e-3 in float32, 1e-5
        in float64).

    Returns
    -------
    array or tensor [..., d]
        Points of the ball, strictly inside after rounding.

    Raises
    ------
    TypeError
        If x is not a float array, or c is an array of no float type.
    ValueError
        If c is negative or not finite, shapes do not broadcast, or x is 0-d.

    Notes
    -----
    One read and one write of x, about 4 operations per element. Ganea, Bécigneul, Hofmann, "Hyperbolic Neural Networks"
    (2018), lemma 2. Within 1 ulp of the row norm in float32, 3 in float64.
    """
    return _tanh_root(c * _dot(x, x)) * x


@op(outputs=("dx", "dc"), sample=Rows("g", "tangent"))
def expmap0_bwd(g: Array, x: Array, c: Any = 1.0) -> tuple[Array, Array]:
    r"""Gradient of `expmap0`: :math:`T g + 2cT'\langle g, x\rangle x` and :math:`T'\|x\|^2\langle g, x\rangle`.

    With :math:`T(z) = \tanh\sqrt z/\sqrt z` at :math:`z = c\|x\|^2`.
    """
    z, gx = c * _dot(x, x), _dot(g, x)
    slope = _tanh_root_d(z)
    return _tanh_root(z) * g + 2 * c * slope * gx * x, _like(slope * _dot(x, x) * gx, c)


@op(sample=Rows("ball"))
def logmap0(x: Array, c: Any = 1.0) -> Array:
    r"""Logarithmic map at the origin, :math:`\log_0^c(x) = \operatorname{artanh}(\sqrt c\,\|x\|)\, \frac{x}{\sqrt c\,\|x\|}`.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at the origin; rows outside the ball give NaN.

    Raises
    ------
    TypeError
        If x is not a float array, or c is an array of no float type.
    ValueError
        If c is negative or not finite, shapes do not broadcast, or x is 0-d.

    Notes
    -----
    One read and one write of x, about 4 operations per element. The inverse of `expmap0`. :math:`1 - c\|x\|^2` is computed
    in twice the precision of x, so no digit is lost at the edge. Ganea et al. (2018), lemma 2.
    """
    return _artanh_root(c * _dot(x, x)) * x


@op(outputs=("dx", "dc"), sample=Rows("g", "ball"))
def logmap0_bwd(g: Array, x: Array, c: Any = 1.0) -> tuple[Array, Array]:
    r"""Gradient of `logmap0`: :math:`A g + 2cA'\langle g, x\rangle x` and :math:`A'\|x\|^2\langle g, x\rangle`.

    With :math:`A(z) = \operatorname{artanh}\sqrt z/\sqrt z` at :math:`z = c\|x\|^2`.
    """
    z, gx = c * _dot(x, x), _dot(g, x)
    slope = _artanh_root_d(z)
    return _artanh_root(z) * g + 2 * c * slope * gx * x, _like(slope * _dot(x, x) * gx, c)


@op(sample=Rows("ball", "ball"), checks_inside=True)
def mobius_add(x: Array, y: Array, c: Any = 1.0, eps: float = 0.0) -> Array:
    r"""Möbius addition.

    .. math:: x \oplus_c y = \frac{(1 + 2c\langle x, y\rangle + c\|y\|^2)\,x + (1 - c\|x\|^2)\,y}
                                  {1 + 2c\langle x, y\rangle + c^2\|x\|^2\|y\|^2}

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x + y.
    eps : float
        How far inside the ball results stay; see `expmap0`.

    Returns
    -------
    array or tensor [..., d]
        Points of the ball, strictly inside after rounding.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    Computed as :math:`(\alpha\sigma + cq\,x)/(\alpha\beta + cq)` with :math:`\alpha = 1 - c\|x\|^2`,
    :math:`\beta = 1 - c\|y\|^2`, :math:`\sigma = x + y`, :math:`q = \|\sigma\|^2`: the same number, every term positive. About
    9 operations per element. Ungar, "A Gyrovector Space Approach to Hyperbolic Geometry" (2008); Ganea et al. (2018), eq. 4.
    """
    xx, yy, s = _dot(x, x), _dot(y, y), x + y
    cq = c * _dot(s, s)
    return ((1 - c * xx) * s + cq * x) / ((1 - c * xx) * (1 - c * yy) + cq)


@op(outputs=("dx", "dy", "dc"), sample=Rows("g", "ball", "ball"))
def mobius_add_bwd(g: Array, x: Array, y: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `mobius_add`.

    With :math:`u = \langle g, x\rangle`, :math:`k = \langle g, \sigma\rangle - \beta u`, :math:`\theta = u + \alpha k/D`,
    :math:`D = \alpha\beta + cq`: :math:`dx = ((\alpha + cq) g - 2ck\,z)/D`,
    :math:`dy = (\alpha/D)(g + 2c(\theta y - (k/D)\sigma))`, :math:`dc = (\theta\alpha\|y\|^2 - qk/D)/D` per row.
    """
    xx, yy, s = _dot(x, x), _dot(y, y), x + y
    q, a, b, u = _dot(s, s), 1 - c * xx, 1 - c * yy, _dot(g, x)
    d = a * b + c * q
    k = _dot(g, s) - b * u
    theta = u + a * k / d
    z = (a * s + c * q * x) / d
    dx = ((a + c * q) * g - 2 * c * k * z) / d
    dy = a / d * (g + 2 * c * (theta * y - k / d * s))
    return dx, dy, _like((theta * a * yy - q * k / d) / d, c)


@op(sample=Rows("ball", "ball"))
def dist(x: Array, y: Array, c: Any = 1.0) -> Array:
    r"""Geodesic distance, :math:`d_c(x, y) = \frac{2}{\sqrt c}\operatorname{artanh}(\sqrt c\,\|{-x} \oplus_c y\|)`.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`2\|x - y\|`, the ball's metric at 0.

    Returns
    -------
    array or tensor [...]
        In units of the curvature radius :math:`1/\sqrt c`; exactly 0 for equal rows, symmetric bit for bit.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    Computed as :math:`\frac{2}{\sqrt c}\operatorname{arsinh}\sqrt{cq/(\alpha\beta)}` with :math:`q = \|x - y\|^2`,
    :math:`\alpha = 1 - c\|x\|^2`, :math:`\beta = 1 - c\|y\|^2`, which saturates nowhere. About 6 operations per element.
    Ganea et al. (2018), eq. 6. The gradient at x = y is 0.
    """
    u = _dot(x - y, x - y) / ((1 - c * _dot(x, x)) * (1 - c * _dot(y, y)))
    return (2 * np.sqrt(u) * _arsinh_root(c * u))[..., 0]


@op(outputs=("dx", "dy", "dc"), sample=Rows("ball", "ball", "row"))
def dist_bwd(x: Array, y: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `dist`.

    :math:`dx = \frac{2g}{\sqrt{qD}}\left(x - y + \frac{cq}{\alpha}x\right)`, `dy` likewise, 0 where :math:`q = 0`;
    :math:`dc = g\sqrt m\,(\nu/\sqrt{1 + u} + 2S'(u)m)` per row, :math:`m = q/(\alpha\beta)`, :math:`u = cm`,
    :math:`\nu = \|x\|^2/\alpha + \|y\|^2/\beta`, :math:`S(u) = \operatorname{arsinh}\sqrt u/\sqrt u`.
    """
    xx, yy, q = _dot(x, x), _dot(y, y), _dot(x - y, x - y)
    a, b, g = 1 - c * xx, 1 - c * yy, g[..., None]
    f = np.where(q > 0, 2 * g / np.sqrt(np.where(q > 0, q, 1) * (a * b + c * q)), 0)
    m = q / (a * b)
    dc = g * np.sqrt(m) * ((xx / a + yy / b) / np.sqrt(1 + c * m) + 2 * _arsinh_root_d(c * m) * m)
    return f * (x - y + c * q / a * x), f * (y - x + c * q / b * y), _like(dc, c)
