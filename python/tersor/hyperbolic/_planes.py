r"""What follows a dense product in hyperbolic layers, as operators on rows of :math:`t = vZ`.

The rule of this file: a row is known by one number s and a column by two, n = \|z_k\| and r; a call reads t once.
With :math:`\beta = 2\sqrt c\,r` and :math:`(a, b) = (\sinh\sigma/\sigma, \cosh\sigma)`, :math:`\sigma = 2\sqrt{cs}`, or, in
the ball, :math:`(s/2, s - 1)`: :math:`p = 2\sqrt c(at\cosh\beta/n - br\sinh\beta/\beta)`.
"""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import Array, arsinh_root, arsinh_root_d, cosh_root, dot, like, sinh_root, sinh_root_log_d, xp
from tersor._sample import Planes, Rows
from tersor.hyperbolic._words import EPS

#: in machine epsilons of the largest number: gradients are sums over columns, or rows, of terms rounded to the data's type
SUMS = {"float64": 2000, "float32": 64, "float16": 4, "bfloat16": 4}


@op(sample=Rows("tangent", flat=True))
def square_norm(x: Array, *, dim: int = -1, keepdim: bool = False) -> Array:
    """Squared norms of rows, :math:`\\|x\\|^2`.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Rows.
    dim : int
        The axis of the rows.
    keepdim : bool
        Whether the result keeps that axis, with size 1.

    Returns
    -------
    array or tensor [...]
        Summed in float64, float64 data in twice its precision, and rounded once.
    """
    return dot(x, x)[..., 0]


@op(sample=Rows("tangent", "row", flat=True))
def square_norm_bwd(x: Array, g: Array) -> Array:
    """Gradient of `square_norm`: 2g x."""
    return 2 * g[..., None] * x


def _columns(x: Array) -> Array:
    """Sums over all rows."""
    return x.reshape(-1, x.shape[-1]).sum(0)


class _Planes:
    """The quantities of one call that forward and backward share."""

    def __init__(self, t: Array, s: Array, n: Array, r: Array, c: Any, ball: bool) -> None:
        self.c, self.t, self.s, self.n, self.r = c, t, s[..., None], n, r
        self.z, self.beta = 4 * c * self.s, 4 * c * r * r
        self.a, self.b = (self.s / 2, self.s - 1) if ball else (sinh_root(self.z), cosh_root(self.z))
        self.cosh = cosh_root(self.beta)
        self.per = xp.where(n > 0, 1 / xp.where(n > 0, n, 1.0), 0.0)
        self.A, self.B = self.cosh * self.per, r * sinh_root(self.beta)
        self.q = self.a * self.A * t - self.b * self.B
        self.u = 4 * c * self.q**2
        self.y = 4 * n * self.q * arsinh_root(self.u)
        self.ball = ball

    def back(self, gy: Array, dc: Array) -> tuple[Array, Array, Array, Array, Array]:
        """From the gradient of y, and of c so far, those of t, s, n, r and c."""
        c = self.c
        ga = 4 * self.n * gy
        gq = ga / xp.sqrt(1 + self.u)
        dc = dc + (ga * self.q**3 * 4 * arsinh_root_d(self.u)).sum()
        r1, r2 = dot(gq, self.A * self.t), dot(gq, self.B + 0 * self.t)
        if self.ball:
            ds = r1 / 2 - r2
        else:
            d = r1 * self.a * sinh_root_log_d(self.z) - r2 * self.a / 2
            ds, dc = 4 * c * d, dc + (4 * self.s * d).sum()
        u, v = _columns(gq * self.a * self.t), _columns(gq * self.b)
        dn = (_columns(gy * self.y) - self.A * u) * self.per
        dr = 4 * c * self.B * self.per * u - self.cosh * v
        dc = dc + (2 * self.r * self.B * self.per * u).sum()
        dc = dc - (4 * self.r**3 * sinh_root(self.beta) * sinh_root_log_d(self.beta) * v).sum()
        return self.a * self.A * gq + gy * 4 * (self.n == 0), ds[..., 0], dn, dr, dc


