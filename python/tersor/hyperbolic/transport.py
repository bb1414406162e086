"""Gyration and the transport of vectors."""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import Array, dot, gap, like, xp
from tersor._sample import Rows


@op(sample=Rows("ball", "ball", "g"))
def gyration(u: Array, v: Array, w: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Gyration, the rotation by which Möbius addition fails to be associative.

    .. math:: \operatorname{gyr}[u, v]w = {-(u \oplus_c v)} \oplus_c (u \oplus_c (v \oplus_c w))

    Parameters
    ----------
    u, v : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast.
    w : array like u
        Any vectors, points among them.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives w.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Rotated vectors, of the length of w.

    Raises
    ------
    {refused}

    Notes
    -----
    Computed as :math:`w + \frac{2c}{D}\big((\beta\langle\sigma, w\rangle + cq\langle
    v, w\rangle)\,u - (\langle\sigma, w\rangle -
    \alpha\langle v, w\rangle)\,\sigma\big)`, :math:`\sigma = u + v`, :math:`q = \|\sigma\|^2`, :math:`D = \alpha\beta + cq`,
    :math:`\alpha = 1 - c\|u\|^2`, :math:`\beta = 1 - c\|v\|^2`. One read of each array and one write. Ungar (2008).
    """
    s = u + v
    a, b, q, sw, vw = gap(c, dot(u, u)), gap(c, dot(v, v)), dot(s, s), dot(s, w), dot(v, w)
    return w + 2 * c / (a * b + c * q) * ((b * sw + c * q * vw) * u - (sw - a * vw) * s)


@op(sample=Rows("g", "ball", "ball", "g"), tensors=True)
def gyration_bwd(g: Array, u: Array, v: Array, w: Array, c: Any = 1.0) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `gyration`; :math:`dw = \operatorname{gyr}[v, u]g`, a rotation's transpose being its inverse.

    With :math:`s = \langle\sigma, w\rangle`, :math:`t = \langle v, w\rangle`, :math:`U = \langle g, u\rangle`,
    :math:`\Sigma = \langle g, \sigma\rangle`, :math:`K = 2c/D`, :math:`a = \beta s + cqt`, :math:`e = s - \alpha t`,
    :math:`b = (aU - e\Sigma)/D`, :math:`P = Ut - b`, :math:`A = K(\Sigma t - b\beta)`, :math:`B = K(Us - b\alpha)`,
    :math:`V = K(\beta U - \Sigma)w - Keg + 2KcP\sigma`: :math:`du = V + Kag - 2cAu`,
    :math:`dv = V + K(cqU + \alpha\Sigma)w - 2cBv`, :math:`dc = 2b + KqP - \|u\|^2A - \|v\|^2B` per row.
    """
    s = u + v
    uu, vv, q = dot(u, u), dot(v, v), dot(s, s)
    a, b, sw, vw, gu, gs = gap(c, uu), gap(c, vv), dot(s, w), dot(v, w), dot(g, u), dot(g, s)
    d = a * b + c * q
    k = 2 * c / d
    first, second = b * sw + c * q * vw, sw - a * vw
    t = (first * gu - second * gs) / d
    p = gu * vw - t
    by_a, by_b = k * (gs * vw - t * b), k * (gu * sw - t * a)
    turn = k * (b * gu - gs) * w - k * second * g + 2 * k * c * p * s
    du = turn + k * first * g - 2 * c * by_a * u
    dv = turn + k * (c * q * gu + a * gs) * w - 2 * c * by_b * v
    dw = g + k * ((a * gs + c * q * gu) * v - (gs - b * gu) * s)
    return du, dv, dw, like(2 * t + k * q * p - uu * by_a - vv * by_b, c)


_rotation = gyration.op.reference  # type: ignore[attr-defined]
_rotation_bwd = gyration_bwd.op.reference  # type: ignore[attr-defined]


@op(sample=Rows("ball", "ball", "g"))
def parallel_transport(x: Array, y: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Parallel transport from x to y along the geodesic.

    .. math:: P_{x \to y}v = \frac{\lambda_x}{\lambda_y}\operatorname{gyr}[y, -x]v

    Parameters
    ----------
    {pairs}
    v : array like x
        Tangent vectors at x.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives v.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at y; inner products and norms are kept.

    Raises
    ------
    {refused}

    Notes
    -----
    `gyration` with :math:`\sigma = y - x`, so that near points lose nothing. One read of each array and one write. Ungar
    (2008); Ganea et al. (2018), theorem 4.
    """
    a, b = gap(c, dot(x, x)), gap(c, dot(y, y))
    return b / a * _rotation(y, -x, v, c)


@op(sample=Rows("g", "ball", "ball", "g"), tensors=True)
def parallel_transport_bwd(g: Array, x: Array, y: Array, v: Array, c: Any = 1.0) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `parallel_transport`: that of the gyration, and of its factor :math:`\lambda_x/\lambda_y`.

    The kernel has it in one walk, with :math:`\delta = y - x`.
    """
    xx, yy = dot(x, x), dot(y, y)
    a, b = gap(c, xx), gap(c, yy)
    r = b / a
    dy, dx, dv, dc = _rotation_bwd(g, y, -x, v, xp.broadcast_to(c, a.shape))
    total = dot(g, _rotation(y, -x, v, c))
    dx, dy = -r * dx + 2 * c * r / a * total * x, r * dy - 2 * c / a * total * y
    return dx, dy, r * dv, like(r * dc + total * (r * xx - yy) / a, c)
