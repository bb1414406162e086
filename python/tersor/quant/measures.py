"""What quantization does to a model, as numbers to choose by. The one rule: sums are float64, and a gradient goes through where
there is one; each reads its arrays once or twice, as the library's own operations do, so there is no kernel to gain by.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, Array, dtype_name, is_tensor
from tersor.quant._arguments import like


def _rows(name: str, **arrays: Any) -> tuple[Any, list[Any]]:
    """The module of the arrays, and the arrays in float64: floats of one shape with a last axis."""
    first = next(iter(arrays))
    for what, x in arrays.items():
        if not isinstance(x, np.ndarray) and not is_tensor(x):
            raise TypeError(f"{name}: {what} must be a NumPy array or a torch tensor, got {type(x).__name__}")
        if dtype_name(x.dtype) not in FLOATS:
            raise TypeError(f"{name}: {what} must be a float array, got {dtype_name(x.dtype)}")
        if x.dtype != arrays[first].dtype:
            raise TypeError(f"{name}: {what} is {dtype_name(x.dtype)}, {first} is {dtype_name(arrays[first].dtype)}")
        if x.ndim == 0:
            raise ValueError(f"{name}: {what} needs a last axis, got a 0-d array")
        if x.shape != arrays[first].shape:
            raise ValueError(f"{name}: {what} has shape {tuple(x.shape)}, {first} {tuple(arrays[first].shape)}")
    if is_tensor(arrays[first]):
        import torch

        return torch, [x.double() for x in arrays.values()]
    return np, [x.astype(np.float64) for x in arrays.values()]


def _within(x: Any, least: float, most: float) -> Any:
    """A tensor that rounding alone carries out of its bounds, clamped: its derivatives stay those of the formula."""
    over = x.detach()
    return x + (over.clamp(least, most) - over).nan_to_num(0)  # of infinities nothing is taken away


def kl_rows(p: Array, q: Array) -> Any:
    r"""How far the distribution of logits q is from that of logits p, row by row.

    .. math:: \mathrm{KL} = \sum_i \pi_i (\log \pi_i - \log \rho_i),\quad \pi = \mathrm{softmax}\,p,\ \rho = \mathrm{softmax}\,q

    With p of a model and q of the same with a layer quantized, its mean over rows is that layer's sensitivity in ZeroQ.

    Parameters
    ----------
    p, q : array or tensor [..., d] of one float type
        With a gradient to both, as torch's own operations have it.

    Returns
    -------
    of the type of p [...]
        Not negative; NaN where a row holds NaN or +inf. A logit of -inf has no share.

    Raises
    ------
    TypeError
        If the arrays are not of floats, of two types or of two libraries.
    ValueError
        If shapes differ, a row is empty, or an array is 0-d.

    Notes
    -----
    Composed of the library's own operations in float64. Cai et al., "ZeroQ: A Novel Zero Shot Quantization Framework" (2020).
    """
    name = "kl_rows"
    xp, (a, b) = _rows(name, p=p, q=q)
    if not p.shape[-1]:
        raise ValueError(f"{name}: rows have no logits")
    if xp is np:
        with np.errstate(all="ignore"):
            a, b = (x - x.max(-1, keepdims=True) for x in (a, b))
            a, b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (a, b))
            share = np.exp(a)
            return like(np.maximum(np.where(share > 0, share * (a - b), 0 * share).sum(-1), 0), p)
    a, b = xp.log_softmax(a, -1), xp.log_softmax(b, -1)
    share = a.exp()
    # the gradient of what has no share is 0, not 0 * inf
    some = share > 0
    terms = share * (xp.where(some, a, 0.0) - xp.where(some, b, 0.0))
    return like(_within(xp.where(share >= 0, terms, share).sum(-1), 0, math.inf), p)


def layer_cosine(x: Array, y: Array) -> Any:
    r"""The cosine of what goes into a layer and what comes out, row by row: :math:`\langle x, y\rangle / (\|x\| \|y\|)`.

    The more a layer turns its rows, the more it matters: minus the mean of these is the layer input modification score (LIM),
    by which layers are ranked for more bits.

    Parameters
    ----------
    x, y : array or tensor [..., d] of one float type
        With a gradient to both, as torch's own operations have it.

    Returns
    -------
    of the type of x [...]
        Within -1 and 1; 0 where a row is 0.

    Raises
    ------
    TypeError
        If the arrays are not of floats, of two types or of two libraries.
    ValueError
        If shapes differ, or an array is 0-d.

    Notes
    -----
    Composed of the library's own operations in float64, after each row is divided by its largest magnitude. Dumitru et al.,
    "Layer-Wise Quantization" (2024).
    """
    xp, (a, b) = _rows("layer_cosine", x=x, y=y)
    if not x.shape[-1]:
        return like(a.sum(-1), x)
    parts = []
    for v in (a, b):
        most = np.abs(v).max(-1, keepdims=True) if xp is np else v.detach().abs().amax(-1, keepdim=True)
        v = v / xp.where(most > 0, most, xp.ones_like(most))
        length = (v * v).sum(-1)
        zero = length == 0
        parts.append((v, xp.sqrt(xp.where(zero, xp.ones_like(length), length))))
    (a, m), (b, n) = parts
    cosine = (a * b).sum(-1) / (m * n)
    return like(np.clip(cosine, -1, 1) if xp is np else _within(cosine, -1, 1), x)


def zd_score(w: Array) -> float:
    r"""The share of weights more than one standard deviation above their mean, :math:`|\{i : (w_i - \mu)/\sigma > 1\}| / n`.

    The fewer they are, the more a layer matters, in the ranking of "Layer-Wise Quantization".

    Parameters
    ----------
    w : array or tensor of floats

    Returns
    -------
    float
        0 where all are equal.

    Raises
    ------
    TypeError
        If w is not a float array.
    ValueError
        If w is empty or holds non-finite values.

    Notes
    -----
    Composed of the library's own operations in float64; σ is that of the population. Dumitru et al. (2024).
    """
    name = "zd_score"
    xp, (v,) = _rows(name, w=w.reshape(-1) if hasattr(w, "reshape") else w)
    if not len(v):
        raise ValueError(f"{name}: w is empty")
    if not bool(xp.isfinite(v).all()):
        raise ValueError(f"{name}: w holds non-finite values")
    v = v.detach() if xp is not np else v
    most = float(abs(v).max())
    v = v * 0.5**32 / (most * 0.5**32) if most > 0 else v  # squares and sums of the largest numbers are numbers
    off = v - v.mean()
    return float((off > xp.sqrt((off * off).mean())).sum()) / len(v)
