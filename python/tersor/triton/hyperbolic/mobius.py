"""The gyrogroup: Möbius addition and coaddition. The rule: denominators are sums of positive terms. The counterpart of
`mobius.rs`.
"""

import triton
import triton.language as tl

from tersor.triton._dots import add, dot, dot_sum, gap, get, mul, scale, square_sum, sub, wide_gap
from tersor.triton.hyperbolic._forms import launcher


@triton.jit
def _sums(v, W: tl.constexpr):
    x, y = v
    return dot(x, x, W), dot(y, y, W), square_sum(x, y, W)


@triton.jit
def _mobius_add(p, n):
    """z = (alpha sigma + cq x)/D, D = alpha beta + cq; 1 - c|z|^2 = alpha beta/D"""
    c = n[0]
    alpha, cq = gap(c, p[0]), c * get(p[2])
    ab = alpha * gap(c, p[1])
    d = 1 / (ab + cq)
    return (alpha * d, cq * d), (), ab * d


@triton.jit
def _mobius_add_out(v, w):
    x, y = v
    return ((x + y) * w[0] + x * w[1],)


@triton.jit
def _mobius_add_bwd_sums(v, W: tl.constexpr):
    g, x, y = v
    return dot(x, x, W), dot(y, y, W), square_sum(x, y, W), dot(g, x, W), dot_sum(g, x, y, W)


@triton.jit
def _mobius_add_bwd(p, n):
    """With u = <g, x>, k = <g, sigma> - beta u, theta = u + alpha k/D:

    dx = ((alpha + cq) g - 2ck z)/D, dy = (alpha/D)(g + 2c(theta y - (k/D) sigma)), dc = (theta alpha|y|^2 - q k/D)/D
    """
    c, q = n[0], get(p[2])
    alpha, beta, cq = gap(c, p[0]), gap(c, p[1]), c * q
    d = 1 / (alpha * beta + cq)
    ad, kd = alpha * d, get(sub(p[4], scale(beta, p[3]))) * d
    theta = get(p[3]) + alpha * kd
    ck = 2 * c * kd
    w = ((alpha + cq) * d, ck * ad, ck * (cq * d), ad, 2 * c * ad * theta, ck * ad)
    return w, ((theta * alpha * get(p[1]) - q * kd) * d,)


@triton.jit
def _mobius_add_bwd_out(v, w):
    g, x, y = v
    s = x + y
    return g * w[0] - (s * w[1] + x * w[2]), g * w[3] + (y * w[4] - s * w[5])


mobius_add = launcher("mobius_add", _sums, _mobius_add, _mobius_add_out, inside=True)
mobius_add_bwd = launcher("mobius_add_bwd", _mobius_add_bwd_sums, _mobius_add_bwd, _mobius_add_bwd_out)


@triton.jit
def _mobius_coadd_sums(v, W: tl.constexpr):
    """|x|^2, |y|^2, |s|^2, <s, x>, s = x + y"""
    x, y = v
    return dot(x, x, W), dot(y, y, W), square_sum(x, y, W), dot_sum(x, x, y, W)


@triton.jit
def _mobius_coadd(p, n):
    """z = (beta x + alpha y)/E, E = alpha + beta - alpha beta, as half the sum of alpha and beta times x + y, and half
    their difference, c(|s|^2 - 2<s, x>), times y - x; 1 - c|z|^2 = alpha beta (alpha beta + c|y - x|^2)/E^2
    """
    c = n[0]
    xx, yy, ss, sx = p
    alpha, beta = gap(c, xx), gap(c, yy)
    half = 0.5 * get(scale(c, sub(sub(ss, sx), sx)))
    q = get(sub(add(add(xx, xx), add(yy, yy)), ss))
    total, ab = alpha + beta, alpha * beta
    d = 1 / (total - ab)
    return (0.5 * total * d, half * d), (), ab * (ab + c * q) * d * d


@triton.jit
def _mobius_coadd_out(v, w):
    x, y = v
    return ((x + y) * w[0] + (y - x) * w[1],)


@triton.jit
def _mobius_coadd_bwd_sums(v, W: tl.constexpr):
    g, x, y = v
    return dot(x, x, W), dot(y, y, W), dot(g, x, W), dot(g, y, W), dot_sum(g, y, -x, W)


@triton.jit
def _mobius_coadd_bwd(p, n):
    """With A = beta(<g, y - x> + beta<g, x>)/E^2, B = alpha(alpha<g, y> - <g, y - x>)/E^2:

    dx = (beta/E) g - 2cA x, dy = (alpha/E) g - 2cB y; dc = -|x|^2A - |y|^2B
    """
    c = n[0]
    xx, yy, gx, gy, gd = p
    alpha, beta = wide_gap(c, xx), wide_gap(c, yy)
    a, b = get(add(gd, mul(beta, gx))), get(sub(mul(alpha, gy), gd))
    alpha, beta = get(alpha), get(beta)
    d = 1 / (alpha + beta - alpha * beta)
    a, b = a * beta * d * d, b * alpha * d * d
    return (beta * d, 2 * c * a, alpha * d, 2 * c * b), (-(get(xx) * a + get(yy) * b),)


@triton.jit
def _mobius_coadd_bwd_out(v, w):
    g, x, y = v
    return g * w[0] - x * w[1], g * w[2] - y * w[3]


mobius_coadd = launcher("mobius_coadd", _mobius_coadd_sums, _mobius_coadd, _mobius_coadd_out, inside=True)
mobius_coadd_bwd = launcher("mobius_coadd_bwd", _mobius_coadd_bwd_sums, _mobius_coadd_bwd, _mobius_coadd_bwd_out)
