"""Maps between the ball and its tangent space at 0."""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import (
    Array,
    artanh_root,
    artanh_root_d,
    dot,
    gap,
    like,
    root,
    sech2_root,
    tanh_root,
    tanh_root_d,
    xp,
)
from tersor._sample import Rows
from tersor.hyperbolic._words import EPS


@op(sample=Rows("tangent"), checks_inside=True, words=EPS)
def expmap0(x: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Exponential map at the origin, :math:`\exp_0^c(x) = \tanh(\sqrt c\,\|x\|)\, \frac{x}{\sqrt c\,\|x\|}`.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Tangent vectors at the origin.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x.
    eps : float, "tight" or "compat"
        How far inside the ball results stay, :math:`\|y\| \le (1 - eps)/\sqrt c`. "tight" or 0 is as far out as the
        type has numbers (at most 2 machine epsilons inside); "compat" or a negative number is the margin of geoopt and
        HypLL (4e-3 in float32, 1e-5 in float64).
    {dim}

    Returns
    -------
    {inside}

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
    return tanh_root(c * dot(x, x)) * x


@op(sample=Rows("g", "tangent"), tensors=True)
def expmap0_bwd(g: Array, x: Array, c: Any = 1.0) -> tuple[Array, Array]:
    r"""Gradient of `expmap0`: :math:`T g + 2cT'\langle g, x\rangle x` and :math:`T'\|x\|^2\langle g, x\rangle`.

    With :math:`T(z) = \tanh\sqrt z/\sqrt z` at :math:`z = c\|x\|^2`.
    """
    z, gx = c * dot(x, x), dot(g, x)
    slope = tanh_root_d(z)
    return tanh_root(z) * g + 2 * c * slope * gx * x, like(slope * dot(x, x) * gx, c)


@op(sample=Rows("ball"))
def logmap0(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Logarithmic map at the origin, :math:`\log_0^c(x) = \operatorname{artanh}(\sqrt c\,\|x\|)\, \frac{x}{\sqrt c\,\|x\|}`.

    Parameters
    ----------
    {x}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x.
    {dim}

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
    return artanh_root(c * dot(x, x)) * x


@op(sample=Rows("g", "ball"), tensors=True)
def logmap0_bwd(g: Array, x: Array, c: Any = 1.0) -> tuple[Array, Array]:
    r"""Gradient of `logmap0`: :math:`A g + 2cA'\langle g, x\rangle x` and :math:`A'\|x\|^2\langle g, x\rangle`.

    With :math:`A(z) = \operatorname{artanh}\sqrt z/\sqrt z` at :math:`z = c\|x\|^2`.
    """
    z, gx = c * dot(x, x), dot(g, x)
    slope = artanh_root_d(z)
    return artanh_root(z) * g + 2 * c * slope * gx * x, like(slope * dot(x, x) * gx, c)


@op(sample=Rows("ball"))
def dist0(x: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Distance from the origin, :math:`d_c(0, x) = \frac{2}{\sqrt c}\operatorname{artanh}(\sqrt c\,\|x\|)`.

    Parameters
    ----------
    {x}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`2\|x\|`.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        In units of the curvature radius :math:`1/\sqrt c`; NaN outside the ball.

    Raises
    ------
    {refused}

    Notes
    -----
    One read of x. Nothing saturates: :math:`1 - c\|x\|^2` keeps all its digits. Within 1 ulp in float32, 4 in float64. The
    gradient at x = 0 is 0. Ganea et al. (2018), eq. 6.
    """
    xx = dot(x, x)
    return (2 * root(xx) * artanh_root(c * xx))[..., 0]


@op(sample=Rows("ball", "row"), tensors=True)
def dist0_bwd(x: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array]:
    r"""Gradient of `dist0`: :math:`g\lambda_x x/\|x\|`, 0 at 0, and :math:`2gA'(c\|x\|^2)\|x\|^3`."""
    xx, g = dot(x, x), g[..., None]
    r = root(xx)
    w = xp.where(r > 0, 2 * g / (gap(c, xx) * xp.where(r > 0, r, 1)), 0)
    return w * x, like(2 * g * artanh_root_d(c * xx) * r**3, c)


@op(sample=Rows("ball", "factor"), checks_inside=True, words=EPS)
def _mobius_scalar_mul(x: Array, r: Any = 1.0, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""The kernel of `mobius_scalar_mul`, the array first.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball.
    r : float, or array of 0 axes or [..., 1]
        The factor.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives r x.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.
    dim : int
        The axis of the rows.

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
    See `mobius_scalar_mul`.
    """
    xx = dot(x, x)
    z = r * artanh_root(c * xx)
    return z * tanh_root(c * xx * z * z) * x


@op(sample=Rows("g", "ball", "factor"), tensors=True)
def mobius_scalar_mul_bwd(g: Array, x: Array, r: Any = 1.0, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `mobius_scalar_mul`, :math:`r \otimes x = w x`, :math:`z = c\|x\|^2`,
    :math:`s = r\operatorname{artanh}\sqrt z`.

    :math:`\partial w/\partial r = A\operatorname{sech}^2 s`,
    :math:`\partial w/\partial z = r(A'\operatorname{sech}^2 s + r^2A^3T'(s^2))`;
    :math:`dx = wg + 2c\,w_z\langle g, x\rangle x`.
    """
    xx, gx = dot(x, x), dot(g, x)
    z, a, a1 = c * xx, artanh_root(c * xx), artanh_root_d(c * xx)
    s2 = z * (r * a) ** 2
    h = sech2_root(s2)
    wz = r * (a1 * h + r**2 * a**3 * tanh_root_d(s2)) * gx
    dr = xp.broadcast_to(a * h * gx, xx.shape)
    return r * a * tanh_root(s2) * g + 2 * c * wz * x, like(dr, r), like(wz * xx, c)


def mobius_scalar_mul(r: Any, x: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Möbius scalar multiplication, :math:`r \otimes_c x = \tanh(r\operatorname{artanh}(\sqrt c\,\|x\|))\,\frac{x}{\sqrt
    c\,\|x\|}`.

    Parameters
    ----------
    r : float, or array of 0 axes or [..., 1]
        The factor; its gradient has its shape.
    {x}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives r x.
    {eps}
    {dim}

    Returns
    -------
    {inside}

    Raises
    ------
    TypeError
        If x is not a float array, or c or r is an array of no float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    One read and one write of x. Within 1 ulp of the row norm in float32, 8 in float64. Ganea et al. (2018), eq. 5.
    """
    return _mobius_scalar_mul(x, r, c, eps) if dim == -1 else _mobius_scalar_mul(x, r, c, eps, dim=dim)


@op(sample=Rows("g", "ball"), checks_inside=True, words=EPS)
def mobius_pointwise_mul(w: Array, x: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Möbius pointwise multiplication, :math:`\exp_0^c(w \circ \log_0^c(x))`.

    Parameters
    ----------
    w : array or tensor [..., d], float64, float32, float16 or bfloat16
        Factors of the coordinates; leading axes broadcast.
    x : array like w
        Points of the ball.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`w \circ x`.
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
    One read of each array and one write. Ganea et al. (2018), lemma 6, for a diagonal matrix.
    """
    a = artanh_root(c * dot(x, x))
    return a * tanh_root(c * dot(w * x, w * x) * a**2) * w * x


@op(sample=Rows("g", "g", "ball"), tensors=True)
def mobius_pointwise_mul_bwd(g: Array, w: Array, x: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `mobius_pointwise_mul`, :math:`A\,T(s^2)\,u`, :math:`u = w \circ x`, :math:`s = \sqrt cA\|u\|`.

    With :math:`h = \langle g, u\rangle`, :math:`k = hA^3T'`, :math:`m = hA'\operatorname{sech}^2 s`, :math:`du = ATg + 2cku`:
    :math:`dw = du \circ x`, :math:`dx = du \circ w + 2cmx`, :math:`dc = k\|u\|^2 + m\|x\|^2` per row.
    """
    u, xx = w * x, dot(x, x)
    a, h, n = artanh_root(c * xx), dot(g, u), dot(u, u)
    s2 = c * n * a**2
    k, m = h * a**3 * tanh_root_d(s2), h * artanh_root_d(c * xx) * sech2_root(s2)
    du = a * tanh_root(s2) * g + 2 * c * k * u
    return du * x, du * w + 2 * c * m * x, like(k * n + m * xx, c)
