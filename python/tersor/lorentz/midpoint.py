"""Midpoints on the hyperboloid. The one rule: what brings a sum of points back to it is no difference of large numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tersor._arrays import axes, is_tensor
from tersor._matrix import SparseMatrix
from tersor._op import broadcast
from tersor._reference import Array, rounded, wide, xp
from tersor._values import check_dense, check_weights
from tersor.hyperbolic._groups import _lists
from tersor.hyperbolic._newton import each
from tersor.hyperbolic._weights import even, even_lists
from tersor.hyperbolic.midpoint import cancels, check_matrix, mixed_height, move_front, plan, put_back, weighing
from tersor.hyperbolic.segments import check_lists
from tersor.lorentz._centroid import ROWS, centroid, lists
from tersor.lorentz._space import check_same, checked, root_of


def midpoint(
    x: Array,
    weights: Array | None = None,
    c: Any = 1.0,
    *,
    reducedim: Sequence[int] | None = None,
    dim: int = -1,
    keepdim: bool = False,
) -> Array:
    r"""Weighted midpoint (centroid), :math:`\sum_i w_iX_i` brought back to the hyperboloid.

    Parameters
    ----------
    x : array or tensor [..., N, d]
        Points.
    weights : array or tensor, or None
        The shape of x without `dim`, or one that broadcasts to it; not negative, of the type of x. None weighs all alike.
    c : float, or array of 0 axes or [..., 1]
        One for all midpoints or one for each, in the order of the axes that are left. Curvature -c; finite, not negative. c = 0
        gives the weighted mean.
    reducedim : sequence of int, or None
        The axes over which points are summed; None: the last one but `dim`.
    {dim}
    keepdim : bool
        Whether reduced axes stay, with size 1.

    Returns
    -------
    array or tensor [..., d]
        The midpoints; the origin where all weights are 0. Differentiable, twice too, with respect to x, weights and c.

    Raises
    ------
    TypeError, ValueError
        If weights are not of the type of x or negative, c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    :math:`N/R` with :math:`N = \sum_i w_is_i` and :math:`R^2 = T^2 - c\|N\|^2`, :math:`T = \sum_i w_i\tau_i`, of which
    :math:`T - \sqrt cN^\parallel` is taken as :math:`\sum_i w_i\frac{1 + c\|s_i^\perp\|^2}{\tau_i + \sqrt cs_i^\parallel}`, by
    what is along the longest of the points and what is across it, in twice the precision of float64: no digit cancels at any
    radius, for points on one ray neither; beyond one of 345 in float64, lengths of 1e150, squares are no numbers and midpoints
    are NaN. Law, Liao, Snell, Zemel, "Lorentzian Distance Learning for Hyperbolic
    Representations" (2019), has the centroid.
    """
    if getattr(x, "ndim", 0) < 2:
        raise ValueError(f"midpoint: x must be [..., N, d], got {getattr(x, 'shape', type(x).__name__)}")
    if weights is not None:
        check_same("midpoint", x, weights=weights)
        check_weights("midpoint", weights)
    if is_tensor(x):  # points that processes hold apart would be summed
        check_dense("midpoint", "x", x)
    n = x.ndim
    at = plan("midpoint", x, reducedim, dim, [n - 2 if dim % n == n - 1 else n - 1])
    front = move_front(x, at.order)
    kept = tuple(front.shape[: len(at.kept)])
    s = wide(front.reshape((*kept, math.prod([x.shape[i] for i in at.over]), x.shape[at.axis])))
    if weights is None:
        w = s[..., :1] * 0 + 1
    elif reducedim is None and at.axis == n - 1:  # which may have more axes than the points
        w = wide(weights)[..., None]
    else:
        w = wide(weighing("midpoint", "x", x, weights, at))
        w = w.reshape((*s.shape[:-1], 1))
    lead = broadcast((tuple(s.shape[:-1]), tuple(w.shape[:-1])))
    if lead is None:
        raise ValueError(f"midpoint: shapes do not broadcast: x {tuple(x.shape)}, weights {tuple(w.shape[:-1])}")
    means = lead[:-1]
    if axes(checked(c)) and (c.shape[-1] != 1 or broadcast((tuple(c.shape[:-1]), means)) != means):
        raise ValueError(f"midpoint: c must be a number or [..., 1] for midpoints {list(means)}, got {tuple(c.shape)}")
    s, w = (xp.broadcast_to(v, (*lead, v.shape[-1])) for v in (s, w))
    y = rounded(centroid(s, even(w, (-2,)), c, each(c), ROWS, cancels(x)), x)
    return y if reducedim is None and at.axis == n - 1 and not keepdim else put_back(y, x, at, keepdim)


def segment_midpoint(a: SparseMatrix, x: Array, c: Any = 1.0) -> Array:
    r"""Weighted midpoints of the points that a sparse matrix names: of row i of a, with its entries as weights.

    Parameters
    ----------
    a : CSR [G, N]
        Row g holds the members of group g and their weights, not negative; several entries in one place add up.
    x : array or tensor [N, d], of the type of a
        Points.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives weighted means.

    Returns
    -------
    array or tensor [G, d]
        As `midpoint`; the origin for a group without members. Differentiable, twice too, with respect to x, ``a.data`` and c.

    Raises
    ------
    TypeError
        If a is no CSR, or its type or library is not that of x.
    ValueError
        If c is negative, not finite or no single number, a weight is negative, or shapes do not go together.

    Notes
    -----
    As `midpoint` in every group, with all digits up to a radius of 345, and NaN beyond; some arrays of [entries, d] in float64.
    """
    data, pattern = check_lists("segment_midpoint", a, x, checked(c))
    if is_tensor(x):
        check_dense("segment_midpoint", "x", x)
    rows, w, group, n = _lists(x, even_lists(data, pattern.indptr), pattern.indices, pattern.indptr, 1)
    return rounded(centroid(wide(x)[rows], wide(w)[:, None], c, c, lists(n, group), cancels(x)), x)


def weighted_midpoint_bmm(x: Array, weights: Array, c: Any = 1.0) -> Array:
    r"""Midpoints of one set of points, one for each row of a matrix of weights.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points.
    weights : array or tensor [..., M, N], of the type of x
        Not negative.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives weighted means.

    Returns
    -------
    array or tensor [..., M, d]
        Differentiable, twice too, with respect to x, weights and c. A row of zeros has the origin.

    Raises
    ------
    TypeError, ValueError
        If weights are not of the type of x, c is negative, not finite or no single number, or shapes do not go together.

    Notes
    -----
    :math:`WS/R` with :math:`R^2 = (W\tau)^2 - c\|WS\|^2`, two products in float64 and no array of N·M·d, where `midpoint` wants
    points spread to [M, N, d]. What cancels in R is taken by differences of directions instead, at the price of a `cdist`:
    float64 keeps its digits up to :math:`\sqrt c\rho = 18` and loses :math:`e^{2(\sqrt c\rho - 18)}` of them beyond, of points
    near each other, until midpoints are NaN, at 28; float32 has all of its own until then. `midpoint` and `segment_midpoint`
    have them at any radius.
    """
    check_same("weighted_midpoint_bmm", x, weights=weights)
    check_matrix("weighted_midpoint_bmm", x, weights, c)
    s = wide(x)
    total, _, height = mixed_height(even(wide(weights), (-1,)), s, root_of(s, checked(c)), c, cancels(x))
    return rounded(total / xp.where(height == 0, 1.0, height), x)
