"""What a layer tells of its input and of the labels: mutual information of binned activations. The one rule: entropies are of
whole counts, added exactly, so that they do not depend on how the data was parted.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tersor._arrays import Array, Labels, whole
from tersor._distinct import distinct
from tersor._host import answer
from tersor.metrics._arguments import class_labels, finite
from tersor.metrics._state import State, Streaming


class Information(NamedTuple):
    """In bits: the entropy of a layer, what it tells of the input, and what of the labels."""

    h_t: Any
    i_xt: Any
    i_ty: Any


def _matrix(who: str, activations: Any) -> np.ndarray:
    x = finite(who, "activations", activations)
    if x.ndim != 2:
        raise ValueError(f"{who}: activations must have 2 axes, got shape {x.shape}")
    return x


def _bins(who: str, n_bins: Any) -> int:
    n = whole(f"{who}: n_bins", n_bins)
    if not 1 <= n <= 1 << 16:
        raise ValueError(f"{who}: n_bins must lie within 1 and {1 << 16}, got {n}")
    return n


def _reach(who: str, range_: Any) -> tuple[float, float]:
    """The ends of the bins."""
    if not isinstance(range_, (tuple, list)) or len(range_) != 2 or not all(hasattr(v, "__float__") for v in range_):
        raise TypeError(f"{who}: range must be two numbers, got {range_!r}")
    low, high = map(float, range_)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"{who}: range must be two finite numbers in order, got {range_!r}")
    return low, high


def _codes(x: np.ndarray, n: int, low: float, high: float) -> np.ndarray:
    """How many interior edges are not above each number; one bin where there is no width."""
    edges = np.linspace(low, high, n + 1)[1:-1] if low < high else np.zeros(0)
    return np.searchsorted(edges, x, side="right").astype(np.uint8 if n <= 256 else np.uint16)


def _entropy(counts: np.ndarray, of: np.ndarray | int, n: int) -> float:
    """Σ (c / n) log₂(of / c): exactly 0 where each count is all there are, and the same in any order."""
    return math.fsum((counts * (np.log2(of) - np.log2(counts))).tolist()) / n


def _information(counts: np.ndarray, row: np.ndarray, label: np.ndarray | None) -> Information:
    """Of how often each pair of a row and a label was seen."""
    n = int(counts.sum())
    in_rows = np.bincount(row, counts).astype(np.int64)
    h_t = _entropy(in_rows, n, n)
    if label is None:
        return Information(h_t, h_t, math.nan)
    _, at = np.unique(label, return_inverse=True)
    in_labels = np.bincount(at, counts).astype(np.int64)
    return Information(h_t, h_t, max(h_t - _entropy(counts, in_labels[at], n), 0.0))


def _counted(row: np.ndarray, label: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that occur, in the order of rows and labels, and the sums of their counts."""
    order = np.lexsort((label, row))
    row, label = row[order], label[order]
    starts = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(label, prepend=label[:1]) != 0))
    return row[starts], label[starts], np.add.reduceat(counts[order], starts)


