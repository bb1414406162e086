"""Distances of every point to every point, the nearest ones, and their soft minimum.

The rule of this file: no array of N·M·d elements, in neither direction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import axes, is_tensor
from tersor._op import op
from tersor._reference import Array, arsinh_root, arsinh_root_d, dot, gap, root, xp
from tersor._sample import Draw, Rows
from tersor._values import watched
from tersor.hyperbolic import _by_row
from tersor.hyperbolic.point import dist

# the bits of `needs`: which gradients are wanted
_X, _Y, _C = 1, 2, 4


def _sample(*kinds: str, **scalars: Any) -> Any:
    """x [..., N, d], y [..., M, d], gradients of what is made of them, numbers."""
    rows = Rows()

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        lead, n = (draw.lead[:-1], draw.lead[-1]) if draw.lead else ((), 1)
        m = (1, 7, 70)[draw.seed % 3]
        sizes = {"x": (n,), "y": (m,), "pairs": (n, m), "points": (n,)}
        made: list[Any] = []
        for kind in kinds:
            if kind in ("x", "y"):
                point = Draw(draw.seed + len(made), draw.dtype, lead + sizes[kind], draw.d, draw.scale, draw.c)
                made.append(rows.one(point, "ball", draw.c))
            elif kind in sizes:
                made.append(draw.cast(draw.rng.standard_normal(lead + sizes[kind])))
            else:
                made.append(draw.c if kind == "c" else float(draw.rng.uniform(0.5, 4)))
        return made, {k: v(m) if callable(v) else v for k, v in scalars.items()}

    return draw_all


def _gaps(x: Array, y: Array, c: Any) -> tuple[Array, Array]:
    """alpha of the rows, beta of the columns."""
    return gap(c, dot(x, x)), gap(c, dot(y, y)).swapaxes(-1, -2)


def _square(x: Array, y: Array, c: Any) -> Array:
    """m = q/(alpha beta) of all pairs."""
    a, b = _gaps(x, y, c)
    if isinstance(x, np.ndarray):
        way = x[..., :, None, :] - y[..., None, :, :]
        return np.sum(way * way, -1) / (a * b)
    from tersor.hyperbolic import _differences

    return _differences.Square.apply(x, y) / (a * b)


def _pull(f: Array, x: Array, y: Array) -> Array:
    """The sums over j of f_ij (x_i - y_j)."""
    if isinstance(x, np.ndarray):
        return np.sum(f[..., None] * (x[..., :, None, :] - y[..., None, :, :]), -2)
    from tersor.hyperbolic import _differences

    return _differences.Pull.apply(f, x, y)


def _softmin(d: Array, beta: Any) -> Array:
    if not isinstance(d, np.ndarray):
        return -(-beta * d).logsumexp(-1) / beta
    low = np.min(d, -1, initial=np.inf, keepdims=True)
    return low[..., 0] - np.log(np.sum(np.exp(-beta * (d - low)), -1)) / beta


@op(sample=_sample("x", "y", "c"))
def _cdist(x: Array, y: Array, c: Any = 1.0) -> Array:
    """All distances."""
    m = _square(x, y, c)
    return 2 * root(m) * arsinh_root(c * m)


@op(sample=_sample("pairs", "x", "y", "c", needs=7), tensors=True)
def _cdist_bwd(g: Array, x: Array, y: Array, c: Any = 1.0, needs: int = 7) -> tuple[Array, Array, Array]:
    r"""Gradient of `cdist`.

    A pair pulls x along :math:`\frac{2g}{\sqrt{qD}}\left(x - y + \frac{cq}{\alpha}x\right)`, as in `dist`, and all are summed.
    """
    (a, b), m = _gaps(x, y, c), _square(x, y, c)
    f = xp.where(m > 0, 2 * g / (a * b * xp.sqrt(xp.where(m > 0, m * (1 + c * m), 1.0))), 0.0)
    cq = c * m * a * b
    dx = dy = dc = x.reshape(-1)[:0]
    if needs & _X:
        dx = _pull(f, x, y) + (f * cq / a).sum(-1)[..., None] * x
    if needs & _Y:
        dy = _pull(f.swapaxes(-1, -2), y, x) + (f * cq / b).sum(-2)[..., None] * y
    if needs & _C:
        nu = dot(x, x) / a + dot(y, y).swapaxes(-1, -2) / b
        dc = g * root(m) * (nu / xp.sqrt(1 + c * m) + 2 * arsinh_root_d(c * m) * m)
        dc = dc.sum().reshape(np.shape(c))
    return dx, dy, dc


@op(sample=_sample("x", "y", "c", k=lambda m: (m + 1) // 2), integer=True)
def _knn(x: Array, y: Array, c: Any = 1.0, k: int = 1) -> tuple[Array, Array]:
    """The distances to the k nearest rows of y and their places, in order."""
    m, indices = nearest(_square(x, y, c), k)
    return 2 * root(m) * arsinh_root(c * m), indices


@op(sample=_sample("x", "y", "beta", "c"))
def _softmin_dist(x: Array, y: Array, beta: Any = 1.0, c: Any = 1.0) -> Array:
    """The soft minimum of the distances."""
    return _softmin(_cdist.op.reference(x, y, c), beta)  # type: ignore[attr-defined]


@op(sample=_sample("points", "x", "y", "beta", "c", needs=15), tensors=True)
def _softmin_dist_bwd(
    g: Array, x: Array, y: Array, beta: Any = 1.0, c: Any = 1.0, needs: int = 15
) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `softmin_dist`: that of `cdist` with shares :math:`e^{-\beta(d_{ij} - s_i)}` of g."""
    d = _cdist.op.reference(x, y, c)  # type: ignore[attr-defined]
    s = _softmin(d, beta)[..., None]
    share = g[..., None] * xp.exp(-beta * (d - s))
    dx, dy, dc = _cdist_bwd.op.reference(share, x, y, c, needs & 3 | (needs & 8) >> 1)  # type: ignore[attr-defined]
    dbeta = x.reshape(-1)[:0]
    if needs & 4:
        dbeta = (((share * d).sum() - (g[..., None] * s).sum()) / beta).reshape(np.shape(beta))
    return dx, dy, dbeta, dc


