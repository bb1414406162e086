"""tanh, artanh, arsinh and sinh over their argument, as functions of its square. The rule: each is smooth at 0, so that
c = 0 and a zero row need no case of their own. The counterpart of `roots.rs`.

Below z = 0.06 the derivatives of T, A and S come from their series, since the closed forms cancel.
"""

import triton
import triton.language as tl

from tersor.triton._math import asinh, cosh, log1p, over_root, series, sinh, tanh

#: a few roundings of a number near 1
SLACK = tl.constexpr(2.0**-48)


@triton.jit
def tanh_root(z):
    """T(z) = tanh(r)/r, r = sqrt z"""
    r = tl.sqrt(z)
    return over_root(tanh(r), r)


@triton.jit
def tanh_root_d(z, t):
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
def artanh_root(r, rest):
    """A(z) = artanh(r)/r, r = sqrt z, from r and 1 - z"""
    return over_root(0.5 * log1p(2 * r * (1 + r) / rest), r)


@triton.jit
def artanh_root_d(z, rest, a):
    """A' = (1/(1 - z) - A)/(2z)"""
    near = z < 0.06
    start = tl.zeros_like(z)
    for k in tl.static_range(14, 0, -1):
        start = start * z + k / (2 * k + 1)
    return tl.where(near, start, (1 / rest - a) / tl.where(near, 1, 2 * z))


@triton.jit
def arsinh_root(u):
    """S(u) = arsinh(r)/r, r = sqrt u"""
    r = tl.sqrt(u)
    return over_root(asinh(r), r)


@triton.jit
def arsinh_root_d(u, s):
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
def tanh_over(s):
    """tanh(s)/s, for s of any sign"""
    s = tl.abs(s)
    return over_root(tanh(s), s)


@triton.jit
def sinh_over(s):
    """sinh(s)/s, for s of any sign"""
    s = tl.abs(s)
    return over_root(sinh(s), s)


@triton.jit
def sinh_over_log_d(s):
    """d/dz log(sinh(r)/r) = (s coth s - 1)/(2z) at z = s^2, r = sqrt z"""
    s = tl.abs(s)
    near = s < 1
    start = series(
        s * s,
        (
            0.16666666666666666,
            -0.011111111111111112,
            0.0010582010582010583,
            -0.00010582010582010582,
            1.0688899577788467e-05,
            -1.0822021404031986e-06,
            1.0962973925936889e-07,
            -1.1107304394989839e-08,
            1.1253923258404497e-09,
            -1.1402575602296092e-10,
            1.1553216299501312e-11,
            -1.1705853409912441e-12,
            1.1860508700116827e-13,
            -1.2017207666653852e-14,
            1.2175977014591684e-15,
            -1.2336844022586037e-16,
            1.2499836385610405e-17,
        ),
    )
    r = tl.where(near, 1, s)
    return tl.where(near, start, (r / tanh(r) - 1) / (2 * r * r))


@triton.jit
def sech2(s):
    """1/cosh^2(s), which 1 - tanh^2(s) loses for large s"""
    h = 1 / cosh(tl.abs(s))
    return h * h
