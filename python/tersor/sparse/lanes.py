"""Sparse times a few vectors that lie as rows. The one rule: the bits of `spmm`, whichever way is taken."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor._matrix import SparseMatrix
from tersor._values import watched
from tersor.sparse._operators import _spmv
from tersor.sparse._pattern import Pattern
from tersor.sparse.product import operands, spmm

Array = Any

#: beyond these, offsets do not fit the instructions that gather
LONGEST = 2**31 - 1


def product(data: Array, pattern: Pattern, x: Array, bias: Array) -> Array:
    """x Aᵀ + bias for rows x [..., K] where it can be had at once, else None: no gradient is recorded here, no trace."""
    if max(pattern.shape[1], data.shape[0]) > LONGEST:
        return None
    if is_tensor(x):
        import torch

        given = [t for t in (data, x, bias) if t is not None]
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        if torch.compiler.is_compiling() or watched(*given):
            return None
        if not all(type(t) in (torch.Tensor, torch.nn.Parameter) and t.device.type == "cpu" for t in given):
            return None
        if any(wrapped(t) for t in given):
            return None
        bias = None if bias is None else bias.detach()
        return _spmv(data.detach(), *pattern.lanes(), pattern.indptr, x.detach(), bias)
    return _spmv(data, *pattern.lanes(), pattern.indptr, x, bias)


def spmv(a: SparseMatrix, x: Array, *, bias: Array = None) -> Array:
    r"""A sparse matrix times vectors that lie as rows, :math:`y = x A^\top + b`: activations as they come.

    Parameters
    ----------
    a : CSR [M, K]
        The matrix; one made of NumPy arrays multiplies tensors too, as a constant.
    x : array or tensor [..., K], of the dtype of a
        A vector, or several as rows.
    bias : array or tensor [M]
        Added to every row.

    Returns
    -------
    array or tensor [..., M]
        The bits of ``spmm(a, x.T, bias=bias).T``. Differentiable once with respect to x, bias and ``a.data``, by that product.

    Raises
    ------
    TypeError
        If dtypes or libraries differ, or a is no CSR.
    ValueError
        If shapes do not match.

    Notes
    -----
    For few rows: sixteen rows of the matrix go side by side, each one chain of fused multiply-adds in one lane, and their
    columns are kept in two bytes (four beyond 65536 columns), in an order that is made at the first call and stays with the
    structure. Four vectors share a reading of the matrix; from about eight on `spmm` is faster.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.0], [0.0, 0.0], [1.0, -1.0]]))
    >>> sparse.spmv(a, np.array([1.0, 3.0]))
    array([ 6.,  0., -2.])
    """
    data, p = operands("spmv", a, ("x", x), *([] if bias is None else [("bias", bias)]))
    rows, cols = p.shape
    if not x.ndim or x.shape[-1] != cols:
        raise ValueError(f"spmv: x has shape {tuple(x.shape)}, the matrix {cols} columns")
    if bias is not None and tuple(bias.shape) != (rows,):
        raise ValueError(f"spmv: bias has shape {tuple(bias.shape)}, the matrix {rows} rows")
    y = product(data, p, x, bias)
    if y is not None:
        return y
    lead = tuple(x.shape[:-1])
    flat = x.reshape(math.prod(lead), cols)
    turned = flat.T.contiguous() if is_tensor(x) else np.ascontiguousarray(flat.T)
    return spmm(a, turned, bias=bias).T.reshape(*lead, rows)
