"""Rows that belong together. The one rule: labels are data, and what is equal is decided exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

from tersor._arrays import Labels
from tersor._distinct import distinct
from tersor._host import LABELS, answer, held

__all__ = ["RowIds", "row_ids"]


class RowIds(NamedTuple):
    """The id of each row, the first row of each id, and how many rows have it."""

    ids: Any
    first: Any
    counts: Any


def row_ids(codes: Labels) -> RowIds:
    """Which rows of codes are equal.

    Parameters
    ----------
    codes : array or tensor of integers or bool ``[n, width]``

    Returns
    -------
    ids : int64 ``[n]``
        Equal rows have one id; ids are numbered by first occurrence.
    first : int64 ``[m]``
        The first row of each id.
    counts : int64 ``[m]``

    Raises
    ------
    TypeError
        If codes are no integers.
    ValueError
        If they have not two axes.

    Notes
    -----
    Exact: a key of 64 bits tells where a row may have been met, and rows are compared. O(n width) where keys differ. Rows of
    no width are all one.

    Examples
    --------
    >>> import numpy as np
    >>> row_ids(np.array([[3, 1], [0, 0], [3, 1]])).ids
    array([0, 1, 0])
    """
    rows = held("row_ids", "codes", codes, LABELS)
    if rows.ndim != 2:
        raise ValueError(f"row_ids: codes must have 2 axes, got shape {rows.shape}")
    return RowIds(*(answer(v, codes) for v in distinct(rows)))
