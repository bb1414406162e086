"""A residual stream and its norm. The one rule: what is normalised is the sum as it is kept, so that it gives the same bits."""

from __future__ import annotations

from tersor._arrays import Array, Weight, dtype_name, ordinary
from tersor.norm._arguments import checked_eps
from tersor.norm.functional import layer_norm
from tersor.norm.rms import rms_norm

_KINDS = ("rms", "layer")


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

    Returns
    -------
    y, s : as x
        Differentiable with respect to all arrays.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit.

    Notes
    -----
    Kim et al., "Peri-LN" (2025); Sun et al., "The Curse of Depth" (2025).

    Examples
    --------
    >>> import numpy as np
    >>> y, s = add_norm(np.array([[1.0, 2.0]]), np.array([[2.0, 2.0]]), np.ones(2))
    >>> s.tolist(), y.round(4).tolist()
    ([[3.0, 4.0]], [[0.8485, 1.1314]])
    """
    eps = checked_eps("add_norm", eps)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"add_norm: scale must be a number, got {type(scale).__name__}")
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
    d = x.shape[-1]

    def norm(v: Array, weight: Array, bias: Array) -> Array:
        return rms_norm(v, d, weight, eps) if kind == "rms" else layer_norm(v, d, weight, bias, eps)

    s = residual + (x if inner_weight is None else norm(x, inner_weight, inner_bias))
    y = norm(s, weight, bias)
    return y * scale if scale != 1 else y, s
