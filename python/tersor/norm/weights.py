"""Weights of convolutions and linear layers, standardised. The one rule: a filter is a segment."""

from __future__ import annotations

from tersor._arrays import Array, Weight
from tersor.norm._arguments import alike, checked_eps
from tersor.norm._ops import MODES, _standardize


def weight_standardize(w: Array, gain: Weight = None, eps: float = 1e-5) -> Array:
    r"""Each filter less its mean, over its deviation, :math:`g (w - \mu)/\sqrt{v + \varepsilon}` with the unbiased variance.

    Parameters
    ----------
    w : array or tensor [out, in, ...], float64, float32, float16 or bfloat16
    gain : [out], of w's type or float32 beside 16-bit w, optional
    eps : float

    Returns
    -------
    array or tensor of w's shape and type
        Differentiable, twice too, with respect to w and gain.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit.

    Notes
    -----
    Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization" (2019).

    Examples
    --------
    >>> import numpy as np
    >>> weight_standardize(np.array([[1.0, 2.0, 3.0]])).round(4)
    array([[-1.,  0.,  1.]])
    """
    eps = checked_eps("weight_standardize", eps)
    if w.ndim < 2:
        raise ValueError(f"weight_standardize: w must be [out, in, ...], got shape {tuple(w.shape)}")
    if gain is not None and tuple(gain.shape) != (w.shape[0],):
        raise ValueError(f"weight_standardize: gain must have shape {(w.shape[0],)}, got {tuple(gain.shape)}")
    alike("weight_standardize", w, gain)
    gain = None if gain is None else gain.reshape((-1, *(1,) * (w.ndim - 1)))
    return _standardize(w, gain, None, None, None, None, None, 1, 0, MODES["var"], eps, 1.0)[0]
