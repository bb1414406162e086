"""Distances and maps at a point of the ball. The rule: two points meet as y - x and |y - x|^2, never as <x, y>. The
counterpart of `point.rs`.
"""

import triton
import triton.language as tl

from tersor.triton._dots import dot, dot_sum, gap, get, mul, scale, square_sum, sub, wide_gap
from tersor.triton.hyperbolic._forms import chord, launcher
from tersor.triton.hyperbolic._roots import arsinh_root, arsinh_root_d, sech2, tanh_over, tanh_root_d
from tersor.triton.hyperbolic._step import (
    step,
    step_bwd,
    step_bwd_out,
    step_bwd_sums,
    step_out,
    step_sums,
    step_weights,
)


@triton.jit
def _dist(p, n):
    """d = 2 sqrt(m) S(cm), m = q/(alpha beta)"""
    c = n[0]
    m = get(p[2]) / (gap(c, p[0]) * gap(c, p[1]))
    d = 2 * tl.sqrt(m) * arsinh_root(c * m)
    return (), (tl.where(m == float("inf"), m, d),)  # on the edge, where the factor is 0


@triton.jit
def _dist_bwd(p, n):
    """dx = 2g/sqrt(qD) ((x - y) + (cq/alpha) x), dy likewise, 0 at x = y;

    dc = g sqrt(m) (nu/sqrt(1 + u) + 2S'(u) m), u = cm, nu = |x|^2/alpha + |y|^2/beta
    """
    g, c = n
    alpha, beta, q = gap(c, p[0]), gap(c, p[1]), get(p[2])
    cq, ab = c * q, alpha * beta
    f = tl.where(q == 0, 0, 2 * g / (tl.sqrt(tl.where(q == 0, 1, q)) * tl.sqrt(ab + cq)))
    m = q / ab
    nu = get(p[0]) / alpha + get(p[1]) / beta
    slope = 2 * arsinh_root_d(c * m, arsinh_root(c * m))
    return (f, f * (cq / alpha), f * (cq / beta)), (g * tl.sqrt(m) * (nu / tl.sqrt(1 + c * m) + slope * m),)


@triton.jit
def _dist_bwd_out(v, w):
    x, y = v
    way = (x - y) * w[0]
    return way + x * w[1], y * w[2] - way


dist = launcher("dist", chord, _dist)
dist_bwd = launcher("dist_bwd", chord, _dist_bwd, _dist_bwd_out)


@triton.jit
def _expmap(p, n):
    """exp_x(v) = x + u, u = tau v, tau = T(s^2)/alpha, s = sqrt c |v|/alpha; 1 - c|u|^2 = sech^2(s)"""
    c = n[0]
    alpha = gap(c, p[0])
    s = tl.sqrt(c * get(p[1])) / alpha
    return step(p, tanh_over(s) / alpha, sech2(s), c)


@triton.jit
def _expmap_bwd(p, n):
    """With g at x + u as in Möbius addition (k, theta, D), M = <du, v>, h = sech^2(s):

    dx = ((alpha + cq) g - 2ck z)/D + 2cM h/alpha^2 x, dv = tau du + 2cM T'/alpha^3 v;
    dc = (theta alpha|u|^2 - qk/D)/D + M T'|v|^2/alpha^3 + |x|^2 M h/alpha^2
    """
    c = n[0]
    alpha = gap(c, p[0])
    s = tl.sqrt(c * get(p[1])) / alpha
    t, h = tanh_over(s), sech2(s)
    tau = t / alpha
    parts, dc, m = step_bwd(p, tau, h, c)
    # tau = T(s^2)/alpha: its slopes in s^2 and in alpha
    by_s, by_alpha = m * tanh_root_d(s * s, t) / (alpha * alpha * alpha), m * h / (alpha * alpha)
    w = step_weights(parts, tau, c, by_alpha, 2 * c * by_s)
    return w, (dc + by_s * get(p[1]) + get(p[0]) * by_alpha,)


expmap = launcher("expmap", step_sums, _expmap, step_out, inside=True, wide=True)
expmap_bwd = launcher("expmap_bwd", step_bwd_sums, _expmap_bwd, step_bwd_out)


@triton.jit
def _logmap(p, n):
    """log_x(y) = S(cm)/(beta sqrt(1 + cm)) (alpha (y - x) - cq x), m = q/(alpha beta)"""
    c = n[0]
    alpha, beta, cq = gap(c, p[0]), gap(c, p[1]), c * get(p[2])
    u = cq / (alpha * beta)
    f = arsinh_root(u) / (beta * tl.sqrt(1 + u))
    return (alpha * f, -cq * f), ()


@triton.jit
def _logmap_out(v, w):
    x, y = v
    return ((y - x) * w[0] + x * w[1],)


@triton.jit
def _logmap_bwd_sums(v, W: tl.constexpr):
    g, x, y = v
    return dot(x, x, W), dot(y, y, W), square_sum(y, -x, W), dot(g, x, W), dot_sum(g, y, -x, W)


@triton.jit
def _logmap_bwd(p, n):
    """With u = cm, E = S/sqrt(1 + u), f = E/beta, delta = y - x, G = <g, alpha delta - cq x>, K = G E'/beta,
    P = K/(alpha beta) - f <g, x>, A = f <g, delta> - K u/alpha, B = -(K u + f G)/beta, W = f alpha g + 2cP delta:

    dx = -W - fcq g - 2cA x, dy = W - 2cB y; dc = qP - |x|^2A - |y|^2B
    """
    c = n[0]
    xx, yy, q, gx, gd = p
    alpha, beta, q = wide_gap(c, xx), gap(c, yy), get(q)
    cq = c * q
    height = get(sub(mul(alpha, gd), scale(cq, gx)))
    alpha, gx, gd = get(alpha), get(gx), get(gd)
    ab = alpha * beta
    u = cq / ab
    root, s = tl.sqrt(1 + u), arsinh_root(u)
    e = s / root
    slope = (arsinh_root_d(u, s) - 0.5 * e / root) / root
    f, k = e / beta, height * slope / beta
    by_q = k / ab - f * gx
    by_x = f * gd - k * u / alpha
    by_y = -(k * u + f * height) / beta
    # dx = -delta w1 - g (w0 + w2) - x w3; dy = g w0 + delta w1 - y w4
    w = (f * alpha, 2 * c * by_q, f * cq, 2 * c * by_x, 2 * c * by_y)
    return w, (q * by_q - get(xx) * by_x - get(yy) * by_y,)


@triton.jit
def _logmap_bwd_out(v, w):
    g, x, y = v
    way = (y - x) * w[1] + g * w[0]
    return -(way + x * w[3] + g * w[2]), way - y * w[4]


logmap = launcher("logmap", chord, _logmap, _logmap_out)
logmap_bwd = launcher("logmap_bwd", _logmap_bwd_sums, _logmap_bwd, _logmap_bwd_out)
