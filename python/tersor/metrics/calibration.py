"""Whether a model is right as often as it says: bins of confidences. The one rule: a bin is decided by comparing with its
edges, counts are whole numbers, and hits minus confidence are summed before anything is divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tersor._arrays import Array, Labels, flag, whole
from tersor._host import answer, held
from tersor.metrics._arguments import class_labels
from tersor.metrics._state import State, Streaming

NORMS = ("l1", "l2", "max", "mean")
BINNINGS = ("uniform", "quantile")
#: how many confidences are looked at at once, so that what is made of them stays in a cache
_BLOCK = 1 << 14


class Bins(NamedTuple):
    """A table of confidences, ``[bins]`` or ``[classes, bins]``: NaN where a bin is empty; edges are one more than bins."""

    count: Any
    confidence: Any
    accuracy: Any
    edges: Any


class _Table(NamedTuple):
    """What bins add up: how many, how many were right, and the sum of (right - confidence); ``[rows, bins]`` each."""

    count: np.ndarray  # type: ignore[assignment]
    hits: np.ndarray
    gap: np.ndarray


def _sizes(who: str, n_bins: Any) -> list[int]:
    """The numbers of bins that are asked for."""
    several = isinstance(n_bins, Sequence) and not isinstance(n_bins, (str, bytes))
    found = [whole(f"{who}: n_bins", b) for b in (n_bins if several else [n_bins])]
    if not found or min(found) < 1 or max(found) > 1 << 24:
        raise ValueError(f"{who}: n_bins must lie within 1 and {1 << 24}, got {n_bins}")
    return found


def _one_of(who: str, what: str, value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{who}: {what} must be a string, got {type(value).__name__}")
    if value not in known:
        raise ValueError(f"{who}: {what} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def _judged(who: str, probs: Any, target: Any, classwise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Confidences in their own type and whether each was right, ``[rows, n]``: of one row, or of one for each class."""
    p = held(who, "probs", probs)
    if p.ndim not in (1, 2) or (classwise and p.ndim == 1):
        wanted = "[n, classes]" if classwise else "[n] or [n, classes]"
        raise ValueError(f"{who}: probs must have shape {wanted}, got {p.shape}")
    if p.ndim == 2 and not p.shape[1]:
        raise ValueError(f"{who}: probs has shape {p.shape}: there is no class")
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # NaN is neither
        i = np.unravel_index(int((~((p >= 0) & (p <= 1))).argmax()), p.shape)
        raise ValueError(f"{who}: probs must lie within 0 and 1, got {p[i]} at {tuple(map(int, i))}")
    y = class_labels(who, "target", target, len(p), "probs", 2 if p.ndim == 1 else p.shape[1])
    if p.ndim == 1:
        return p[None], (y == 1)[None]
    if classwise:
        hit = np.zeros(p.shape, bool)
        hit[np.arange(len(y)), y] = True
        return p.T, hit.T
    top = p.argmax(1) if len(p) else np.zeros(0, np.int64)
    return p[np.arange(len(p)), top][None], (top == y)[None]


def _uniform(p: np.ndarray, n: int) -> np.ndarray:
    """How many interior edges k/n are strictly below each p of float64: by a product where that is sure, else by comparing."""
    product = p * n
    guess = np.minimum(product.astype(np.int64), n - 1)
    # a product and an edge are each rounded once: n · 2⁻⁵² between them at most
    near = np.flatnonzero(np.abs(product - np.rint(product)) <= n * 2.0**-50)
    if len(near):
        p, at, edges = p[near], guess[near], np.arange(n + 1) / n
        at -= (at > 0) & (p <= edges[at])
        guess[near] = at + ((at < n - 1) & (p > edges[at + 1]))
    return guess


