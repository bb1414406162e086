"""Whether a model is right as often as it says: bins of confidences. The one rule: a bin is decided by comparing with its
edges, counts are whole numbers, and hits minus confidence are summed before anything is divided.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tersor._arrays import Array, Labels, flag, torch_module, whole
from tersor._host import LABELS, answer, read
from tersor._reference import quiet, wide, xp
from tersor.metrics._arguments import alike, rows, spoken
from tersor.metrics._ops import _calibration_bins, _calibration_judged, _calibration_quantile
from tersor.metrics._state import State, Streaming

NORMS = ("l1", "l2", "max", "mean")
BINNINGS = ("uniform", "quantile")


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


class _Judged(NamedTuple):
    """Probabilities ``[n, classes]`` in their own type, targets, and of whom a confidence is."""

    probs: Any
    target: Any
    kind: int


def _judged(who: str, probs: Any, target: Any, classwise: bool) -> _Judged:
    """What is to be put in bins. What is refused of numbers is found where they are read."""
    p = read(who, "probs", probs)
    if p.ndim not in (1, 2) or (classwise and p.ndim == 1):
        wanted = "[n, classes]" if classwise else "[n] or [n, classes]"
        raise ValueError(f"{who}: probs must have shape {wanted}, got {tuple(p.shape)}")
    if p.ndim == 2 and not p.shape[1]:
        raise ValueError(f"{who}: probs has shape {tuple(p.shape)}: there is no class")
    y = rows(who, "target", read(who, "target", target, LABELS), 1)
    alike(who, "target", y, p.shape[0], "probs")
    kind = 2 if classwise else p.ndim - 1
    return _Judged(p if p.ndim == 2 else p.reshape(-1, 1), y, kind)


def _whole(v: Sequence[int], x: Any) -> Any:
    """Whole numbers in the library of x."""
    return np.array(v, np.int64) if isinstance(x, np.ndarray) else torch_module().tensor(v)


def _parts(v: Any, sizes: list[int]) -> list[Any]:
    """The columns of each number of bins."""
    ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return [v[:, a:b] for a, b in itertools.pairwise(ends)]


def _uniform(of: _Judged, sizes: list[int]) -> list[tuple[_Table, Any]]:
    """Tables of bins of one width and their edges, for several numbers of bins from one read."""
    found = _calibration_bins(of.probs, of.target, _whole(sizes, of.probs), of.kind, sum(sizes))
    tables = zip(*(_parts(v, sizes) for v in found), strict=True)
    return [(_Table(*t), wide(_whole(range(n + 1), of.probs)) / n) for t, n in zip(tables, sizes, strict=True)]


def _quantile(confidence: Any, hit: Any, sizes: list[int]) -> list[tuple[_Table, Any]]:
    """Tables of bins of equal mass of ``[rows, n]`` confidences and their edges."""
    *found, edges = _calibration_quantile(confidence, hit, _whole(sizes, confidence), sum(sizes))
    tables = zip(*(_parts(v, sizes) for v in found), strict=True)
    return [(_Table(*t), e) for t, e in zip(tables, _parts(edges, [n + 1 for n in sizes]), strict=True)]


def _tables(of: _Judged, sizes: list[int], binning: str) -> list[tuple[_Table, Any]]:
    if binning == "uniform":
        return _uniform(of, sizes)
    return _quantile(*_calibration_judged(of.probs, of.target, of.kind), sizes)


def _error(t: _Table, norm: str) -> Any:
    """One number of a table, the mean over its rows."""
    n = t.count.sum(1)
    some = t.count > 0
    away = abs(t.gap)
    mean = away / xp.where(some, t.count, 1)
    if norm == "l1":
        each = away.sum(1) / n
    elif norm == "l2":
        each = xp.sqrt((away * mean).sum(1) / n)
    else:
        each = xp.amax(mean, 1) if norm == "max" else mean.sum(1) / some.sum(1)
    return each.mean()


def _curve(t: _Table, edges: Any, classwise: bool) -> Bins:
    with quiet(t.gap):
        found = Bins(t.count, (t.hits - t.gap) / t.count, wide(t.hits) / t.count, edges)
    return found if classwise else Bins(*(v[0] if v.ndim == 2 else v for v in found))


def _nonempty(who: str, of: _Judged) -> None:
    if not of.probs.shape[0]:
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
    of = _judged(who, probs, target, flag(f"{who}: classwise", classwise))
    _nonempty(who, of)
    return Bins(*(answer(v, probs) for v in _curve(*_tables(of, [n_bins], binning)[0], classwise)))


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
    of = _judged(who, probs, target, flag(f"{who}: classwise", classwise))
    _nonempty(who, of)
    found = [_error(table, norm) for table, _ in _tables(of, sizes, binning)]
    return answer(xp.stack(found) if isinstance(n_bins, Sequence) else found[0], probs)


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
        of = _judged(who, probs, target, self.classwise)
        if self.num_classes is not None and getattr(probs, "ndim", 1) == 2 and probs.shape[1] != self.num_classes:
            raise ValueError(f"{who}: probs has {probs.shape[1]} classes, num_classes is {self.num_classes}")
        if not of.probs.shape[0]:
            return
        shape = (of.probs.shape[1] if self.classwise else 1, sum(self._bins))
        p, hit = np.zeros((shape[0], 0)), np.zeros((shape[0], 0), bool)
        count, hits, gap = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
        with spoken(who):
            if self.binning == "quantile":
                p, hit = _calibration_judged(of.probs, of.target, of.kind)
            else:
                tables = [table for table, _ in _uniform(of, self._bins)]
                count, hits, gap = (np.concatenate(parts, 1) for parts in zip(*tables, strict=True))
        new = {"count": count, "hits": hits, "gap": gap}
        self._add(who, new | {"probs": p.astype(np.float64), "right": hit})

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
            tables = [table for table, _ in _quantile(state["probs"], state["right"], self._bins)]
        else:
            tables = [_Table(*t) for t in zip(*(_parts(state[k], self._bins) for k in _Table._fields), strict=True)]
        found = [float(_error(t, self.norm)) for t in tables]
        return np.array(found) if self._several else found[0]
