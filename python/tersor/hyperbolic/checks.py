"""Whether rows are points. The one rule: a row is one where its conformal factor is a number, which the operators ask too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._along import along
from tersor._arrays import axes, dtype_name, is_tensor, move
from tersor._reference import Array, quiet, wide, xp
from tersor._values import check_curvature, readable
from tersor.hyperbolic.conformal import lambda_x


@along("x")
def is_point(x: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Which rows are points of the ball, :math:`c\|x\|^2 < 1`, all of them numbers.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Any rows.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. At c = 0 every row of numbers is a point.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...] of bool

    Raises
    ------
    TypeError, ValueError
        If x is not a float array, c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    :math:`1 - c\|x\|^2` is taken as the operators take it, in twice the precision of the data: what is a point here is one
    there, to the last number inside the ball. One read of x.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> hyperbolic.is_point(np.array([[0.6, 0.7], [0.6, 0.8], [np.nan, 0.0]]))
    array([ True, False, False])
    """
    k = check_curvature("is_point", c)
    narrow = wide(x) if dtype_name(x.dtype) == "float16" else x  # whose factors go further than its numbers
    with quiet(x):
        fine = xp.isfinite(lambda_x(narrow, k, keepdim=True))
    if axes(k) or is_tensor(k) or k == 0:  # squares of long rows are no numbers there
        fine = fine | ((k == 0) & xp.isfinite(x).all(-1)[..., None])
    return fine if keepdim else fine[..., 0]


def first_wrong(who: str, fine: Array, x: Array, c: Any, dim: int) -> tuple[str, np.ndarray, float] | None:
    """What to call the first row of x that is not fine, its numbers, and its curvature; None where all are fine."""
    readable(who, x=fine)
    right = np.asarray(fine.cpu() if is_tensor(fine) else fine)
    if right.all():
        return None
    at = tuple(int(i) for i in np.unravel_index(right.argmin(), right.shape))
    with_dim = x.ndim if dim == -1 else max(x.ndim, axes(c))
    rows, k = (a if dim == -1 else move(a, with_dim, dim, -1) for a in (x, c))
    row = wide(xp.broadcast_to(rows, (*right.shape, rows.shape[-1]))[at])
    k = xp.broadcast_to(k, (*right.shape, 1))[at][0] if axes(k) else k
    name = f"row {', '.join(map(str, at))}" if at else "x"
    return name, np.asarray(row.detach().cpu() if is_tensor(row) else row), float(k)


def unnumbered(who: str, name: str, row: np.ndarray) -> None:
    """Raises where a row holds what is no number."""
    strange = row[~np.isfinite(row)]
    if strange.size:
        raise ValueError(f"{who}: {name} is no point: it holds {strange[0]}")


def check_points(x: Array, c: Any = 1.0, *, dim: int = -1) -> None:
    r"""Raises unless all rows are points of the ball, and names the first that is none.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Any rows.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. At c = 0 every row of numbers is a point.
    {dim}

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If a row is no point (see `is_point`), c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    Looks at the numbers: waits for a GPU, and breaks the graph of ``torch.compile``. `project` brings rows back that are
    outside.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> hyperbolic.check_points(np.array([[0.6, 0.7], [0.5, 1.2]]))
    Traceback (most recent call last):
    ...
    ValueError: check_points: row 1 is no point of the ball: its length is 1.3, not below 1.0
    """
    wrong = first_wrong("check_points", is_point(x, c, dim=dim), x, c, dim)
    if wrong is not None:
        name, row, k = wrong
        unnumbered("check_points", name, row)
        raise ValueError(
            f"check_points: {name} is no point of the ball: its length is {math.hypot(*row)}, not below {1 / math.sqrt(k)}"
        )
