"""Sparse times dense. The one rule: values and places come in the library of the dense operands, which are all of one."""

from __future__ import annotations

import math
from typing import Any

from tersor._arrays import in_trace, is_tensor
from tersor._matrix import SparseFactor, SparseMatrix, is_factor
from tersor._values import check_dense, check_values, watched
from tersor.sparse._operators import _spmm

Array = Any

_ACTIVATIONS = {None: (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


def operands(who: str, a: Any, *xs: tuple[str, Any]) -> tuple[Any, Any]:
    """The values and the pattern in the library of the dense operands, which are all of one."""
    if not isinstance(a, SparseMatrix):
        raise TypeError(f"{who}: the first argument must be a CSR, got {type(a).__name__}")
    tensor = is_tensor(xs[0][1])
    for name, x in xs:
        check_values(who, name, x)
        if is_tensor(x) != tensor:
            raise TypeError(f"{who}: {name} is a {type(x).__name__}, {xs[0][0]} is not")
    return a.beside(who, *xs[0])


def affine_operands(who: str, a: Any, x: Array, bias: Array, axis: int) -> tuple[Any, Any]:
    """`operands` of a product and what is added to it; x has the columns of the matrix along an axis."""
    data, p = operands(who, a, ("x", x), *([] if bias is None else [("bias", bias)]))
    fitting(who, p.shape, x, bias, axis)
    return data, p


def fitting(who: str, shape: tuple[int, int], x: Array, bias: Array, axis: int = -1) -> None:
    """Refuses operands of other sizes than the matrix."""
    rows, cols = shape
    if not x.ndim or x.shape[axis if x.ndim > 1 else 0] != cols:
        raise ValueError(f"{who}: x has shape {tuple(x.shape)}, the matrix {cols} columns")
    if bias is not None and tuple(bias.shape) != (rows,):
        raise ValueError(f"{who}: bias has shape {tuple(bias.shape)}, the matrix {rows} rows")


def spmm(a: SparseFactor, x: Array, *, bias: Array = None, act: str | None = None, out: Array = None) -> Array:
    r"""Sparse times dense, :math:`Y = \mathrm{act}(A X + b\,1^\top)`.

    Parameters
    ----------
    a : CSR or Int8CSR [M, K]
        The matrix; one made of NumPy arrays multiplies tensors too, as a constant.
    x : array or tensor [K] or [..., K, N], of the dtype of a
        The dense operand, or a stack of them.
    bias : array or tensor [M]
        Added to every column.
    act : None, "relu" or "relu6"
        Applied to the sums before they are stored; its gradient is 0 at and beyond the bounds.
    out : array or tensor
        Where the result goes; C-contiguous, of its shape and dtype. Not with gradients.

    Returns
    -------
    array or tensor [M] or [..., M, N]
        Differentiable once with respect to x, bias and ``a.data``. With G the gradient, :math:`dX = A^\top G` by the kept
        transpose, :math:`da_e = (G X^\top)_{ik}` for each entry e at (i, k), the full value at each of several in one place.

    Raises
    ------
    TypeError
        If dtypes or libraries differ, or a is no CSR.
    ValueError
        If shapes do not match, or act is unknown.

    Notes
    -----
    2·nnz·N operations; every entry reads one row of x, from a panel of columns copied into the L2 cache. The plan follows
    XNNPACK's for sparse 1×1 convolutions (Elsen, Dukhan, Gale, Simonyan, "Fast Sparse ConvNets", 2020). The codes of an
    `Int8CSR` are made values at every call, in float32 (float64 for float64 x), and results rounded once; there is no ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.0], [0.0, 0.0], [1.0, -1.0]]))
    >>> sparse.spmm(a, np.array([[1.0, 2.0], [3.0, 4.0]]), act="relu")
    array([[6., 8.],
           [0., 0.],
           [0., 0.]])
    """
    if act not in _ACTIVATIONS:
        raise ValueError(f"spmm: act must be None, 'relu' or 'relu6', got {act!r}")
    lo, hi = _ACTIVATIONS[act]
    if out is None and is_tensor(x) and isinstance(a, SparseMatrix) and not in_trace():
        from tersor.sparse._straight import straight_panels

        if (y := straight_panels(a, x, bias, lo, hi)) is not None:
            return y
    if not getattr(x, "ndim", 1):
        raise ValueError("spmm: x must be [K] or [..., K, N], got a 0-d array")
    if is_factor(a):
        return a.times(spmm, x, bias=bias, act=act, out=out)
    data, p = affine_operands("spmm", a, x, bias, axis=-2)
    if is_tensor(x) and is_tensor(out):
        check_dense("spmm", "out", out)
        if out.device != x.device:
            raise ValueError(f"spmm: out is on {out.device}, x on {x.device}")
    vector = x.ndim == 1
    if vector:
        x = x[:, None]
    transposed = p.transposed() if watched(x) else (None, None, None)
    args = (data, p.indices, p.indptr, x, bias, *transposed, lo, hi)
    if out is None:
        y = _spmm(*args)
        return y[:, 0] if vector else y
    if vector:
        if getattr(out, "ndim", None) != 1:
            raise ValueError("spmm: out must have one axis, as x")
        _spmm(*args, out=out[:, None])
    else:
        _spmm(*args, out=out)
    return out
