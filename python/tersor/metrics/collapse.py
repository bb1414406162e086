"""How far the last layer's features have collapsed to their classes' means. The one rule: moments of classes are enough, and a
class that is not there is an error, not a number.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tersor._arrays import Array, Labels, is_tensor, whole
from tersor._host import answer
from tersor._moments import chan
from tersor.metrics._arguments import class_labels, finite, rows
from tersor.metrics._state import State, Streaming

CENTERS = ("classes", "samples", "none")


def _center(who: str, center: Any) -> str:
    if not isinstance(center, str):
        raise TypeError(f"{who}: center must be a string, got {type(center).__name__}")
    if center not in CENTERS:
        raise ValueError(f"{who}: center must be one of {', '.join(map(repr, CENTERS))}, got {center!r}")
    return center


def _classes(who: str, num_classes: Any) -> int:
    k = whole(f"{who}: num_classes", num_classes)
    if k < 2:
        raise ValueError(f"{who}: num_classes must be 2 or more, got {k}")
    return k


def _sums(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """The sums of the rows of each class, ``[k, d]``, added in their order."""
    order = np.argsort(y, kind="stable")
    present, starts = np.unique(y[order], return_index=True)
    out = np.zeros((k, x.shape[1]))
    if len(x):
        out[present] = np.add.reduceat(x[order], starts, axis=0)
    return out


def _moments(x: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts and means of classes, and every row about the mean of its class."""
    count = np.bincount(y, minlength=k)
    some = np.maximum(count, 1)[:, None]
    mean = _sums(x, y, k) / some
    mean += _sums(x - mean[y], y, k) / some  # what rounding the first has left: equal rows have that mean exactly
    return count, mean, x - mean[y]


def _scaled(x: np.ndarray) -> np.ndarray:
    """x over its Frobenius norm."""
    with np.errstate(invalid="ignore"):
        return x / np.linalg.norm(x)


def _target(who: str, target_gram: Any, k: int) -> np.ndarray:
    if target_gram is None:
        return np.eye(k) - 1 / k
    t = finite(who, "target_gram", target_gram)
    if t.shape != (k, k):
        raise ValueError(f"{who}: target_gram must have shape {(k, k)}, got {t.shape}")
    return t


