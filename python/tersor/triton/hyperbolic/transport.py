"""Gyration and the transport of vectors, which is a gyration. The rule: a rotation in the plane of two rows is written
with their sum sigma, so that it stays one at any radius. The counterpart of `transport.rs`.
"""

import triton
import triton.language as tl

from tersor.triton._dots import add, dot, dot_sum, get, mul, scale, square_sum, sub, wide_gap
from tersor.triton.hyperbolic._forms import launcher


@triton.jit
def _gyration_sums(v, W: tl.constexpr):
    a, b, w = v
    return dot(a, a, W), dot(b, b, W), square_sum(a, b, W), dot_sum(w, a, b, W), dot(b, w, W)


@triton.jit
def _gyration(p, n):
    """gyr[u, v]w = w + (2c/D)((beta <sigma, w> + cq <v, w>) u - (<sigma, w> - alpha <v, w>) sigma), D = alpha beta + cq,
    alpha = 1 - c|u|^2, beta = 1 - c|v|^2, sigma = u + v, q = |sigma|^2
    """
    c = n[0]
    uu, vv, q, sw, vw = p
    alpha, beta, cq = wide_gap(c, uu), wide_gap(c, vv), scale(c, q)
    k = 2 * c / get(add(mul(alpha, beta), cq))
    return (k * get(add(mul(beta, sw), mul(cq, vw))), k * get(sub(mul(alpha, vw), sw))), ()


@triton.jit
def _gyration_out(v, k):
    a, b, w = v
    return (w + a * k[0] + (a + b) * k[1],)


@triton.jit
def _gyration_bwd_sums(v, W: tl.constexpr):
    g, a, b, w = v
    return _gyration_sums((a, b, w), W) + (dot(g, a, W), dot_sum(g, a, b, W))


@triton.jit
def _gyration_bwd(p, n):
    """With K = 2c/D, a = beta <sigma, w> + cq <v, w>, e = <sigma, w> - alpha <v, w>, b = (a <g, u> - e <g, sigma>)/D,
    P = <g, u><v, w> - b, A = K(<g, sigma><v, w> - b beta), B = K(<g, u><sigma, w> - b alpha),
    V = K(beta <g, u> - <g, sigma>) w - K e g + 2KcP sigma:

    du = V + K a g - 2cA u, dv = V + K(cq <g, u> + alpha <g, sigma>) w - 2cB v,
    dw = gyr[v, u]g; dc = 2b + KqP - |u|^2A - |v|^2B
    """
    c = n[0]
    uu, vv, q, sw, vw, gu, gs = p
    alpha, beta, cq = wide_gap(c, uu), wide_gap(c, vv), scale(c, q)
    d = 1 / get(add(mul(alpha, beta), cq))
    a, e = add(mul(beta, sw), mul(cq, vw)), sub(sw, mul(alpha, vw))
    f, h = get(sub(mul(beta, gu), gs)), get(add(mul(cq, gu), mul(alpha, gs)))
    b = get(sub(mul(a, gu), mul(e, gs))) * d
    k = 2 * c * d
    by_q = get(gu) * get(vw) - b
    by_u = k * (get(gs) * get(vw) - b * get(beta))
    by_v = k * (get(gu) * get(sw) - b * get(alpha))
    w = (k * f, k * get(e), 2 * c * k * by_q, k * get(a), 2 * c * by_u, k * h, 2 * c * by_v)
    return w, (2 * b + k * get(q) * by_q - get(uu) * by_u - get(vv) * by_v,)


@triton.jit
def _gyration_bwd_out(v, k):
    g, a, b, w = v
    s = a + b
    turn = s * k[2] + w * k[0] - g * k[1]
    return turn + (g * k[3] - a * k[4]), turn + (w * k[5] - b * k[6]), g + b * k[5] + s * k[0]


gyration = launcher("gyration", _gyration_sums, _gyration, _gyration_out)
gyration_bwd = launcher("gyration_bwd", _gyration_bwd_sums, _gyration_bwd, _gyration_bwd_out)