def operands(who: str, x: Array, y: Array, **numbers: Any) -> tuple[Array, Array]:
    """x and y with their leading axes broadcast; the numbers checked."""
    for name, a in (("x", x), ("y", y)):
        if getattr(a, "ndim", 0) < 2:
            raise ValueError(f"{who}: {name} must have two axes or more, got {getattr(a, 'shape', type(a).__name__)}")
    for name, a in numbers.items():
        if axes(a):
            raise ValueError(f"{who}: {name} must be a number or an array of 0 axes, got shape {tuple(a.shape)}")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{who}: last axes differ: x has {x.shape[-1]}, y has {y.shape[-1]}")
    if x.shape[:-2] == y.shape[:-2]:
        return x, y
    try:
        lead = np.broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    except ValueError:
        raise ValueError(f"{who}: shapes do not broadcast: x {tuple(x.shape)}, y {tuple(y.shape)}") from None
    expand = np.broadcast_to if isinstance(x, np.ndarray) else type(x).expand
    return expand(x, (*lead, *x.shape[-2:])), expand(y, (*lead, *y.shape[-2:]))


def cdist(x: Array, y: Array, c: Any = 1.0, *, out: Array = None) -> Array:
    r"""Distances between all pairs, :math:`D_{ij} = d_c(x_i, y_j)`.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast with those of y.
    y : array or tensor [..., M, d], of the type of x
        Points of the ball.
    c : float, or array of 0 axes or [..., N, 1]
        One for all pairs or one for each row of x. The ball has curvature -c; finite, not negative. c = 0 gives
        :math:`2\|x - y\|`.
    out : array or tensor
        Where the result goes; C-contiguous, of its shape and type. Not with gradients, nor with several curvatures.

    Returns
    -------
    array or tensor [..., N, M]
        As `dist` of every pair; exactly 0 for equal rows, and symmetric bit for bit: ``cdist(y, x)`` is the transpose.
        Differentiable, twice too, with respect to x, y and c.

    Raises
    ------
    TypeError
        If x and y are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    Differences are squared as they are, in float64, so that near pairs lose no digit; :math:`\|x\|^2 + \|y\|^2 - 2\langle x,
    y\rangle` would cancel. 2NMd operations forward, four times as many backward, which makes the distances again tile by tile;
    memory is that of the result. Lengths may be of any size: float64 rows are scaled together where squares of the longest
    leave its range, and rows 1e-150 times as long are nothing beside it then. The same bits for any number of threads. 16-bit
    types are computed in float32. Second
    derivatives are taken in float64, and hold some arrays of N·M, none of N·M·d. So do distances with a curvature for each row,
    which are those of flat space and an operation on each.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x = np.array([[0.0, 0.0], [0.5, 0.0]])
    >>> hyperbolic.cdist(x, x).round(4)
    array([[0.    , 1.0986],
           [1.0986, 0.    ]])
    """
    x, y = operands("cdist", x, y)
    if axes(c):
        if out is not None:
            raise ValueError("cdist: out= goes with one curvature, not with one for each row")
        return _by_row.distances("cdist", _cdist, x, y, c)
    return _cdist(x, y, c, out=out)


