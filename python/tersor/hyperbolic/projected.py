"""Points in given directions at a mean, as points of a ball of fewer dimensions. The one rule: a mean is where the origin goes,
in float64 and with all digits of Möbius addition."""

from __future__ import annotations

from typing import Any

from tersor._reference import Array, dot, rounded, wide, xp
from tersor.hyperbolic import _horo
from tersor.hyperbolic.conformal import lambda_x, project
from tersor.hyperbolic.mobius import mobius_add
from tersor.hyperbolic.origin import expmap0, logmap0


def seen_from(mean: Array, x: Array, c: Any) -> Array:
    """The points where `mean` is the origin, in float64."""
    return mobius_add(-wide(mean), wide(x), c)


def _operands(who: str, x: Array, mean: Array, components: Array) -> None:
    for name, a, n in (("mean", mean, 1), ("components", components, 2)):
        if a.dtype != x.dtype:
            raise TypeError(f"{who}: {name} is {a.dtype}, x is {x.dtype}")
        if a.ndim != n or a.shape[-1] != x.shape[-1]:
            form = "[d]" if n == 1 else "[k, d]"
            raise ValueError(f"{who}: {name} must be {form} for x {tuple(x.shape)}, got {tuple(a.shape)}")


def tangent_project(x: Array, mean: Array, components: Array, c: Any = 1.0, eps: float | str = 0.0) -> Array:
    r"""Points by their tangents at a mean in some directions, :math:`\exp_0(P\log_0(\ominus\mu \oplus x))`.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball.
    mean : array or tensor [d], of the type of x
        The point that becomes the origin.
    components : array or tensor [k, d], of the type of x
        Orthonormal directions there, as `tangent_pca` finds them; they are not made so.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative.
    eps : float, "tight" or "compat"
        How far inside the ball results stay; see `expmap0`.

    Returns
    -------
    array or tensor [..., k]
        Points of the ball of k dimensions. Differentiable, twice too.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    In float64, with all digits of `mobius_add`. Fletcher et al. (2004).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x = np.array([[0.3, 0.0, 0.4]])
    >>> hyperbolic.tangent_project(x, np.zeros(3), np.eye(3)[:2]).shape
    (1, 2)
    """
    _operands("tangent_project", x, mean, components)
    u = logmap0(seen_from(mean, x, c), c)
    return project(rounded(expmap0(u @ wide(components).T, c), x), c, eps)


def horo_project(x: Array, mean: Array, components: Array, c: Any = 1.0, eps: float | str = 0.0) -> Array:
    r"""Horospherical projection: the point y of the ball of k dimensions with :math:`B_{e_i}(y) = B_{p_i}(\ominus\mu \oplus x)`
    for the Busemann functions of all directions, and of two such points the one nearer to the origin.

    Parameters
    ----------
    x, mean, c, eps
        As `tangent_project` takes them.
    components : array or tensor [k, d], of the type of x
        Orthonormal directions, ideal points as `horo_pca` finds them; they are not made so.

    Returns
    -------
    array or tensor [..., k]
        Points of the ball of k dimensions. Differentiable, twice too.

    Raises
    ------
    TypeError, ValueError
        As `tangent_project`.

    Notes
    -----
    On the hyperboloid of c = 1, with space part s, time τ and :math:`u = Ps`, the horospheres meet at :math:`u - \delta` in all
    k coordinates, :math:`(k - 1)\delta^2 + 2(\tau - \sum_i u_i)\delta = \|s\|^2 - \|u\|^2`, where the greater root is positive
    and the nearer point. Geodesics towards the ideal points keep their distances. For k > 1 a point beyond the plane through
    the ideal points, :math:`\sum_i u_i > \tau`, is mirrored by it, even one in the span of the components. Chami et al. (2021),
    sections 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> x, p = np.array([[0.3, 0.0, 0.4]]), np.eye(3)[:2]
    >>> y = hyperbolic.horo_project(x, np.zeros(3), p)
    >>> bool(np.allclose(hyperbolic.busemann(y, np.eye(2)), hyperbolic.busemann(x, p)))
    True
    """
    _operands("horo_project", x, mean, components)
    z = seen_from(mean, x, c)
    f = lambda_x(z, c, keepdim=True)
    s = z * f
    u = s @ wide(components).T
    across = s - u @ wide(components)
    y = _horo.meeting(f - 1, u, dot(across, across), c)[0]
    return project(rounded(y / (1 + xp.sqrt(1 + c * dot(y, y))), x), c, eps)
