"""Ridge regression for many penalties at once. The one rule: one decomposition serves all of them, and what is left out costs
nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor, torch_module
from tersor._reference import quiet
from tersor._values import at_hand, check_values

Array = Any


def ridge_path(Z: Array, y: Array, alphas: Sequence[float]) -> tuple[Array, Array]:
    r"""Ridge regression for each penalty, and the mean squared error of leaving one row out, in closed form.

    .. math::

       \beta_\alpha = (Z^TZ + \alpha I)^{-1} Z^Ty, \qquad
       \mathrm{loo}_\alpha = \frac1n\sum_i \Big(\frac{y_i - \hat y_i}{1 - h_i}\Big)^2, \qquad
       h_i = \big(Z (Z^TZ + \alpha I)^{-1} Z^T\big)_{ii}

    Parameters
    ----------
    Z : array or tensor [n, p], float64 or float32
        Features; there is no intercept but a column of ones.
    y : array or tensor [n] or [n, t], of the type of Z
    alphas : sequence of floats, not negative
        0 is the solution of least norm.

    Returns
    -------
    coef : array or tensor [a, p] or [a, p, t], in the type of Z
    loo_mse : array or tensor [a] or [a, t], float64
        Infinite, or no number, where a row alone decides its own prediction.

    Raises
    ------
    TypeError
        If Z or y is no such array, or their types or libraries differ.
    ValueError
        If shapes do not fit, there are no rows, Z holds non-finite values, or a penalty is negative or not finite.

    Notes
    -----
    One singular value decomposition in float64, n·p·min(n, p) operations, and (n + p)·min(n, p) more for each penalty. torch's
    gradients go through all of it where singular values differ.
    """
    for name, v in (("Z", Z), ("y", y)):
        check_values("ridge_path", name, v)
        if dtype_name(v.dtype) not in ("float64", "float32"):
            raise TypeError(f"ridge_path: {name} must be float64 or float32, got {dtype_name(v.dtype)}")
    if is_tensor(Z) != is_tensor(y) or Z.dtype != y.dtype:
        raise TypeError(f"ridge_path: y must be of the library and type of Z, {dtype_name(Z.dtype)}, got {y.dtype}")
    if Z.ndim != 2 or y.ndim not in (1, 2) or len(Z) != len(y) or not len(Z):
        raise ValueError(f"ridge_path: Z must be [n, p] and y [n] or [n, t], got {tuple(Z.shape)} and {tuple(y.shape)}")
    try:
        given = [float(alpha) for alpha in alphas]
    except (TypeError, ValueError):
        raise TypeError(f"ridge_path: alphas must be a sequence of numbers, got {type(alphas).__name__}") from None
    if not all(0 <= alpha < math.inf for alpha in given):
        raise ValueError(f"ridge_path: alphas must be finite and not negative, got {given}")
    finite = Z.detach().isfinite() if is_tensor(Z) else np.isfinite(Z)
    if (not is_tensor(Z) or at_hand(Z)) and not finite.all():
        raise ValueError("ridge_path: Z holds non-finite values")
    xp: Any = torch_module() if is_tensor(Z) else np
    wide = (lambda v: v.double()) if is_tensor(Z) else (lambda v: v.astype(np.float64))
    u, s, vt = xp.linalg.svd(wide(Z), full_matrices=False)
    target = wide(y) if y.ndim == 2 else wide(y)[:, None]
    uty = u.T @ target
    # of no weight is what rounding leaves of 0, as in a pseudo-inverse
    floor = s[:1].sum() * (max(Z.shape) * 2.0**-52)
    coefs, errors = [], []
    for alpha in given:
        kept = s > floor
        # s/(s² + α) without a square, which may have no number
        safe = xp.where(kept, s, 1.0)
        gain = xp.where(kept, 1 / (safe + alpha / safe), 0.0)
        shrunk = safe * gain
        coefs.append(vt.T @ (gain[:, None] * uty))
        left = target - u @ (shrunk[:, None] * uty)
        lever = (u * u) @ shrunk
        with quiet(Z):
            errors.append(((left / (1 - lever)[:, None]) ** 2).mean(0))
    shape = (0, Z.shape[1], target.shape[1])
    coef = xp.stack(coefs) if coefs else xp.zeros(shape)
    loo = xp.stack(errors) if errors else xp.zeros((0, target.shape[1]))
    if y.ndim == 1:
        coef, loo = coef[..., 0], loo[..., 0]
    return (coef.to(Z.dtype) if is_tensor(Z) else coef.astype(Z.dtype)), loo