def _classifier(who: str, weight: Any, bias: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A weight ``[k, d]`` and a bias ``[k]``, each or None."""
    if weight is None:
        if bias is not None:
            raise ValueError(f"{who}: bias is given without a weight")
        return None, None
    w = finite(who, "weight", weight)
    if w.shape != shape:
        raise ValueError(f"{who}: weight must have shape {shape}, got {w.shape}")
    b = None if bias is None else finite(who, "bias", bias)
    if b is not None and b.shape != shape[:1]:
        raise ValueError(f"{who}: bias must have shape {shape[:1]}, got {b.shape}")
    return w, b


def _agreement(x: np.ndarray, mean: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> int:
    """In how many rows the classifier says the class of the nearest mean; of equals the lowest."""
    origin = mean[0]
    mean, far = mean - origin, x - origin  # distances have no origin, and then less to cancel
    nearest = ((mean * mean).sum(1) - 2 * far @ mean.T).argmin(1)
    return int(((x @ w.T + (0 if b is None else b)).argmax(1) == nearest).sum())


def _geometry(
    who: str, s: dict[str, Any], center: str, within: Any, w: np.ndarray | None, target: np.ndarray
) -> dict[str, float]:
    """All but nc4, of counts, means and squares of classes; `within` the variance along directions ``[d, r]``."""
    count, mean, square = s["count"], s["mean"], s["square"]
    k, n = len(count), count.sum()
    if (count == 0).any():
        raise ValueError(f"{who}: class {int((count == 0).argmax())} of {k} has no samples")
    middle = {"classes": mean.mean(0), "samples": count @ mean / n, "none": np.zeros(mean.shape[1])}[center]
    m = mean - middle
    gram = m @ m.T
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(m.shape) * np.finfo(float).eps * values[-1]
    found: dict[str, float] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        found["nc1"] = float(within(m.T @ (vectors[:, kept] / values[kept])).sum()) if kept.any() else np.nan
        found["nc1_ratio"] = float(square.sum() / n / (np.trace(gram) / k))
        length = np.sqrt(np.diag(gram))
        found["nc2_norms"] = float(length.std() / length.mean())
        apart = ~np.eye(k, dtype=bool)
        cosine = np.clip(gram / np.outer(length, length), -1, 1)
        found["nc2_angles"] = float(np.abs(cosine + 1 / (k - 1))[apart].mean())
        found["nc2"] = float(np.linalg.norm(_scaled(gram) - _scaled(target)))
        spread = square / count
        between = ((mean[:, None] - mean) ** 2).sum(-1)
        found["cdnv"] = float(((spread[:, None] + spread) / (2 * between))[apart].mean())
        if w is not None:
            found["nc3"] = float(np.linalg.norm(_scaled(w @ m.T) - _scaled(target)))
            found["nc3_align"] = float(np.linalg.norm(_scaled(w) - _scaled(m)))
    return found


def neural_collapse(
    features: Array,
    labels: Labels,
    *,
    num_classes: int | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    center: str = "classes",
    target_gram: Array | None = None,
) -> dict[str, Any]:
    r"""The measures of neural collapse of the features before a classifier.

    Of means :math:`m_k` of classes about a center, the rows of M, and covariances :math:`\Sigma_W` within classes and
    :math:`\Sigma_B = M^\top M / K` between them:

    .. math:: \text{nc1} = \tfrac1K \mathrm{tr}\,\Sigma_W \Sigma_B^+,\quad
        \text{nc2} = \left\| \frac{M M^\top}{\|M M^\top\|} - \frac{T}{\|T\|} \right\|,\quad
        \text{cdnv} = \mathrm{mean}_{k \ne l} \frac{\sigma_k^2 + \sigma_l^2}{2 \|m_k - m_l\|^2}

    nc1_ratio is tr Σ_W / tr Σ_B, nc2_norms the deviation of the lengths of the :math:`m_k` over their mean, nc2_angles the mean
    of :math:`|\cos(m_k, m_l) + 1/(K-1)|`. With a weight W also nc3, which is nc2 of :math:`W M^\top`, nc3_align
    :math:`= \| W/\|W\| - M/\|M\| \|`, and nc4, the share of samples whose class by W and bias is that of the nearest mean.

    Parameters
    ----------
    features : array or tensor of floats ``[n, d]``
    labels : array or tensor of integers or bool ``[n]``
    num_classes : int, optional
        K ≥ 2; the largest label and one, if absent.
    weight : ``[K, d]``, optional
    bias : ``[K]``, optional
    center : "classes", "samples" or "none"
        The mean of the classes' means, that of all samples, or 0.
    target_gram : ``[K, K]``, optional
        T; :math:`I - 1 1^\top / K`, the simplex, if absent.

    Returns
    -------
    dict of floats
        In torch of float64 tensors. All are 0 at collapse, nc4 is 1.

    Raises
    ------
    TypeError
        If features are no floats or labels no integers.
    ValueError
        If shapes do not go together, features are not finite, there are fewer than two classes, or one has no samples.

    Notes
    -----
    The inverse of Σ_B is taken of the K × K matrix M Mᵀ, whose eigenvalues up to max(K, d) 2⁻⁵² of the largest count as 0:
    O(n d K). No gradient. Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep learning
    training" (2020); Galanti et al. for cdnv (2022).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> round(neural_collapse(x, np.array([0, 0, 1, 1]))['nc1_ratio'], 6)
    0.01
    """
    who = "neural_collapse"
    x = rows(who, "features", finite(who, "features", features))
    y, k = _labelled(who, labels, len(x), num_classes)
    _center(who, center)
    w, b = _classifier(who, weight, bias, (k, x.shape[1]))
    target = _target(who, target_gram, k)
    count, mean, rest = _moments(x, y, k)
    state = {"count": count, "mean": mean, "square": np.bincount(y, (rest * rest).sum(1), k)}
    found = _geometry(who, state, center, lambda v: ((rest @ v) ** 2).sum(0) / len(x), w, target)
    if w is not None:
        found["nc4"] = _agreement(x, mean, w, b) / len(x)
    return {key: answer(v, features) for key, v in found.items()} if is_tensor(features) else found


def _labelled(who: str, y: Any, n: int, num_classes: Any) -> tuple[np.ndarray, int]:
    """Labels and the number of classes."""
    if not n:
        raise ValueError(f"{who}: features has no rows")
    k = None if num_classes is None else _classes(who, num_classes)
    found = class_labels(who, "labels", y, n, "features", k)
    if k is None:
        low, high = int(found.min()), int(found.max())
        if low < 0 or high < 1 or high >= n:
            what = f"labels reach from {low} to {high} in {n} rows"
            raise ValueError(f"{who}: {what}: 2 classes or more from 0 on, each with samples, are wanted")
        k = high + 1
    return found, k


class NeuralCollapse(Streaming):
    """`neural_collapse` of samples that come in parts.

    Parameters
    ----------
    num_classes : int
    center : "classes", "samples" or "none"

    Notes
    -----
    K (d + 2) + d² numbers are kept: counts, means and squares of classes, and one co-moment within classes, which merge exactly
    (Chan, for each class). Only nc4 sees samples again: `agreement`.
    """

    _ARRAYS: ClassVar = {
        "count": ("int64", "k"),
        "mean": ("float64", "kd"),
        "square": ("float64", "k"),
        "within": ("float64", "dd"),
    }

    def __init__(self, num_classes: int, center: str = "classes") -> None:
        super().__init__()
        self.num_classes = _classes("NeuralCollapse", num_classes)
        self.center = _center("NeuralCollapse", center)

    def _settings(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "center": self.center}

    def _fits(self, who: str, sizes: dict[str, int]) -> None:
        if sizes["k"] != self.num_classes:
            raise ValueError(f"{who}: count is of {sizes['k']} classes, num_classes is {self.num_classes}")

    def update(self, features: Array, labels: Labels) -> None:
        """Takes in more samples ``[n, d]`` and their labels ``[n]``; of none, nothing.

        Raises
        ------
        TypeError, ValueError
            As `neural_collapse` does, but for classes that are not there yet; or d is another than before.
        """
        who = "NeuralCollapse.update"
        x = rows(who, "features", finite(who, "features", features))
        y = class_labels(who, "labels", labels, len(x), "features", self.num_classes)
        if not len(x):
            return
        count, mean, rest = _moments(x, y, self.num_classes)
        square = np.bincount(y, (rest * rest).sum(1), self.num_classes)
        self._add(who, {"count": count, "mean": mean, "square": square, "within": rest.T @ rest})

    def _joined(self, a: State, b: State) -> State:
        in_a, in_b = a["count"] > 0, b["count"] > 0
        both = in_a & in_b
        mean = np.where(in_a[:, None], a["mean"], b["mean"])
        counts = a["count"][both][:, None], b["count"][both][:, None]
        mean[both], step, w = chan(counts[0], a["mean"][both], counts[1], b["mean"][both])
        square = a["square"] + b["square"]
        square[both] += (w * step * step).sum(1)
        within = a["within"] + b["within"] + (w * step).T @ step
        return {"count": a["count"] + b["count"], "mean": mean, "square": square, "within": within}

    def compute(self, weight: Array | None = None, target_gram: Array | None = None) -> dict[str, float]:
        """The measures of all that was seen, with those of a classifier's weight ``[K, d]`` if it is given; nc4 is `agreement`.

        Raises
        ------
        ValueError
            If nothing was seen, or a class not yet; or a shape does not fit.
        """
        who = "NeuralCollapse.compute"
        s = self._seen()
        w, _ = _classifier(who, weight, None, s["mean"].shape)
        target = _target(who, target_gram, self.num_classes)
        n = s["count"].sum()
        return _geometry(who, s, self.center, lambda v: (v * (s["within"] @ v)).sum(0) / n, w, target)

    def agreement(self, features: Array, labels: Labels, weight: Array, bias: Array | None = None) -> float:
        """nc4 of these samples: the share that a classifier puts where the nearest mean of what was seen lies.

        Labels say only that there is one for each sample, as in `update`.

        Raises
        ------
        ValueError
            If nothing was seen or a class not yet, there are no samples, or a shape does not fit.
        """
        who = "NeuralCollapse.agreement"
        s = self._seen()
        if (s["count"] == 0).any():
            raise ValueError(f"{who}: class {int((s['count'] == 0).argmax())} of {self.num_classes} was not seen")
        x = rows(who, "features", finite(who, "features", features))
        class_labels(who, "labels", labels, len(x), "features", self.num_classes)
        if not len(x) or x.shape[1] != s["mean"].shape[1]:
            raise ValueError(f"{who}: features must have shape [n, {s['mean'].shape[1]}], n > 0, got {x.shape}")
        w, b = _classifier(who, weight, bias, s["mean"].shape)
        return _agreement(x, s["mean"], w, b) / len(x)
