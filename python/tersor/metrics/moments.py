"""Exact means and variances of data that comes in parts. The one rule: no decay and no difference of squares, so the result is
that of the whole.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tersor._arrays import Array, flag
from tersor._host import held
from tersor._moments import Moments, chan, moments
from tersor.metrics._arguments import finite
from tersor.metrics._state import State, Streaming


class RunningMoments(Streaming):
    """The mean and variance of every entry over rows that come in parts: of a batch norm's inputs over a whole loader.

    Parameters
    ----------
    weighted : bool
        Every row has a weight.

    Examples
    --------
    >>> import numpy as np
    >>> moments = RunningMoments()
    >>> moments.update(np.array([1.0, 2.0]))
    >>> moments.update(np.array([6.0]))
    >>> float(moments.compute().mean)
    3.0

    Notes
    -----
    Parts are merged by Chan's formula. Entries that are all equal have that mean and a variance of 0, exactly.
    """

    _ARRAYS: ClassVar = {
        "count": ("float64", ""),
        "pivot": ("float64", "*"),
        "far": ("float64", "*"),
        "square": ("float64", "*"),
    }

    def __init__(self, weighted: bool = False) -> None:
        super().__init__()
        self.weighted = flag("RunningMoments: weighted", weighted)

    def _settings(self) -> dict[str, Any]:
        return {"weighted": self.weighted}

    def update(self, x: Array, weight: Array | None = None) -> None:
        """Takes in more rows ``[n, ...]`` and, where rows have one, their weights ``[n]``; of none, nothing.

        Raises
        ------
        TypeError
            If they are no floats.
        ValueError
            If x has no axis or other rows than before, a weight is negative or not finite, or missing, or not asked for. What
            is not finite in x is a value.
        """
        who = "RunningMoments.update"
        rows = held(who, "x", x)
        if not rows.ndim:
            raise ValueError(f"{who}: x needs a first axis, got a 0-d array")
        if (weight is not None) != self.weighted:
            raise ValueError(
                f"{who}: weight is {'given' if weight is not None else 'missing'}, weighted={self.weighted}"
            )
        w = None
        if weight is not None:
            w = finite(who, "weight", weight)
            if w.shape != rows.shape[:1]:
                raise ValueError(f"{who}: weight must have shape {rows.shape[:1]}, got {w.shape}")
            if len(w) and w.min() < 0:
                raise ValueError(f"{who}: weight must not be negative, got {w.min():g}")
            rows, w = rows[w > 0], w[w > 0]
        if not len(rows):
            return
        count, *parts = moments(rows.astype(np.float64), w)
        new = dict(zip(("pivot", "far", "square"), map(np.array, parts), strict=True))
        self._add(who, new | {"count": np.array(float(count))})

    def _joined(self, a: State, b: State) -> State:
        # means about one row, so that what is far from 0 loses nothing
        far, step, w = chan(a["count"], a["far"], b["count"], (b["pivot"] - a["pivot"]) + b["far"])
        square = a["square"] + b["square"] + w * step * step
        made = {"count": a["count"] + b["count"], "pivot": a["pivot"], "far": far, "square": square}
        return {k: np.asarray(v) for k, v in made.items()}

    def compute(self) -> Moments:
        """How many rows there were, or their weight, and the mean and the variance (of the population) of each entry.

        Raises
        ------
        ValueError
            If nothing was seen.
        """
        s = self._seen()
        return Moments(float(s["count"]), s["pivot"] + s["far"], s["square"] / s["count"])
