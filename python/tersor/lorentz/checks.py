"""Whether rows are points of the hyperboloid. The one rule: a space part always is one, so that only its numbers, or a time
that is given with it, can be wrong."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._arrays import dtype_name, flag
from tersor._reference import Array, quiet, wide, xp
from tersor._values import check_curvature
from tersor.hyperbolic.checks import first_wrong, unnumbered
from tersor.lorentz._space import times

#: how far a time may be from that of its space part, in the distance from 1 to the next number: a sum and a root of some others
NEAR = {"float64": 2.0**-46, "float32": 2.0**-17, "float16": 2.0**-7, "bfloat16": 2.0**-4}


@along("x")
def is_point(x: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False, with_time: bool = False) -> Array:
    r"""Which rows are points: space parts that are numbers, as their times are.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Space parts; or whole points, their time first.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. At c = 0, where times are infinite, every row of numbers is one,
        and no whole one is.
    {dim}
    {keepdim}
    with_time : bool
        Whether rows are whole points, which `add_time` makes: times must be those of their space parts, positive, but for the
        last 6 bits of the type (3 of the 16-bit ones).

    Returns
    -------
    array or tensor [...] of bool

    Raises
    ------
    TypeError, ValueError
        If x is not a float array, c is negative or not finite, or shapes do not broadcast.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import lorentz
    >>> lorentz.is_point(np.array([[1.25, 0.75], [1.25, 0.7], [-1.25, 0.75]]), with_time=True)
    array([ True, False, False])
    """
    k = check_curvature("is_point", c)
    whole = flag("is_point: with_time", with_time)
    if whole and not x.shape[-1]:
        raise ValueError(f"is_point: whole points have a time, got shape {tuple(x.shape)}")
    s, t = wide(x[..., 1:] if whole else x), wide(x[..., :1]) if whole else 0.0
    with quiet(s):
        want = times(x, s, k)
        fine = xp.isfinite(s).all(-1)[..., None] & (xp.isfinite(want) | (k == 0))
        if whole:
            fine = fine & (abs(k**0.5 * t - want) <= NEAR[dtype_name(x.dtype)] * want) & (t > 0)
    return fine if keepdim else fine[..., 0]


def check_points(x: Array, c: Any = 1.0, *, dim: int = -1, with_time: bool = False) -> None:
    r"""Raises unless all rows are points, and names the first that is none.

    Parameters
    ----------
    x, c, dim, with_time
        As `is_point` takes them.

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If a row is no point, c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    Looks at the numbers: waits for a GPU, and breaks the graph of ``torch.compile``.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import lorentz
    >>> lorentz.check_points(np.array([[1.25, 0.75], [1.25, 0.7]]), with_time=True)
    Traceback (most recent call last):
    ...
    ValueError: check_points: row 1 is no point: its time is 1.25, that of its space part 1.22066
    """
    wrong = first_wrong("check_points", is_point(x, c, dim=dim, with_time=with_time), x, c, dim)
    if wrong is None:
        return
    name, row, k = wrong
    unnumbered("check_points", name, row)
    if not with_time:
        raise ValueError(f"check_points: {name} is no point: its time is beyond float64")
    with quiet(row):
        want = float(times(row, row[1:], k)[0]) / k**0.5 if k else float("inf")
    raise ValueError(f"check_points: {name} is no point: its time is {row[0]:.6g}, that of its space part {want:.6g}")
