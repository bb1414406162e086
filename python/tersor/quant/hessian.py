"""Gram matrices of what goes into a layer. The one rule: this is the public door of what every calibration adds up."""

from __future__ import annotations

from tersor import _gram
from tersor._arrays import Array, Number


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
    return _gram.gram("hessian", x, weights, onto)
