"""The conformal factor lambda = 2/alpha and what it scales. The rule: alpha is known to all its digits before anything
is divided by it. The counterpart of `conformal.rs`.
"""

import triton
import triton.language as tl

from tersor.triton._dots import dot, gap, get
from tersor.triton._rows import EPS, margin
from tersor.triton.hyperbolic._forms import launcher, scaled, slope, square, turned


@triton.jit
def _project(p, n):
    """x itself; the walk pulls it inside. Squares that overflow are for it to look at, too."""
    rest = gap(n[0], p[0])
    return (), (), tl.where(rest == rest, rest, -1)


@triton.jit
def _project_out(v, w):
    return (v[0],)


@triton.jit
def _project_bwd(p, n):
    """Outside: dx = k (g - <g, x> x/|x|^2), dc = -k <g, x>/(2c), k = (1 - eps)/(sqrt c |x|); inside dx = g, dc = 0"""
    c, keep, limit = n
    xx = get(p[0])
    root = tl.sqrt(c * xx)
    rest = gap(c, p[0])
    out = (root > limit) | (tl.where(rest == rest, rest, -root) <= 0)
    k = keep / tl.where(out, root, 1)
    turn = tl.where(out, -k * get(p[1]), 0)
    return (tl.where(out, k, 1), turn / tl.where(out, xx, 1)), (turn / tl.where(out, 2 * c, 1),)


def _limits(dtype, d, eps):
    """1 - eps, and the largest sqrt c |x| that the forward leaves alone; 1 stands for the last number inside."""
    keep = 1 - margin("ball_project_bwd", dtype, eps)
    return keep, keep * (1 + EPS[dtype]) if keep < 1 else 1.0


ball_project = launcher("ball_project", square, _project, _project_out, inside=True)
ball_project_bwd = launcher("ball_project_bwd", slope, _project_bwd, turned, constants=_limits)


@triton.jit
def _lambda(p, n):
    """lambda = 2/alpha"""
    return (), (2 / gap(n[0], p[0]),)


@triton.jit
def _lambda_bwd(p, n):
    """dx = g c lambda^2 x; dc = g lambda^2|x|^2/2"""
    g, c = n
    l = 2 / gap(c, p[0])
    gl = g * l * l
    return (gl * c,), (gl * get(p[0]) * 0.5,)


lambda_x = launcher("lambda_x", square, _lambda)
lambda_x_bwd = launcher("lambda_x_bwd", square, _lambda_bwd, scaled)


@triton.jit
def _inner_sums(v, W: tl.constexpr):
    x, a, b = v
    return dot(x, x, W), dot(a, b, W)


@triton.jit
def _inner(p, n):
    """<u, v>_x = lambda^2<u, v>"""
    l = 2 / gap(n[0], p[0])
    return (), (l * l * get(p[1]),)


@triton.jit
def _inner_bwd(p, n):
    """dx = 2gc lambda^3<u, v> x, du = g lambda^2 v, dv = g lambda^2 u; dc = g lambda^3|x|^2<u, v>"""
    g, c = n
    l = 2 / gap(c, p[0])
    f = g * l * l
    k = f * l * get(p[1])
    return (2 * c * k, f), (k * get(p[0]),)


@triton.jit
def _inner_bwd_out(v, w):
    x, a, b = v
    return x * w[0], b * w[1], a * w[1]


inner = launcher("inner", _inner_sums, _inner)
inner_bwd = launcher("inner_bwd", _inner_sums, _inner_bwd, _inner_bwd_out)


@triton.jit
def _norm_sums(v, W: tl.constexpr):
    x, u = v
    return dot(x, x, W), dot(u, u, W)


@triton.jit
def _norm(p, n):
    """|u|_x = lambda|u|"""
    return (), (2 / gap(n[0], p[0]) * tl.sqrt(get(p[1])),)


@triton.jit
def _norm_bwd(p, n):
    """dx = gc lambda^2|u| x, du = g lambda u/|u|, 0 at u = 0; dc = g lambda^2|x|^2|u|/2"""
    g, c = n
    l, r = 2 / gap(c, p[0]), tl.sqrt(get(p[1]))
    k = g * l * l * r
    return (c * k, tl.where(r == 0, 0, g * l / tl.where(r == 0, 1, r))), (k * get(p[0]) * 0.5,)


@triton.jit
def _norm_bwd_out(v, w):
    x, u = v
    return x * w[0], u * w[1]


norm = launcher("norm", _norm_sums, _norm)
norm_bwd = launcher("norm_bwd", _norm_sums, _norm_bwd, _norm_bwd_out)


# f(alpha) v: vectors moved from 0 (alpha), to 0 (1/alpha), a Euclidean gradient made Riemannian (alpha^2/4)


@triton.jit
def _moved(v, w):
    return (v[1] * w[0],)


@triton.jit
def _moved_bwd_sums(v, W: tl.constexpr):
    g, x, u = v
    return dot(x, x, W), dot(g, u, W)


@triton.jit
def _moved_bwd(p, c, f, f1):
    """dv = f g; dx = -2c f'<g, v> x; dc = -f'|x|^2<g, v>"""
    k = -f1 * get(p[1])
    return (2 * c * k, f), (k * get(p[0]),)


@triton.jit
def _moved_bwd_out(v, w):
    g, x, _ = v
    return x * w[0], g * w[1]


@triton.jit
def _from0(p, n):
    return (gap(n[0], p[0]),), ()


@triton.jit
def _from0_bwd(p, n):
    return _moved_bwd(p, n[0], gap(n[0], p[0]), 1.0)


@triton.jit
def _to0(p, n):
    return (1 / gap(n[0], p[0]),), ()


@triton.jit
def _to0_bwd(p, n):
    f = 1 / gap(n[0], p[0])
    return _moved_bwd(p, n[0], f, -f * f)


@triton.jit
def _metric(p, n):
    alpha = gap(n[0], p[0])
    return (0.25 * alpha * alpha,), ()


@triton.jit
def _metric_bwd(p, n):
    alpha = gap(n[0], p[0])
    return _moved_bwd(p, n[0], 0.25 * alpha * alpha, 0.5 * alpha)


parallel_transport0 = launcher("parallel_transport0", square, _from0, _moved)
parallel_transport0_bwd = launcher("parallel_transport0_bwd", _moved_bwd_sums, _from0_bwd, _moved_bwd_out)
parallel_transport0back = launcher("parallel_transport0back", square, _to0, _moved)
parallel_transport0back_bwd = launcher("parallel_transport0back_bwd", _moved_bwd_sums, _to0_bwd, _moved_bwd_out)
egrad2rgrad = launcher("egrad2rgrad", square, _metric, _moved)
egrad2rgrad_bwd = launcher("egrad2rgrad_bwd", _moved_bwd_sums, _metric_bwd, _moved_bwd_out)
