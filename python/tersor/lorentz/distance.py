"""Distances on the hyperboloid. The one rule: the chord, which is a difference of points, never of times."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor import hyperbolic
from tersor._along import along
from tersor._arrays import axes, is_distributed, is_tensor
from tersor._op import op
from tersor._reference import Array, arsinh_root, arsinh_root_d, dot, like, root, rounded, wide, xp
from tersor._sample import Draw
from tersor._values import at_hand
from tersor.hyperbolic._by_row import check_rows
from tersor.hyperbolic.pairwise import operands, squares
from tersor.lorentz._space import arsinh_of, check_same, checked, root_of


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
def _dist(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    """See `dist`."""
    q = _chord(x, y, c)[-1]
    return (root(q) * arsinh_root(c * q / 4))[..., 0]


@op(sample=_sample("point", "point", "row"), tensors=True)
def _dist_bwd(x: Array, y: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `dist`.

    With :math:`f = g/\sqrt{Q(1 + u)}`, :math:`u = cQ/4`, :math:`k = cp/(\tau_x + \tau_y)`: :math:`dx = f(x - y - k/\tau_x\,x)`,
    `dy` likewise, 0 where :math:`Q = 0`; :math:`dc = g\sqrt Q\,S'(u)Q/4 - \tfrac f2(p/(\tau_x + \tau_y))^2/(\tau_x\tau_y)`.
    """
    tx, ty, p, q = _chord(x, y, c)
    g, u, e = g[..., None], c * q / 4, p / (tx + ty)
    f = xp.where(q > 0, g / xp.sqrt(xp.where(q > 0, q, 1) * (1 + u)), 0)
    dc = g * root(q) * arsinh_root_d(u) * q / 4 - f / 2 * e**2 / (tx * ty)
    return f * (x - y - c * e / tx * x), f * (y - x + c * e / ty * y), like(dc, c)


