"""Distance to a hyperplane through p, normal to a. The rule: as for points, x and p meet as x - p. The counterpart of
`plane.rs`.
"""

import triton
import triton.language as tl

from tersor.triton._dots import dot, dot_sum, gap, get, mul, scale, square_sum, sub, wide_gap
from tersor.triton.hyperbolic._forms import launcher
from tersor.triton.hyperbolic._roots import arsinh_root, arsinh_root_d


@triton.jit
def _sums(v, W: tl.constexpr):
    x, p, a = v
    first = dot(x, x, W), dot(p, p, W), square_sum(x, -p, W)
    return first + (dot_sum(a, x, -p, W), dot(p, a, W), dot(a, a, W))


@triton.jit
def _height(p, c):
    """h = alpha <x - p, a> - cq <p, a>, and alpha, beta, |a|; alpha = 1 - c|p|^2, beta = 1 - c|x|^2"""
    alpha = wide_gap(c, p[1])
    h = get(sub(mul(alpha, p[3]), mul(scale(c, p[2]), p[4])))
    return h, get(alpha), gap(c, p[0]), tl.sqrt(get(p[5]))


@triton.jit
def _ratio(h, ab, n):
    """r = 2h/(alpha beta |a|), 0 at a = 0"""
    return tl.where(n == 0, 0, 2 * h / (ab * tl.where(n == 0, 1, n)))


@triton.jit
def _dist2plane(p, n):
    """d = r S(cr^2), the arsinh(sqrt c r)/sqrt c of r; its size where not signed, times |a| where scaled"""
    c, signed, scaled = n
    h, alpha, beta, size = _height(p, c)
    r = _ratio(h, alpha * beta, size)
    d = tl.where(signed == 0, tl.abs(r), r) * arsinh_root(c * r * r)
    return (), (tl.where(scaled == 0, d, d * size),)


@triton.jit
def _dist2plane_bwd(p, n):
    """With G = g/sqrt(1 + cr^2), F = 2G/(alpha beta|a|), A = F<x - p, a> - Gr/alpha, B = -Gr/beta,
    W = F alpha a - 2cF<p, a>(x - p):

    dx = W - 2cB x, dp = -W - Fcq a - 2cA p, da = F(alpha(x - p) - cq p) - Gr/|a|^2 a;
    dc = g r^3S' - Fq<p, a> - |p|^2A - |x|^2B. Unsigned: g sign(h); scaled: g|a|, and da receives g d/|a| a.
    """
    g, c, signed, scaled = n
    h, alpha, beta, size = _height(p, c)
    q, pa = get(p[2]), get(p[4])
    r = _ratio(h, alpha * beta, size)
    g = tl.where((signed != 0) | (h > 0), g, tl.where(h < 0, -g, h * g))
    u = c * r * r
    s = arsinh_root(u)
    long = tl.where(scaled == 0, g, g * size)
    top = long / tl.sqrt(1 + u)
    flat = size == 0
    f = tl.where(flat, 0, 2 * top / (alpha * beta * tl.where(flat, 1, size)))
    own = top * r - tl.where(scaled == 0, 0, long * r * s)
    own = tl.where(flat, 0, own / tl.where(flat, 1, get(p[5])))
    by_p, by_x = f * get(p[3]) - top * r / alpha, -top * r / beta
    # W = a w0 - delta w1; dx = W - x w2; dp = -W - a w3 - p w4; da = delta w0 - p w3 - a w5
    w = (f * alpha, 2 * c * f * pa, 2 * c * by_x, f * c * q, 2 * c * by_p, own)
    dc = long * r * r * r * arsinh_root_d(u, s) - f * q * pa - get(p[1]) * by_p - get(p[0]) * by_x
    return w, (dc,)


@triton.jit
def _dist2plane_bwd_out(v, w):
    x, p, a = v
    delta = x - p
    way = a * w[0] - delta * w[1]
    return way - x * w[2], -(way + a * w[3] + p * w[4]), delta * w[0] - (p * w[3] + a * w[5])


dist2plane = launcher("dist2plane", _sums, _dist2plane)
dist2plane_bwd = launcher("dist2plane_bwd", _sums, _dist2plane_bwd, _dist2plane_bwd_out)
