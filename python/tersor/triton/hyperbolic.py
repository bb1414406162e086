"""GPU kernels of the maps of the Poincaré ball: the same forms as `ops/hyperbolic.rs`, under the operators' names.

The rule: alpha = 1 - c|x|^2 and sums of squares, never a difference of large terms; c = 0 is a value like any other.
Below z = 0.06 the derivatives of T, A and S come from their series, since the closed forms cancel.
Letters: alpha, beta for x and y; sigma = x + y; q = |sigma|^2 (|x - y|^2 for distances); g the gradient that arrives.
"""

import triton
import triton.language as tl

from tersor.triton._math import asinh, log1p, over_root, series, tanh
from tersor.triton._rows import dot, dot_sum, gap, get, launcher, minus, square_sum


@triton.jit
def _tanh_root(z):
    """T(z) = tanh(r)/r, r = sqrt z"""
    r = tl.sqrt(z)
    return over_root(tanh(r), r)


@triton.jit
def _tanh_root_d(z, t):
    """T' = (1 - T - z T^2)/(2z)"""
    near = z < 0.06
    start = series(
        z,
        (
            -0.3333333333333333,
            0.26666666666666666,
            -0.1619047619047619,
            0.08747795414462081,
            -0.044316177649510985,
            0.021552768219434887,
            -0.010190840709359227,
            0.004720219527564688,
            -0.002152162028191972,
            0.0009691537956929451,
            -0.0004320615627164852,
            0.00019102686083194756,
        ),
    )
    return tl.where(near, start, (1 - t - z * t * t) / tl.where(near, 1, 2 * z))


@triton.jit
def _artanh_root(r, rest):
    """A(z) = artanh(r)/r, r = sqrt z, from r and 1 - z"""
    return over_root(0.5 * log1p(2 * r * (1 + r) / rest), r)


@triton.jit
def _artanh_root_d(z, rest, a):
    """A' = (1/(1 - z) - A)/(2z)"""
    near = z < 0.06
    start = tl.zeros_like(z)
    for k in tl.static_range(14, 0, -1):
        start = start * z + k / (2 * k + 1)
    return tl.where(near, start, (1 / rest - a) / tl.where(near, 1, 2 * z))


@triton.jit
def _arsinh_root(u):
    """S(u) = arsinh(r)/r, r = sqrt u"""
    r = tl.sqrt(u)
    return over_root(asinh(r), r)


@triton.jit
def _arsinh_root_d(u, s):
    """S' = (1/sqrt(1 + u) - S)/(2u)"""
    near = u < 0.06
    start = series(
        u,
        (
            -0.16666666666666666,
            0.15,
            -0.13392857142857142,
            0.12152777777777778,
            -0.11186079545454546,
            0.10411658653846154,
            -0.09775390625,
            0.09241440716911764,
            -0.08785448576274671,
            0.08390335809616815,
            -0.0804377846095873,
            0.07736652374267577,
            -0.07462048972094501,
            0.07214633555247865,
        ),
    )
    return tl.where(near, start, (1 / tl.sqrt(1 + u) - s) / tl.where(near, 1, 2 * u))


@triton.jit
def _square(v, W: tl.constexpr):
    return (dot(v[0], v[0], W),)


@triton.jit
def _square_and_slope(v, W: tl.constexpr):
    g, x = v
    return dot(x, x, W), dot(g, x, W)


@triton.jit
def _scaled(v, w):
    return (v[0] * w[0][:, None],)


@triton.jit
def _scaled_plus(v, w):
    g, x = v
    return (g * w[0][:, None] + x * w[1][:, None],)


@triton.jit
def _expmap0(p, n):
    """y = T x; 1 - c|y|^2 = 1 - z T^2"""
    z = n[0] * get(p[0])
    t = _tanh_root(z)
    return (t,), (), 1 - z * t * t


@triton.jit
def _expmap0_bwd(p, n):
    """dx = T g + 2c T'<g, x> x; dc = T'|x|^2 <g, x>"""
    c, xx = n[0], get(p[0])
    t = _tanh_root(c * xx)
    slope = _tanh_root_d(c * xx, t) * get(p[1])
    return (t, 2 * c * slope), (slope * xx,), c


expmap0 = launcher("expmap0", _square, _expmap0, _scaled, inside=True)
expmap0_bwd = launcher("expmap0_bwd", _square_and_slope, _expmap0_bwd, _scaled_plus)


@triton.jit
def _logmap0(p, n):
    """y = A x"""
    c = n[0]
    return (_artanh_root(tl.sqrt(c * get(p[0])), gap(c, p[0])),), (), c


@triton.jit
def _logmap0_bwd(p, n):
    """dx = A g + 2c A'<g, x> x; dc = A'|x|^2 <g, x>"""
    c, xx, rest = n[0], get(p[0]), gap(n[0], p[0])
    a = _artanh_root(tl.sqrt(c * xx), rest)
    slope = _artanh_root_d(c * xx, rest, a) * get(p[1])
    return (a, 2 * c * slope), (slope * xx,), c


logmap0 = launcher("logmap0", _square, _logmap0, _scaled)
logmap0_bwd = launcher("logmap0_bwd", _square_and_slope, _logmap0_bwd, _scaled_plus)


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
    return ((x + y) * w[0][:, None] + x * w[1][:, None],)


@triton.jit
def _mobius_add_sums(v, W: tl.constexpr):
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
    ad, kd = alpha * d, minus(p[4], beta, p[3]) * d
    theta = get(p[3]) + alpha * kd
    ck = 2 * c * kd
    w = ((alpha + cq) * d, ck * ad, ck * (cq * d), ad, 2 * c * ad * theta, ck * ad)
    return w, ((theta * alpha * get(p[1]) - q * kd) * d,), c


@triton.jit
def _mobius_add_bwd_out(v, w):
    g, x, y = v
    s = x + y
    dx = g * w[0][:, None] - (s * w[1][:, None] + x * w[2][:, None])
    return dx, g * w[3][:, None] + (y * w[4][:, None] - s * w[5][:, None])


mobius_add = launcher("mobius_add", _sums, _mobius_add, _mobius_add_out, inside=True)
mobius_add_bwd = launcher("mobius_add_bwd", _mobius_add_sums, _mobius_add_bwd, _mobius_add_bwd_out)


@triton.jit
def _chord(v, W: tl.constexpr):
    x, y = v
    return dot(x, x, W), dot(y, y, W), square_sum(x, -y, W)


@triton.jit
def _dist(p, n):
    """d = 2 sqrt(m) S(cm), m = q/(alpha beta)"""
    c = n[0]
    m = get(p[2]) / (gap(c, p[0]) * gap(c, p[1]))
    return (), (2 * tl.sqrt(m) * _arsinh_root(c * m),), c


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
    slope = 2 * _arsinh_root_d(c * m, _arsinh_root(c * m))
    return (f, f * (cq / alpha), f * (cq / beta)), (g * tl.sqrt(m) * (nu / tl.sqrt(1 + c * m) + slope * m),), c


@triton.jit
def _dist_bwd_out(v, w):
    x, y = v
    chord = (x - y) * w[0][:, None]
    return chord + x * w[1][:, None], y * w[2][:, None] - chord


dist = launcher("dist", _chord, _dist)
dist_bwd = launcher("dist_bwd", _chord, _dist_bwd, _dist_bwd_out)
