r"""Moving clouds of points, as tangent vectors at 0 or as points: squared distances to a point, and the map that carries that
point to another and scales the distances from it.

The rule of this file: a point is known by its coordinates on the hyperboloid, :math:`(\tau, fx)`, so that tangent vectors of
any length are as good as short ones.
"""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import Array, arsinh_root, arsinh_root_d, cosh_root, dot, like, sinh_root, sinh_root_log_d
from tersor._sample import Draw, Rows
from tersor.hyperbolic._words import EPS


def _sample(*kinds: str, **scalars: Any) -> Any:
    """Rows as `Rows` draws them, "point" of either kind, by turns."""
    rows = Rows()

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        ball = draw.seed % 2 == 1
        c: Any = draw.c
        if draw.c_rows:
            c = draw.cast(draw.c * draw.rng.uniform(0.5, 1.5, (*draw.lead, 1)))
        made = [rows.one(draw, ("ball" if ball else "tangent") if k == "point" else k, c) for k in kinds]
        if not ball:  # the exponential map doubles lengths
            made = [draw.cast(x / 2) if k == "point" else x for k, x in zip(kinds, made, strict=True)]
        return [*made, c], {"ball": ball, **scalars}

    return draw_all


class _Place:
    """A row x as P = a x and k, cosh and sinh of half its distance from 0; what they change by with c, over :math:`\\|x\\|^2`.

    On the hyperboloid it is :math:`(\\tau, fx)`: dx = f dX + 2c(r<dX, x> + t dτ) x, dc = :math:`\\|x\\|^2`(r<dX, x> + t dτ).
    """

    def __init__(self, x: Array, c: Array, ball: bool) -> None:
        self.x, self.square = x, dot(x, x)
        z = c * self.square
        if ball:
            self.k = self.a = (1 - z) ** -0.5
            self.a1 = self.k1 = self.k**3 / 2
        else:
            self.a, self.k = sinh_root(z), cosh_root(z)
            self.a1, self.k1 = self.a * sinh_root_log_d(z), self.a / 2
        self.f, self.tau = 2 * self.a * self.k, 1 + 2 * c * self.a**2 * self.square
        self.r, self.t = 2 * (self.a1 * self.k + self.a * self.k1), 4 * self.k * self.k1


class _Apart:
    """Two points: D, with :math:`\\cosh\\sqrt c d = 1 + 2cD`, and its derivatives."""

    def __init__(self, p: _Place, o: _Place, c: Array) -> None:
        self.p, self.o, self.c = p, o, c
        self.v = p.a * o.k * p.x - o.a * p.k * o.x
        self.d = dot(self.v, self.v)
        self.cosh = 1 + 2 * c * self.d

    def by_c(self) -> Array:
        p, o = self.p, self.o
        own = (p.a1 * o.k * p.square + p.a * o.k1 * o.square) * p.x
        return 2 * dot(self.v, own - (o.a1 * p.k * o.square + o.a * p.k1 * p.square) * o.x)

    def by_points(self) -> tuple[Array, Array]:
        p, o, xy = self.p, self.o, dot(self.p.x, self.o.x)
        both = p.f * o.f / 2
        return (
            (p.t * o.tau - self.c * p.r * o.f * xy) * p.x - both * o.x,
            (o.t * p.tau - self.c * o.r * p.f * xy) * o.x - both * p.x,
        )


@op(sample=_sample("point", "point"))
def spread(x: Array, m: Array, c: Any = 1.0, ball: bool = False) -> Array:
    r"""Squared distances of rows to a point, :math:`d_c(x, m)^2`, both tangent vectors at 0 or both points of the ball.

    Parameters
    ----------
    x, m : array or tensor [..., d], float64, float32, float16 or bfloat16
        Tangent vectors at the origin, which stand for their :math:`\exp_0`, or points; leading axes broadcast.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`4\|x - m\|^2`.
    ball : bool
        Whether rows are points.

    Returns
    -------
    array or tensor [...]
        Squared distances.

    Raises
    ------
    TypeError
        If x and m are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    6 operations per element. Lengths and the angle between rows are taken apart, so that no radius loses the distance;
    vectors longer than :math:`80/\sqrt c` count as of that length.
    """
    way = _Apart(_Place(x, c, ball), _Place(m, c, ball), c)
    return (4 * way.d * arsinh_root(c * way.d) ** 2)[..., 0]


@op(sample=_sample("point", "point", "row"), tensors=True)
def spread_bwd(x: Array, m: Array, g: Array, c: Any = 1.0, ball: bool = False) -> tuple[Array, Array, Array]:
    r"""Gradient of `spread`. By D it is :math:`4S/\sqrt{1 + cD}`, by c, with D at rest, :math:`8D^2SS'`; S = S(cD)."""
    way, g = _Apart(_Place(x, c, ball), _Place(m, c, ball), c), g[..., None]
    u = c * way.d
    s = arsinh_root(u)
    slope = 4 * g * s / (1 + u) ** 0.5
    dx, dm = way.by_points()
    return slope * dx, slope * dm, like(slope * way.by_c() + 8 * g * way.d**2 * s * arsinh_root_d(u), c)


