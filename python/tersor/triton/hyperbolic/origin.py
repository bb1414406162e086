"""Maps between the ball and its tangent space at 0. The rule: a row is scaled, never turned. The counterpart of
`origin.rs`.
"""

import triton
import triton.language as tl

from tersor.triton._dots import dot, gap, get
from tersor.triton.hyperbolic._forms import launcher, scaled, slope, square, turned
from tersor.triton.hyperbolic._roots import artanh_root, artanh_root_d, sech2, tanh_over, tanh_root, tanh_root_d


@triton.jit
def _expmap0(p, n):
    """y = T x; 1 - c|y|^2 = 1 - z T^2"""
    z = n[0] * get(p[0])
    t = tanh_root(z)
    return (t,), (), 1 - z * t * t


@triton.jit
def _expmap0_bwd(p, n):
    """dx = T g + 2c T'<g, x> x; dc = T'|x|^2 <g, x>"""
    c, xx = n[0], get(p[0])
    t = tanh_root(c * xx)
    k = tanh_root_d(c * xx, t) * get(p[1])
    return (t, 2 * c * k), (k * xx,)


expmap0 = launcher("expmap0", square, _expmap0, scaled, inside=True)
expmap0_bwd = launcher("expmap0_bwd", slope, _expmap0_bwd, turned)


@triton.jit
def _logmap0(p, n):
    """y = A x"""
    c = n[0]
    return (artanh_root(tl.sqrt(c * get(p[0])), gap(c, p[0])),), ()


@triton.jit
def _logmap0_bwd(p, n):
    """dx = A g + 2c A'<g, x> x; dc = A'|x|^2 <g, x>"""
    c, xx, rest = n[0], get(p[0]), gap(n[0], p[0])
    a = artanh_root(tl.sqrt(c * xx), rest)
    k = artanh_root_d(c * xx, rest, a) * get(p[1])
    return (a, 2 * c * k), (k * xx,)


logmap0 = launcher("logmap0", square, _logmap0, scaled)
logmap0_bwd = launcher("logmap0_bwd", slope, _logmap0_bwd, turned)


@triton.jit
def _dist0(p, n):
    """d = 2|x| A"""
    c, xx = n[0], get(p[0])
    return (), (2 * tl.sqrt(xx) * artanh_root(tl.sqrt(c * xx), gap(c, p[0])),)


@triton.jit
def _dist0_bwd(p, n):
    """dx = 2g/(alpha|x|) x, 0 at x = 0; dc = 2g A'|x|^3"""
    g, c = n
    xx, rest = get(p[0]), gap(c, p[0])
    r = tl.sqrt(xx)
    k = 2 * g * artanh_root_d(c * xx, rest, artanh_root(tl.sqrt(c * xx), rest))
    w = tl.where(r == 0, 0, 2 * g / (rest * tl.where(r == 0, 1, r)))
    return (w,), (k * r * xx,)


dist0 = launcher("dist0", square, _dist0)
dist0_bwd = launcher("dist0_bwd", square, _dist0_bwd, scaled)


@triton.jit
def _scalar_mul(p, n):
    """r (*) x = r A T(s^2) x, s = r artanh(sqrt c |x|); 1 - c|y|^2 = sech^2(s)"""
    r, c = n
    root = tl.sqrt(c * get(p[0]))
    a = artanh_root(root, gap(c, p[0]))
    s = r * root * a
    return (r * a * tanh_over(s),), (), sech2(s)


@triton.jit
def _scalar_mul_bwd(p, n):
    """With r (*) x = w x, z = c|x|^2: dw/dr = A sech^2(s), dw/dz = r (A' sech^2(s) + r^2 A^3 T'(s^2));

    dx = w g + 2c dw/dz <g, x> x; dr = dw/dr <g, x>; dc = dw/dz |x|^2<g, x>
    """
    r, c = n
    xx, rest, gx = get(p[0]), gap(c, p[0]), get(p[1])
    z = c * xx
    root = tl.sqrt(z)
    a = artanh_root(root, rest)
    s = r * root * a
    t, h, ra = tanh_over(s), sech2(s), r * a
    k = r * (artanh_root_d(z, rest, a) * h + ra * ra * a * tanh_root_d(s * s, t)) * gx
    return (ra * t, 2 * c * k), (a * h * gx, k * xx)


mobius_scalar_mul = launcher("mobius_scalar_mul", square, _scalar_mul, scaled, inside=True)
mobius_scalar_mul_bwd = launcher("mobius_scalar_mul_bwd", slope, _scalar_mul_bwd, turned)


@triton.jit
def _pointwise_sums(v, W: tl.constexpr):
    # the product has no more digits than the data has in float64; products of float64 data are rounded, as on the CPU
    w, x = v
    return dot(x, x, W), dot(w * x, w * x, W)


@triton.jit
def _pointwise(p, n):
    """w o(*) x = A T(s^2) (w o x), s = sqrt c A |w o x|; 1 - c|y|^2 = sech^2(s)"""
    c = n[0]
    a = artanh_root(tl.sqrt(c * get(p[0])), gap(c, p[0]))
    s = tl.sqrt(c * get(p[1])) * a
    return (a * tanh_over(s),), (), sech2(s)


@triton.jit
def _pointwise_out(v, w):
    return (v[0] * v[1] * w[0],)


@triton.jit
def _pointwise_bwd_sums(v, W: tl.constexpr):
    g, w, x = v
    return dot(x, x, W), dot(w * x, w * x, W), dot(g, w * x, W)


@triton.jit
def _pointwise_bwd(p, n):
    """With u = w o x, h = <g, u>, k = h A^3 T', m = h A' sech^2(s), du = A T g + 2ck u:

    dw = du o x, dx = du o w + 2cm x; dc = k|u|^2 + m|x|^2
    """
    c, xx, nn, h, rest = n[0], get(p[0]), get(p[1]), get(p[2]), gap(n[0], p[0])
    z = c * xx
    a = artanh_root(tl.sqrt(z), rest)
    s = tl.sqrt(c * nn) * a
    t = tanh_over(s)
    k = h * a * a * a * tanh_root_d(s * s, t)
    m = h * artanh_root_d(z, rest, a) * sech2(s)
    return (a * t, 2 * c * k, 2 * c * m), (k * nn + m * xx,)


@triton.jit
def _pointwise_bwd_out(v, w):
    g, f, x = v
    du = g * w[0] + f * x * w[1]
    return du * x, du * f + x * w[2]


mobius_pointwise_mul = launcher("mobius_pointwise_mul", _pointwise_sums, _pointwise, _pointwise_out, inside=True)
mobius_pointwise_mul_bwd = launcher("mobius_pointwise_mul_bwd", _pointwise_bwd_sums, _pointwise_bwd, _pointwise_bwd_out)
