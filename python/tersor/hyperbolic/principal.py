"""Points in fewer dimensions, by tangents at their mean or by horospheres. The one rule: what is found is a mean and
orthonormal directions, in which other points are projected too."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import axes, is_distributed, is_tensor, whole
from tersor._reference import Array, rounded, wide, xp
from tersor._values import check_curvature, check_dense, readable
from tersor.hyperbolic import _horo
from tersor.hyperbolic._newton import unit_of
from tersor.hyperbolic.conformal import lambda_x
from tersor.hyperbolic.frechet import frechet_mean
from tersor.hyperbolic.origin import logmap0
from tersor.hyperbolic.projected import seen_from


def _checked(who: str, x: Array, k: int, c: Any) -> int:
    """k, of one set of points and one curvature."""
    if x.ndim != 2 or not x.shape[0]:
        raise ValueError(f"{who}: x must be [N, d] with N > 0, got {tuple(x.shape)}")
    if axes(check_curvature(who, c)):
        raise ValueError(f"{who}: c must be a number or an array of 0 axes, got shape {tuple(c.shape)}")
    if is_distributed(x):  # a mean of all rows
        check_dense(who, "x", x)
    readable(who, x=x)
    k = whole(f"{who}: k", k)
    if not 1 <= k <= x.shape[1]:
        raise ValueError(f"{who}: k must be between 1 and the {x.shape[1]} dimensions of x, got {k}")
    if not bool((lambda_x(wide(x), c) > 0).all()):  # who decides on values has to have them
        raise ValueError(f"{who}: x holds rows that are no points of the ball, or are no numbers")
    return k


def _axes(u: Array, k: int) -> tuple[Array, Array]:
    """The k leading axes of rows, their largest element positive, and the mean squares along them."""
    most = xp.amax(abs(u)) if u.shape[1] else 1.0
    v = u / xp.where(most > 0, most, 1.0)
    if isinstance(u, np.ndarray):
        values, vectors = np.linalg.eigh(v.T @ v / len(v))
        order = np.argsort(-values, kind="stable")[:k]
    else:
        import torch

        values, vectors = torch.linalg.eigh(v.T @ v / len(v))
        order = torch.argsort(values, descending=True, stable=True)[:k]
    rows, values = vectors.T[order], values[order]
    at = abs(rows).argmax(-1)
    peak = rows[range(k), at][:, None]
    return xp.where(peak < 0, -rows, rows), xp.where(values > 0, values, 0.0) * most**2


def _leading(u: Array, k: int) -> Array:
    return _axes(u, k)[0]


def tangent_pca(x: Array, k: int, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Principal components of tangents at the Fréchet mean μ: the axes of the largest mean squares of
    :math:`\log_0(\ominus\mu \oplus x_i)`.

    Parameters
    ----------
    x : array or tensor [N, d], float64, float32, float16 or bfloat16
        Points of the ball.
    k : int
        How many components, from 1 to d.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative. c = 0 gives the principal components of flat space.

    Returns
    -------
    mean : array or tensor [d]
        The Fréchet mean.
    components : array or tensor [k, d]
        Orthonormal directions, the largest element of each positive.
    variances : array or tensor [k]
        The means of squared lengths along them, of :math:`2\log_0`, whose lengths are distances; descending. Nothing of the
        result has a gradient.

    Raises
    ------
    TypeError
        If x is no float array, or k no integer.
    ValueError
        If x is not [N, d] with N > 0 or holds what is no point, k is not between 1 and d, or c is negative, not finite or no
        single number.

    See Also
    --------
    tangent_project : points in these directions
    horo_pca : components that keep distances better, at a higher price

    Notes
    -----
    :math:`Nd^2 + d^3` operations, in float64. Fletcher, Lu, Pizer, Joshi, "Principal Geodesic Analysis for the Study of
    Nonlinear Statistics of Shape" (2004), which goes through the tangent space so.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x = np.array([[0.5, 0.5, 0.1], [-0.4, -0.4, 0.1], [0.1, -0.1, 0.0], [-0.6, -0.6, 0.0]])
    >>> mean, components, variances = hyperbolic.tangent_pca(x, 2)
    >>> components.shape, bool(variances[0] > 100 * variances[1])
    ((2, 3), True)
    >>> hyperbolic.tangent_project(x, mean, components).shape  # points of the ball of two dimensions
    (4, 2)
    """
    k = _checked("tangent_pca", x, k, c)
    p, number, unit = _fixed(x, c)
    mean = frechet_mean(p, None, number)
    rows, values = _axes(2 * logmap0(seen_from(mean, p, number), number), k)
    return rounded(mean * unit, x), rounded(rows, x), rounded(values * unit * unit, x)


