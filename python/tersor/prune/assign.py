"""The assignment of least cost. The one rule: duals stay feasible, and every row is added by the shortest way to a free
column.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, INTEGERS, Level
from tersor._host import answer, held
from tersor._op import op
from tersor._sample import Draw

Array = Any


def assign(scores: Level, *, maximize: bool = False) -> Array:
    r"""A column for each row, no two alike, so that the sum of their scores is the least.

    .. math:: \min_\pi \sum_i s_{i \pi(i)}

    Parameters
    ----------
    scores : array or tensor [..., n, m], float or integer
        m at least n; finite.
    maximize : bool
        The largest sum instead.

    Returns
    -------
    int64 array or tensor [..., n]
        :math:`\pi`. Of solutions of equal sum always the same one.

    Raises
    ------
    TypeError
        If scores are no numbers.
    ValueError
        If there are fewer columns than rows or axes than two, or scores, or sums of them on the way, are not finite.

    See Also
    --------
    expert_align

    Notes
    -----
    Shortest augmenting paths in float64, matrices side by side: :math:`O(n^2 m)` at worst, mostly far less. Jonker and
    Volgenant, "A Shortest Augmenting Path Algorithm for Dense and Sparse Linear Assignment Problems" (1987).

    Examples
    --------
    >>> import numpy as np
    >>> assign(np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]]))
    array([1, 0, 2])
    """
    who = "assign"
    if scores.ndim < 2 or scores.shape[-2] > scores.shape[-1]:
        raise ValueError(
            f"{who}: scores must be [..., rows, columns], no more rows than columns, got {tuple(scores.shape)}"
        )
    given = held(who, "scores", scores, (*FLOATS, *INTEGERS)).astype(np.float64)
    if not np.isfinite(given).all():
        raise ValueError(f"{who}: scores have non-finite values")
    return answer(_assignment(-given if maximize else given), scores)


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    rows = min(math.prod(draw.lead), 7)
    cost = draw.normal(2, rows, rows + draw.seed % 3)
    return [np.round(cost) if draw.seed % 2 else cost], {}


@op(sample=_sample, integer=True)
def _assignment(cost: Array) -> Array:
    """The columns of rows [..., n, m], m at least n, of least sum."""
    found = np.empty(cost.shape[:-1], np.int64)
    for i in np.ndindex(cost.shape[:-2]):
        found[i] = _solve(np.asarray(cost[i], np.float64))
    return found


def _solve(cost: np.ndarray) -> np.ndarray:
    """The column of each row of finite costs [n, m], m at least n: shortest augmenting paths with duals u and v."""
    n, m = cost.shape
    u, v, row_of, column_of = np.zeros(n), np.zeros(m), np.full(m, -1), np.full(n, -1)
    _reduce(cost, v, row_of, column_of)
    u[:] = (cost - v).min(1) if m else 0
    for start in map(int, np.flatnonzero(column_of < 0)):
        far, before = np.full(m, np.inf), np.full(m, -1)
        open_ = np.ones(m, bool)
        row, least = start, 0.0
        while True:
            way = least + cost[row] - u[row] - v
            shorter = open_ & (way < far)
            far[shorter], before[shorter] = way[shorter], row
            some = np.where(open_, far, np.inf)
            least = some.min()
            # of columns equally near a free one, then the lowest
            near = np.flatnonzero(some == least)
            free = near[row_of[near] < 0]
            column = int(free[0] if len(free) else near[0])
            open_[column] = False
            if row_of[column] < 0:
                break
            row = int(row_of[column])
        seen = np.flatnonzero(~open_)
        seen = seen[seen != column]
        u[start] += least
        u[row_of[seen]] += least - far[seen]
        v[seen] -= least - far[seen]
        while True:
            row = int(before[column])
            row_of[column] = row
            column_of[row], column = column, int(column_of[row])
            if row == start:
                break
    return column_of


def _reduce(cost: np.ndarray, v: np.ndarray, row_of: np.ndarray, column_of: np.ndarray) -> None:
    """Square costs only: each column's least gives its dual, and a row that is the least of one takes it."""
    n, m = cost.shape
    if n != m or not n:
        return
    v[:] = cost.min(0)
    for column, row in enumerate(cost.argmin(0)):
        if column_of[row] < 0:
            column_of[row], row_of[column] = column, row
