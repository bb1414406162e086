"""Distance to a hyperplane."""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import Array, arsinh_root, arsinh_root_d, dot, gap, like, root, xp
from tersor._sample import Rows


@op(sample=Rows("ball", "ball", "g"))
def dist2plane(
    x: Array,
    p: Array,
    a: Array,
    c: Any = 1.0,
    signed: bool = False,
    scaled: bool = False,
    *,
    dim: int = -1,
    keepdim: bool = False,
) -> Array:
    r"""Distance from x to the hyperplane through p that is normal to a.

    .. math:: d = \frac{1}{\sqrt c}\operatorname{arsinh}\frac{2\sqrt c\,|\langle u, a\rangle|}{(1 - c\|u\|^2)\|a\|},\quad u =
        {-p} \oplus_c x

    Parameters
    ----------
    x, p : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball; leading axes broadcast.
    a : array like x
        Normals, tangent vectors at p; where a = 0 the distance is 0.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`2|\langle x - p, a\rangle|/\|a\|`.
    signed : bool
        Whether points on the side a points away from have negative distance.
    scaled : bool
        Whether the distance is multiplied by the norm of a.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        In units of the curvature radius.

    Raises
    ------
    {refused}

    Notes
    -----
    Computed as :math:`\operatorname{arsinh}(\sqrt c\,r)/\sqrt c`,
    :math:`r = 2(\alpha\langle\delta, a\rangle - cq\langle p, a\rangle)/(\alpha\beta\|a\|)`
    with :math:`\delta = x - p`, :math:`q = \|\delta\|^2`, :math:`\alpha = 1 - c\|p\|^2`, :math:`\beta = 1 - c\|x\|^2`. One
    read of each array.
    The unsigned distance has gradient 0 on the plane. Ganea et al. (2018), theorem 5.
    """
    xx, pp, delta, n = dot(x, x), dot(p, p), x - p, root(dot(a, a))
    al, be = gap(c, pp), gap(c, xx)
    h = al * dot(delta, a) - c * dot(delta, delta) * dot(p, a)
    r = xp.where(n > 0, 2 * h / (al * be * xp.where(n > 0, n, 1)), 0)
    d = (r if signed else xp.abs(r)) * arsinh_root(c * r * r)
    return (d * n if scaled else d)[..., 0]


@op(sample=Rows("ball", "ball", "g", "row"), tensors=True)
def dist2plane_bwd(
    x: Array, p: Array, a: Array, g: Array, c: Any = 1.0, signed: bool = False, scaled: bool = False
) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `dist2plane`.

    With :math:`G = g/\sqrt{1 + cr^2}`, :math:`F = 2G/(\alpha\beta\|a\|)`, :math:`A = F\langle\delta, a\rangle - Gr/\alpha`,
    :math:`B = -Gr/\beta`,
    :math:`W = F\alpha a - 2cF\langle p, a\rangle\delta`: :math:`dx = W - 2cBx`, :math:`dp = -W - Fcqa - 2cAp`,
    :math:`da = F(\alpha\delta - cqp) - Gr/\|a\|^2\,a`, :math:`dc = gr^3S' - Fq\langle p, a\rangle - \|p\|^2A - \|x\|^2B` per
    row; g is multiplied by
    the sign of r, or by the norm of a and da gains :math:`gd/\|a\|\,a`.
    """
    xx, pp, delta, n, g = dot(x, x), dot(p, p), x - p, root(dot(a, a)), g[..., None]
    al, be, q, da, pa = gap(c, pp), gap(c, xx), dot(delta, delta), dot(delta, a), dot(p, a)
    n1 = xp.where(n > 0, n, 1)
    r = xp.where(n > 0, 2 * (al * da - c * q * pa) / (al * be * n1), 0)
    g = g if signed else g * xp.sign(r)
    u = c * r * r
    long = g * n if scaled else g
    top = long / xp.sqrt(1 + u)
    f = xp.where(n > 0, 2 * top / (al * be * n1), 0)
    own = xp.where(n > 0, (top * r - (g * n * r * arsinh_root(u) if scaled else 0)) / n1**2, 0)
    by_p, by_x = f * da - top * r / al, -top * r / be
    way = f * al * a - 2 * c * f * pa * delta
    dc = long * r**3 * arsinh_root_d(u) - f * q * pa - pp * by_p - xx * by_x
    dx, dp = way - 2 * c * by_x * x, -way - f * c * q * a - 2 * c * by_p * p
    return dx, dp, f * (al * delta - c * q * p) - own * a, like(dc, c)