class _Path:
    """The weights of X, M and B in Y, and what they are made of."""

    def __init__(self, x: Array, m: Array, b: Array, r: Any, c: Any, ball: bool) -> None:
        self.points = px, pm, pb = _Place(x, c, ball), _Place(m, c, ball), _Place(b, c, ball)
        self.ways = _Apart(px, pm, c), _Apart(px, pb, c), _Apart(pm, pb, c)
        one, two, three = (w.cosh for w in self.ways)
        p = c * self.ways[0].d
        self.square = 4 * p * arsinh_root(p) ** 2
        self.kappa = r * sinh_root(r * r * self.square) / sinh_root(self.square)
        self.omega = (one * three - two) / (1 + three)
        # ω − cosh d, which would cancel
        self.back = -(one + two) / (1 + three)
        edge = cosh_root(r * r * self.square)
        self.parts = self.kappa, self.kappa * self.back, edge + self.kappa * self.omega
        self.y = sum(w * p.f * p.x for w, p in zip(self.parts, self.points, strict=True))
        self.tau = sum(w * p.tau for w, p in zip(self.parts, self.points, strict=True))
        self.h = 1 / (1 + self.tau) if ball else arsinh_root(self.tau**2 - 1) / 2


#: the references multiply coordinates on the hyperboloid in plain float64, and far from 0 what they add up to is small
SUMS = {"float64": 40000, "float32": 4, "float16": 4, "bfloat16": 4}


@op(sample=_sample("point", "point", "point", "factor", eps=0.0), words=EPS, tolerance=SUMS)
def carry(
    x: Array, m: Array, b: Array, r: Any = 1.0, c: Any = 1.0, ball: bool = False, eps: float | str = 0.0
) -> Array:
    r"""Carries rows along with a point m to b, and multiplies their distances from it by r:
    :math:`\exp_b(r\,P_{m\to b}\log_m x)`.

    .. math:: Y = \kappa X + \kappa(\omega - \cosh d)M + (\cosh rd + \kappa\omega)B,\quad
        \kappa = \frac{\sinh rd}{\sinh d},\quad \omega - \cosh d = -\frac{\cosh d + \cosh d_{xb}}{1 + \cosh d_{mb}}

    on the hyperboloid, with distances d of curvature -1.

    Parameters
    ----------
    x, m, b : array or tensor [..., d], float64, float32, float16 or bfloat16
        Tangent vectors at the origin, which stand for their :math:`\exp_0`, or points; leading axes broadcast.
    r : float, or array of 0 axes or [..., 1]
        The factor of distances.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`b + r(x - m)`.
    ball : bool
        Whether rows are points.
    eps : float, "tight" or "compat"
        How far inside the ball resulting points stay; see `expmap0`.

    Returns
    -------
    array or tensor [..., d]
        Of the kind of x.

    Raises
    ------
    TypeError
        If x, m and b are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    15 operations per element, one read and one write of x; nothing is projected or clamped, but for vectors longer than
    :math:`80/\sqrt c`, which count as of that length. Rounding in float64 moves a row by up to :math:`e^{2\sqrt c\|x\|}`
    machine epsilons, as the last bit of a float64 row does. It is
    :math:`b \oplus (r \otimes \operatorname{gyr}[b, \ominus m](\ominus m \oplus x))`, the map of batch normalisation.
    """
    p = _Path(x, m, b, r, c, ball)
    return p.h * p.y


@op(sample=_sample("g", "point", "point", "point", "factor"), tensors=True, tolerance=SUMS | {"float32": 40})
def carry_bwd(
    g: Array, x: Array, m: Array, b: Array, r: Any = 1.0, c: Any = 1.0, ball: bool = False
) -> tuple[Array, Array, Array, Array, Array]:
    r"""Gradient of `carry`: from y to Y by h, to κ, ω, cosh rd and the points, to the three distances, to the points."""
    p = _Path(x, m, b, r, c, ball)
    points, ways, kappa, omega, h = p.points, p.ways, p.kappa, p.omega, p.h
    slope = -(h**2) if ball else p.tau * arsinh_root_d(p.tau**2 - 1)
    up = slope * dot(g, p.y)
    dots = [dot(g, q.x) for q in points]
    k = [h * q.f * d + up * q.tau for q, d in zip(points, dots, strict=True)]
    by_kappa = k[0] + p.back * k[1] + omega * k[2]
    by_omega = kappa * (k[1] + k[2]) / (1 + ways[2].cosh)
    z, one = p.square, sinh_root(p.square)
    by_cosh = (
        by_kappa * kappa * 2 / one * (r * r * sinh_root_log_d(r * r * z) - sinh_root_log_d(z))
        + k[2] * r * kappa
        + by_omega * ways[2].cosh
        - kappa * k[1]
    )
    dr = by_kappa * cosh_root(r * r * z) / one + k[2] * z * one * kappa
    slopes = by_cosh, -by_omega, -by_omega * p.back
    out, dc = [], 0.0
    for w, q, d in zip(p.parts, points, dots, strict=True):
        bend = w * (h * q.r * d + q.t * up)
        out.append(w * h * q.f * g + 2 * c * bend * q.x)
        dc = dc + bend * q.square
    for s, way, (i, j) in zip(slopes, ways, ((0, 1), (0, 2), (1, 2)), strict=True):
        one, two = way.by_points()
        out[i], out[j] = out[i] + 2 * c * s * one, out[j] + 2 * c * s * two
        dc = dc + 2 * s * (way.d + c * way.by_c())
    return out[0], out[1], out[2], like(dr, r), like(dc, c)
