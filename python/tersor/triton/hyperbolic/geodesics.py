"""Points of a geodesic. The rule: they are weighted sums of its ends on the hyperboloid, so that t between 0 and 1 adds
only positive weights. The counterpart of `geodesic.rs`; `geodesic_unit` is a step.
"""

import triton
import triton.language as tl

from tersor.triton._dots import add, dot, gap, get, scale, square_sum, sub
from tersor.triton._math import cosh
from tersor.triton.hyperbolic._forms import chord, launcher
from tersor.triton.hyperbolic._roots import (
    SLACK,
    arsinh_root,
    sech2,
    sinh_over,
    sinh_over_log_d,
    tanh_over,
    tanh_root_d,
)
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
def _weights(t, u):
    """d, t, a = sinh((1 - t)d)/sinh d, b = sinh(td)/sinh d and sinh(d)/d, from u = sinh^2(d/2)

    Far beyond the type's resolution, every point of the geodesic is its end: t stops there.
    """
    FAR: tl.constexpr = 400 if t.dtype == tl.float64 else 64
    d = 2 * tl.sqrt(u) * arsinh_root(u)
    most = tl.where(d > 0, FAR / tl.where(d > 0, d, 1), float("inf"))
    t = tl.where(t > most, most, tl.where(t < -most, -most, t))
    unit = sinh_over(d)
    return d, t, (1 - t) * sinh_over((1 - t) * d) / unit, t * sinh_over(t * d) / unit, unit


@triton.jit
def _geodesic(p, n):
    """(a lambda_x x + b lambda_y y)/P, P = 1 + a(lambda_x - 1) + b(lambda_y - 1); 1 - c|z|^2 = 2/P"""
    t, c = n
    alpha, beta = gap(c, p[0]), gap(c, p[1])
    _, _, a, b, _ = _weights(t, c * get(p[2]) / (alpha * beta))
    lx, ly = 2 / alpha, 2 / beta
    # P is 2/(1 - c|z|^2) and cannot be less than 2, but beyond the ends it is a difference
    whole = 1 + a * (lx - 1) + b * (ly - 1)
    f = 1 / tl.where(whole < 2, 2, whole)
    # what the rounding of a sum of terms so much larger than the point may add to it
    slack = SLACK * (tl.abs(a) * lx + tl.abs(b) * ly)
    return (a * lx * f, b * ly * f), (), f * (2 - slack)


@triton.jit
def _geodesic_out(v, w):
    x, y = v
    return (x * w[0] + y * w[1],)


@triton.jit
def _geodesic_bwd_sums(v, W: tl.constexpr):
    g, x, y = v
    return dot(x, x, W), dot(y, y, W), square_sum(y, -x, W), dot(g, x, W), dot(g, y, W)


@triton.jit
def _geodesic_bwd(p, n):
    """With theta = <g, z>, X = <g, x> - theta, Y = <g, y> - theta; A = (lambda_x X + theta)/P, B = (lambda_y Y + theta)/P
    the slopes in a and b, l(s) = s^2 d log(sinh s/s)/ds^2, U = 4S(u)/sqrt(1 + u) (A a (l((1-t)d) - l(d)) + B b (l(td) -
    l(d))) with respect to u = cq/(alpha beta), E = -a lambda_x^2 X/2P - U u/alpha, F likewise, K = U/(alpha beta):

    dx = a lambda_x/P g - 2cK (y - x) - 2cE x, dy = b lambda_y/P g + 2cK (y - x) - 2cF y;
    dt = (B cosh(td) - A cosh((1-t)d)) d/sinh d; dc = K q - |x|^2E - |y|^2F
    """
    t, c = n
    alpha, beta, q = gap(c, p[0]), gap(c, p[1]), get(p[2])
    ab = alpha * beta
    u = c * q / ab
    d, t, a, b, unit = _weights(t, u)
    lx, ly, s = 2 / alpha, 2 / beta, 1 - t
    f = 1 / (1 + a * (lx - 1) + b * (ly - 1))
    wx, wy = a * lx * f, b * ly * f
    z = add(scale(wx, p[3]), scale(wy, p[4]))
    x, y, theta = get(sub(p[3], z)), get(sub(p[4], z)), get(z)
    by_a, by_b = (lx * x + theta) * f, (ly * y + theta) * f
    own = sinh_over_log_d(d)
    by_w = by_a * a * (s * s * sinh_over_log_d(s * d) - own) + by_b * b * (t * t * sinh_over_log_d(t * d) - own)
    by_u = by_w * 4 * arsinh_root(u) / tl.sqrt(1 + u)
    by_x = -0.5 * wx * lx * x - by_u * u / alpha
    by_y = -0.5 * wy * ly * y - by_u * u / beta
    k = by_u / ab
    dt = (by_b * cosh(tl.abs(t * d)) - by_a * cosh(tl.abs(s * d))) / unit
    return (wx, wy, 2 * c * k, 2 * c * by_x, 2 * c * by_y), (dt, k * q - get(p[0]) * by_x - get(p[1]) * by_y)


@triton.jit
def _geodesic_bwd_out(v, w):
    g, x, y = v
    way = (y - x) * w[2]
    return g * w[0] - (way + x * w[3]), g * w[1] + (way - y * w[4])


geodesic = launcher("geodesic", chord, _geodesic, _geodesic_out, inside=True)
geodesic_bwd = launcher("geodesic_bwd", _geodesic_bwd_sums, _geodesic_bwd, _geodesic_bwd_out)


@triton.jit
def _geodesic_unit(p, n):
    """x + u, u = tau v, tau = (t/2) T(s^2)/|v|, s = sqrt c t/2; 1 - c|u|^2 = sech^2(s); x itself at v = 0"""
    t, c = n
    r, s = tl.sqrt(get(p[1])), 0.5 * tl.sqrt(c) * t
    rest = r == 0
    tau = tl.where(rest, 0, 0.5 * t * tanh_over(s) / tl.where(rest, 1, r))
    return step(p, tau, tl.where(rest, 1, sech2(s)), c)


@triton.jit
def _geodesic_unit_bwd(p, n):
    """With g at x + u as in `expmap_bwd`: dv = tau du - M tau/|v|^2 v; dt = M sech^2(s)/2|v|;

    dc is that of x + u and M (t/2)^3 T'/|v|
    """
    t, c = n
    r, half = tl.sqrt(get(p[1])), 0.5 * t
    rest = r == 0
    s = tl.sqrt(c) * half
    shape, h = tanh_over(s), tl.where(rest, 1, sech2(s))
    per = tl.where(rest, 0, 1 / tl.where(rest, 1, r))
    tau = half * shape * per
    parts, dc, m = step_bwd(p, tau, h, c)
    m = m * per
    w = step_weights(parts, tau, c, tl.zeros_like(tau), -m * tau * per)
    return w, (0.5 * m * h, dc + m * half * half * half * tanh_root_d(s * s, shape))


geodesic_unit = launcher("geodesic_unit", step_sums, _geodesic_unit, step_out, inside=True, wide=True)
geodesic_unit_bwd = launcher("geodesic_unit_bwd", step_bwd_sums, _geodesic_unit_bwd, step_bwd_out)
