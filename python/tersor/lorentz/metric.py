"""The metric of the hyperboloid on space parts of tangents. The one rule: products are taken at the origin, where vectors are
carried without changing their lengths."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, root, rounded, wide
from tersor.lorentz._space import check_same, checked
from tersor.lorentz.transport import to_origin


@along("x", "u", "v")
def inner(x: Array, u: Array, v: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Inner product of tangent vectors at x, :math:`\langle u, v\rangle - \frac{c\langle x, u\rangle\langle x,
    v\rangle}{1 + c\|x\|^2}`: the Lorentz product :math:`\langle U, V\rangle_{\mathcal L}` of the whole vectors.

    Parameters
    ----------
    {x}
    u, v : arrays like x
        Tangent vectors at x, as their space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives :math:`\langle u, v\rangle`.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Differentiable.

    Raises
    ------
    {refused}
    """
    check_same("inner", x, u=u, v=v)
    s = wide(x)
    y = rounded(dot(to_origin(s, wide(u), checked(c)), to_origin(s, wide(v), c)), x)
    return y if keepdim else y[..., 0]


@along("x", "u")
def norm(x: Array, u: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Norm of a tangent vector at x, the root of `inner` (x, u, u).

    Parameters
    ----------
    {x}
    u : array like x
        Tangent vectors at x, as their space parts.
    {c}
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Differentiable; the gradient at u = 0 is 0.

    Raises
    ------
    {refused}
    """
    check_same("norm", x, u=u)
    back = to_origin(wide(x), wide(u), checked(c))
    y = rounded(root(dot(back, back)), x)
    return y if keepdim else y[..., 0]


@along("x", "v")
def egrad2rgrad(x: Array, v: Array, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""The Riemannian gradient of a function of space parts whose gradient by them is v, :math:`v + c\langle x, v\rangle x`.

    Parameters
    ----------
    {x}
    v : array like x
        Gradients by the space parts.
    c : float, or array of 0 axes or [..., 1]
        Curvature -c; finite, not negative. c = 0 gives v.
    {dim}

    Returns
    -------
    array or tensor [..., d]
        Tangent vectors at x, as their space parts. Differentiable.

    Raises
    ------
    {refused}
    """
    check_same("egrad2rgrad", x, v=v)
    s, g = wide(x), wide(v)
    return rounded(g + s * (checked(c) * dot(s, g)), x)