def binned_mutual_information(
    activations: Array, labels: Labels | None = None, *, n_bins: int = 30, range: Any = None
) -> Information:
    r"""The information plane of a layer: its activations in bins, so that equal rows of bins are one state T.

    .. math:: H(T) = -\sum_r \tfrac{n_r}{n} \log_2 \tfrac{n_r}{n},\quad I(X; T) = H(T),\quad
        I(T; Y) = H(T) - \sum_y p(y) H(T \mid y)

    Parameters
    ----------
    activations : array or tensor of floats ``[n, d]``
    labels : array or tensor of integers or bool ``[n]``, optional
    n_bins : int
    range : (low, high), optional
        What the bins divide; numbers beyond are in the bins at the ends. The least and the largest of all if absent.

    Returns
    -------
    h_t, i_xt, i_ty : float
        In bits; in torch float64 tensors. i_ty is NaN without labels.

    Raises
    ------
    TypeError
        If activations are no floats or labels no integers.
    ValueError
        If shapes do not go together, there are no rows, or a number is not finite.

    Notes
    -----
    Bins are half open, :math:`[e_k, e_{k+1})`, the last one closed; activations that are all equal are one bin. Rows are
    compared exactly (`tersor.reduce.row_ids`). O(n d log B + n log n). No gradient. Shwartz-Ziv and Tishby, "Opening the Black
    Box of Deep Neural Networks via Information" (2017).

    Examples
    --------
    >>> import numpy as np
    >>> binned_mutual_information(np.array([[0.0], [0.1], [1.0], [0.9]]), np.array([0, 0, 1, 1]), n_bins=2)
    Information(h_t=1.0, i_xt=1.0, i_ty=1.0)
    """
    who = "binned_mutual_information"
    x = _matrix(who, activations)
    n = _bins(who, n_bins)
    if not len(x):
        raise ValueError(f"{who}: activations has no rows")
    y = None if labels is None else class_labels(who, "labels", labels, len(x), "activations")
    ends = _reach(who, range) if range is not None else (x.min(), x.max()) if x.size else (0.0, 0.0)
    ids, _, counts = distinct(_codes(x, n, *ends))
    if y is None:
        found = _information(counts, np.arange(len(counts)), None)
    else:
        row, label, counts = _counted(ids, y, np.ones(len(y), np.int64))
        found = _information(counts, row, label)
    return Information(*(answer(v, activations) for v in found))


class MutualInformation(Streaming):
    """`binned_mutual_information` of activations that come in parts.

    Parameters
    ----------
    n_bins : int
    range : (low, high)
        Must be known before the data is.

    Notes
    -----
    The different rows of bins are kept, and how often each was seen with each label: results are the same to the bit for any
    parts in any order.
    """

    _ARRAYS: ClassVar = {
        "codes": ("uint16", "nd"),
        "row": ("int64", "n"),
        "label": ("int64", "n"),
        "count": ("int64", "n"),
        "labelled": ("bool", ""),
    }

    def __init__(self, n_bins: int, range: tuple[float, float]) -> None:
        super().__init__()
        self.n_bins = _bins("MutualInformation", n_bins)
        self.range = _reach("MutualInformation", range)

    def _settings(self) -> dict[str, Any]:
        return {"n_bins": self.n_bins, "range": self.range}

    def update(self, activations: Array, labels: Labels | None = None) -> None:
        """Takes in more rows ``[n, d]``, all with labels ``[n]`` or all without; of none, nothing.

        Raises
        ------
        TypeError, ValueError
            As `binned_mutual_information` does; or d is another than before, or some parts have labels and others not.
        """
        who = "MutualInformation.update"
        x = _matrix(who, activations)
        y = None if labels is None else class_labels(who, "labels", labels, len(x), "activations")
        if not len(x):
            return
        codes = _codes(x, self.n_bins, *self.range).astype(np.uint16)
        ids, first, _ = distinct(codes)
        row, label, count = _counted(ids, np.zeros(len(x), np.int64) if y is None else y, np.ones(len(x), np.int64))
        new = {"codes": codes[first], "row": row, "label": label, "count": count, "labelled": np.array(y is not None)}
        self._add(who, new)

    def _joined(self, a: State, b: State) -> State:
        if a["labelled"] != b["labelled"]:
            raise ValueError("MutualInformation: some parts have labels and others not")
        codes = np.concatenate([a["codes"], b["codes"]])
        ids, first, _ = distinct(codes)
        row = ids[np.concatenate([a["row"], b["row"] + len(a["codes"])])]
        row, label, count = _counted(row, *(np.concatenate([a[k], b[k]]) for k in ("label", "count")))
        return {"codes": codes[first], "row": row, "label": label, "count": count, "labelled": a["labelled"]}

    def compute(self) -> Information:
        """The information of all that was seen, in bits.

        Raises
        ------
        ValueError
            If nothing was seen.
        """
        s = self._seen()
        return _information(s["count"], s["row"], s["label"] if s["labelled"] else None)
