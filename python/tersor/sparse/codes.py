"""Sparse matrices of int8 codes with a scale for each row. The one rule: a code is what `tersor.quant.encode` makes of a value
by "int8-row", and places are those of the `CSR` it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tersor._acts import act_number, applied
from tersor._arrays import dtype_name, is_tensor
from tersor._matrix import SparseFactor, SparseMatrix
from tersor._values import called, check_dense, check_values, plain_values, tensor_of, watched
from tersor.sparse._csr import CSR
from tersor.sparse._operators import _linear8
from tersor.sparse._parts import Placed, given_out
from tersor.sparse._pattern import Pattern
from tersor.sparse._structure import as_type, widened
from tersor.sparse.lanes import product
from tersor.sparse.product import fitting, spmm

Array = Any


class Int8CSR(Placed, SparseFactor):
    r"""A sparse matrix whose values are codes in one byte, :math:`A_{ik} = s_i q_{ik}`: a weight pruned and quantized.

    Parameters
    ----------
    codes : array or tensor [nnz], int8
        By rows, as ``indices``. Copied.
    scale : array or tensor [rows], float32
        Finite.
    indices, indptr : array or tensor, int32 or int64
        As of `CSR`.
    shape : (int, int)
        Rows and columns.

    Attributes
    ----------
    codes, scale, indices, indptr : copies, codes and indices in order of the columns
    shape, nnz : as of `CSR`

    Raises
    ------
    TypeError
        If codes are not int8, scales not float32, or indices not int32 or int64.
    ValueError
        If lengths disagree, a scale is not finite, or the places are those of no matrix.

    Notes
    -----
    `linear` multiplies activations of every float type, with gradients to these and to the bias, and reads a quarter of the
    bytes that float32 values have. `spmm`, `conv1x1` and ``@`` make the codes values at every call, which many columns pay
    for. What changes or opens values takes `dequantize`.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import sparse
    >>> a = sparse.from_dense(np.array([[0.0, 2.54], [1.27, -0.64]], np.float32))
    >>> q = sparse.Int8CSR.of(a)
    >>> q.codes, q.scale
    (array([127, 127, -64], dtype=int8), array([0.02, 0.01], dtype=float32))
    >>> q.linear(np.ones(2, np.float32))
    array([2.54, 0.63], dtype=float32)
    """

    __slots__ = ("__weakref__", "_codes", "_pattern", "_scale")

    def __init__(self, codes: Array, scale: Array, indices: Array, indptr: Array, shape: Sequence[int]) -> None:
        for name, x, kind in (("codes", codes, "int8"), ("scale", scale, "float32")):
            if not is_tensor(x) and not isinstance(x, np.ndarray):
                raise TypeError(f"Int8CSR: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
            if dtype_name(x.dtype) != kind:
                raise TypeError(f"Int8CSR: {name} must be {kind}, got {dtype_name(x.dtype)}")
            if is_tensor(x):
                check_dense("Int8CSR", name, x)
            if x.ndim != 1:
                raise ValueError(f"Int8CSR: {name} must have one axis, got shape {tuple(x.shape)}")
        if is_tensor(codes) != is_tensor(scale) or (is_tensor(codes) and codes.device != scale.device):
            raise TypeError("Int8CSR: codes and scale must be of one library and on one device")
        places = np.arange(len(codes), dtype=np.float64)
        try:
            a = CSR(
                places, indices, indptr, shape
            )  # where each code stood is its value: the order comes with the checks
        except (TypeError, ValueError) as error:
            text = str(error).removeprefix("CSR: ").replace("data has", "codes has")
            raise type(error)(f"Int8CSR: {text}") from None
        if len(scale) != a.shape[0]:
            raise ValueError(f"Int8CSR: scale has {len(scale)} elements, the matrix {a.shape[0]} rows")
        if not bool(((scale - scale) == 0).all()):
            raise ValueError("Int8CSR: scale must be finite")
        order = a.data.astype(np.int64)
        pattern = a._pattern
        if is_tensor(codes):
            codes, scale = codes.detach()[tensor_of(order).to(codes.device)], scale.detach().clone()
            pattern = pattern.tensors().to(codes.device)
        else:
            codes, scale = np.ascontiguousarray(codes)[order], np.array(scale)
        self._codes, self._scale, self._pattern = codes, scale, pattern

    @classmethod
    def _of(cls, codes: Array, scale: Array, pattern: Pattern) -> Int8CSR:
        made = cls.__new__(cls)
        made._codes, made._scale, made._pattern = codes, scale, pattern
        return made

    @classmethod
    def of(cls, a: SparseMatrix) -> Int8CSR:
        r"""The codes of a `CSR`: :math:`s_i = \max_k |a_{ik}|/127` and :math:`q_{ik} = \mathrm{rne}(a_{ik}/s_i)`, so that no
        value is further off than half of its row's scale.

        Raises
        ------
        TypeError
            If a is no CSR.
        ValueError
            If a value is not finite, or larger than float32 has scales for. One read of the values.
        """
        if not isinstance(a, CSR):
            raise TypeError(f"Int8CSR.of: the matrix must be a CSR, got {type(a).__name__}")
        data, p = a._data, a._pattern
        values = np.asarray(widened(data.detach().cpu()).numpy() if is_tensor(data) else widened(data), np.float64)
        if not np.isfinite(values).all():
            raise ValueError("Int8CSR.of: values must be finite, got a non-finite one")
        _, indptr = p.host()
        peaks, filled = np.zeros(p.shape[0]), np.diff(indptr) > 0
        if len(values):
            peaks[filled] = np.maximum.reduceat(np.abs(values), indptr[:-1][filled])
        with np.errstate(over="ignore", under="ignore"):
            scale = (peaks / 127).astype(np.float32)
        if not np.isfinite(scale).all():
            raise ValueError(f"Int8CSR.of: {peaks.max()} is too large for a scale of float32")
        scale[(scale == 0) & (peaks > 0)] = np.finfo(np.float32).smallest_subnormal
        steps = np.repeat(np.where(scale == 0, 1, scale).astype(np.float64), np.diff(indptr))
        codes = np.clip(np.rint(values / steps), -127, 127).astype(np.int8)
        if is_tensor(data):
            return cls._of(tensor_of(codes).to(data.device), tensor_of(scale).to(data.device), p)
        return cls._of(codes, scale, p)

    @property
    def codes(self) -> Array:
        return given_out(self._codes)

    @property
    def scale(self) -> Array:
        return given_out(self._scale)

    @property
    def shape(self) -> tuple[int, int]:
        return self._pattern.shape

    @property
    def nnz(self) -> int:
        return int(self._codes.shape[0])

    def dequantize(self) -> CSR:
        """The matrix of the values s·q, in float32."""
        return CSR._of(decoded(self._codes, self._scale, self._pattern), self._pattern)

    def linear(self, x: Array, *, bias: Array = None, act: str | None = None) -> Array:
        r"""A linear layer of this weight, :math:`Y = \mathrm{act}(X Q^\top \mathrm{diag}(s) + 1\,b^\top)`.

        Parameters
        ----------
        x : array or tensor [..., K] of a float type
            A vector, or several as rows; of tensors where the codes are tensors.
        bias : array or tensor [M], of the dtype of x
        act : None, "relu", "relu6", "gelu" or "silu"
            Of the result, as it was rounded.

        Returns
        -------
        array or tensor [..., M]
            Sums of codes times x, in float32 (float64 of float64) and in ascending order of the columns, then multiplied by
            their scale and added to the bias: the same bits for any number of rows. Differentiable with respect to x and bias.

        Raises
        ------
        TypeError
            If libraries or dtypes differ.
        ValueError
            If shapes do not match, or act is unknown.
        """
        number = act_number("Int8CSR.linear", act)
        codes, scale, p = self._beside("Int8CSR.linear", x, bias)
        fitting("Int8CSR.linear", p.shape, x, bias)
        y = coded("Int8CSR.linear", codes, scale, p, x, bias)
        return applied(act, y) if number else y

    def times(
        self, product: Callable[..., Array], x: Array, *, bias: Array = None, out: Array = None, **kwargs: Any
    ) -> Array:
        """``product`` of the values and x in float32 (float64 of float64), rounded once to the type of x."""
        who = product.__name__
        if out is not None:
            raise TypeError(f"{who}: an Int8CSR has no out=")
        a, wide = self._values(who, x, bias)
        if bias is not None and bias.dtype != x.dtype:
            raise TypeError(f"{who}: bias is {dtype_name(bias.dtype)}, x is {dtype_name(x.dtype)}")
        return as_type(product(a, wide, bias=None if bias is None else widened(bias), **kwargs), x.dtype)

    def _values(self, who: str, x: Array, bias: Array) -> tuple[CSR, Array]:
        """The matrix of the values beside x, and x, both in float32 or float64."""
        codes, scale, p = self._beside(who, x, bias)
        wide = widened(x)
        return CSR._of(decoded(codes, scale, p, wide.dtype), p), wide

    def _beside(self, who: str, x: Array, bias: Array) -> tuple[Array, Array, Pattern]:
        """Codes, scales and pattern in the library of x."""
        codes, scale, p = self._codes, self._scale, self._pattern
        for name, t in (("x", x), *([] if bias is None else [("bias", bias)])):
            check_values(who, name, t)
            if is_tensor(t) != is_tensor(x):
                raise TypeError(f"{who}: {name} is a {type(t).__name__}, x is not")
        if not is_tensor(x):
            if is_tensor(codes):
                raise TypeError(f"{who}: x is a NumPy array, the matrix is made of tensors")
            return codes, scale, p
        if is_tensor(codes) and codes.device != x.device:
            raise ValueError(f"{who}: x is on {x.device}, the matrix on {codes.device}")
        codes, scale = (t if is_tensor(t) else tensor_of(t).to(x.device) for t in (codes, scale))
        return codes, scale, p.tensors().to(x.device)

    def __matmul__(self, x: Array) -> Array:
        return spmm(self, x)

    def __rmatmul__(self, x: Array) -> Array:
        a, wide = self._values("x @ Int8CSR", x, None)
        if not x.ndim or x.shape[-1] != self.shape[0]:
            raise ValueError(f"x @ Int8CSR: x has shape {tuple(x.shape)}, the matrix {self.shape[0]} rows")
        return as_type(wide @ a, x.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        p = self._pattern
        return Int8CSR, (self._codes, self._scale, p.indices, p.indptr, p.shape)

    def __repr__(self) -> str:
        rows, cols = self.shape
        where = "NumPy" if isinstance(self._codes, np.ndarray) else f"torch, {self._codes.device}"
        return f"Int8CSR({rows}×{cols}, {self.nnz} entries, {where})"


def decoded(codes: Array, scale: Array, pattern: Pattern, dtype: Any = None) -> Array:
    """The values s·q, rounded to float32 and then to another type if one is asked for: whole in float64."""
    steps = scale[pattern.rows()]
    if dtype is not None and dtype_name(dtype) == "float64":
        return as_type(steps, dtype) * codes
    values = steps * (codes.float() if is_tensor(codes) else codes.astype(np.float32))
    return values if dtype is None else as_type(values, dtype)


def coded(who: str, codes: Array, scale: Array, pattern: Pattern, x: Array, bias: Array) -> Array:
    """x (diag(scale) Q)ᵀ + bias for rows x [..., K] and codes Q."""
    if is_tensor(x) and x.device.type != "cpu":
        return product(decoded(codes, scale, pattern, x.dtype), pattern, x, bias)
    brief = (not is_tensor(x) or plain_values(x, codes, bias)) and pattern.brief(x)
    lanes = pattern.lanes() if brief else (None, None)
    transposed = pattern.transposed() if watched(x) else (None, None, None)
    y: Array = called(who, _linear8, x, codes, scale, pattern.indices, pattern.indptr, *lanes, bias, *transposed)
    return y
