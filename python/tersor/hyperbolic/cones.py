"""Entailment cones: at every point the cone of what lies behind it, as the origin sees it. The one rule: angles are those of a
tangent taken apart into what is along the radius and what is across it, never arcs of a cosine."""

from __future__ import annotations

import math
from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, rounded, wide, xp
from tersor._values import number
from tersor.hyperbolic._cone import _entail
from tersor.hyperbolic.conformal import lambda_x


def aperture(lean: Array, min_radius: float) -> Array:
    """arcsin(2K/root of c|s|^2), a right angle where there is none."""
    fine = lean > 4 * min_radius * min_radius
    return (
        xp.where(
            fine, xp.arcsin(2 * min_radius / xp.sqrt(xp.where(fine, lean, 16 * min_radius * min_radius))), math.pi / 2
        )
        + 0 * lean
    )


def radius(who: str, min_radius: Any) -> float:
    k = number(who, "min_radius", min_radius)
    if not 0 < k < math.inf:
        raise ValueError(f"{who}: min_radius must be positive and finite, got {min_radius}")
    return k


@along("x")
def half_aperture(x: Array, c: Any = 1.0, min_radius: float = 0.1, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Half the aperture of the entailment cone at x, :math:`\arcsin\frac{K(1 - c\|x\|^2)}{\sqrt c\,\|x\|}`.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball.
    c : float, or array of 0 axes or [..., 1]
        The ball has curvature -c; finite, not negative.
    min_radius : float
        K: nearer to the origin than that, roughly, cones are whole half spaces.
    dim : int
        The axis of the rows.
    keepdim : bool
        Whether the result keeps that axis, with size 1.

    Returns
    -------
    array or tensor [...]
        In 0 to π/2, NaN outside the ball. Differentiable, with gradient 0 where it is π/2.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, min_radius is not positive, or shapes do not broadcast.

    Notes
    -----
    At c = 0 there are no cones, and it is π/2. Ganea, Bécigneul, Hofmann, "Hyperbolic Entailment Cones" (2018); Desai et al.,
    MERU (2023), whose formula for the hyperboloid is the same cone.
    """
    k = radius("half_aperture", min_radius)
    s = wide(x)
    f = lambda_x(s, c, keepdim=True)
    lean = f * f * c * dot(s, s)
    y = rounded(aperture(lean, k), x)
    return y if keepdim else y[..., 0]


def exterior_angle(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""The angle at x between the ray from the origin through x and the geodesic to y, :math:`\pi - \angle Oxy`.

    Parameters
    ----------
    {pairs}
    {c}
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        In 0 to π: 0 where y is straight behind x, NaN outside the ball.
        Differentiable; where nothing is across x, the gradient is 0 by what would be.

    Raises
    ------
    {refused}

    Notes
    -----
    The tangent of the geodesic is that of `logmap`, and its angle :math:`\operatorname{atan2}` of its part across x and its
    part along x, in float64: an arc of a cosine has half of the digits near 0 and π. Where x is the origin or y, 0.
    """
    return _entail(x, y, c, 0.0, False, dim=dim, keepdim=keepdim)


def entailment_loss(
    x: Array, y: Array, c: Any = 1.0, min_radius: float = 0.1, *, dim: int = -1, keepdim: bool = False
) -> Array:
    r"""How far y is outside the cone at x, :math:`\max(0, \Xi(x, y) - \psi(x))`, the `exterior_angle` less the `half_aperture`.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points of the ball: the general and the special; leading axes broadcast.
    {c}
    min_radius : float
        As `half_aperture` has it.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Angles, 0 inside the cone, NaN outside the ball. Differentiable.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, min_radius is not positive, or shapes do not broadcast.

    Notes
    -----
    One read of x and y, and one of each backward. Ganea et al. (2018), eq. 33; a loss of pairs that are none is
    ``relu(margin - entailment_loss(...))``.
    """
    return _entail(x, y, c, radius("entailment_loss", min_radius), False, dim=dim, keepdim=keepdim)
