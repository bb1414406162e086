"""Layers changed so that quantizing them costs less, and what they give does not change. The one rule: everything is float64 in
between and rounded once; these are a few passes over small arrays, where no kernel gains anything.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, Array, Number, dtype_name, is_tensor
from tersor.quant._arguments import held, like, one_of


class Reparametrized(NamedTuple):
    """What `repq_reparam` makes: a norm and the layer after it, and the one scale and zero point of what is between.

    Attributes
    ----------
    gamma, beta, weight, bias : of the types of those given
    scale : float64 []
    zero_point : float64 []
        An integer with ``rule="integer"``.
    """

    gamma: Any
    beta: Any
    weight: Any
    bias: Any
    scale: Any
    zero_point: Any


def _double(name: str, what: str, x: Any, shape: tuple[int, ...]) -> Any:
    if not isinstance(x, np.ndarray) and not is_tensor(x):
        raise TypeError(f"{name}: {what} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if tuple(x.shape) != shape:
        raise ValueError(f"{name}: {what} must have shape {shape}, got {tuple(x.shape)}")
    return x.double() if is_tensor(x) else x.astype(np.float64)


def _one_library(name: str, **arrays: Any) -> None:
    """Refuses arrays of NumPy beside tensors of torch."""
    given = {what: is_tensor(x) for what, x in arrays.items() if isinstance(x, np.ndarray) or is_tensor(x)}
    first, kind = next(iter(given.items()), ("", False))
    for what, tensor in given.items():
        if tensor != kind:
            kinds = ["a NumPy array", "a torch tensor"]
            raise TypeError(f"{name}: {what} is {kinds[tensor]}, {first} {kinds[kind]}")


def _float(name: str, what: str, x: Any) -> None:
    if (isinstance(x, np.ndarray) or is_tensor(x)) and dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{name}: {what} must be a float array, got {dtype_name(x.dtype)}")


def repq_reparam(
    gamma: Array, beta: Any, W: Any, bias: Any, s: Any, z: Any, *, rule: str = "integer"
) -> Reparametrized:
    r"""One scale in place of one for each channel, the difference taken by the norm before and the layer after.

    .. math:: \tilde s = \overline{s_c},\quad \tilde z = \mathrm{rne}\,\overline{z_c},\quad r_c = s_c/\tilde s,\quad
              o_c = (\tilde z - z_c)\,\tilde s

    .. math:: \gamma_c \leftarrow \gamma_c/r_c,\quad \beta_c \leftarrow \beta_c/r_c - o_c,\quad
              W_{:c} \leftarrow W_{:c}\, r_c,\quad b \leftarrow b + W o

    What the layer gives is as before, and the codes of what the norm gives, by :math:`\tilde s, \tilde z`, are those that each
    channel had by its own.

    Parameters
    ----------
    gamma, beta : array or tensor [C] of floats
        Of the norm; beta may be None, which is 0.
    W : array or tensor [N, C] of floats
    bias : array or tensor [N], or None, which is 0
    s : array or tensor [C]
        Positive and finite: the scale of each channel.
    z : array or tensor [C] of integers or floats
        The zero points, not clamped to the codes.
    rule : "integer" or "repq_mean"
        z̃ rounded, or as the published code has it, with which two thirds of the codes are others.

    Returns
    -------
    Reparametrized

    Raises
    ------
    TypeError
        If an array is none, or not of floats, or they are of two libraries.
    ValueError
        If shapes do not fit, a scale is not positive and finite, or the rule is unknown.

    Notes
    -----
    Li et al., "RepQ-ViT: Scale Reparameterization for Post-Training Quantization of Vision Transformers" (2023).
    """
    name = "repq_reparam"
    one_of(name, "rule", rule, ("integer", "repq_mean"))
    _one_library(name, gamma=gamma, beta=beta, W=W, bias=bias, s=s, z=z)
    if getattr(gamma, "ndim", 1) != 1:
        raise ValueError(f"{name}: gamma must have one axis, got shape {tuple(gamma.shape)}")
    c = gamma.shape[0] if hasattr(gamma, "shape") else 0
    g = _double(name, "gamma", gamma, (c,))
    if getattr(W, "ndim", 2) != 2:
        raise ValueError(f"{name}: W must be a matrix, got shape {tuple(W.shape)}")
    n = W.shape[0] if hasattr(W, "shape") else 0
    for what, x in (("gamma", gamma), ("beta", beta), ("W", W), ("bias", bias), ("s", s)):
        _float(name, what, x)
    w, scale, zero = _double(name, "W", W, (n, c)), _double(name, "s", s, (c,)), _double(name, "z", z, (c,))
    b = 0.0 if beta is None else _double(name, "beta", beta, (c,))
    t = 0.0 if bias is None else _double(name, "bias", bias, (n,))
    if not bool(((scale > 0) & (scale < np.inf)).all()):
        raise ValueError(f"{name}: scales are positive and finite")
    if not bool((abs(zero) < np.inf).all()):
        raise ValueError(f"{name}: zero points are finite")
    if not c:
        raise ValueError(f"{name}: there are no channels")
    one, middle = scale.mean(), zero.mean()
    if rule == "integer":
        middle = middle.round()
    r, o = scale / one, (middle - zero) * one
    w = w * r
    return Reparametrized(
        like(g / r, gamma),
        like(b / r - o, gamma if beta is None else beta),
        like(w, W),
        like(t + w @ o, W if bias is None else bias),
        one,
        middle,
    )


def bn_distill_loss(x: Array, mean: Number, var: Number, *, eps: float = 1e-6) -> Any:
    r"""How far a batch is from what a batch norm has seen, :math:`(\|\hat\mu - \mu\|^2 + \|\hat\sigma - \sigma\|^2)/B`.

    Each sample has its own :math:`\hat\mu_c` and :math:`\hat\sigma_c = \sqrt{\hat v_c + \epsilon}` over its places, with the
    unbiased variance; :math:`\sigma = \sqrt{v + \epsilon}`. The sum of these over the norms of a network is what data is
    distilled with where there is none to calibrate on.

    Parameters
    ----------
    x : array or tensor [B, C, ...] of floats
        What the norm is given, of two places or more. With a gradient, as torch's own operations have it.
    mean, var : array or tensor [C]
        Running statistics; var is not negative.
    eps : float

    Returns
    -------
    of the type of x []

    Raises
    ------
    TypeError
        If x is not a float array, or arrays are of two libraries.
    ValueError
        If shapes do not fit, there are fewer than two places or no samples, or a variance is negative or not finite.

    Notes
    -----
    Composed of the library's own operations in float64. Cai et al., "ZeroQ" (2020).
    """
    name = "bn_distill_loss"
    _float(name, "x", x)
    if x.ndim < 3:
        raise ValueError(f"{name}: x must be [B, C, ...], got shape {tuple(x.shape)}")
    batch, c = x.shape[:2]
    places = 1
    for size in x.shape[2:]:
        places *= size
    if places < 2 or not batch:
        raise ValueError(f"{name}: a variance wants two places and a sample, got shape {tuple(x.shape)}")
    v = _double(name, "x", x, tuple(x.shape)).reshape(batch, c, places)
    mu, square = _double(name, "mean", mean, (c,)), _double(name, "var", var, (c,))
    if not bool(((square >= 0) & (square < np.inf)).all()):
        raise ValueError(f"{name}: a variance is not negative, infinite or NaN")
    own = v.mean(-1)
    off = v - own[..., None]
    deviation = ((off * off).sum(-1) / (places - 1) + eps) ** 0.5
    return like((((own - mu) ** 2).sum() + ((deviation - (square + eps) ** 0.5) ** 2).sum()) / batch, x)


class Tuned(NamedTuple):
    """What `bn_tune` makes of a layer.

    Attributes
    ----------
    weight, bias : of the types of W, and of the bias or else of W
    factor : float64 [C]
        By which the rows of the weight were multiplied: scales of their codes times it are those of the same codes.
    """

    weight: Any
    bias: Any
    factor: Any


def bn_tune(W: Array, y: Array, gamma: Number, beta: Number, bias: Any = None, *, eps: float = 1e-5) -> Tuned:
    r"""A quantized layer whose results have again the mean and the deviation that its batch norm gave them.

    .. math:: r_c = \sqrt{\frac{\gamma_c^2 + \epsilon}{v_c + \epsilon}},\qquad W_c \leftarrow r_c W_c,\qquad
              b_c \leftarrow r_c (b_c - \mu_c) + \beta_c

    with μ and v the mean and the variance of what the layer gives now: where a batch norm was folded into a layer, its
    results had mean β and deviation γ, which quantization has moved.

    Parameters
    ----------
    W : array or tensor [C, ...] of floats
        The numbers of the codes of a linear layer or a convolution that a batch norm was folded into.
    y : array or tensor [B, C, ...] of floats
        What the layer gives on calibration data, with its bias, in a model that is quantized up to here.
    gamma, beta : array or tensor [C] of floats
        Of the batch norm.
    bias : array or tensor [C], or None, which is 0
    eps : float
        Not negative; positive where a channel may be constant.

    Returns
    -------
    Tuned

    Raises
    ------
    TypeError
        If an array is none, or not of floats.
    ValueError
        If shapes do not fit, y holds nothing or non-finite values, or with eps=0 a channel does not vary.

    Notes
    -----
    One pass over y in float64, composed of the library's own operations. The variance is that of the data, not of what it is
    drawn from. Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming"
    (2020).
    """
    name = "bn_tune"
    _one_library(name, W=W, bias=bias)
    for what, x in (("W", W), ("y", y), ("gamma", gamma), ("beta", beta), ("bias", bias)):
        _float(name, what, x)
    held(name, W=W, y=y, gamma=gamma, beta=beta, bias=bias)
    w, v = (_double(name, what, x, tuple(getattr(x, "shape", ()))) for what, x in (("W", W), ("y", y)))
    if w.ndim < 1 or v.ndim < 2:
        raise ValueError(f"{name}: W must be [C, ...] and y [B, C, ...], got {tuple(W.shape)} and {tuple(y.shape)}")
    c = W.shape[0]
    if y.shape[1] != c:
        raise ValueError(f"{name}: y must have {c} channels as W of shape {tuple(W.shape)}, got {tuple(y.shape)}")
    g, b = _double(name, "gamma", gamma, (c,)), _double(name, "beta", beta, (c,))
    t = 0.0 if bias is None else _double(name, "bias", bias, (c,))
    if not 0 <= eps < np.inf:
        raise ValueError(f"{name}: eps must be finite and not negative, got {eps}")
    if c and not v.shape[0] * math.prod(v.shape[2:]):
        raise ValueError(f"{name}: y holds nothing, shape {tuple(y.shape)}")
    v = v.swapaxes(0, 1).reshape(c, math.prod(v.shape) // max(c, 1))
    mean = v.mean(-1)
    off = v - mean[:, None]
    spread = (off * off).mean(-1) + eps
    if not bool((abs(spread) < np.inf).all()):
        raise ValueError(f"{name}: y holds non-finite values")
    if not bool((spread > 0).all()):
        raise ValueError(f"{name}: a channel of y does not vary, and eps is 0")
    factor = ((g * g + eps) / spread) ** 0.5
    tuned = w * factor.reshape(c, *[1] * (w.ndim - 1))
    return Tuned(like(tuned, W), like((t - mean) * factor + b, W if bias is None else bias), factor)


def bias_correction(W: Array, W_hat: Array, act_mean: Number, bias: Any = None) -> Any:
    r"""The bias with which a quantized layer gives on average what it gave, :math:`b + (W - \hat W)\,\overline{x}`.

    Parameters
    ----------
    W, W_hat : array or tensor [N, K] of floats
        The weight, and the numbers of its codes.
    act_mean : array or tensor [K]
        The mean of each input, with its sign.
    bias : array or tensor [N], or None, which is 0

    Returns
    -------
    of the type of the bias, else of W [N]

    Raises
    ------
    TypeError
        If an array is none, or not of floats, or they are of two libraries.
    ValueError
        If shapes do not fit.

    Notes
    -----
    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).
    """
    name = "bias_correction"
    if getattr(W, "ndim", 2) != 2:
        raise ValueError(f"{name}: W must be a matrix, got shape {tuple(W.shape)}")
    n, k = W.shape if hasattr(W, "shape") else (0, 0)
    for what, x in (("W", W), ("W_hat", W_hat), ("act_mean", act_mean), ("bias", bias)):
        _float(name, what, x)
    off = _double(name, "W", W, (n, k)) - _double(name, "W_hat", W_hat, (n, k))
    b = off @ _double(name, "act_mean", act_mean, (k,))
    return like(b if bias is None else _double(name, "bias", bias, (n,)) + b, W if bias is None else bias)