@triton.jit
def _transport_sums(v, W: tl.constexpr):
    x, y, t = v
    return dot(x, x, W), dot(y, y, W), square_sum(y, -x, W), dot_sum(t, y, -x, W), dot(x, t, W)


@triton.jit
def _transport(p, n):
    """P(x->y) v = (beta/alpha) gyr[y, -x]v, written with delta = y - x:

    (beta/alpha)(v + (2c/D)((alpha <delta, v> - cq <x, v>) y - (<delta, v> + beta <x, v>) delta))
    """
    c = n[0]
    xx, yy, q, dv, xv = p
    alpha, beta, cq = wide_gap(c, xx), wide_gap(c, yy), scale(c, q)
    r = get(beta) / get(alpha)
    k = r * 2 * c / get(add(mul(alpha, beta), cq))
    return (r, k * get(sub(mul(alpha, dv), mul(cq, xv))), -k * get(add(dv, mul(beta, xv)))), ()


@triton.jit
def _transport_out(v, w):
    x, y, t = v
    return (t * w[0] + y * w[1] + (y - x) * w[2],)


@triton.jit
def _transport_bwd_sums(v, W: tl.constexpr):
    g, x, y, t = v
    return _transport_sums((x, y, t), W) + (dot(g, y, W), dot_sum(g, y, -x, W), dot(g, t, W))


@triton.jit
def _transport_bwd(p, n):
    """With r = beta/alpha, K = 2c/D, a = alpha <delta, v> - cq <x, v>, e = <delta, v> + beta <x, v>,
    b = (a <g, y> - e <g, delta>)/D, L = <g, v> + 2cb, f = alpha <g, y> - <g, delta>, h = cq <g, y> + beta <g, delta>,
    P = -(<g, y><x, v> + b), A = K(<g, y><delta, v> - b beta) - L/alpha, B = L/beta - K(<g, delta><x, v> + b alpha),
    V = K f v - K e g + 2KcP delta:

    dx = -r(V + K h v + 2cA x), dy = r(V + K a g - 2cB y), dv = r(g - K h x + K f delta);
    dc = r(2b + KqP - |x|^2A - |y|^2B)
    """
    c = n[0]
    xx, yy, q, dv, xv, gy, gd, gv = p
    alpha, beta, cq = wide_gap(c, xx), wide_gap(c, yy), scale(c, q)
    d = 1 / get(add(mul(alpha, beta), cq))
    a, e = sub(mul(alpha, dv), mul(cq, xv)), add(dv, mul(beta, xv))
    f, h = get(sub(mul(alpha, gy), gd)), get(add(mul(cq, gy), mul(beta, gd)))
    b = get(sub(mul(a, gy), mul(e, gd))) * d
    k = 2 * c * d
    l = get(gv) + 2 * c * b
    alpha, beta, xv, gy = get(alpha), get(beta), get(xv), get(gy)
    r = beta / alpha
    by_q = -(gy * xv + b)
    by_x = r * (k * (gy * get(dv) - b * beta) - l / alpha)
    by_y = r * (l / beta - k * (get(gd) * xv + b * alpha))
    k = r * k
    w = (r, k * f, k * get(e), 2 * c * k * by_q, k * h, 2 * c * by_x, k * get(a), 2 * c * by_y)
    return w, (2 * r * b + k * get(q) * by_q - get(xx) * by_x - get(yy) * by_y,)


@triton.jit
def _transport_bwd_out(v, w):
    g, x, y, t = v
    delta = y - x
    turn = delta * w[3] + t * w[1] - g * w[2]
    return -(turn + t * w[4] + x * w[5]), turn + g * w[6] - y * w[7], delta * w[1] + g * w[0] - x * w[4]


parallel_transport = launcher("parallel_transport", _transport_sums, _transport, _transport_out)
parallel_transport_bwd = launcher("parallel_transport_bwd", _transport_bwd_sums, _transport_bwd, _transport_bwd_out)
