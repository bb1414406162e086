r"""The hyperboloid (Lorentz model) of curvature -c, :math:`\{t^2 - \|s\|^2 = 1/c\}`, for NumPy arrays and torch tensors.

A point is kept as its space part s alone: the time :math:`t = \sqrt{1/c + \|s\|^2}` follows, so that no array leaves the
model. A tangent at a point is kept as its space part too; at the origin that is the vector itself, of its own length, where
the ball of `tersor.hyperbolic` measures twice the length of its coordinates (:math:`\lambda_0 = 2`): ``expmap0(2 * v)`` here
is ``from_poincare(hyperbolic.expmap0(v))``. c = 0 is flat space, in which s is the point.

Everything is computed in float64 and rounded once. Names are geoopt's; curvature c stands for its -1/k.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor import hyperbolic
from tersor._op import op
from tersor._sample import Draw
from tersor.hyperbolic._roots import Array, arsinh_root, arsinh_root_d, dot, like, root, xp

__all__ = [
    "cdist",
    "dist",
    "dist0",
    "expmap",
    "expmap0",
    "from_klein",
    "from_poincare",
    "geodesic",
    "klein_to_poincare",
    "linear",
    "logmap",
    "logmap0",
    "midpoint",
    "parallel_transport",
    "parallel_transport0",
    "parallel_transport0back",
    "poincare_to_klein",
    "time",
    "to_klein",
    "to_poincare",
]


def _sample(*kinds: str) -> Any:
    """Space parts of points at distance up to the scale, a gradient for each."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        c: Any = draw.cast(draw.c * draw.rng.uniform(0.5, 1.5, (*draw.lead, 1))) if draw.c_rows else draw.c
        made = []
        for kind in kinds:
            x = draw.rng.standard_normal((*draw.lead, draw.d) if kind == "point" else draw.lead)
            if kind == "point":
                norm = np.linalg.norm(x, axis=-1, keepdims=True)
                x = x / np.where(norm > 0, norm, 1) * np.sinh(draw.rng.uniform(0, draw.scale, (*draw.lead, 1)))
            made.append(draw.cast(x))
        return [*made, c], {}

    return draw_all


def _chord(x: Array, y: Array, c: Any) -> tuple[Array, Array, Array, Array]:
    tx, ty, p = xp.sqrt(1 + c * dot(x, x)), xp.sqrt(1 + c * dot(y, y)), dot(x - y, x + y)
    q = dot(x - y, x - y) - c * (p / (tx + ty)) ** 2
    return tx, ty, p, xp.where(q < 0, 0.0, q)


