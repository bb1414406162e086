"""The conformal factor and what it scales: projection, norms, transport from and to 0."""

from __future__ import annotations

from typing import Any

from tersor._arrays import dtype_name
from tersor._op import op
from tersor._reference import Array, dot, gap, like, root, xp
from tersor._sample import Rows
from tersor.hyperbolic._words import EPS


@op(sample=Rows("tangent"), checks_inside=True, words=EPS)
def _ball_project(x: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    """The kernel of `project`, whose name another family has too."""
    z = c * dot(x, x)
    out = z >= 1
    return xp.where(out, x / xp.sqrt(xp.where(out, z, 1)), x)


def project(x: Array, c: Any = 1.0, eps: float | str = 0.0, *, dim: int = -1) -> Array:
    r"""Points outside the ball, or the margin, moved onto it along their ray; others unchanged, bit for bit.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Any rows.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 changes nothing.
    {eps}
    {dim}

    Returns
    -------
    {inside}

    Raises
    ------
    {refused}

    Notes
    -----
    The result is :math:`x\,(1 - eps)/(\sqrt c\,\|x\|)` where that is shorter than x. `project(project(x)) == project(x)`. Rows
    that hold NaN or infinity are left alone. One read and one write of x.
    """
    if eps == "compat" or (not isinstance(eps, str) and eps < 0):
        eps = 1e-5 if dtype_name(x.dtype) == "float64" else 4e-3  # as a number, which every backend reads alike
    return _ball_project(x, c, eps, dim=dim)


@op(sample=Rows("g", "tangent"), tensors=True)
def ball_project_bwd(g: Array, x: Array, c: Any = 1.0, eps: float = 0.0) -> tuple[Array, Array]:
    r"""Gradient of `project`: g and 0 inside; outside, with :math:`k = (1 - eps)/(\sqrt c\,\|x\|)`,
    :math:`k(g - \langle g, x\rangle x/\|x\|^2)` and :math:`-k\langle g, x\rangle/(2c)`.
    """
    xx, gx = dot(x, x), dot(g, x)
    keep = 1 - eps
    out = c * xx >= keep**2
    xx1, c1 = xp.where(out, xx, 1), xp.where(out, c, 1)
    k = keep / xp.sqrt(c1 * xx1)
    return xp.where(out, k * (g - gx * x / xx1), g), like(xp.where(out, -k * gx / (2 * c1), 0), c)


@op(sample=Rows("ball"))
def lambda_x(x: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Conformal factor of the ball, :math:`\lambda_x = 2/(1 - c\|x\|^2)`.

    Parameters
    ----------
    {x}
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives 2.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Positive; NaN outside the ball, as is whatever is measured there.

    Raises
    ------
    {refused}

    Notes
    -----
    One read of x. Within 1 ulp in float32, 4 in float64, at any radius.
    """
    return (2 / gap(c, dot(x, x)))[..., 0]


@op(sample=Rows("ball", "row"), tensors=True)
def lambda_x_bwd(x: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array]:
    r"""Gradient of `lambda_x`: :math:`gc\lambda^2x` and :math:`g\lambda^2\|x\|^2/2`."""
    xx, g = dot(x, x), g[..., None]
    gl = g * (2 / gap(c, xx)) ** 2
    return gl * c * x, like(gl * xx / 2, c)


@op(sample=Rows("ball", "g", "g"))
def inner(x: Array, u: Array, v: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Inner product of tangent vectors at x, :math:`\langle u, v\rangle_x = \lambda_x^2\langle u, v\rangle`.

    Parameters
    ----------
    {rows}
    u, v : arrays like x
        Tangent vectors at x.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`4\langle u, v\rangle`.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        The inner products.

    Raises
    ------
    {refused}

    Notes
    -----
    One read of each array.
    """
    return ((2 / gap(c, dot(x, x))) ** 2 * dot(u, v))[..., 0]


@op(sample=Rows("ball", "g", "g", "row"), tensors=True)
def inner_bwd(x: Array, u: Array, v: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `inner`: :math:`2gc\lambda^3\langle u, v\rangle x`, :math:`g\lambda^2v`, :math:`g\lambda^2u` and
    :math:`g\lambda^3\|x\|^2\langle u, v\rangle`.
    """
    xx, g = dot(x, x), g[..., None]
    l = 2 / gap(c, xx)
    f = g * l * l
    k = f * l * dot(u, v)
    return 2 * c * k * x, f * v, f * u, like(k * xx, c)


@op(sample=Rows("ball", "g"))
def norm(x: Array, u: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Norm of a tangent vector at x, :math:`\|u\|_x = \lambda_x\|u\|`.

    Parameters
    ----------
    {rows}
    u : array like x
        Tangent vectors at x.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`2\|u\|`.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        The norms.

    Raises
    ------
    {refused}

    Notes
    -----
    One read of each array. The gradient at u = 0 is 0.
    """
    return (2 / gap(c, dot(x, x)) * root(dot(u, u)))[..., 0]


@op(sample=Rows("ball", "g", "row"), tensors=True)
def norm_bwd(x: Array, u: Array, g: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `norm`: :math:`gc\lambda^2\|u\|x`, :math:`g\lambda u/\|u\|` (0 at 0) and
    :math:`g\lambda^2\|x\|^2\|u\|/2`."""
    xx, n, g = dot(x, x), root(dot(u, u)), g[..., None]
    l = 2 / gap(c, xx)
    k = g * l * l * n
    return c * k * x, xp.where(n > 0, g * l / xp.where(n > 0, n, 1), 0) * u, like(k * xx / 2, c)


@op(sample=Rows("ball", "g"))
def parallel_transport0(x: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Parallel transport from the origin to x along the geodesic, :math:`(1 - c\|x\|^2)\,v`.

    Parameters
    ----------
    {rows}
    v : array like x
        Tangent vectors at the origin.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives v.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Scaled rows of v.

    Raises
    ------
    {refused}

    Notes
    -----
    The inverse of `parallel_transport0back`. One read of each array and one write.
    """
    a = gap(c, dot(x, x))
    return a * v


@op(sample=Rows("g", "ball", "g"), tensors=True)
def parallel_transport0_bwd(g: Array, x: Array, v: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `parallel_transport0`, :math:`f(\alpha)v`: :math:`-2cf'\langle g, v\rangle x`, :math:`fg`,
    :math:`-f'\|x\|^2\langle g, v\rangle`."""
    xx, gv = dot(x, x), dot(g, v)
    a = gap(c, xx)
    k = -gv
    return 2 * c * k * x, a * g, like(k * xx, c)


@op(sample=Rows("ball", "g"))
def parallel_transport0back(x: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Parallel transport from x to the origin along the geodesic, :math:`v/(1 - c\|x\|^2)`.

    Parameters
    ----------
    {rows}
    v : array like x
        Tangent vectors at x.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives v.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Scaled rows of v.

    Raises
    ------
    {refused}

    Notes
    -----
    The inverse of `parallel_transport0`. One read of each array and one write.
    """
    a = gap(c, dot(x, x))
    return v / a


@op(sample=Rows("g", "ball", "g"), tensors=True)
def parallel_transport0back_bwd(g: Array, x: Array, v: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `parallel_transport0back`, :math:`f(\alpha)v`: :math:`-2cf'\langle g, v\rangle x`, :math:`fg`,
    :math:`-f'\|x\|^2\langle g, v\rangle`."""
    xx, gv = dot(x, x), dot(g, v)
    a = gap(c, xx)
    k = gv / a**2
    return 2 * c * k * x, g / a, like(k * xx, c)


@op(sample=Rows("ball", "g"))
def egrad2rgrad(x: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Riemannian gradient at x from a Euclidean one, :math:`v/\lambda_x^2`.

    Parameters
    ----------
    {rows}
    v : array like x
        Euclidean gradients at x.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative. c = 0 gives v / 4.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Scaled rows of v.

    Raises
    ------
    {refused}

    Notes
    -----
    The metric at x is :math:`\lambda_x^2` times the Euclidean one. One read of each array and one write.
    """
    a = gap(c, dot(x, x))
    return a**2 / 4 * v


@op(sample=Rows("g", "ball", "g"), tensors=True)
def egrad2rgrad_bwd(g: Array, x: Array, v: Array, c: Any = 1.0) -> tuple[Array, Array, Array]:
    r"""Gradient of `egrad2rgrad`, :math:`f(\alpha)v`: :math:`-2cf'\langle g, v\rangle x`, :math:`fg`,
    :math:`-f'\|x\|^2\langle g, v\rangle`."""
    xx, gv = dot(x, x), dot(g, v)
    a = gap(c, xx)
    k = -a / 2 * gv
    return 2 * c * k * x, a**2 / 4 * g, like(k * xx, c)