@op(sample=Planes(eps=0.0), words=EPS, conditioned=True)
def fc_rows(t: Array, s: Array, n: Array, r: Array, c: Any = 1.0, ball: bool = False, eps: float | str = 0.0) -> Array:
    r"""The hyperbolic fully connected layer after its product: :math:`w_k = \sinh(2n_k\operatorname{arsinh} p_k)/\sqrt c`,
    then :math:`\operatorname{arsinh}(\sqrt c\|w\|)\,w/(2\sqrt c\|w\|)` or, in the ball, :math:`w/(1 + \sqrt{1 + c\|w\|^2})`.

    Parameters
    ----------
    t : array or tensor [..., o], float64, float32, float16 or bfloat16
        Products of rows with the columns of Z.
    s : like t [...]
        :math:`\|v\|^2` of tangent vectors at 0, or, with `ball`, :math:`\lambda_x` of points.
    n, r : like t [o]
        Norms of the columns of Z, and the biases. Where n = 0 the result is 0, with the slope in t that the layer has along
        v.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative.
    ball : bool
        Which of the two forms.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.

    Returns
    -------
    array or tensor [..., o]
        Tangent vectors at 0, or points of the ball.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or sizes do not go together.

    Notes
    -----
    One read of t and one write, a logarithm and an exponential per element. Shimizu et al., "Hyperbolic neural networks++"
    (2021), section 3.2.
    """
    p = _Planes(t, s, n, r, c, ball)
    w = p.y * sinh_root(p.c * p.y**2)
    q = p.c * dot(w, w)
    return w / (1 + xp.sqrt(1 + q)) if ball else w * arsinh_root(q) / 2


@op(sample=Planes(True), tolerance=SUMS, conditioned=True, tensors=True)
def fc_rows_bwd(
    g: Array, t: Array, s: Array, n: Array, r: Array, c: Any = 1.0, ball: bool = False
) -> tuple[Array, Array, Array, Array, Array]:
    r"""Gradient of `fc_rows`: :math:`G_w = Hg + N\langle g, w\rangle w`, :math:`G_y = G_w\cosh\sqrt cy`, then `mlr_rows_bwd`.

    With :math:`h(q)` the factor of w at :math:`q = c\|w\|^2`: H = h and :math:`N = 2ch'`.
    """
    p = _Planes(t, s, n, r, c, ball)
    z = p.c * p.y**2
    w = p.y * sinh_root(z)
    q = p.c * dot(w, w)
    root = xp.sqrt(1 + q)
    h, slope = (1 / (1 + root), -0.5 / (root * (1 + root) ** 2)) if ball else (arsinh_root(q) / 2, arsinh_root_d(q) / 2)
    gw = h * g + 2 * p.c * slope * dot(g, w) * w
    dc = (slope * dot(g, w) * dot(w, w)).sum() + (gw * p.y**3 * sinh_root(z) * sinh_root_log_d(z)).sum()
    *ds, dc = p.back(gw * cosh_root(z), dc)
    return ds[0], ds[1], ds[2], ds[3], like(dc, c)


@op(sample=Planes(), conditioned=True)
def mlr_rows(t: Array, s: Array, n: Array, r: Array, c: Any = 1.0, ball: bool = False) -> Array:
    r"""Signed distances to hyperplanes times 2n, :math:`\frac{2n_k}{\sqrt c}\operatorname{arsinh} p_k`: the logits of a
    hyperbolic multinomial regression after its product.

    Parameters
    ----------
    t, s, n, r, c, ball
        As `fc_rows` takes them.

    Returns
    -------
    array or tensor [..., o]
        Logits.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or sizes do not go together.

    Notes
    -----
    One read of t and one write, a logarithm per element. Shimizu et al. (2021), section 3.1.
    """
    return _Planes(t, s, n, r, c, ball).y


@op(sample=Planes(True), tolerance=SUMS, conditioned=True, tensors=True)
def mlr_rows_bwd(
    g: Array, t: Array, s: Array, n: Array, r: Array, c: Any = 1.0, ball: bool = False
) -> tuple[Array, Array, Array, Array, Array]:
    r"""Gradient of `mlr_rows`. With :math:`G = 4ng/\sqrt{1 + p^2}`: :math:`dt = aG\cosh\beta/n`, and s, n, r and c by the sums
    of G t and G over columns and rows.
    """
    *ds, dc = _Planes(t, s, n, r, c, ball).back(g, 0.0)
    return ds[0], ds[1], ds[2], ds[3], like(dc, c)