def horo_pca(x: Array, k: int, c: Any = 1.0, *, tol: float = 1e-7, max_iter: int = 200) -> tuple[Array, Array, Array]:
    r"""Horospherical principal components: directions :math:`p_1, \ldots, p_k` at the Fréchet mean, one after the other, such
    that the mean squared distance of the points' `horo_project`, :math:`\frac1{N^2}\sum_{ij} d(y_i, y_j)^2`, is largest.

    Parameters
    ----------
    x, k, c
        As `tangent_pca` takes them.
    tol : float
        Ascent stops where a component's gradient is this small beside what is ascended.
    max_iter : int
        Steps at most, for each component.

    Returns
    -------
    mean : array or tensor [d]
        The Fréchet mean.
    components : array or tensor [k, d]
        Orthonormal directions. The sign of each means something, where c > 0: it is an ideal point.
    variances : array or tensor [k]
        The mean squared distances, of the first component, the first two, ...; not descending for that reason. Nothing of the
        result has a gradient.

    Raises
    ------
    TypeError, ValueError
        As `tangent_pca`; also if max_iter is no integer, tol no number, or one of them negative.

    See Also
    --------
    horo_project : points in these directions
    tangent_pca : axes of tangents, in closed form

    Notes
    -----
    Each component starts at the best of both ends of the leading axes of tangents and of the longest of these, and ascends by
    conjugate gradients, without randomness; a maximum that is found is not proved to be the highest. :math:`N^2` distances in k
    dimensions for every step, some rows at a time; of a large set take a sample, some thousand points. In float64. Chami, Gu,
    Nguyen, Ré, "HoroPCA: Hyperbolic Dimensionality Reduction via Horospherical Projections" (2021), eq. 5 and section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x = np.array([[0.5, 0.5, 0.1], [-0.4, -0.4, 0.1], [0.1, -0.1, 0.0], [-0.6, -0.6, 0.0]])
    >>> mean, components, variances = hyperbolic.horo_pca(x, 2)
    >>> hyperbolic.horo_project(x, mean, components).shape  # points of the ball of two dimensions
    (4, 2)
    """
    k = _checked("horo_pca", x, k, c)
    steps = whole("horo_pca: max_iter", max_iter)
    if not tol >= 0 or steps < 0:
        raise ValueError(f"horo_pca: tol and max_iter must not be negative, got {tol} and {max_iter}")
    p, number, unit = _fixed(x, c)
    mean = frechet_mean(p, None, number)
    moved = seen_from(mean, p, number)
    f = lambda_x(moved, number, keepdim=True)
    rows, values = _horo.components(moved * f, f - 1, logmap0(moved, number), k, number, tol, steps, _leading)
    spreads = np.array(values) if isinstance(x, np.ndarray) else rows.new_tensor(values)
    return rounded(mean * unit, x), rounded(rows, x), rounded(spreads * unit * unit, x)


def _fixed(x: Array, c: Any) -> tuple[Array, float, float]:
    """x in float64 without a graph, and c as a number, both in a unit in which they are ordinary, and that unit."""
    x = x.detach() if is_tensor(x) else x
    p, c = wide(x), float(c.detach() if is_tensor(c) else c)
    unit = unit_of(p)
    return p / unit, c * unit * unit, unit