def squares(x: Array, y: Array) -> Array:
    """The squared lengths of all differences x_i - y_j in float64, with all derivatives: a distance of 0 has no second one."""
    d = cdist(x, y, 0.0) / 2
    if not is_tensor(d) or not watched(x, y):
        return d * d
    product = dot(x, x) + dot(y, y).swapaxes(-1, -2) - 2 * x @ y.swapaxes(-1, -2)
    return xp.where(d == 0, product - product.detach(), d * d)


def without(d: Array, indices: Array, own: Array) -> tuple[Array, Array]:
    """Of k + 1 neighbours the k that are not the point itself; the last is left out where that is not among them."""
    k = indices.shape[-1] - 1
    found = indices == own
    at = xp.where(found.any(-1), found.argmax(-1) if isinstance(found, np.ndarray) else found.int().argmax(-1), k)
    if isinstance(d, np.ndarray):
        columns = np.arange(k)
        columns = columns + (columns >= at[..., None])
        return np.take_along_axis(d, columns, -1), np.take_along_axis(indices, columns, -1)
    import torch

    columns = torch.arange(k, device=d.device)
    columns = columns + (columns >= at[..., None])
    return d.gather(-1, columns), indices.gather(-1, columns)


def nearest(d: Array, k: int) -> tuple[Array, Array]:
    """The k least of each row of distances and their places, as `knn` has them."""
    if isinstance(d, np.ndarray):
        at = np.argsort(d, -1, kind="stable")[..., :k]
        least = np.take_along_axis(d, at, -1)
        return least, np.where(np.isnan(least), -1, at)
    order, at = d.sort(dim=-1, stable=True)
    least, at = order[..., :k], at[..., :k]
    return least, at.masked_fill(least.isnan(), -1)


