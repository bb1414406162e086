"""Entailment cones: at every point the cone of what lies behind it, as the origin sees it. The one rule: angles are those of a
tangent taken apart into what is along the radius and what is across it, never arcs of a cosine."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, rounded, wide
from tersor.hyperbolic._cone import _entail
from tersor.hyperbolic.cones import aperture, radius
from tersor.lorentz._space import check_same, checked


@along("x")
def half_aperture(x: Array, c: Any = 1.0, min_radius: float = 0.1, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""Half the aperture of the entailment cone at x, :math:`\arcsin\frac{2K}{\sqrt c\,\|s\|}`.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points.
    {c}
    min_radius : float
        K: nearer to the origin than that, roughly, cones are whole half spaces.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        In 0 to π/2. Differentiable, with gradient 0 where it is π/2.

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
    lean = checked(c) * dot(s, s)
    y = rounded(aperture(lean, k), x)
    return y if keepdim else y[..., 0]


def exterior_angle(x: Array, y: Array, c: Any = 1.0, *, dim: int = -1, keepdim: bool = False) -> Array:
    r"""The angle at x between the ray from the origin through x and the geodesic to y, :math:`\pi - \angle Oxy`.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points; leading axes broadcast.
    {c}
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        In 0 to π: 0 where y is straight behind x.
        Differentiable; where nothing is across x, the gradient is 0 by what would be.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not broadcast.

    Notes
    -----
    The tangent of the geodesic is that of `logmap`, and its angle :math:`\operatorname{atan2}` of its part across x and its
    part along x, in float64: an arc of a cosine has half of the digits near 0 and π. Where x is the origin or y, 0.
    """
    check_same("exterior_angle", x, y=y)
    # across a long vector sums of float64 leave nothing of what float32 data has; those of float64 data are of twice that
    return rounded(_entail(wide(x), wide(y), c, 0.0, True, dim=dim, keepdim=keepdim), x)


def entailment_loss(
    x: Array, y: Array, c: Any = 1.0, min_radius: float = 0.1, *, dim: int = -1, keepdim: bool = False
) -> Array:
    r"""How far y is outside the cone at x, :math:`\max(0, \Xi(x, y) - \psi(x))`, the `exterior_angle` less the `half_aperture`.

    Parameters
    ----------
    x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
        Points: the general and the special; leading axes broadcast.
    {c}
    min_radius : float
        As `half_aperture` has it.
    {dim}
    {keepdim}

    Returns
    -------
    array or tensor [...]
        Angles, 0 inside the cone. Differentiable.

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
    check_same("entailment_loss", x, y=y)
    k = radius("entailment_loss", min_radius)
    return rounded(_entail(wide(x), wide(y), c, k, True, dim=dim, keepdim=keepdim), x)
