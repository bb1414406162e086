"""A residual stream and its norm. The one rule: what is normalised is the sum as it is kept, so that it gives the same bits."""

from __future__ import annotations

from typing import Any

from tersor._arrays import Array, Weight, dtype_name, ordinary
from tersor._op import op
from tersor._reference import dot, quiet, there
from tersor._sample import Draw
from tersor.norm._arguments import alike, checked_eps, finite

_KINDS = ("rms", "layer")


def _sample(backward: bool) -> Any:
    """Both kinds, with a norm within and without, with weights and shifts or without, and two gradients."""

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        shape, seed, rng = (*draw.lead, draw.d), draw.seed, draw.rng
        inner = seed // 2 % 2 == 1
        given = [(seed // 4 + i) % 3 != 2 for i in range(4)]
        x, residual = draw.normal(*shape), draw.normal(*shape)
        weights = [
            draw.cast(rng.uniform(-2, 2, draw.d)) if there and (i < 2 or inner) else None
            for i, there in enumerate(given)
        ]
        scalars: dict[str, Any] = {
            "layer": seed % 2 == 1,
            "inner": inner,
            "eps": 0.1,
            "scale": (1.0, 0.5)[seed // 3 % 2],
        }
        if not backward:
            return [x, residual, *weights], scalars
        both = [draw.cast(rng.standard_normal(shape)) for _ in range(2)]
        return [*both, x, *weights, residual], {**scalars, "needs": 63}

    return draw_all


def _unit(v: Array, layer: bool, eps: float) -> tuple[Array, Array]:
    """n(v), and what it was multiplied by."""
    d = v.shape[-1]
    if layer:
        v = v - v.sum(-1)[..., None] / max(d, 1)
    r = 1 / (dot(v, v) / max(d, 1) + eps) ** 0.5
    return v * r, r


def _scaled(z: Array, weight: Array, bias: Array) -> Array:
    z = weight * z if there(weight) else z
    return z + bias if there(bias) else z


@op(sample=_sample(False), conditioned=True)
def _add_norm(
    x: Array,
    residual: Array,
    weight: Array = None,
    bias: Array = None,
    inner_weight: Array = None,
    inner_bias: Array = None,
    layer: bool = False,
    inner: bool = False,
    eps: float = 1e-6,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """c(γ n(s) + β) and s = r + u, where u is x or γᵢ n(x) + βᵢ."""
    with quiet(x):
        s = residual + (_scaled(_unit(x, layer, eps)[0], inner_weight, inner_bias) if inner else x)
        return scale * _scaled(_unit(s, layer, eps)[0], weight, bias), s


@op(sample=_sample(True), tensors=True, conditioned=True)
def _add_norm_bwd(
    gy: Array,
    gs: Array,
    x: Array,
    weight: Array = None,
    bias: Array = None,
    inner_weight: Array = None,
    inner_bias: Array = None,
    s: Array = ...,
    layer: bool = False,
    inner: bool = False,
    eps: float = 1e-6,
    scale: float = 1.0,
    needs: int = 63,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    r"""Gradient of `add_norm`: with h = γg and z = n(v), a norm sends :math:`\rho(h - \bar h - z\,\overline{hz})`."""
    nothing = x.reshape(-1)[:0]

    def back(g: Array, v: Array, weight: Array) -> tuple[Array, Array]:
        """What g sends through a norm, and gz."""
        z, r = _unit(v, layer, eps)
        h, d = g * weight if there(weight) else g, max(v.shape[-1], 1)
        found = h - z * (dot(h, z) / d)
        return r * (found - h.sum(-1)[..., None] / d if layer else found), g * z

    def rows(v: Array, p: Array, bit: int) -> Array:
        return v.reshape(-1, v.shape[-1]).sum(0) if there(p) and needs & bit else nothing

    with quiet(x):
        g = scale * gy
        ds, gz = back(g, s, weight)
        ds = gs + ds
        dx, dz = back(ds, x, inner_weight) if inner else (ds, nothing)
        return (
            dx if needs & 1 else nothing,
            ds if needs & 2 else nothing,
            rows(gz, weight, 4),
            rows(g, bias, 8),
            rows(dz, inner_weight, 16) if inner else nothing,
            rows(ds, inner_bias, 32) if inner else nothing,
        )


def add_norm(
    x: Array,
    residual: Array,
    weight: Weight,
    bias: Weight = None,
    *,
    kind: str = "rms",
    eps: float = 1e-6,
    inner_weight: Weight = None,
    inner_bias: Weight = None,
    scale: float = 1.0,
    out: Any = None,
) -> tuple[Array, Array]:
    r"""What a block adds to a residual stream, and the norm of the sum that the next block reads.

    :math:`s = r + u`, :math:`y = scale\,(\gamma\,\mathrm{norm}(s) + \beta)`, where u is x, or with ``inner_weight``
    :math:`\gamma_i\,\mathrm{norm}(x) + \beta_i`.

    Parameters
    ----------
    x, residual : array or tensor [..., d] of one shape, float64, float32, float16 or bfloat16
    weight, bias : [d]; a bias of "layer" alone
    kind : "rms" or "layer"
    eps : float
    inner_weight, inner_bias : [d], optional
    scale : float
        :math:`1/\sqrt{\ell}` of LayerNorm scaling.
    out : (y, s), arrays or tensors of x's shape and type, optional
        Where the results go; C-contiguous. Not with gradients.

    Returns
    -------
    y, s : as x
        Differentiable, twice too, with respect to all arrays.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, or ``scale`` is not finite.

    Notes
    -----
    One operator: x and r are read and y and s written once, in O(n); what is normalised is s as it was rounded. The statistics
    are taken in float64 (mean squares of float64 rows in twice its precision, and of rows of any size), and so are the sums
    over rows that are the gradients of the weights. Kim et al., "Peri-LN" (2025); Sun et al., "The Curse of Depth" (2025).

    Examples
    --------
    >>> import numpy as np
    >>> y, s = add_norm(np.array([[1.0, 2.0]]), np.array([[2.0, 2.0]]), np.ones(2))
    >>> s.tolist(), y.round(4).tolist()
    ([[3.0, 4.0]], [[0.8485, 1.1314]])
    """
    eps, scale = checked_eps("add_norm", eps), finite("add_norm", "scale", scale)
    if kind not in _KINDS:
        raise ValueError(f"add_norm: kind must be 'rms' or 'layer', got {kind!r}")
    given = {"x": x, "residual": residual, "weight": weight, "bias": bias}
    for name, v in (given | {"inner_weight": inner_weight, "inner_bias": inner_bias}).items():
        ordinary("add_norm", f": {name}", v)
    if x.dtype != residual.dtype:
        raise TypeError(f"add_norm: x is {dtype_name(x.dtype)}, residual is {dtype_name(residual.dtype)}")
    if tuple(x.shape) != tuple(residual.shape) or not x.ndim:
        raise ValueError(f"add_norm: x has shape {tuple(x.shape)}, residual has {tuple(residual.shape)}")
    if kind == "rms" and (bias is not None or inner_bias is not None):
        raise ValueError("add_norm: kind 'rms' has no bias")
    if inner_bias is not None and inner_weight is None:
        raise ValueError("add_norm: inner_bias without inner_weight")
    alike("add_norm", x, weight, bias, inner_weight=inner_weight, inner_bias=inner_bias)
    for name, v in [*list(given.items())[2:], ("inner_weight", inner_weight), ("inner_bias", inner_bias)]:
        if v is not None and 0 in v.shape and x.shape[-1]:  # to the operator such a one is none
            raise ValueError(f"add_norm: {name} must have shape {(x.shape[-1],)}, got {tuple(v.shape)}")
    inner = inner_weight is not None
    keywords: dict[str, Any] = {} if out is None else {"out": out}
    arrays = (x, residual, weight, bias, inner_weight, inner_bias)
    y, s = _add_norm(*arrays, kind == "layer", inner, eps, scale, **keywords)
    return y, s
