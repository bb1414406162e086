"""1×1 convolutions of few weights. The one rule: no pixel is copied to another layout, whichever one an image has."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._acts import act_number, applied
from tersor._arrays import is_tensor
from tersor._matrix import SparseFactor, is_factor
from tersor.sparse._csr import CSR
from tersor.sparse._pattern import Pattern
from tersor.sparse.lanes import product
from tersor.sparse.product import operands, spmm

Array = Any

#: those that are bounds, which the product of rows has
_BOUNDS = (None, "relu", "relu6")


def conv1x1(a: SparseFactor, x: Array, *, bias: Array = None, act: str | None = None) -> Array:
    r"""A convolution of kernel size 1 with a sparse weight: at every pixel :math:`y = \mathrm{act}(A x + b)`.

    Parameters
    ----------
    a : CSR or Int8CSR [M, C]
        The weight, [out, in]; one made of NumPy arrays multiplies tensors too, as a constant.
    x : array or tensor [B, C, ...] or [C, H, W], of the dtype of a
        Images, with their pixels in any number of axes; what has three axes is one image.
    bias : array or tensor [M]
        Added at every pixel.
    act : None, "relu", "relu6", "gelu" or "silu"
        Applied to the sums; see Notes.

    Returns
    -------
    array or tensor [B, M, ...] or [M, H, W]
        In the layout of x: images of four axes whose channels lie together (torch's ``channels_last``) give such ones.
        Differentiable once with respect to x, bias and ``a.data``.

    Raises
    ------
    TypeError
        If dtypes or libraries differ, or a is no CSR.
    ValueError
        If shapes do not match, or act is unknown.

    Notes
    -----
    2·nnz·B·pixels operations. The channels of contiguous images are rows of `spmm`, of those whose channels lie together the
    pixels are rows of `linear`. gelu and silu of the former are a walk of their own, and 16-bit sums are rounded before it.
    Elsen, Dukhan, Gale and Simonyan, "Fast Sparse ConvNets" (2020), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.0], [1.0, -1.0]]))
    >>> sparse.conv1x1(a, np.arange(8.0).reshape(1, 2, 2, 2), act="relu").tolist()
    [[[[8.0, 10.0], [12.0, 14.0]], [[0.0, 0.0], [0.0, 0.0]]]]
    """
    if is_factor(a):
        return a.times(conv1x1, x, bias=bias, act=act)
    data, p = operands("conv1x1", a, ("x", x), *([] if bias is None else [("bias", bias)]))
    rows, channels = p.shape
    if x.ndim < 3 or x.shape[-3 if x.ndim == 3 else 1] != channels:
        raise ValueError(
            f"conv1x1: x must have axes [B, {channels}, ...] or [{channels}, H, W], as the matrix has {channels} columns, "
            f"got shape {tuple(x.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (rows,):
        raise ValueError(f"conv1x1: bias has shape {tuple(bias.shape)}, the matrix {rows} rows")
    act_number("conv1x1", act)
    return convolved(data, p, x, bias, act)


def convolved(data: Array, pattern: Pattern, x: Array, bias: Array, act: str | None) -> Array:
    """`conv1x1` of what is known to fit."""
    if x.ndim == 4 and _channels_last(x):
        last = product(data, pattern, _axes(x, 0, 2, 3, 1), bias, act_number("conv1x1", act))
        return _axes(last, 0, 3, 1, 2)
    batch, pixels = (x.shape[:1], x.shape[2:]) if x.ndim != 3 else (x.shape[:0], x.shape[1:])
    count = pixels.numel() if is_tensor(x) else int(np.prod(pixels, dtype=np.int64))
    flat = x.reshape(*batch, pattern.shape[1], count)
    y = spmm(CSR._of(data, pattern), flat, bias=bias, act=act if act in _BOUNDS else None)
    if act not in _BOUNDS:
        y = applied(act, y) if is_tensor(y) else _walked(act, y)
    return y.reshape(*batch, pattern.shape[0], *pixels)


def _channels_last(x: Array) -> bool:
    if not is_tensor(x):
        return not x.flags.c_contiguous and x.transpose(0, 2, 3, 1).flags.c_contiguous
    return not x.is_contiguous() and bool(x.permute(0, 2, 3, 1).is_contiguous())


def _axes(x: Array, *order: int) -> Array:
    return x.permute(order) if is_tensor(x) else x.transpose(order)


def _walked(act: str | None, y: np.ndarray) -> np.ndarray:
    """The activation of an array by the kernel that has it: the product with a matrix of ones on its diagonal."""
    n = y.shape[-1]
    kind = np.int64 if n >= 2**31 - 1 else np.int32
    ones = Pattern(np.arange(n, dtype=kind), np.arange(n + 1, dtype=kind), (n, n))
    walked: np.ndarray = product(np.ones(n, y.dtype), ones, y, None, act_number("conv1x1", act))
    return walked