def _quantile(p: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Bins of equal mass of one row, and their edges. Equal numbers go to the bin of the first of them in order."""
    order = np.argsort(p, kind="stable")
    rank = np.arange(len(p))
    ordered = p[order]
    first = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1.0) > 0, rank, 0))
    bins = np.empty(len(p), np.int64)
    bins[order] = first * n // max(len(p), 1)
    edges = np.zeros(n + 1)
    np.maximum.at(edges, bins + 1, p)
    return bins, np.maximum.accumulate(edges)


def _table(p: np.ndarray, hit: np.ndarray, n: int, binning: str) -> tuple[_Table, np.ndarray]:
    """The table of ``[rows, n]`` confidences, and the edges of its bins."""
    size, step = n * len(p), max(_BLOCK // len(p), 1)
    bins, edges = None, np.arange(n + 1) / n
    if binning == "quantile":
        made = [_quantile(row.astype(np.float64), n) for row in p]
        bins, edges = np.stack([b for b, _ in made]), np.stack([e for _, e in made])
    by_hit, gap = np.zeros(2 * size, np.int64), np.zeros(size)
    offsets = np.tile(n * np.arange(len(p)), step)
    for i in range(0, p.shape[1], step):
        # samples one after another, as classes lie in memory
        part, right = (v[:, i : i + step].T.ravel() for v in (p, hit))
        part = part.astype(np.float64)
        at = _uniform(part, n) if bins is None else bins[:, i : i + step].T.ravel()
        if len(p) > 1:
            at += offsets[: len(at)]
        gap += np.bincount(at, right - part, size)
        by_hit += np.bincount(2 * at + right, minlength=2 * size)
    count, hits = by_hit.reshape(-1, 2).sum(1), by_hit[1::2]
    return _Table(*(v.reshape(len(p), n) for v in (count, hits, gap))), edges


def _error(t: _Table, norm: str) -> float:
    """One number of a table, the mean over its rows."""
    n = t.count.sum(1)
    some = t.count > 0
    away = np.abs(t.gap)
    mean = away / np.where(some, t.count, 1)
    each = {
        "l1": away.sum(1) / n,
        "l2": np.sqrt((away * mean).sum(1) / n),
        "max": mean.max(1),
        "mean": mean.sum(1) / some.sum(1),
    }[norm]
    return float(each.mean())


def _curve(t: _Table, edges: np.ndarray, classwise: bool) -> Bins:
    with np.errstate(invalid="ignore"):
        found = Bins(t.count, (t.hits - t.gap) / t.count, t.hits / t.count, edges)
    return found if classwise else Bins(*(v[0] if v.ndim == 2 else v for v in found))


def _nonempty(who: str, p: np.ndarray) -> None:
    if not p.shape[1]:
        raise ValueError(f"{who}: probs has no rows")


def calibration_curve(
    probs: Array, target: Labels, *, n_bins: int = 15, binning: str = "uniform", classwise: bool = False
) -> Bins:
    r"""How often a model is right where it is so sure: counts, mean confidence and accuracy of bins of confidence.

    Of ``[n]`` probabilities the confidence is p and the accuracy the mean target; of ``[n, K]`` it is the largest, of the
    lowest class among equals, and the share of rows in which that is the target; with ``classwise`` each class is taken by
    itself.

    Parameters
    ----------
    probs : array or tensor of floats ``[n]`` or ``[n, K]``
        Within 0 and 1. Sums of rows are not looked at.
    target : array or tensor of integers or bool ``[n]``
        0 or 1, or classes 0 to K - 1.
    n_bins : int
    binning : "uniform" or "quantile"
        Bins :math:`(k/B, (k+1)/B]`, 0 in the first; or of equal mass: the number of rank i of n is in bin
        :math:`\lfloor iB/n \rfloor`, and equal numbers are in the bin of the first of them, whatever the order of the data.
    classwise : bool

    Returns
    -------
    count : int64 ``[B]``, or ``[K, B]`` with ``classwise``
    confidence, accuracy : float64, as count
        NaN where a bin is empty.
    edges : float64 ``[B + 1]``, with quantile bins and ``classwise`` ``[K, B + 1]``
        Of quantile bins 0, then the largest number of each bin; of an empty one that of the bin before.

    Raises
    ------
    TypeError
        If probs are no floats or targets no integers.
    ValueError
        If shapes do not go together, there are no rows, a probability is not within 0 and 1 or a target no class.

    Notes
    -----
    O(n) with uniform bins, O(n log n) with quantile bins, K times that for each class by itself. No gradient. Guo et al., "On
    Calibration of Modern Neural Networks" (2017).

    Examples
    --------
    >>> import numpy as np
    >>> calibration_curve(np.array([0.9, 0.9, 0.2]), np.array([1, 0, 0]), n_bins=2).accuracy
    array([0. , 0.5])
    """
    who = "calibration_curve"
    (n_bins,) = _sizes(who, [n_bins])
    _one_of(who, "binning", binning, BINNINGS)
    p, hit = _judged(who, probs, target, flag(f"{who}: classwise", classwise))
    _nonempty(who, p)
    return Bins(*(answer(v, probs) for v in _curve(*_table(p, hit, n_bins, binning), classwise)))


def calibration_error(
    probs: Array,
    target: Labels,
    *,
    n_bins: int | Sequence[int] = 15,
    norm: str = "l1",
    binning: str = "uniform",
    classwise: bool = False,
) -> Any:
    r"""How far confidence is from accuracy, over bins b of confidence.

    .. math:: \text{l1: } \sum_b \frac{n_b}{n} |a_b - c_b|,\quad \text{l2: } \sqrt{\sum_b \frac{n_b}{n} (a_b - c_b)^2},\quad
        \text{max: } \max_b |a_b - c_b|,\quad \text{mean: } \frac{1}{|\{n_b > 0\}|} \sum_b |a_b - c_b|

    Parameters
    ----------
    probs : array or tensor of floats ``[n]`` or ``[n, K]``
        As in `calibration_curve`.
    target : array or tensor of integers or bool ``[n]``
    n_bins : int or sequence of int
        Of several, an error for each.
    norm : "l1", "l2", "max" or "mean"
        ECE, its root mean square, the maximum (MCE) and the plain mean over bins that are not empty.
    binning : "uniform" or "quantile"
    classwise : bool
        The mean over all K classes, those that no target names among them.

    Returns
    -------
    float, or float64 ``[len(n_bins)]``
        In torch a float64 tensor.

    Raises
    ------
    TypeError
        If probs are no floats or targets no integers.
    ValueError
        If shapes do not go together, there are no rows, a probability is not within 0 and 1 or a target no class.

    Notes
    -----
    Sums are float64, and right minus confidence is one sum: a model that is as sure as it is right has an error of 0 to the
    rounding of the sum. O(n) for each number of uniform bins. No gradient. Naeini et al., "Obtaining Well Calibrated
    Probabilities Using Bayesian Binning" (2015); Kull et al. (2019) for classes by themselves.

    Examples
    --------
    >>> import numpy as np
    >>> round(calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 1, 1, 0]), n_bins=5), 12)
    0.1
    """
    who = "calibration_error"
    sizes = _sizes(who, n_bins)
    _one_of(who, "binning", binning, BINNINGS)
    _one_of(who, "norm", norm, NORMS)
    p, hit = _judged(who, probs, target, flag(f"{who}: classwise", classwise))
    _nonempty(who, p)
    found = [_error(_table(p, hit, n, binning)[0], norm) for n in sizes]
    return answer(np.array(found) if isinstance(n_bins, Sequence) else found[0], probs)


class CalibrationError(Streaming):
    """`calibration_error` of data that comes in parts.

    Parameters
    ----------
    n_bins, norm, binning, classwise
        As there.
    num_classes : int, optional
        K; what the first part has, if absent.

    Raises
    ------
    TypeError, ValueError
        If a setting is none of those.

    Notes
    -----
    Counts are exact, so tables are the same however the data is parted; errors agree to 1e-13. Quantile bins need the data: 9
    bytes are kept for each number.

    Examples
    --------
    >>> import numpy as np
    >>> metric = CalibrationError(n_bins=5)
    >>> metric.update(np.array([0.9, 0.9]), np.array([1, 1]))
    >>> metric.update(np.array([0.6, 0.6]), np.array([1, 0]))
    >>> round(metric.compute(), 12)
    0.1
    """

    _ARRAYS: ClassVar = {
        "count": ("int64", "kb"),
        "hits": ("int64", "kb"),
        "gap": ("float64", "kb"),
        "probs": ("float64", "kn"),
        "right": ("bool", "kn"),
    }

    def __init__(
        self,
        n_bins: int | Sequence[int] = 15,
        norm: str = "l1",
        binning: str = "uniform",
        classwise: bool = False,
        *,
        num_classes: int | None = None,
    ) -> None:
        who = "CalibrationError"
        super().__init__()
        self._bins = _sizes(who, n_bins)
        self._several = isinstance(n_bins, Sequence)
        self.norm = _one_of(who, "norm", norm, NORMS)
        self.binning = _one_of(who, "binning", binning, BINNINGS)
        self.classwise = flag(f"{who}: classwise", classwise)
        self.num_classes = None if num_classes is None else whole(f"{who}: num_classes", num_classes)
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"{who}: num_classes must be positive, got {num_classes}")

    def _settings(self) -> dict[str, Any]:
        return {"n_bins": self._bins, "binning": self.binning, "classwise": self.classwise}

    def _fits(self, who: str, sizes: dict[str, int]) -> None:
        classes = self.num_classes if self.classwise else 1
        if sizes["b"] != sum(self._bins) or (classes is not None and sizes["k"] != classes):
            raise ValueError(
                f"{who}: tables are of {sizes['k']} rows of {sizes['b']} bins, this has {classes} of {self._bins}"
            )

    def update(self, probs: Array, target: Labels) -> None:
        """Takes in a part of the data; of no rows, nothing.

        Raises
        ------
        TypeError, ValueError
            As `calibration_error` does; or the number of classes is another than before.
        """
        who = "CalibrationError.update"
        p, hit = _judged(who, probs, target, self.classwise)
        if self.num_classes is not None and getattr(probs, "ndim", 1) == 2 and probs.shape[1] != self.num_classes:
            raise ValueError(f"{who}: probs has {probs.shape[1]} classes, num_classes is {self.num_classes}")
        if not p.shape[1]:
            return
        keep = self.binning == "quantile"
        if keep:
            shape = (len(p), sum(self._bins))
            count, hits, gap = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
        else:
            tables = [_table(p, hit, n, self.binning)[0] for n in self._bins]
            count, hits, gap = (np.concatenate(parts, 1) for parts in zip(*tables, strict=True))
        none = p[:, :0]
        new = {"count": count, "hits": hits, "gap": gap}
        held_ = (p, hit) if keep else (none, none)
        self._add(who, new | {"probs": held_[0].astype(np.float64), "right": held_[1].astype(bool)})

    def _joined(self, a: State, b: State) -> State:
        return {k: np.concatenate([a[k], b[k]], 1) if k in ("probs", "right") else a[k] + b[k] for k in a}

    def compute(self) -> Any:
        """The error of all that was seen; an array of them for several numbers of bins.

        Raises
        ------
        ValueError
            If nothing was seen.
        """
        state = self._seen()
        if self.binning == "quantile":
            tables = [_table(state["probs"], state["right"], n, self.binning)[0] for n in self._bins]
        else:
            ends = np.cumsum(self._bins)[:-1]
            tables = [_Table(*t) for t in zip(*(np.split(state[k], ends, 1) for k in _Table._fields), strict=True)]
        found = [_error(t, self.norm) for t in tables]
        return np.array(found) if self._several else found[0]
