"""Linear maps of the hyperboloid. The one rule: time follows from space, so nothing leaves the model."""

from __future__ import annotations

from typing import Any

from tersor._along import along
from tersor._reference import Array, dot, root, rounded, sinh_root, wide
from tersor.hyperbolic._planes import mlr_rows
from tersor.lorentz._space import check_same, checked, root_of, time


@along("x")
def linear(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0, *, dim: int = -1) -> Array:
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
    {dim}

    Returns
    -------
    array or tensor [..., o]
        Points. Differentiable.

    Raises
    ------
    TypeError
        If arrays are not of one float type.
    ValueError
        If weight has neither i nor i + 1 columns.

    Notes
    -----
    Chen et al., "Fully Hyperbolic Neural Networks" (2022), without its scaling of the output.
    """
    check_same("linear", x, weight=weight)
    checked(c)
    i = x.shape[-1]
    if weight.ndim != 2 or weight.shape[1] not in (i, i + 1):
        raise ValueError(f"linear: weight must be [o, {i + 1}] or [o, {i}], got {tuple(weight.shape)}")
    y = x @ weight[:, weight.shape[1] - i :].T
    if weight.shape[1] == i + 1:
        y = y + time(x, c) * weight[:, 0]
    return rounded(y if bias is None else y + bias, x)  # NumPy multiplies bfloat16 to float32


def _planes(who: str, x: Array, weight: Array, bias: Array | None, c: Any) -> Array:
    """The signed distances to hyperplanes, times the lengths of their normals: as the ball's are made of its products, with the
    product and the conformal factor in hand."""
    check_same(who, x, weight=weight)
    if weight.ndim != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"{who}: weight must be [o, {x.shape[-1]}], got {tuple(weight.shape)}")
    if bias is not None:
        check_same(who, x, bias=bias)
        if tuple(bias.shape) != (weight.shape[0],):
            raise ValueError(f"{who}: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
    factor = 1 + root_of(wide(x), checked(c))
    w = wide(weight)
    n = root(dot(w, w))[..., 0]
    t = (wide(x) @ w.T) / (2 * factor)
    r = 0 * n if bias is None else wide(bias) / 2
    return mlr_rows(t, factor[..., 0], n / 2, r, c, True)


@along("x")
def mlr(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Logits of a multinomial regression, the signed distances of points to hyperplanes times the lengths of their normals,

    .. math:: y_k = \frac{\|z_k\|}{\sqrt c}\operatorname{arsinh}\left(\sqrt c\,\langle s, \hat z_k\rangle\cosh\sqrt c\,a_k -
        \sqrt{1 + c\|s\|^2}\,\sinh\sqrt c\,a_k\right).

    Parameters
    ----------
    x : array or tensor [..., i]
        Points.
    weight : array or tensor [o, i], of the type of x
        Normals z_k at the origin, as rows.
    bias : array or tensor [o], or None
        The signed distances a_k of the hyperplanes from the origin along their normals.
    c : float, or array of 0 axes
        Curvature -c; finite, not negative. c = 0 gives :math:`\langle s, z_k\rangle - a_k\|z_k\|`.
    {dim}

    Returns
    -------
    array or tensor [..., o]
        Numbers. Differentiable, twice too.

    Raises
    ------
    TypeError
        If arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    `tersor.hyperbolic.poincare_mlr` of the same points with half of the normals and of the distances, in float64. Bdeir,
    Schwethelm, Landwehr, "Fully Hyperbolic Convolutional Neural Networks" (2024), theorem 2.
    """
    return rounded(_planes("mlr", x, weight, bias, c), x)


@along("x")
def fc(x: Array, weight: Array, bias: Array | None = None, c: Any = 1.0, *, dim: int = -1) -> Array:
    r"""Fully connected layer by hyperplanes: the point whose signed distances to those through the origin are the logits of
    `mlr`, :math:`\sinh(\sqrt c\,y_k)/\sqrt c`.

    Parameters
    ----------
    x : array or tensor [..., i]
        Points.
    weight, bias, c, dim
        As `mlr` takes them; the unit matrix without a bias is the identity.

    Returns
    -------
    array or tensor [..., o]
        Points. Differentiable, twice too.

    Raises
    ------
    TypeError
        If arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    `tersor.hyperbolic.poincare_fc` of the same points with half of the normals and of the distances, in float64. Shimizu et
    al., "Hyperbolic neural networks++" (2021), section 3.2.
    """
    y = _planes("fc", x, weight, bias, c)
    return rounded(y * sinh_root(c * y * y), x)
