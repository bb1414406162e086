"""Sparse weights on activations that lie as rows. The one rule: the bits of `spmm`, whichever way is taken."""

from __future__ import annotations

from typing import Any

from tersor._acts import act_number
from tersor._arrays import is_tensor
from tersor._matrix import SparseFactor, is_factor
from tersor._values import plain_values, watched
from tersor.sparse._operators import _linear, _spmv
from tersor.sparse._pattern import Pattern
from tersor.sparse.product import affine_operands

Array = Any


def product(data: Array, pattern: Pattern, x: Array, bias: Array, act: int = 0) -> Array:
    """act(x Aᵀ + bias) for rows x [..., K]."""
    # what is plain first: sizes of a trace are not to be asked
    plain = not is_tensor(x) or plain_values(data, x, bias)
    if plain and pattern.brief(x):
        return _spmv(data, *pattern.lanes(), pattern.indptr, x, bias, act)
    transposed = pattern.transposed() if watched(x) else (None, None, None)
    return _linear(data, pattern.indices, pattern.indptr, x, bias, *transposed, act)


def spmv(a: SparseFactor, x: Array, *, bias: Array = None) -> Array:
    r"""A sparse matrix times vectors that lie as rows, :math:`y = x A^\top + b`: `linear` without an activation.

    Parameters
    ----------
    a : CSR or Int8CSR [M, K]
        The matrix; one made of NumPy arrays multiplies tensors too, as a constant.
    x : array or tensor [..., K], of the dtype of a
        A vector, or several as rows.
    bias : array or tensor [M]
        Added to every row.

    Returns
    -------
    array or tensor [..., M]
        The bits of ``spmm(a, x.T, bias=bias).T``. Differentiable once with respect to x, bias and ``a.data``.

    Raises
    ------
    TypeError
        If dtypes or libraries differ, or a is no CSR.
    ValueError
        If shapes do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.0], [0.0, 0.0], [1.0, -1.0]]))
    >>> sparse.spmv(a, np.array([1.0, 3.0]))
    array([ 6.,  0., -2.])
    """
    if is_factor(a):
        return a.linear(x, bias=bias)
    data, p = affine_operands("spmv", a, x, bias, axis=-1)
    return product(data, p, x, bias)


def linear(a: SparseFactor, x: Array, *, bias: Array = None, act: str | None = None) -> Array:
    r"""A linear layer of a sparse weight, :math:`Y = \mathrm{act}(X A^\top + 1\,b^\top)`: activations as they come.

    Parameters
    ----------
    a : CSR or Int8CSR [M, K]
        The weight, [out, in]; one made of NumPy arrays multiplies tensors too, as a constant.
    x : array or tensor [..., K], of the dtype of a
        A vector, or several as rows.
    bias : array or tensor [M]
        Added to every row.
    act : None, "relu", "relu6", "gelu" or "silu"
        Applied to the sums, of 16-bit types before they are rounded; gelu is :math:`z\,\Phi(z)`, silu :math:`z\,\sigma(z)`.

    Returns
    -------
    array or tensor [..., M]
        Without an activation the bits of ``spmm(a, x.T, bias=bias).T``. Differentiable once with respect to x, bias and
        ``a.data``: with H the gradient times the slope, :math:`dX = H A`, and for each entry e at (i, k)
        :math:`da_e = (H^\top X)_{ik}`. For gelu and silu the sums are made again for their slope, not kept.

    Raises
    ------
    TypeError
        If dtypes or libraries differ, or a is no CSR.
    ValueError
        If shapes do not match, or act is unknown.

    Notes
    -----
    2·nnz·rows operations. No copy of x is turned: as many rows as fill the registers are put together as a panel in the
    cache, and tiles of results are turned in registers as they are stored. Up to sixteen rows (eight of float64) take lanes:
    sixteen rows of the matrix side by side, their columns in two bytes (four beyond 65536), in an order that is made at the
    first call and stays with the structure.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.0], [0.0, 0.0], [1.0, -1.0]]))
    >>> sparse.linear(a, np.array([[1.0, 3.0], [2.0, 0.0]]), act="relu")
    array([[6., 0., 0.],
           [0., 0., 2.]])
    """
    if is_factor(a):
        return a.linear(x, bias=bias, act=act)
    data, p = affine_operands("linear", a, x, bias, axis=-1)
    return product(data, p, x, bias, act_number("linear", act))
