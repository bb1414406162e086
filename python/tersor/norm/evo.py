"""Evolved norms, which divide by the larger of two spreads or gate what they divide. The one rule: statistics in float64, the
map in float32 at least, and of equals the batch's spread is the divisor.
"""

from __future__ import annotations

import math
from typing import Any

from tersor._arrays import Array, Weight, as_type, dtype_name, is_tensor, torch_module
from tersor._reference import quiet, xp
from tersor._segments import rounded_to
from tersor.norm._arguments import alike, checked_eps
from tersor.norm.functional import _affine, _channels, _moved, _running
from tersor.norm.standard import standardize

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

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable with respect to x, weight, bias and v.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, the groups do not divide the channels, v is missing or not of the variant, a variant s is
        given running statistics, or nothing says the variance outside training.

    Notes
    -----
    O(n), composed: one or two reductions of x and a map. Liu et al., "Evolving Normalization-Activation Layers" (2020).

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
    per_channel = (1, c, *(1,) * (x.ndim - 2))
    gated = variant in ("b0", "s0")
    if gated != (v is not None):
        raise ValueError(f"{who}: v is of 'b0' and 's0', got {'one' if v is not None else 'none'} for {variant!r}")
    weight, bias = _affine(who, x, (c,), per_channel, weight, bias)
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
    kind = "float64" if dtype_name(x.dtype) == "float64" else "float32"
    gate = None if v is None else as_type(v.reshape(per_channel), kind)
    wide, weight, bias = as_type(x, kind), *(None if p is None else as_type(p, kind) for p in (weight, bias))
    ones = (1,) * (x.ndim - 2)
    _running(who, x, c, "running_var", running_var, training)
    with quiet(x):
        if grouped:
            split = (x.shape[0], groups, c // groups, *x.shape[2:])
            _, mean, var = _moments(x.reshape(split), tuple(range(2, len(split))))
            spread = _root(var + mean * mean if variant == "s2" else var, eps, wide, (*split[:2], 1, *ones))
            gated_x = wide * _sigmoid(wide if gate is None else gate * wide)
            y = (gated_x.reshape(split) / spread).reshape(x.shape)
        else:
            over = (0, *range(2, x.ndim))
            if training:
                count, _, var = _moments(x, over)
                if running_var is not None and x.shape[0] * math.prod(x.shape[2:]) > 1:
                    _moved(running_var, var * (count / (count - 1)), count > 1, momentum)
            else:
                var = as_type(running_var, "float64")
            a = _root(var, eps, wide, per_channel)
            _, mean, own = _moments(x, over[1:])
            right = _root(own if variant == "b0" else own + mean * mean, eps, wide, (*x.shape[:2], *ones))
            right = gate * wide + right if variant == "b0" else (wide + 1) * right if variant == "b1" else right - wide
            # of equals the batch's; what is NaN stays so on either side
            y = wide / xp.where((right > a) | (right != right), right, a)
        y = y if weight is None else y * weight
        return rounded_to(y if bias is None else y + bias, x)


def _sigmoid(z: Array) -> Any:
    if is_tensor(z):
        return torch_module().sigmoid(z)
    small = xp.exp(-abs(z))
    return xp.where(z < 0, small, 1) / (1 + small)


def _moments(x: Array, dim: tuple[int, ...]) -> Any:
    return standardize(x, dim=dim, return_stats=True)[1]


def _root(v: Array, eps: float, like: Array, shape: tuple[Any, ...]) -> Any:
    """√(v + ε) in the type of the map, as it broadcasts."""
    return rounded_to((v + eps) ** 0.5, like).reshape(shape)
