"""Inner products and combinations that several operators share. The rule: two points meet as their difference or their
sum, never as <x, y>.
"""

import functools

import triton
import triton.language as tl

from tersor.triton import _rows
from tersor.triton._dots import dot, square_sum

#: launchers of this family's operators
launcher = functools.partial(_rows.launcher, "hyperbolic")


@triton.jit
def square(v, W: tl.constexpr):
    """|x|^2 of the first vector"""
    return (dot(v[0], v[0], W),)


@triton.jit
def slope(v, W: tl.constexpr):
    """|x|^2, <g, x>"""
    g, x = v
    return dot(x, x, W), dot(g, x, W)


@triton.jit
def chord(v, W: tl.constexpr):
    """|x|^2, |y|^2, |y - x|^2"""
    x, y = v
    return dot(x, x, W), dot(y, y, W), square_sum(y, -x, W)


@triton.jit
def scaled(v, w):
    return (v[0] * w[0],)


@triton.jit
def turned(v, w):
    g, x = v
    return (g * w[0] + x * w[1],)
