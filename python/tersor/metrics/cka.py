"""Whether two layers see the same: centred kernel alignment. The one rule: everything is float64 about the first row, and the
smaller of the two forms is taken, of features or of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tersor._arrays import Array, dtype_name, flag, is_tensor
from tersor._host import held
from tersor._lists import listed
from tersor._moments import chan
from tersor._reference import quiet, wide, xp
from tersor._values import check_values
from tersor.metrics._arguments import rows
from tersor.metrics._state import State, Streaming


def _given(who: str, what: str, x: Any, debiased: bool, gram: bool) -> Array:
    """A matrix of floats with rows enough."""
    check_values(who, what, x)
    if x.ndim != 2:
        raise ValueError(f"{who}: {what} must have 2 axes, got shape {tuple(x.shape)}")
    if gram and x.shape[0] != x.shape[1]:
        raise ValueError(f"{who}: {what} must be square with gram=True, got shape {tuple(x.shape)}")
    if x.shape[0] < (4 if debiased else 2):
        raise ValueError(f"{who}: {what} has {x.shape[0]} rows, it takes {4 if debiased else 2} or more")
    return wide(x)


def _alike(who: str, what: str, y: Any, of: str, x: Any) -> None:
    if is_tensor(x) != is_tensor(y):
        raise TypeError(f"{who}: {what} must be a {type(x).__name__} like {of}, got {type(y).__name__}")
    if x.dtype != y.dtype:
        raise TypeError(
            f"{who}: {what} is {dtype_name(y.dtype)}, {of} is {dtype_name(x.dtype)}; tersor does not convert silently"
        )
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"{who}: {what} has {y.shape[0]} rows, {of} {x.shape[0]}")


def _size(x: Array) -> Array:
    """The largest magnitude, a constant by which products stay in range; 1 of zeros."""
    most = x.detach().abs().amax() if is_tensor(x) else np.abs(x).max()
    return xp.where(most > 0, most, xp.ones_like(most))


def _centred(x: Array) -> Array:
    """Columns of mean 0; what does not vary is 0 exactly, as the first row is taken away first. The result has no scale."""
    if not x.shape[1]:
        return x
    x = x - (x[:1].detach() if is_tensor(x) else x[:1])
    x = x - x.mean(0)
    return x / _size(x)


def _double_centred(k: Array) -> Array:
    """A Gram matrix about the mean of its samples."""
    k = k - k.mean(0)
    k = k - k.mean(1)[:, None]
    return k / _size(k)


def _hollow(k: Array) -> Array:
    """A Gram matrix without its diagonal."""
    eye = xp.eye(k.shape[0]) if not is_tensor(k) else k.new_ones(k.shape[0]).diag()
    return k * (1 - eye)


class _Layer:
    """A layer for comparisons: its rows, or its Gram matrix, and what it gives with itself."""

    def __init__(self, x: Array, debiased: bool, gram: bool) -> None:
        self.debiased = debiased
        self.n = x.shape[0]
        self.gram = gram
        x = (x if debiased else _double_centred(x)) if gram else _centred(x)
        self.x = _hollow(x / _size(x)) if gram and debiased else x
        self._own: Array = None

    def samples(self) -> Array:
        """The Gram matrix."""
        if self.gram:
            return self.x
        k = self.x @ self.x.T
        return _hollow(k) if self.debiased else k

    def own(self) -> Array:
        if self._own is None:
            self._own = _alignment(self, self)
        return self._own


def _alignment(a: _Layer, b: _Layer) -> Array:
    """The inner product of two Gram matrices; debiased, that of Song et al., which has mean 0 for independent samples."""
    n = a.n
    features = not (a.gram or b.gram) and max(a.x.shape[1], b.x.shape[1]) <= n
    if features:
        cross = a.x.T @ b.x
        total = (cross * cross).sum()
    else:
        k, l = a.samples(), b.samples()
        total = (k * l).sum()
    if not a.debiased:
        return total
    if features:
        p, q = (a.x * a.x).sum(1), (b.x * b.x).sum(1)
        total = total - (p * q).sum()
        p, q = a.x @ a.x.sum(0) - p, b.x @ b.x.sum(0) - q
    else:
        p, q = k.sum(1), l.sum(1)
    return total + p.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * (p * q).sum() / (n - 2)


def _ratio(a: _Layer, b: _Layer) -> Array:
    with quiet(a.x):
        return _alignment(a, b) / (xp.sqrt(a.own()) * xp.sqrt(b.own()))


def cka(x: Array, y: Array, *, debiased: bool = False, gram: bool = False) -> Any:
    r"""Linear centred kernel alignment of two sets of features of the same samples.

    .. math:: \mathrm{CKA} = \frac{\|\tilde Y^\top \tilde X\|_F^2}{\|\tilde X^\top \tilde X\|_F \|\tilde Y^\top \tilde Y\|_F}

    Parameters
    ----------
    x : array or tensor of floats ``[n, d]``
    y : array or tensor of that type ``[n, e]``
        With a gradient to both.
    debiased : bool
        With the unbiased estimate of HSIC in place of the three norms; n ≥ 4.
    gram : bool
        x and y are symmetric ``[n, n]`` matrices of any kernel, which are centred here.

    Returns
    -------
    float
        In torch a float64 tensor. Within 0 and 1, debiased at most 1; NaN where a side does not vary.

    Raises
    ------
    TypeError
        If they are not floats of one type and library.
    ValueError
        If they have not two axes, or not the same number of rows, or too few.

    Notes
    -----
    Composed of dense products in float64: O(n d e) of features, O(n² (d + e)) of samples where d or e is larger than n, with
    arrays no larger than the data. Rotations, shifts and one factor for all change nothing. Kornblith et al., "Similarity of
    Neural Network Representations Revisited" (2019); Song et al. (2012) for the unbiased estimate.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> round(cka(x, 3 * x + 1), 12)
    1.0
    """
    who = "cka"
    debiased, gram = flag(f"{who}: debiased", debiased), flag(f"{who}: gram", gram)
    wide_x, wide_y = _given(who, "x", x, debiased, gram), _given(who, "y", y, debiased, gram)
    _alike(who, "y", y, "x", x)
    found = _ratio(_Layer(wide_x, debiased, gram), _Layer(wide_y, debiased, gram))
    return found if is_tensor(x) else float(found)


def cka_matrix(xs: Sequence[Array], ys: Sequence[Array] | None = None, *, debiased: bool = False) -> Any:
    """`cka` of every layer with every other.

    Parameters
    ----------
    xs, ys : sequences of arrays or tensors of floats ``[n, d_i]``
        Of one type; ys are xs if absent.
    debiased : bool

    Returns
    -------
    float64 ``[len(xs), len(ys)]``
        In torch with a gradient to all.

    Raises
    ------
    TypeError
        If they are not floats of one type and library.
    ValueError
        If there are none, or an array has not two axes, or not the same number of rows.

    Notes
    -----
    What a layer gives with itself is made once. See `cka`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> cka_matrix([x, x[:, :1]]).round(3)
    array([[1.   , 0.791],
           [0.791, 1.   ]])
    """
    who = "cka_matrix"
    debiased = flag(f"{who}: debiased", debiased)
    xs, ys = listed(f"{who}: xs", xs), None if ys is None else listed(f"{who}: ys", ys)
    sides: list[list[_Layer]] = []
    for what, layers in (("xs", xs), ("ys", ys)):
        if layers is None and what == "ys":
            sides.append(sides[0])
            continue
        if not layers:
            raise ValueError(f"{who}: {what} is empty")
        made = []
        for i, x in enumerate(layers):
            made.append(_Layer(_given(who, f"{what}[{i}]", x, debiased, False), debiased, False))
            _alike(who, f"{what}[{i}]", x, "xs[0]", xs[0])
        sides.append(made)
    table = [
        [_ratio(b, a) if ys is None and j < i else _ratio(a, b) for j, b in enumerate(sides[1])]
        for i, a in enumerate(sides[0])
    ]
    if is_tensor(xs[0]):
        import torch

        return torch.stack([torch.stack(row) for row in table])
    return np.array(table, np.float64)


class CKA(Streaming):
    """`cka` of samples that come in parts, by the moments of both sides and between them.

    Raises
    ------
    ValueError
        If ``debiased``: that does not add up over parts.

    Notes
    -----
    d² + d e + e² numbers are kept, the co-moments of features, which merge exactly (Chan). Results agree to 1e-13 however the
    data is parted, of n samples about equal in size.
    """

    _ARRAYS: ClassVar = {
        "n": ("int64", ""),
        "mean_x": ("float64", "d"),
        "mean_y": ("float64", "e"),
        "xx": ("float64", "dd"),
        "xy": ("float64", "de"),
        "yy": ("float64", "ee"),
    }

    def __init__(self, *, debiased: bool = False) -> None:
        super().__init__()
        if flag("CKA: debiased", debiased):
            raise ValueError(
                "CKA: debiased must be False: the unbiased estimate does not add up over parts; cka takes all at once"
            )

    def update(self, x: Array, y: Array) -> None:
        """Takes in the features ``[n, d]`` and ``[n, e]`` of more samples; of none, nothing.

        Raises
        ------
        TypeError
            If they are no floats.
        ValueError
            If they have not two axes, other numbers of rows, or of columns than before.
        """
        who = "CKA.update"
        a = rows(who, "x", held(who, "x", x)).astype(np.float64)
        b = rows(who, "y", held(who, "y", y)).astype(np.float64)
        _alike(who, "y", y, "x", x)
        n = len(a)
        if not n:
            return
        means = []
        for v in (a, b):
            first = v[0].copy()
            v -= first
            far = v.mean(0)
            v -= far
            means.append(first + far)
        new = {"n": np.array(n), "mean_x": means[0], "mean_y": means[1], "xx": a.T @ a, "xy": a.T @ b, "yy": b.T @ b}
        self._add(who, new)

    def _joined(self, a: State, b: State) -> State:
        mean_x, dx, w = chan(a["n"], a["mean_x"], b["n"], b["mean_x"])
        mean_y, dy, _ = chan(a["n"], a["mean_y"], b["n"], b["mean_y"])
        return {
            "n": np.array(a["n"] + b["n"]),
            "mean_x": mean_x,
            "mean_y": mean_y,
            "xx": a["xx"] + b["xx"] + w * np.outer(dx, dx),
            "xy": a["xy"] + b["xy"] + w * np.outer(dx, dy),
            "yy": a["yy"] + b["yy"] + w * np.outer(dy, dy),
        }

    def compute(self) -> float:
        """The alignment of all that was seen; NaN where a side does not vary.

        Raises
        ------
        ValueError
            If fewer than two samples were seen.
        """
        state = self._seen()
        if state["n"] < 2:
            raise ValueError("CKA.compute: one sample was seen, it takes 2 or more")
        norms = []
        for k in ("xx", "xy", "yy"):
            most = np.abs(state[k]).max(initial=0.0)
            norms.append((most, float(((state[k] / (most or 1.0)) ** 2).sum())))
        (sx, xx), (sxy, xy), (sy, yy) = norms
        if not (xx and yy):
            return math.nan
        return xy / math.sqrt(xx * yy) * (sxy / sx) * (sxy / sy)
