"""The Walsh–Hadamard transform. The one rule: the order is Sylvester's, and the transform its own adjoint."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import an_axis, into, whole
from tersor._hadamard import matrix as hadamard
from tersor._op import op
from tersor._sample import Draw
from tersor.project._entries import extents

Array = Any


def _sample_fwht(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    sizes = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 64, 80, 96, 112, 128)
    n = sizes[draw.d % len(sizes)]
    return [draw.normal(*draw.lead, n)], {"ortho": draw.seed % 2 == 1}


_FWHT = {"float64": 512, "float32": 512, "float16": 128, "bfloat16": 128}


def _transform(x: np.ndarray, ortho: bool) -> np.ndarray:
    n = x.shape[-1]
    # the matrix is divided, not the result: no sum overflows on the way
    return x @ (hadamard(n) / (math.sqrt(n) if ortho else 1))


@op(sample=_sample_fwht, tolerance=_FWHT, triton_tolerance=512)
def _fwht(x, ortho=False):
    """The transform over the last axis."""
    return _transform(x, ortho)


@op(sample=_sample_fwht, tolerance=_FWHT, triton_tolerance=512)
def _fwht_bwd(g, ortho=False):
    """The transform is symmetric: it is its own adjoint."""
    return _transform(g, ortho)


@op(sample=_sample_fwht, tolerance=_FWHT, triton_tolerance=512)
def _fwht_bwd_bwd(gg, ortho=False):
    """As `fwht`."""
    return _transform(gg, ortho)


def fwht(x: Array, axis: int = -1, norm: str | None = None, out: Array = None) -> Array:
    r"""Fast Walsh–Hadamard transform along an axis, :math:`y = H_n x`.

    For :math:`n = 2^m` in Sylvester's order, :math:`H_{2n} = \begin{pmatrix} H_n & H_n \\ H_n & -H_n \end{pmatrix}`; for
    :math:`n = K 2^m` with K = 12, 20, 28 it is :math:`H_K \otimes H_{2^m}` with Paley's symmetric :math:`H_K`.

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16
    axis : int
        Of length 2^m, 12·2^m, 20·2^m or 28·2^m.
    norm : None or "ortho"
        "ortho" divides by :math:`\sqrt n`: an orthogonal matrix, which is its own inverse.
    out : array or tensor like x, contiguous
        May be x itself.

    Returns
    -------
    array or tensor like x

    Raises
    ------
    TypeError
        If x is not a float array, or out has another dtype.
    ValueError
        If the axis has another length, x is 0-d, norm is unknown or out has another shape; AxisError if there is no such axis.

    Notes
    -----
    n log₂ n additions per row; rows that fit in the first caches cost one read and one write of memory, longer ones two of
    each. The sums are taken in the same order whatever the blocking; none overflows on the CPU where the result does not. The
    16-bit types are transformed in float32 and rounded once. Fino, Algazi, "Unified matrix treatment of the fast
    Walsh-Hadamard transform" (1976); Paley, "On orthogonal matrices" (1933).
    """
    if norm not in (None, "ortho"):
        raise ValueError(f"fwht: norm must be None or 'ortho', got {norm!r}")
    ortho, ndim = norm == "ortho", len(extents("fwht", x))
    if ndim == 0:
        raise ValueError("fwht: x needs an axis, got a 0-d array")
    axis = an_axis("fwht", whole("fwht: axis", axis), ndim)
    if axis == ndim - 1:
        return _fwht(x, ortho, **({} if out is None else {"out": out}))
    y = _fwht(x.swapaxes(axis, -1), ortho).swapaxes(axis, -1)
    if out is None:
        return y
    into("fwht", [out], [y])
    return out
