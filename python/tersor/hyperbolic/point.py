"""Distances and maps at a point of the ball."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._op import op
from tersor._reference import (
    Array,
    arsinh_root,
    arsinh_root_d,
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
from tersor.hyperbolic.mobius import mobius_add_bwd


@op(sample=Rows("ball", "ball"))
def dist(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Geodesic distance, :math:`d_c(x, y) = \frac{2}{\sqrt c}\operatorname{artanh}(\sqrt c\,\|{-x} \oplus_c y\|)`.

    Parameters
    ----------
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`2\|x - y\|`, the ball's metric at 0.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        In units of the curvature radius :math:`1/\sqrt c`; exactly 0 for equal rows, symmetric bit for bit. Infinite on the
        edge of the ball.

    Raises
    ------
    {refused}

    Notes
    -----
    Computed as :math:`\frac{2}{\sqrt c}\operatorname{arsinh}\sqrt{cq/(\alpha\beta)}` with :math:`q = \|x - y\|^2`,
    :math:`\alpha = 1 - c\|x\|^2`, :math:`\beta = 1 - c\|y\|^2`, which saturates nowhere. About 6 operations per element.
    Ganea et al. (2018), eq. 6. The gradient at x = y is 0.
    """
    u = dot(x - y, x - y) / (gap(c, dot(x, x)) * gap(c, dot(y, y)))
    edge = u == np.inf  # where the factor is 0
    return xp.where(edge, u, 2 * root(u) * arsinh_root(c * xp.where(edge, 0.0, u)))[..., 0]


