"""What all of the Lorentz model is written with. The one rule: float64 inside, one rounding at the end."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._arrays import dtype_name
from tersor._reference import Array, arsinh_root, dot, quiet, root, rounded, wide, xp
from tersor._values import check_curvature

#: how far space parts may reach where that is asked for: tangent vectors there are numbers too, and the squares of both
REACH = {"float64": 2.0**150, "float32": 2.0**100, "bfloat16": 2.0**100, "float16": 2.0**10}


def check_same(who: str, x: Array, **others: Array) -> None:
    for name, y in others.items():
        if getattr(y, "dtype", None) != x.dtype:
            raise TypeError(f"{who}: {name} is {getattr(y, 'dtype', type(y).__name__)}, x is {x.dtype}")


def checked(c: Any) -> Any:
    """c, where it is a number that can be looked at."""
    return check_curvature("lorentz", c)


#: by this squares of the largest numbers of float64 are numbers, and those that are too large without it are there
DOWN = 2.0**-600


def root_of(s: Array, c: Any) -> Array:
    """√(1 + c|s|²)."""
    return xp.sqrt(1 + c * dot(s, s))


def times(x: Array, s: Array, c: Any) -> Array:
    """`root_of`, also of rows of float64 data whose squares are beyond it."""
    if x.dtype.itemsize < 8:
        return root_of(s, c)
    with quiet(s):
        far = c * dot(s, s) > 1e300
    small = s * DOWN
    long = xp.where(far, dot(small, small), 1.0)
    return xp.where(far, c**0.5 * (xp.sqrt(long) / DOWN), root_of(xp.where(far, 0.0, s), c))


def arsinh_of(x: Array, s: Array, c: Any) -> Array:
    """arsinh(√c|s|)/(√c|s|), also where the square is beyond float64."""
    if x.dtype.itemsize < 8:
        return arsinh_root(c * dot(s, s))
    t = times(x, s, c)
    far = t > 1e140
    t, s = xp.where(far, t, 1.0), xp.where(far, 0.0, s)
    return xp.where(far, xp.arcsinh(t) / t, arsinh_root(c * dot(s, s)))


def reach(x: Array) -> float:
    return REACH[dtype_name(x.dtype)]


def shortened(s: Array, most: Any) -> Array:
    """Rows of no more than this length."""
    n = root(dot(s, s))
    return s * xp.where(n > most, most / xp.where(n > most, n, 1.0), 1.0)


@along("x")
def time(x: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""The time part of points, :math:`t = \sqrt{1/c + \|s\|^2}`.

    Parameters
    ----------
    {x}
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; at 0 the time is infinite.
    {dim}

    Returns
    -------
    array or tensor [..., 1]
        Differentiable.

    Raises
    ------
    {refused_rows}
    """
    s = wide(x)
    return rounded(times(x, s, checked(c)) / (c**0.5 + 0 * s[..., :1]), x)
