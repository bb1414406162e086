"""Evolved norms, which divide by the larger of two spreads or gate what they divide. The one rule: all is computed in float64
and rounded once, and of equals the batch's spread is the divisor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Array, Weight, torch_module
from tersor._reference import xp
from tersor.norm._arguments import alike, checked_eps, checked_out, share
from tersor.norm._evo import _evonorm
from tersor.norm.functional import _affine, _channels, _moved, _running

_VARIANTS = ("b0", "b1", "b2", "s0", "s1", "s2")


def evonorm(
    x: Array,
    variant: str = "b0",
    weight: Weight = None,
    bias: Weight = None,
    v: Weight = None,
    *,
    groups: int = 32,
    eps: float | None = None,
    running_var: Any = None,
    training: bool = True,
    momentum: float = 0.1,
    out: Array = None,
) -> Array:
    r"""EvoNorm, :math:`\gamma x/\max(\sqrt{v_B + \varepsilon},\ q) + \beta` or
    :math:`\gamma x\,\sigma(v x)/\sqrt{s_G^2 + \varepsilon} + \beta`.

    With :math:`v_B` the variance of a channel over the batch, :math:`v_I` and :math:`m_I` the variance and the mean square of a
    channel of a sample, q is "b0": :math:`v x + \sqrt{v_I + \varepsilon}`, "b1": :math:`(x + 1)\sqrt{m_I + \varepsilon}`,
    "b2": :math:`\sqrt{m_I + \varepsilon} - x`. :math:`s_G^2` is the variance of a group of channels of a sample ("s0", "s1") or
    its mean square ("s2"); v is 1 in "s1" and "s2".

    Parameters
    ----------
    x : array or tensor [N, C, ...], float64, float32, float16 or bfloat16
    variant : "b0", "b1", "b2", "s0", "s1" or "s2"
    weight, bias : [C], of x's type or float32 beside 16-bit x, optional
    v : [C], the same; of "b0" and "s0", which need it
    groups : int
        Of the channels, in the variants s; divides C.
    eps : float, optional
        By default 1e-3 in "b0" and 1e-5 in the others.
    running_var : [C], optional
        In the variants b: moved, in place, by ``momentum`` to the unbiased variance in training, elsewhere in the place of
        :math:`v_B`.
    training : bool
    momentum : float
    out : array or tensor, optional
        Where the result goes; C-contiguous, of its shape and dtype. Not with gradients.

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable, twice too, with respect to x, weight, bias and v.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, the groups do not divide the channels, v is missing or not of the variant, a variant s is
        given running statistics, nothing says the variance outside training, or ``momentum`` is no
        part of 1.

    Notes
    -----
    One operator, O(n): x is read for the moments of channels of samples, of which those of batches and groups are merged, and
    once more for the map; a backward reads x and its gradient twice. All is computed in float64 and rounded once; float64 data
    whose squares leave its range are met once more over a power of two. "b1" has a size of its own: beyond 1e150 its gradients,
    which are then the squares of 1/x, lose digits. Liu et al., "Evolving Normalization-Activation Layers" (2020).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 3.0]], [[5.0, -1.0]]])
    >>> evonorm(x, "b0", v=np.zeros(1), eps=0.0).round(4).tolist()
    [[[0.4472, 1.3416]], [[1.6667, -0.3333]]]
    """
    who = "evonorm"
    if variant not in _VARIANTS:
        raise ValueError(f"{who}: variant must be one of {', '.join(_VARIANTS)}, got {variant!r}")
    c = _channels(who, x)
    eps = checked_eps(who, (1e-3 if variant == "b0" else 1e-5) if eps is None else eps)
    momentum = share(who, "momentum", momentum)
    gated = variant in ("b0", "s0")
    if gated != (v is not None):
        raise ValueError(f"{who}: v is of 'b0' and 's0', got {'one' if v is not None else 'none'} for {variant!r}")
    weight, bias = _affine(who, x, (c,), (c,), weight, bias)
    if v is not None:
        alike(who, x, None, None, v)
        if tuple(v.shape) != (c,):
            raise ValueError(f"{who}: v must have shape {(c,)}, got {tuple(v.shape)} for x {tuple(x.shape)}")
    grouped = variant[0] == "s"
    if grouped and running_var is not None:
        raise ValueError(f"{who}: {variant!r} has no statistics of the batch, got running_var")
    if grouped and (groups < 1 or c % groups):
        raise ValueError(f"{who}: groups={groups} does not divide {c} channels, got shape {tuple(x.shape)}")
    if not grouped and not training and running_var is None:
        raise ValueError(f"{who}: without running_var there is nothing to normalise by but in training")
    _running(who, x, c, "running_var", running_var, training)
    n, size = x.shape[0], math.prod(x.shape[2:])
    given = None if grouped or training else running_var
    keywords: dict[str, Any] = {}
    if out is not None:
        checked_out(who, x, out)
        var = np.empty(c) if isinstance(x, np.ndarray) else x.new_empty(c, dtype=torch_module().float64)
        keywords = {"out": (out.reshape(n, c, size), var)}
    y, var = _evonorm(x.reshape(n, c, size), weight, bias, v, given, _VARIANTS.index(variant), groups, eps, **keywords)
    if not grouped and training and running_var is not None and n * size > 1:
        _moved(running_var, var * (n * size / (n * size - 1)), xp.ones_like(var) > 0, momentum)
    return y.reshape(x.shape) if out is None else out