def knn(x: Array, y: Array, k: int, c: Any = 1.0, *, skip_self: bool = False) -> tuple[Array, Array]:
    """The k nearest points of y to each of x.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast with those of y.
    y : array or tensor [..., M, d], of the type of x
        Points of the ball.
    k : int
        How many, from 0 to M.
    c : float, or array of 0 axes or [..., N, 1]
        One for all pairs or one for each row of x. The ball has curvature -c; finite, not negative.
    skip_self : bool
        Whether row i of x is row i of y, and no neighbour of itself. Points at the same place are.

    Returns
    -------
    distances : array or tensor [..., N, k]
        Ascending. Differentiable, twice too, with respect to x, y and c; the choice is not.
    indices : array or tensor [..., N, k], int64
        Which rows of y; of equal distances the lowest index comes first. -1, at distance NaN, where fewer than k
        distances are numbers.

    Raises
    ------
    TypeError
        If x and y are not of one float type.
    ValueError
        If k is not within 0 and M (M - 1 others), x and y that are one set are of different sizes, c is negative or not finite,
        or shapes do not go together.

    Notes
    -----
    2NMd operations and no array of N·M elements, unless there is a curvature for each row, or tensors are on a GPU: then all
    distances are made.
    Points are compared by a function of the distance in float64, before it is rounded: distances that differ only there are
    in order. See `cdist`.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x = np.array([[0.0, 0.0], [0.5, 0.0], [-0.5, 0.0]])
    >>> hyperbolic.knn(x, x, 2)[1]
    array([[0, 1],
           [1, 0],
           [2, 0]])
    >>> hyperbolic.knn(x, x, 1, skip_self=True)[1].T
    array([[1, 0, 0]])
    """
    x, y = operands("knn", x, y)
    if skip_self:
        if x.shape[-2] != y.shape[-2]:
            raise ValueError(f"knn: skip_self is for one set, x has {x.shape[-2]} rows, y has {y.shape[-2]}")
        if not 0 <= k < max(y.shape[-2], 1):
            raise ValueError(f"knn: k must be between 0 and the {y.shape[-2] - 1} other rows of y, got {k}")
        d, indices = knn(x, y, min(k + 1, y.shape[-2]), c)
        if not y.shape[-2]:
            return d, indices
        numbers = np.arange(x.shape[-2])[:, None]
        return without(d, indices, numbers if isinstance(x, np.ndarray) else indices.new_tensor(numbers))
    if not 0 <= k <= y.shape[-2]:
        raise ValueError(f"knn: k must be between 0 and the {y.shape[-2]} rows of y, got {k}")
    if axes(c):
        return nearest(_by_row.distances("knn", _cdist, x, y, c), k)
    if not watched(x, y, c):
        return _knn(x, y, c, k)
    import torch

    with torch.no_grad():
        indices = _knn(x, y, c, k)[1]
    lead, d = x.shape[:-2], x.shape[-1]
    at = indices.clamp_min(0).reshape(*lead, -1, 1).expand(*lead, -1, d)
    near = torch.gather(y, -2, at).reshape(*lead, x.shape[-2], k, d)
    return dist(x[..., None, :], near, c), indices


def softmin_dist(x: Array, y: Array, beta: Any = 1.0, c: Any = 1.0) -> Array:
    r"""Soft minimum of the distances to a set, :math:`s_i = -\tfrac1\beta \log\sum_j e^{-\beta\,d_c(x_i, y_j)}`.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast with those of y.
    y : array or tensor [..., M, d], of the type of x
        Points of the ball.
    beta : float, or array of 0 axes
        Sharpness, positive: the larger, the nearer to the least distance, which s lies below by at most :math:`\log M/\beta`.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., N]
        Infinite where M is 0. Differentiable, twice too, with respect to x, y, beta and c.

    Raises
    ------
    TypeError
        If x and y are not of one float type.
    ValueError
        If beta is not positive, c is negative, either is not finite or no single number, or shapes do not go together.

    Notes
    -----
    2NMd operations, no array of N·M elements in either direction; sums are shifted by the least distance so far. See `cdist`.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x = np.array([[0.0, 0.0], [0.5, 0.0]])
    >>> hyperbolic.softmin_dist(x, x, 10.0).round(4)
    array([-0., -0.])
    """
    x, y = operands("softmin_dist", x, y, beta=beta, c=c)
    return _softmin_dist(x, y, beta, c)