def dist(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Geodesic distance, :math:`\frac{1}{\sqrt c}\operatorname{arcosh}(-c\langle X, Y\rangle)`.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points, as their space parts; leading axes broadcast.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives :math:`\|x - y\|`.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Exactly 0 for equal rows, symmetric bit for bit. Differentiable, twice too, with respect to x, y and c.

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
    with :math:`e^{2\sqrt c\rho}`: pairs that lose 13 digits and more (near ones, from :math:`\sqrt c\rho = 15` on; for the
    gradients of float64 data 7 digits, from 8 on) are done once more, by what is across and what is along the longer vector,
    seven to eighteen times as slow; from :math:`\sqrt c\rho = 20` on, and where squares leave float64 (lengths below 1e-120 or
    above 1e72), by radii and the angle between the two, :math:`\sinh^2\frac{\sqrt cd}2 = \sinh^2\frac{r - \rho}2 + \sinh
    r\sinh\rho\sin^2\frac\theta2` with logarithms. So no digit is missing at any radius that data has, up to 710 in float64,
    but in gradients of float64 pairs of unlike lengths, of which 8 are left at worst, from 8 to :math:`\sqrt c\rho = 19`.
    Second derivatives are taken in float64 by the formula alone, and lose what cancels there.
    """
    return _dist(x, y, c, dim=dim, keepdim=keepdim)


@along("x", "y")
def dist2(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Squared geodesic distance, with all its derivatives where the points are one too.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points, as their space parts; leading axes broadcast.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives :math:`\|x - y\|^2`.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Differentiable, twice too: the Hessian at equal points is twice the metric there.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    The square of `dist`, with the squared chord in its place where that is 0: the square of a distance that has no second
    derivative there would have 0.
    """
    d = dist(x, y, c, keepdim=True)
    s, r = (xp.where(d == 0, wide(v), 0.0) for v in (x, y))  # the squares of others may be no numbers
    e = dot(s - r, s + r) / (xp.sqrt(1 + c * dot(s, s)) + xp.sqrt(1 + c * dot(r, r)))
    chord = rounded(dot(s - r, s - r) - c * e * e, x)
    square = xp.where(d == 0, chord, d * d)
    return square if keepdim else square[..., 0]


@along("x")
def dist0(x: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Distance from the origin, :math:`\frac{1}{\sqrt c}\operatorname{arsinh}(\sqrt c\,\|s\|)`.

    Parameters
    ----------
    {x}
    {c}
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Differentiable; the gradient at the origin is 0.

    Raises
    ------
    {refused_rows}
    """
    v = wide(x)
    v = v * arsinh_of(x, v, checked(c))
    n = root(dot(v, v))
    return rounded(n if keepdim else n[..., 0], x)


#: how many calls of `dist` a trace of `cdist` has at most
CALLS = 8


def cdist(x: Array, y: Array, c: Any = 1.0) -> Array:
    r"""Distances between all pairs, as `dist`.

    Parameters
    ----------
    x : array or tensor [..., N, d], float64, float32, float16 or bfloat16
        Points; leading axes broadcast with those of y.
    y : array or tensor [..., M, d], of the type of x
        Points.
    c : float, or array of 0 axes or [..., N, 1]
        One for all pairs or one for each row of x. Curvature -c; finite, not negative.

    Returns
    -------
    array or tensor [..., N, M]
        Exactly 0 for equal rows; ``cdist(y, x)`` is the transpose. Differentiable, twice too, with respect to x, y and c.

    Raises
    ------
    TypeError
        If x and y are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    float64 data row by row: the same bits as `dist` has, at any radius, at the cost of a call for each row of the smaller side
    (of x, with a curvature for each); under ``torch.compile`` an eighth of these at once, which takes an eighth of N·M·d
    numbers. Smaller types on the ball (`tersor.hyperbolic.cdist`) where all points lie within :math:`10/\sqrt c` and can be
    looked at, with one c; else in float64 by :math:`\sinh^2\frac{\sqrt cd}2 = \sinh^2\frac{\rho_x - \rho_y}2 +
    \frac{c\|x\|\|y\|}4\|\hat x - \hat y\|^2`, with :math:`\hat x = x/\|x\|` and radii ρ, in which float32 data has all its
    digits at any radius that it reaches. No array of N·M·d else.
    """
    check_same("cdist", x, y=y)
    several = axes(checked(c)) > 0
    x, y = operands("cdist", x, y)
    if several:
        check_rows("cdist", x, c)
    if x.dtype.itemsize < 8:
        s, r = wide(x), wide(y)
        if not several and _inner(s, c) and _inner(r, c):
            return rounded(hyperbolic.cdist(s / (1 + root_of(s, c)), r / (1 + root_of(r, c)), c), x)
        return rounded(_pairs(s, r, c), x)
    if not several and x.shape[-2] > y.shape[-2]:
        return cdist(y, x, c).swapaxes(-1, -2)
    n = x.shape[-2]
    each = xp.broadcast_to(c, (*x.shape[:-1], 1)) if several else None

    def of(i: int, step: int) -> Any:
        return c if each is None else each[..., i : i + step, None, :]

    if is_tensor(x):
        import torch

        # a trace writes a call for each, which takes all pairs of a row along
        if torch.compiler.is_compiling() and n > CALLS:
            step = -(-n // CALLS)
            parts = [dist(x[..., i : i + step, None, :], y[..., None, :, :], of(i, step)) for i in range(0, n, step)]
            return xp.concatenate(parts, -2)
    rows = [dist(x[..., i : i + 1, :], y, c if each is None else each[..., i : i + 1, :]) for i in range(n)]
    return xp.stack(rows, -2) if rows else x @ y.swapaxes(-1, -2)


def _inner(s: Array, c: Any) -> bool:
    """Whether points can be looked at and lie within a radius of 10, where the ball has all the digits of float32."""
    if any(is_distributed(a) or (is_tensor(a) and not at_hand(a)) for a in (s, c)):
        return False
    return not bool((c * dot(s, s) > 1e8).any())


def _pairs(x: Array, y: Array, c: Any) -> Array:
    """Distances between all pairs, in float64: 2 arsinh(√(cm))/√c, with m of radii and directions; where one of two points is
    near the origin, which has no direction, of their chord, or of their product if the other is not near."""
    xx, yy = dot(x, x), dot(y, y).swapaxes(-1, -2)
    tx, ty = xp.sqrt(1 + c * xx), xp.sqrt(1 + c * yy)
    e = (xx - yy) / (tx + ty)
    chord = (squares(x, y) - c * e * e) / 4
    product = (xx / (1 + tx) * ty + yy / (1 + ty) - x @ y.swapaxes(-1, -2)) / 2
    near = xp.where((c * xx < 8) & (c * yy < 8), xp.where(chord < 0, 0.0, chord), product)
    nx, ny = root(xx), root(yy)
    small = (c * xx < 1) | (c * yy < 1)

    top = xp.amax(c.detach() if is_tensor(c) else c) if axes(c) and math.prod(c.shape) else c

    def unit(s: Array) -> Array:  # only where it is of use: a short vector's has slopes without bound
        n = dot(s, s)
        return s / xp.sqrt(xp.where(top * n < 1, 1.0, n))

    turn = squares(unit(x), unit(y))
    v = (xx - yy) / xp.where(small, 1.0, nx * ty + ny * tx)
    far = v * v / (2 * (1 + xp.sqrt(1 + c * v * v))) + nx * ny * turn / 4
    m = xp.where(small, near, far)
    return 2 * root(m) * arsinh_root(c * m)