@op(sample=_sample("point", "point"))
def _lorentz_dist(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    """See `dist`."""
    q = _chord(x, y, c)[-1]
    return (root(q) * arsinh_root(c * q / 4))[..., 0]


@op(outputs=("dx", "dy", "dc"), sample=_sample("point", "point", "row"), tensors=True)
def _lorentz_dist_bwd(x: Array, y: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `dist`.

    With :math:`f = g/\sqrt{Q(1 + u)}`, :math:`u = cQ/4`, :math:`k = cp/(\tau_x + \tau_y)`: :math:`dx = f(x - y - k/\tau_x\,x)`,
    `dy` likewise, 0 where :math:`Q = 0`; :math:`dc = g\sqrt Q\,S'(u)Q/4 - \tfrac f2(p/(\tau_x + \tau_y))^2/(\tau_x\tau_y)`.
    """
    tx, ty, p, q = _chord(x, y, c)
    g, u, e = g[..., None], c * q / 4, p / (tx + ty)
    f = xp.where(q > 0, g / xp.sqrt(xp.where(q > 0, q, 1) * (1 + u)), 0)
    dc = g * root(q) * arsinh_root_d(u) * q / 4 - f / 2 * e**2 / (tx * ty)
    return f * (x - y - c * e / tx * x), f * (y - x + c * e / ty * y), like(dc, c)


# plain array code from here on: what NumPy and torch read alike, gradients by torch


def _lib(x: Array) -> Any:
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def _wide(x: Array) -> Array:
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


def _like(y: Array, x: Array) -> Array:
    return y.astype(x.dtype) if isinstance(y, np.ndarray) else y.to(x.dtype)


def _dot(x: Array, y: Array) -> Array:
    return (x * y).sum(-1)[..., None]


def _same(who: str, x: Array, **others: Array) -> None:
    for name, y in others.items():
        if getattr(y, "dtype", None) != x.dtype:
            raise TypeError(f"{who}: {name} is {getattr(y, 'dtype', type(y).__name__)}, x is {x.dtype}")


def _checked(c: Any) -> Any:
    """c, where it is a number that can be looked at."""
    if isinstance(c, (int, float, np.ndarray, np.generic)) and not np.all(np.isfinite(c) & (np.asarray(c) >= 0)):
        raise ValueError(f"lorentz: curvature must be finite and not negative, got {c}")
    return c


def _smooth(z: Array, f: Any, coefficients: tuple[float, ...]) -> Array:
    """f(√z)/√z, by its series near 0, where a gradient by f would cancel."""
    lib = _lib(z)
    near = z < 1e-2
    root = lib.sqrt(lib.where(near, lib.ones_like(z), z))
    small = lib.where(near, z, lib.zeros_like(z))
    value = small * 0
    for k in reversed(coefficients):
        value = value * small + k
    return lib.where(near, value, f(root) / root)


def _sinh_root(z: Array) -> Array:
    return _smooth(z, _lib(z).sinh, (1, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800))


def _arsinh_root(z: Array) -> Array:
    lib = _lib(z)
    series = (1, -1 / 6, 3 / 40, -15 / 336, 105 / 3456, -945 / 42240, 10395 / 599040, -135135 / 9676800)
    return _smooth(z, lib.arcsinh if lib is np else lib.asinh, series)


def _tau(s: Array, c: Any) -> Array:
    return _lib(s).sqrt(1 + c * _dot(s, s))


def time(x: Array, c: Any = 1.0) -> Array:
    r"""The time part of points, :math:`t = \sqrt{1/c + \|s\|^2}`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; at 0 the time is infinite.

    Returns
    -------
    array or tensor [..., 1]
        Differentiable.
    """
    s = _wide(x)
    return _like(_tau(s, _checked(c)) / (c**0.5 + 0 * s[..., :1]), x)


def dist(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Geodesic distance, :math:`\frac{1}{\sqrt c}\operatorname{arcosh}(-c\langle X, Y\rangle)`.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points, as their space parts; leading axes broadcast.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives :math:`\|x - y\|`.
    dim : int
        The axis of the rows.
    keepdim : bool
        Whether the result keeps that axis, with size 1.

    Returns
    -------
    array or tensor [...]
        Exactly 0 for equal rows, symmetric bit for bit. Differentiable once, with respect to x, y and c.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    :math:`\frac{2}{\sqrt c}\operatorname{arsinh}\frac{\sqrt{cQ}}{2}` with the squared chord
    :math:`Q = \|\Delta\|^2 - (t_x - t_y)^2`, :math:`\Delta = x - y`, and
    :math:`t_x - t_y = \langle\Delta, x + y\rangle/(t_x + t_y)`, in twice the precision of float64. What cancels there grows
    with :math:`e^{2\sqrt c\rho}`: nothing is lost for float32 data at any radius, or for float64 data up to a radius of 18.
    """
    return _lorentz_dist(x, y, c, dim=dim, keepdim=keepdim)


def dist0(x: Array, c: Any = 1.0, *, keepdim: bool = False) -> Array:
    r"""Distance from the origin, :math:`\frac{1}{\sqrt c}\operatorname{arsinh}(\sqrt c\,\|s\|)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.
    keepdim : bool
        Whether the result keeps the axis of the rows, with size 1.

    Returns
    -------
    array or tensor [...]
        Differentiable; the gradient at the origin is 0.
    """
    v = _wide(x)
    v = v * _arsinh_root(_checked(c) * _dot(v, v))
    lib = _lib(v)
    n = lib.linalg.norm(v, axis=-1)[..., None] if lib is np else lib.linalg.vector_norm(v, dim=-1, keepdim=True)
    return _like(n if keepdim else n[..., 0], x)


def cdist(x: Array, y: Array, c: Any = 1.0) -> Array:
    """Distances between all pairs, as `dist`.

    Parameters
    ----------
    x : array or tensor [..., N, d]
        Points; leading axes broadcast with those of y.
    y : array or tensor [..., M, d], of the type of x
        Points.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., N, M]
        Differentiable once, with respect to x, y and c; see `tersor.hyperbolic.cdist`, which does it on the ball in float64.
        That loses nothing for float32 data; float64 data keeps 16 digits less those of :math:`e^{\\sqrt c\\rho}`.

    Raises
    ------
    TypeError
        If x and y are not of one float type.
    ValueError
        If c is negative, not finite or no single number, or shapes do not go together.
    """
    _same("cdist", x, y=y)
    return _like(hyperbolic.cdist(_ball(_wide(x), c), _ball(_wide(y), c), c), x)


def expmap0(v: Array, c: Any = 1.0) -> Array:
    r"""Exponential map at the origin, :math:`s = \frac{\sinh(\sqrt c\,\|v\|)}{\sqrt c\,\|v\|}\,v`.

    Parameters
    ----------
    v : array or tensor [..., d]
        Tangent vectors at the origin, of the length of the way.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives v.

    Returns
    -------
    array or tensor [..., d]
        Points. Differentiable.
    """
    u = _wide(v)
    return _like(u * _sinh_root(_checked(c) * _dot(u, u)), v)


def logmap0(x: Array, c: Any = 1.0) -> Array:
    r"""Logarithm at the origin, inverse to `expmap0`: :math:`\frac{\operatorname{arsinh}(\sqrt c\|s\|)}{\sqrt c\|s\|}\,s`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at the origin. Differentiable.
    """
    s = _wide(x)
    return _like(s * _arsinh_root(_checked(c) * _dot(s, s)), x)


def expmap(x: Array, v: Array, c: Any = 1.0) -> Array:
    r"""Exponential map at a point, :math:`\cosh(\sqrt c\,n)\,x + \frac{\sinh(\sqrt c\,n)}{\sqrt c\,n}\,v`, n the length of v.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    v : array or tensor [..., d], of the type of x
        Tangent vectors at x, as their space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives x + v.

    Returns
    -------
    array or tensor [..., d]
        Points. Differentiable.
    """
    _same("expmap", x, v=v)
    s, u = _wide(x), _wide(v)
    back = _to_origin(s, u, _checked(c))
    z = c * _dot(back, back)
    half = _sinh_root(z / 4)
    # cosh r = 1 + 2 sinh²(r/2)
    return _like(s + s * (z / 2 * half * half) + u * _sinh_root(z), x)


def logmap(x: Array, y: Array, c: Any = 1.0) -> Array:
    r"""Logarithm at a point, the inverse of `expmap`: with :math:`r = \sqrt c\,d`, :math:`\frac{r}{\sinh r}(y - \cosh(r)\,x)`.

    Parameters
    ----------
    x, y : array or tensor [..., d], of one type
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives y - x.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at x, as their space parts. Differentiable.
    """
    _same("logmap", x, y=y)
    s, r = _wide(x), _wide(y)
    d = dist(s, r, _checked(c), keepdim=True)
    z = c * d * d
    half = _sinh_root(z / 4)
    return _like((r - s - s * (z / 2 * half * half)) / _sinh_root(z), x)


def geodesic(t: Any, x: Array, y: Array, c: Any = 1.0) -> Array:
    """The point at t on the geodesic from x (t = 0) to y (t = 1).

    Parameters
    ----------
    t : float, or array [..., 1]
        Where on the way.
    x, y : array or tensor [..., d], of one type
        Points.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Points. Differentiable.
    """
    _same("geodesic", x, y=y)
    s = _wide(x)
    return _like(expmap(s, logmap(s, _wide(y), c) * t, c), x)


def _to_origin(s: Array, v: Array, c: Any) -> Array:
    tau = _tau(s, c)
    return v - s * (c * _dot(s, v) / (tau * (1 + tau)))


def parallel_transport(x: Array, y: Array, v: Array, c: Any = 1.0) -> Array:
    r"""Parallel transport of v from x to y, :math:`v + \frac{c\langle Y, V\rangle}{1 - c\langle X, Y\rangle}(x + y)`.

    Parameters
    ----------
    x, y : array or tensor [..., d]
        Points.
    v : array or tensor [..., d], of the type of x
        Tangent vectors at x, as their space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives v.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at y, of the same length. Differentiable.
    """
    _same("parallel_transport", x, y=y, v=v)
    s, r, u = _wide(x), _wide(y), _wide(v)
    tx, ty = _tau(s, _checked(c)), _tau(r, c)
    # <Y, V> = <r - s, v> - (t_y - t_x)/t_x <s, v>, since <X, V> = 0
    rise = c * _dot(r - s, r + s) / ((tx + ty) * tx)
    along = _dot(r - s, u) - rise * _dot(s, u)
    z = c * dist(s, r, c, keepdim=True) ** 2
    half = _sinh_root(z / 4)
    return _like(u + (s + r) * (c * along / (2 + z / 2 * half * half)), x)


def parallel_transport0(y: Array, v: Array, c: Any = 1.0) -> Array:
    """Parallel transport of v from the origin to y.

    Parameters
    ----------
    y : array or tensor [..., d]
        Points.
    v : array or tensor [..., d], of the type of y
        Tangent vectors at the origin.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at y, as their space parts. Differentiable.
    """
    _same("parallel_transport0", y, v=v)
    s, u = _wide(y), _wide(v)
    return _like(u + s * (_checked(c) * _dot(s, u) / (1 + _tau(s, c))), y)


def parallel_transport0back(x: Array, v: Array, c: Any = 1.0) -> Array:
    """Parallel transport of v from x to the origin.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points.
    v : array or tensor [..., d], of the type of x
        Tangent vectors at x, as their space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at the origin. Differentiable.
    """
    _same("parallel_transport0back", x, v=v)
    return _like(_to_origin(_wide(x), _wide(v), _checked(c)), x)


def midpoint(x: Array, weights: Array | None = None, c: Any = 1.0) -> Array:
    r"""Weighted midpoint (centroid), :math:`\sum_i w_iX_i` brought back to the hyperboloid.

    Parameters
    ----------
    x : array or tensor [..., N, d]
        Points.
    weights : array or tensor [..., N], or None
        Of the type of x. None weighs all alike.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives the weighted mean.

    Returns
    -------
    array or tensor [..., d]
        Differentiable once; see `tersor.hyperbolic.weighted_midpoint`, which does it on the ball in float64.
    """
    if weights is not None:
        _same("midpoint", x, weights=weights)
    w = None if weights is None else _wide(weights)
    return _like(from_poincare(hyperbolic.weighted_midpoint(_ball(_wide(x), c), w, c, reducedim=[-2]), c), x)


def linear(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0) -> Array:
    r"""Lorentz linear map: :math:`W\,(t; s) + b`, or :math:`W s + b`, taken as the space part of a point.

    Parameters
    ----------
    x : array or tensor [..., i]
        Points.
    weight : array or tensor [o, i + 1] or [o, i], of the type of x
        With i + 1 columns the first one is for the time.
    bias : array or tensor [o], or None
        Added to the space part.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative; positive where the time takes part.

    Returns
    -------
    array or tensor [..., o]
        Points. Differentiable.

    Raises
    ------
    ValueError
        If weight has neither i nor i + 1 columns.

    Notes
    -----
    Chen et al., "Fully Hyperbolic Neural Networks" (2022), without its scaling of the output.
    """
    _same("linear", x, weight=weight)
    i = x.shape[-1]
    if weight.ndim != 2 or weight.shape[1] not in (i, i + 1):
        raise ValueError(f"linear: weight must be [o, {i + 1}] or [o, {i}], got {tuple(weight.shape)}")
    y = x @ weight[:, weight.shape[1] - i :].T
    if weight.shape[1] == i + 1:
        y = y + time(x, c) * weight[:, 0]
    return y if bias is None else y + bias


def _ball(s: Array, c: Any) -> Array:
    return hyperbolic.project(s / (1 + _tau(s, _checked(c))), c)


def to_poincare(x: Array, c: Any = 1.0) -> Array:
    r"""The points of the Poincaré ball, :math:`s/(1 + \sqrt c\,t)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the hyperboloid.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. At c = 0 the ball's coordinates are half as long: its metric there is 2.

    Returns
    -------
    array or tensor [..., d]
        Strictly inside the ball after rounding. Differentiable.
    """
    s = _wide(x)
    return hyperbolic.project(_like(s / (1 + _tau(s, _checked(c))), x), c)


def from_poincare(x: Array, c: Any = 1.0) -> Array:
    r"""The points of the hyperboloid, :math:`s = \lambda_xx`; the inverse of `to_poincare`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Poincaré ball.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Points of the hyperboloid. Differentiable.
    """
    y = _wide(x)
    return _like(y * hyperbolic.lambda_x(y, c, keepdim=True), x)


def to_klein(x: Array, c: Any = 1.0) -> Array:
    r"""The points of the Klein ball, :math:`s/(\sqrt c\,t)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the hyperboloid.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Strictly inside the ball of radius :math:`1/\sqrt c` after rounding. Differentiable.
    """
    s = _wide(x)
    return hyperbolic.project(_like(s / _tau(s, _checked(c)), x), c)


def from_klein(x: Array, c: Any = 1.0) -> Array:
    r"""The points of the hyperboloid, :math:`s = k/\sqrt{1 - c\|k\|^2}`; the inverse of `to_klein`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Klein ball.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Points of the hyperboloid. Differentiable.
    """
    y = _wide(x)
    return _like(y * (hyperbolic.lambda_x(y, c, keepdim=True) / 2) ** 0.5, x)


def poincare_to_klein(x: Array, c: Any = 1.0) -> Array:
    r"""From the Poincaré to the Klein ball, :math:`2x/(1 + c\|x\|^2)`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Poincaré ball.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Points of the Klein ball, strictly inside after rounding. Differentiable.
    """
    y = _wide(x)
    return hyperbolic.project(_like(y * 2 / (1 + _checked(c) * _dot(y, y)), x), c)


def klein_to_poincare(x: Array, c: Any = 1.0) -> Array:
    r"""From the Klein to the Poincaré ball, :math:`k/(1 + \sqrt{1 - c\|k\|^2})`.

    Parameters
    ----------
    x : array or tensor [..., d]
        Points of the Klein ball.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., d]
        Points of the Poincaré ball, strictly inside after rounding. Differentiable.
    """
    y = _wide(x)
    return hyperbolic.project(_like(y / (1 + (2 / hyperbolic.lambda_x(y, c, keepdim=True)) ** 0.5), x), c)
