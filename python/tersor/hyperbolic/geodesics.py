"""Points of a geodesic."""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import (
    Array,
    arsinh_root,
    cosh_root,
    dot,
    gap,
    like,
    root,
    sech2_root,
    sinh_root,
    sinh_root_log_d,
    tanh_root,
    tanh_root_d,
    xp,
)
from tersor._sample import Rows
from tersor.hyperbolic._words import EPS
from tersor.hyperbolic.mobius import mobius_add_bwd


@op(sample=Rows("ball", "ball", "factor"), checks_inside=True, words=EPS)
def _geodesic(x: Array, y: Array, t: Any = 1.0, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""The kernel of `geodesic`, the arrays first.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast.
    t : float, or array of 0 axes or [..., 1]
        Where on the geodesic; its gradient has its shape.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives (1 - t) x + t y.
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
    See `geodesic`.
    """
    xx, yy, q = dot(x, x), dot(y, y), dot(y - x, y - x)
    a, b = gap(c, xx), gap(c, yy)
    w = 4 * c * q / (a * b) * arsinh_root(c * q / (a * b)) ** 2
    wa, wb = (s * sinh_root(s * s * w) / sinh_root(w) for s in (1 - t, t))
    return 2 * (wa / a * x + wb / b * y) / (1 + wa * (2 / a - 1) + wb * (2 / b - 1))


@op(sample=Rows("g", "ball", "ball", "factor"), tensors=True)
def geodesic_bwd(g: Array, x: Array, y: Array, t: Any = 1.0, c: Any = 1.0) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `geodesic`: through its two weights, of :math:`w = d^2`, and the two conformal factors.

    With :math:`l(z) = \frac{d}{dz}\log(\sinh\sqrt z/\sqrt z)` the weights :math:`a = \sinh(sd)/\sinh d` have the slopes
    :math:`\partial a/\partial w = a(s^2l(s^2w) - l(w))`.
    """
    xx, yy, q, gx, gy = dot(x, x), dot(y, y), dot(y - x, y - x), dot(g, x), dot(g, y)
    a, b = gap(c, xx), gap(c, yy)
    u = c * q / (a * b)
    w = 4 * u * arsinh_root(u) ** 2
    given, t = t, xp.broadcast_to(t, a.shape)
    s, lx, ly = 1 - t, 2 / a, 2 / b
    wa, wb = (s * sinh_root(s * s * w) / sinh_root(w) for s in (s, t))
    p = 1 + wa * (lx - 1) + wb * (ly - 1)
    theta = (wa * lx * gx + wb * ly * gy) / p
    by_wa, by_wb = (lx * gx - theta * (lx - 1)) / p, (ly * gy - theta * (ly - 1)) / p
    own = sinh_root_log_d(w)
    by_w = by_wa * wa * (s * s * sinh_root_log_d(s * s * w) - own) + by_wb * wb * (
        t * t * sinh_root_log_d(t * t * w) - own
    )
    by_u = by_w * 4 * arsinh_root(u) / xp.sqrt(1 + u)
    by_a = -(lx**2) / 2 * wa * (gx - theta) / p - by_u * u / a
    by_b = -(ly**2) / 2 * wb * (gy - theta) / p - by_u * u / b
    k = by_u / (a * b)
    way = 2 * c * k * (y - x)
    dt = (by_wb * cosh_root(t * t * w) - by_wa * cosh_root(s * s * w)) / sinh_root(w)
    dx, dy = wa * lx / p * g - way - 2 * c * by_a * x, wb * ly / p * g + way - 2 * c * by_b * y
    return dx, dy, like(dt, given), like(k * q - xx * by_a - yy * by_b, c)


def geodesic(t: Any, x: Array, y: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Point of the geodesic from x (t = 0) to y (t = 1), at constant speed; beyond them for other t.

    .. math:: \gamma(t) = x \oplus_c (t \otimes_c ({-x} \oplus_c y))

    Parameters
    ----------
    t : float, or array of 0 axes or [..., 1]
        Where on the geodesic; its gradient has its shape.
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives (1 - t) x + t y.
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
    Computed as :math:`(a\lambda_xx + b\lambda_yy)/(1 + a(\lambda_x - 1) + b(\lambda_y - 1))` with
    :math:`a = \sinh((1 - t)d)/\sinh d`,
    :math:`b = \sinh(td)/\sinh d`, :math:`d = \sqrt c\,d_c(x, y)`: the same point, of positive terms for t between 0 and 1.
    One read of
    each array and one write. Ganea et al. (2018), eq. 3.
    """
    return _geodesic(x, y, t, c, eps, dim=dim)


@op(sample=Rows("ball", "g", "factor"), checks_inside=True, words=EPS)
def _geodesic_unit(x: Array, v: Array, t: Any = 1.0, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""The kernel of `geodesic_unit`, the arrays first.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast.
    v : array like x
        Directions at x, of any length; where v = 0 the result is x.
    t : float, or array of 0 axes or [..., 1]
        The length walked; its gradient has its shape.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`x + tv/(2\|v\|)`.
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
    See `geodesic_unit`.
    """
    xx, n, xv = dot(x, x), root(dot(v, v)), dot(x, v)
    a, s2 = gap(c, xx), c * t * t / 4
    tau = xp.where(n > 0, t / 2 * tanh_root(s2) / xp.where(n > 0, n, 1), 0)
    cq = c * (xx + 2 * tau * xv + tau**2 * n**2)
    d = a * xp.where(n > 0, sech2_root(s2), 1) + cq
    return (a * (x + tau * v) + cq * x) / d


@op(sample=Rows("g", "ball", "g", "factor"), tensors=True)
def geodesic_unit_bwd(g: Array, x: Array, v: Array, t: Any = 1.0, c: Any = 1.0) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `geodesic_unit`: that of :math:`x \oplus u`, :math:`u = \tau v`, and of :math:`\tau = tT(s^2)/(2\|v\|)`,
    :math:`s = \sqrt ct/2`.

    With :math:`M = \langle du, v\rangle`: :math:`dv = \tau\,du - M\tau/\|v\|^2\,v`,
    :math:`dt = M\operatorname{sech}^2(s)/(2\|v\|)`; c receives
    :math:`M(t/2)^3T'/\|v\|` on top.
    """
    xx, n = dot(x, x), root(dot(v, v))
    s2, per = c * t * t / 4, xp.where(n > 0, 1 / xp.where(n > 0, n, 1), 0)
    tau = t / 2 * tanh_root(s2) * per
    reference = mobius_add_bwd.op.reference  # type: ignore[attr-defined]
    dx, du, dc = reference(g, x, tau * v, xp.broadcast_to(c, xx.shape))
    m = dot(du, v) * per
    dt = m * xp.where(n > 0, sech2_root(s2), 0) / 2
    dc = dc + m * (t / 2) ** 3 * tanh_root_d(s2)
    return dx, tau * du - m * tau * per * v, like(dt, t), like(dc, c)


def geodesic_unit(t: Any, x: Array, u: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Point at distance t from x on the geodesic that starts in direction u.

    .. math:: \gamma(t) = x \oplus_c \Big(\tanh\big(\sqrt c\,\tfrac t2\big)\frac{u}{\sqrt c\,\|u\|}\Big)

    Parameters
    ----------
    t : float, or array of 0 axes or [..., 1]
        The length walked; its gradient has its shape.
    {rows}
    u : array like x
        Directions at x, of any length; where u = 0 the result is x.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`x + tu/(2\|u\|)`.
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
    One read of each array and one write.
    """
    return _geodesic_unit(x, u, t, c, eps, dim=dim)