@op(sample=Rows("ball", "ball", "row"), tensors=True)
def dist_bwd(x: Array, y: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `dist`.

    :math:`dx = \frac{2g}{\sqrt{qD}}\left(x - y + \frac{cq}{\alpha}x\right)`, `dy` likewise, 0 where :math:`q = 0`;
    :math:`dc = g\sqrt m\,(\nu/\sqrt{1 + u} + 2S'(u)m)` per row, :math:`m = q/(\alpha\beta)`, :math:`u = cm`,
    :math:`\nu = \|x\|^2/\alpha + \|y\|^2/\beta`, :math:`S(u) = \operatorname{arsinh}\sqrt u/\sqrt u`.
    """
    xx, yy, q = dot(x, x), dot(y, y), dot(x - y, x - y)
    a, b, g = gap(c, xx), gap(c, yy), g[..., None]
    f = xp.where(q > 0, 2 * g / xp.sqrt(xp.where(q > 0, q, 1) * (a * b + c * q)), 0)
    m = q / (a * b)
    dc = g * root(m) * ((xx / a + yy / b) / xp.sqrt(1 + c * m) + 2 * arsinh_root_d(c * m) * m)
    return f * (x - y + c * q / a * x), f * (y - x + c * q / b * y), like(dc, c)


@op(sample=Rows("ball", "tangent"), checks_inside=True, words=EPS)
def expmap(x: Array, v: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Exponential map at a point.

    .. math:: \exp_x^c(v) = x \oplus_c \Big(\tanh\big(\sqrt c\,\tfrac{\lambda_x\|v\|}{2}\big)\frac{v}{\sqrt c\,\|v\|}\Big)

    Parameters
    ----------
    {rows}
    v : array like x
        Tangent vectors at x.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives x + v.
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
    The end of the geodesic that starts at x with velocity v. One read of each array and one write. :math:`\|x \oplus u\|` is
    known from :math:`1 - c\|u\|^2 = \operatorname{sech}^2(\sqrt c\,\lambda_x\|v\|/2)`, which does not saturate. Ganea et al.
    (2018),
    lemma 2.
    """
    xx, vv, xv = dot(x, x), dot(v, v), dot(x, v)
    a = gap(c, xx)
    s2 = c * vv / a**2
    t = tanh_root(s2) / a
    cq = c * (xx + 2 * t * xv + t * t * vv)
    d = a * sech2_root(s2) + cq
    return (a * (x + t * v) + cq * x) / d


@op(sample=Rows("g", "ball", "tangent"), tensors=True)
def expmap_bwd(g: Array, x: Array, v: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `expmap`: that of :math:`x \oplus u`, :math:`u = \tau v`, and of :math:`\tau = T(s^2)/\alpha`,
    :math:`s = \sqrt c\|v\|/\alpha`.

    With :math:`M = \langle du, v\rangle`: :math:`dv = \tau\,du + 2cMT'/\alpha^3\,v`; x receives
    :math:`2cM\operatorname{sech}^2(s)/\alpha^2\,x` on top, c
    :math:`M(T'\|v\|^2/\alpha^3 + \operatorname{sech}^2(s)\|x\|^2/\alpha^2)`.
    """
    xx, vv = dot(x, x), dot(v, v)
    a = gap(c, xx)
    s2 = c * vv / a**2
    tau, h, t1 = tanh_root(s2) / a, sech2_root(s2), tanh_root_d(s2)
    reference = mobius_add_bwd.op.reference  # type: ignore[attr-defined]
    dx, du, dc = reference(g, x, tau * v, xp.broadcast_to(c, a.shape))
    m = dot(du, v)
    dx = dx + 2 * c * m * h / a**2 * x
    dc = dc + m * (t1 * vv / a**3 + h * xx / a**2)
    return dx, tau * du + 2 * c * m * t1 / a**3 * v, like(dc, c)


@op(sample=Rows("ball", "ball"))
def logmap(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Logarithmic map at a point.

    .. math:: \log_x^c(y) = \frac{2}{\sqrt c\,\lambda_x}\operatorname{artanh}(\sqrt c\,\|w\|)\frac{w}{\|w\|},\quad w = {-x}
        \oplus_c y

    Parameters
    ----------
    {pairs}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives y - x.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at x, of norm :math:`d_c(x, y)` in the metric there.

    Raises
    ------
    {refused}

    Notes
    -----
    The inverse of `expmap`. Computed as :math:`\frac{S(u)}{\beta\sqrt{1 + u}}(\alpha(y - x) - cq\,x)` with
    :math:`q = \|y - x\|^2`, :math:`u = cq/(\alpha\beta)`, :math:`S(u) = \operatorname{arsinh}\sqrt u/\sqrt u`,
    :math:`\alpha = 1 - c\|x\|^2`,
    :math:`\beta = 1 - c\|y\|^2`. One read of each array and one write. Ganea et al. (2018), lemma 2.
    """
    xx, yy, q = dot(x, x), dot(y, y), dot(y - x, y - x)
    a, b = gap(c, xx), gap(c, yy)
    u = c * q / (a * b)
    return arsinh_root(u) / (b * xp.sqrt(1 + u)) * (a * (y - x) - c * q * x)


@op(sample=Rows("g", "ball", "ball"), tensors=True)
def logmap_bwd(g: Array, x: Array, y: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `logmap`, with :math:`\delta = y - x`, :math:`E = S/\sqrt{1 + u}`, :math:`f = E/\beta`,
    :math:`G = \langle g, \alpha\delta - cqx\rangle`, :math:`K = GE'/\beta`, :math:`P = K/(\alpha\beta) - f\langle g, x\rangle`,
    :math:`A = f\langle g, \delta\rangle - Ku/\alpha`, :math:`B = -(Ku + fG)/\beta`, :math:`W = f\alpha g + 2cP\delta`:
    :math:`dx = -W - fcqg - 2cAx`, :math:`dy = W - 2cBy`, :math:`dc = qP - \|x\|^2A - \|y\|^2B`.
    """
    xx, yy, delta = dot(x, x), dot(y, y), y - x
    a, b, q, gx, gd = gap(c, xx), gap(c, yy), dot(delta, delta), dot(g, x), dot(g, delta)
    u = c * q / (a * b)
    s, root = arsinh_root(u), xp.sqrt(1 + u)
    f, height = s / root / b, a * gd - c * q * gx
    k = height * (arsinh_root_d(u) - s / (2 * (1 + u))) / root / b
    p = k / (a * b) - f * gx
    by_a, by_b = f * gd - k * u / a, -(k * u + f * height) / b
    w = f * a * g + 2 * c * p * delta
    dx, dy = -w - f * c * q * g - 2 * c * by_a * x, w - 2 * c * by_b * y
    return dx, dy, like(q * p - xx * by_a - yy * by_b, c)
