"""Scalar functions of GPU kernels, on `tl.exp` and `tl.log` alone. The rule: relative accuracy everywhere, near 0 too.

`libdevice` has most of these, but Triton's interpreter, in which kernels are tested without a GPU, does not.
Arguments called r are square roots: not negative.
"""

import triton
import triton.language as tl


@triton.jit
def log1p(x):
    """Kahan's form: what 1 + x rounds away cancels between the two factors."""
    u = 1 + x
    exact = (u == 1) | (u == float("inf"))
    return tl.where(exact, tl.where(u == 1, x, u), tl.log(u) * (x / tl.where(exact, 1, u - 1)))


@triton.jit
def expm1(x):
    """Kahan's form, as in `log1p`; x at most 80."""
    u = tl.exp(x)
    exact = (u == 1) | (u == 0)
    return tl.where(exact, tl.where(u == 1, x, -1), (u - 1) * (x / tl.log(tl.where(exact, 2, u))))


@triton.jit
def tanh(r):
    e = expm1(2 * tl.where(r > 20, 20, r))
    return e / (e + 2)


@triton.jit
def sinh(r):
    near = r < 1
    e = expm1(tl.where(near, r, 0))
    u = tl.exp(tl.where(near, 1, r))
    return tl.where(near, 0.5 * (e + e / (e + 1)), 0.5 * (u - 1 / u))


@triton.jit
def cosh(r):
    u = tl.exp(r)
    return 0.5 * (u + 1 / u)


@triton.jit
def asinh(r):
    # from 2^28 on the square is all of 1 + r^2, and beyond 2^511 it would overflow
    far = r > 268435456
    s = tl.where(far, 1, r)
    near = log1p(s + s * s / (1 + tl.sqrt(1 + s * s)))
    return tl.where(far, tl.log(tl.where(far, r, 1)) + 0.6931471805599453, near)


@triton.jit
def series(z, C):
    """The polynomial with the constants C, lowest first."""
    v = tl.zeros_like(z)
    for k in tl.static_range(len(C)):
        v = v * z + C[len(C) - 1 - k]
    return v


@triton.jit
def over_root(f, r):
    """f(r)/r with its limit 1 at r = 0."""
    return tl.where(r > 0, f / tl.where(r > 0, r, 1), 1 + r)


@triton.jit
def two_sum(a, b):
    """a + b and what it rounds away (Knuth)."""
    t = a + b
    v = t - a
    return t, (a - (t - v)) + (b - v)


@triton.jit
def two_prod(a, b):
    """a * b and what it rounds away."""
    p = a * b
    return p, tl.fma(a, b, -p)
