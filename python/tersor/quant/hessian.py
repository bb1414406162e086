"""Gram matrices of what goes into a layer. The one rule: products are the library's own, sums of batches are float64."""

from __future__ import annotations

import numpy as np

from tersor._arrays import FLOATS, Number, dtype_name
from tersor.quant._arguments import Array, detached
from tersor.quant.qparams import cast, torch_module

#: rows of a product in their own type; what is added up beyond is float64
_ROWS = 4096


def hessian(x: Array, *, weights: Number | None = None, onto: Number | None = None) -> Array:
    r"""The Gram matrix of the inputs of a linear layer, :math:`H = \sum_t \omega_t\, x_t x_t^\top`.

    For :math:`y = W x` the squared error of :math:`W + \Delta` over these inputs is :math:`\mathrm{tr}(\Delta H \Delta^\top)`,
    of which H (twice) is the second derivative in each row of W. `gptq` does not depend on its scale.

    Parameters
    ----------
    x : array or tensor [..., K] of float64, float32, float16 or bfloat16
        Rows are tokens.
    weights : array or tensor [...], optional
        :math:`\omega`, one per row, not negative; 0 leaves a row (padding) out. 1 each if absent.
    onto : float64 [K, K], optional
        H of earlier batches: this one is added to it, in place.

    Returns
    -------
    float64 [K, K]
        ``onto`` if given.

    Raises
    ------
    TypeError
        If x is not a float array, or onto is not float64.
    ValueError
        If x or weights hold non-finite values, a weight is negative, or shapes do not fit; onto is as it was.

    Notes
    -----
    :math:`T K^2` multiply-adds for T rows, by the library's own product: over 4096 rows at a time in the type of x (float32 for
    16 bits), added up in float64. Weights of rows: "RSQ: Learning from Important Tokens Leads to Better Quantized LLMs" (2025).
    """
    name = "hessian"
    x = detached(name, x)
    kind = dtype_name(x.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: x must be a float array, got {kind}")
    if x.ndim == 0:
        raise ValueError(f"{name}: x needs a last axis, got a 0-d array")
    xp, k = np if isinstance(x, np.ndarray) else torch_module(), x.shape[-1]
    rows = x.reshape(-1, k) if k else x.reshape(0, 0)
    root = None
    if weights is not None:
        weights = detached(name, weights)
        if tuple(weights.shape) != tuple(x.shape[:-1]):
            raise ValueError(f"{name}: weights must have shape {tuple(x.shape[:-1])}, got {tuple(weights.shape)}")
        root = cast(xp, weights.reshape(-1), "float64")
        if not bool(xp.isfinite(root).all()) or bool((root < 0).any()):
            raise ValueError(f"{name}: weights must be finite and not negative")
        root = xp.sqrt(root)[:, None]
    if onto is not None:
        if tuple(onto.shape) != (k, k):
            raise ValueError(f"{name}: onto must have shape {(k, k)}, got {tuple(onto.shape)}")
        if dtype_name(onto.dtype) != "float64":
            raise TypeError(f"{name}: onto must be float64, got {dtype_name(onto.dtype)}")
    total = xp.zeros((k, k), dtype=xp.float64, **({} if xp is np else {"device": x.device}))
    compute = "float64" if kind == "float64" else "float32"
    for at in range(0, len(rows), _ROWS):
        some = cast(xp, rows[at : at + _ROWS], compute)
        if root is not None:
            some = some * cast(xp, root[at : at + _ROWS], compute)
        with np.errstate(all="ignore"):
            total += some.T @ some
    if not bool(xp.isfinite(total).all()):
        what = "has squares beyond float32" if bool(xp.isfinite(rows).all()) else "holds non-finite values"
        raise ValueError(f"{name}: x {what}")
    if onto is None:
        return total
    onto += total
    return onto
