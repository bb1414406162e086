"""Steps from a point x along a tangent v: x + u with u = tau v, in Möbius addition. The rule: |x + u|^2 is put together
from sums that may cancel, so forwards are wide, and 1 - c|u|^2 is a sech^2, never a difference. The counterpart of
`step.rs`.
"""

import triton
import triton.language as tl

from tersor.triton._dots import add, dot, gap, get, mul, scale
from tersor.triton.hyperbolic._roots import SLACK


@triton.jit
def step_sums(v, W: tl.constexpr):
    """|x|^2, |v|^2, <x, v>"""
    x, t = v
    return dot(x, x, W), dot(t, t, W), dot(x, t, W)


@triton.jit
def _square(p, tau):
    """|x + tau v|^2"""
    return get(add(p[0], scale(tau, add(add(p[2], p[2]), scale(tau, p[1])))))


@triton.jit
def step(p, tau, beta, c):
    """Weights of v in sigma = x + tau v, of sigma and of x; beta = 1 - c|u|^2; and 1 - c|y|^2 of the result"""
    alpha, cq = gap(c, p[0]), c * _square(p, tau)
    # |x + u| >= ||x| - |u||, and c|x|^2 - c|u|^2 = beta - alpha: where v points at the antipode of an x at the edge, this
    # is all that is left of the sum
    least = 0.25 * (beta - alpha) * (beta - alpha)
    cq = tl.where(cq < least, least, cq)
    d = 1 / (alpha * beta + cq)
    # 1 - c|x + u|^2 = alpha beta/D, less what the rounding of x + u may add where it all but cancels
    return (tau, alpha * d, cq * d), (), alpha * d * (beta - SLACK)


@triton.jit
def step_out(v, w):
    x, t = v
    return ((x + t * w[0]) * w[1] + x * w[2],)


@triton.jit
def step_bwd_sums(v, W: tl.constexpr):
    """|x|^2, |v|^2, <x, v>, <g, x>, <g, v>"""
    g, x, t = v
    return dot(x, x, W), dot(t, t, W), dot(x, t, W), dot(g, x, W), dot(g, t, W)


@triton.jit
def step_bwd(p, tau, beta, c):
    """What the gradient of the step needs, its dc, and M = <du, v>, the gradient of tau"""
    alpha, q = gap(c, p[0]), _square(p, tau)
    cq = c * q
    d = 1 / (alpha * beta + cq)
    tv = scale(tau, p[1])
    uu = scale(tau, tv)
    # 1 - beta = c|u|^2, so that <g, sigma> - beta <g, x> does not cancel
    k = get(add(scale(tau, p[4]), mul(scale(c, uu), p[3])))
    kd, ad = k * d, alpha * d
    theta = get(p[3]) + ad * k
    m = ad * (get(p[4]) + 2 * c * (theta * get(tv) - kd * get(add(p[2], tv))))
    return (alpha, d, cq, kd, theta), (theta * alpha * get(uu) - q * kd) * d, m


@triton.jit
def step_weights(parts, tau, c, by_alpha, along):
    """dx = g w1 - sigma w2 + x w3; dv = g w4 + v w5 - sigma w6, sigma = x + v w0"""
    alpha, d, cq, kd, theta = parts
    ad, ck = alpha * d, 2 * c * kd
    return (
        tau,
        (alpha + cq) * d,
        ck * ad,
        2 * c * by_alpha - ck * (cq * d),
        tau * ad,
        2 * c * tau * tau * ad * theta + along,
        tau * ad * ck,
    )


@triton.jit
def step_bwd_out(v, w):
    g, x, t = v
    s = x + t * w[0]
    return g * w[1] + x * w[3] - s * w[2], g * w[4] + t * w[5] - s * w[6]
