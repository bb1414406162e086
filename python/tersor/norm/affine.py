"""A norm with known statistics is an affine map, and goes into a linear layer beside it. The one rule: all is computed in the
type of what is given, so that what is folded is what was there.
"""

from __future__ import annotations

from typing import Any

from tersor._arrays import Array
from tersor.norm._arguments import checked_eps


def as_affine(
    mean: Array, var: Array, weight: Array = None, bias: Array = None, eps: float = 1e-5, skip: float = 0.0
) -> tuple[Any, Any]:
    r"""The scale and shift of a norm with known statistics, :math:`a = \gamma/\sqrt{v + \varepsilon} + skip`,
    :math:`b = \beta - \mu\gamma/\sqrt{v + \varepsilon}`.

    Parameters
    ----------
    mean, var : array or tensor of one shape
    weight, bias : of that shape, optional
    eps : float
    skip : float
        How much of the input is added to the norm, as re-parametrised norms do.

    Returns
    -------
    scale, shift : as mean

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> [v.tolist() for v in as_affine(np.array([2.0]), np.array([4.0]), eps=0.0)]
    [[0.5], [-1.0]]
    """
    eps = checked_eps("as_affine", eps)
    for name, p in (("var", var), ("weight", weight), ("bias", bias)):
        if p is not None and tuple(p.shape) != tuple(mean.shape):
            raise ValueError(f"as_affine: {name} has shape {tuple(p.shape)}, mean has {tuple(mean.shape)}")
    r = (var + eps) ** -0.5
    scale = r if weight is None else weight * r
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale + skip if skip else scale, shift


def fold(weight: Array, bias: Array | None, scale: Array, shift: Array, side: str = "after") -> tuple[Any, Any]:
    r"""A linear layer or convolution with an affine map of its outputs ("after") or of its inputs ("before") in it.

    After: :math:`W \leftarrow \mathrm{diag}(a)W`, :math:`b \leftarrow a b + s`; before: :math:`W \leftarrow W\mathrm{diag}(a)`,
    :math:`b \leftarrow b + W s`.

    Parameters
    ----------
    weight : array or tensor [out, in, ...]
    bias : [out], or None
    scale, shift : [out] after, [in] before
    side : "after" or "before"

    Returns
    -------
    weight, bias

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, or the side is none.

    Notes
    -----
    A convolution with padding of zeros takes an affine map before it only where the shift is 0.

    Examples
    --------
    >>> import numpy as np
    >>> [v.tolist() for v in fold(np.ones((1, 2)), None, np.array([2.0, 3.0]), np.array([1.0, 1.0]), "before")]
    [[[2.0, 3.0]], [2.0]]
    """
    if side not in ("after", "before"):
        raise ValueError(f"fold: side must be 'after' or 'before', got {side!r}")
    axis = 0 if side == "after" else 1
    if weight.ndim < 2:
        raise ValueError(f"fold: weight must be [out, in, ...], got shape {tuple(weight.shape)}")
    for name, p in (("scale", scale), ("shift", shift)):
        if tuple(p.shape) != (weight.shape[axis],):
            raise ValueError(f"fold: {name} must have shape {(weight.shape[axis],)}, got {tuple(p.shape)}")
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"fold: bias must have shape {(weight.shape[0],)}, got {tuple(bias.shape)}")
    ones = (1,) * (weight.ndim - 2)
    if side == "after":
        folded = weight * scale.reshape((-1, 1, *ones))
        return folded, shift if bias is None else scale * bias + shift
    moved = (weight * shift.reshape((1, -1, *ones))).reshape((weight.shape[0], -1)).sum(1)
    return weight * scale.reshape((1, -1, *ones)), moved if bias is None else bias + moved
