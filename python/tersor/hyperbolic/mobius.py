"""The gyrogroup of the ball: Möbius addition and what is made of it."""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import Array, dot, gap, like
from tersor._sample import Rows
from tersor.hyperbolic._words import EPS


@op(sample=Rows("ball", "ball"), checks_inside=True, words=EPS)
def mobius_add(x: Array, y: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Möbius addition.

    .. math:: x \oplus_c y = \frac{(1 + 2c\langle x, y\rangle + c\|y\|^2)\,x + (1 - c\|x\|^2)\,y}
                                  {1 + 2c\langle x, y\rangle + c^2\|x\|^2\|y\|^2}

    Parameters
    ----------
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x + y.
    {eps}
    {dim}

    Returns
    -------
    {inside}

    Raises
    ------
    {refused}

    Notes
    -----
    Computed as :math:`(\alpha\sigma + cq\,x)/(\alpha\beta + cq)` with :math:`\alpha = 1 - c\|x\|^2`,
    :math:`\beta = 1 - c\|y\|^2`, :math:`\sigma = x + y`, :math:`q = \|\sigma\|^2`: the same number, every term positive. About
    9 operations per element. Ungar, "A Gyrovector Space Approach to Hyperbolic Geometry" (2008); Ganea et al. (2018), eq. 4.
    """
    xx, yy, s = dot(x, x), dot(y, y), x + y
    cq = c * dot(s, s)
    return (gap(c, xx) * s + cq * x) / (gap(c, xx) * gap(c, yy) + cq)


@op(sample=Rows("g", "ball", "ball"), tensors=True)
def mobius_add_bwd(g: Array, x: Array, y: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `mobius_add`.

    With :math:`u = \langle g, x\rangle`, :math:`k = \langle g, \sigma\rangle - \beta u`, :math:`\theta = u + \alpha k/D`,
    :math:`D = \alpha\beta + cq`: :math:`dx = ((\alpha + cq) g - 2ck\,z)/D`,
    :math:`dy = (\alpha/D)(g + 2c(\theta y - (k/D)\sigma))`, :math:`dc = (\theta\alpha\|y\|^2 - qk/D)/D` per row.
    """
    xx, yy, s = dot(x, x), dot(y, y), x + y
    q, a, b, u = dot(s, s), gap(c, xx), gap(c, yy), dot(g, x)
    d = a * b + c * q
    k = dot(g, s) - b * u
    theta = u + a * k / d
    z = (a * s + c * q * x) / d
    dx = ((a + c * q) * g - 2 * c * k * z) / d
    dy = a / d * (g + 2 * c * (theta * y - k / d * s))
    return dx, dy, like((theta * a * yy - q * k / d) / d, c)


def mobius_sub(x: Array, y: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Möbius subtraction, :math:`x \ominus_c y = x \oplus_c (-y)`.

    Parameters
    ----------
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x - y.
    {eps}
    {dim}

    Returns
    -------
    {inside}

    Raises
    ------
    {refused}

    Notes
    -----
    See `mobius_add`.
    """
    return mobius_add(x, -y, c, eps, dim=dim)


@op(sample=Rows("ball", "ball"), checks_inside=True, words=EPS)
def mobius_coadd(x: Array, y: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Möbius coaddition, the commutative sum.

    .. math:: x \boxplus_c y = x \oplus_c \operatorname{gyr}[x, \ominus y]y = \frac{\lambda_x x + \lambda_y y}{\lambda_x +
        \lambda_y - 2}

    Parameters
    ----------
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x + y.
    {eps}
    {dim}

    Returns
    -------
    {inside}

    Raises
    ------
    {refused}

    Notes
    -----
    Both forms are the same number; the second is computed, as :math:`(\beta x + \alpha y)/(\alpha + \beta - \alpha\beta)` with
    :math:`\alpha = 1 - c\|x\|^2`, :math:`\beta = 1 - c\|y\|^2` and the numerator by x + y and y - x. Commutes bit for bit.
    Ungar (2008).
    """
    a, b = gap(c, dot(x, x)), gap(c, dot(y, y))
    return (b * x + a * y) / (a + b - a * b)


@op(sample=Rows("g", "ball", "ball"), tensors=True)
def mobius_coadd_bwd(g: Array, x: Array, y: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `mobius_coadd`, :math:`E = \alpha + \beta - \alpha\beta`.

    With :math:`A = \beta(\langle g, y\rangle - c\|y\|^2\langle g, x\rangle)/E^2`,
    :math:`B = \alpha(\langle g, x\rangle - c\|x\|^2\langle g, y\rangle)/E^2`: :math:`dx = (\beta/E)g - 2cAx`,
    :math:`dy = (\alpha/E)g - 2cBy`, :math:`dc = -\|x\|^2A - \|y\|^2B` per row.
    """
    xx, yy, gx, gy = dot(x, x), dot(y, y), dot(g, x), dot(g, y)
    a, b = gap(c, xx), gap(c, yy)
    e = a + b - a * b
    by_a, by_b = b * (gy - c * yy * gx) / e**2, a * (gx - c * xx * gy) / e**2
    return b / e * g - 2 * c * by_a * x, a / e * g - 2 * c * by_b * y, like(-xx * by_a - yy * by_b, c)


def mobius_cosub(x: Array, y: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Möbius cosubtraction, :math:`x \boxminus_c y = x \boxplus_c (-y)`.

    Parameters
    ----------
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x - y.
    {eps}
    {dim}

    Returns
    -------
    {inside}

    Raises
    ------
    {refused}

    Notes
    -----
    See `mobius_coadd`.
    """
    return mobius_coadd(x, -y, c, eps, dim=dim)
