"""Matrices that are no arrays, beside arrays in products. The one rule: ``@`` is the product, all else a TypeError."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor._values import tensor_of

Array = Any

_PRODUCTS = ("matmul", "mm", "mv", "__matmul__")

#: the matrices that families offer, by name: a family that makes one of another's asks here, as none imports another
KINDS: dict[str, Any] = {}


class _Override(classmethod):
    """``__torch_function__`` of a type that stands on the left of tensors too.

    A traced ``m @ x`` reaches m with its operands exchanged, as the reflected function of x. torch's table of these has
    none for ``@`` and would name the plain product, by which ``m @ x`` and ``x @ m`` look alike: the entry is made when
    a trace first asks for the override. Where it cannot be made there is no override, so that nothing is mistaken.
    """

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        traced = sys.modules.get("torch._dynamo.variables.builtin")
        if traced is not None:
            reflected = getattr(traced, "BUILTIN_TO_TENSOR_RFN_MAP", None)
            if reflected is None:
                raise AttributeError("__torch_function__")
            reflected.setdefault(operator.matmul, sys.modules["torch"].Tensor.__rmatmul__)
        return super().__get__(instance, owner)


class Matrix:
    """What lets ``m @ x`` and ``x @ m`` reach m for arrays and for tensors, traced ones too.

    NumPy gives way to a type without ufuncs; torch, and what compiles for it, to a type that overrides its functions.
    """

    __slots__ = ()

    __array_ufunc__ = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        KINDS[cls.__name__] = cls

    def __matmul__(self, x: Any) -> Any:
        raise NotImplementedError

    def __rmatmul__(self, x: Any) -> Any:
        raise NotImplementedError

    @_Override
    def __torch_function__(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None, /) -> Any:
        import torch

        if len(args) == 2 and not kwargs:
            if func is torch.Tensor.__rmatmul__:
                return args[1].__matmul__(args[0])
            if func.__name__ in _PRODUCTS:
                a, b = args
                return a.__matmul__(b) if isinstance(a, Matrix) else b.__rmatmul__(a)
        raise TypeError(f"{cls.__name__}: torch's {func.__name__} does not take one; products (@) do")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        makes = next((k for k in ("to_dense", "materialise") if hasattr(self, k)), "dequantize().to_dense")
        raise TypeError(f"{type(self).__name__}: not an array; {makes}() makes one")


class SparseFactor(Matrix):
    """What stands on the left of sparse products: a `CSR`, or what multiplies by functions of its own."""

    __slots__ = ()

    def times(self, product: Callable[..., Any], x: Any, *, bias: Any = None, **kwargs: Any) -> Any:
        """A product of this one by columns: ``product`` of its values, x and more."""
        raise NotImplementedError

    def linear(self, x: Any, *, bias: Any = None, act: str | None = None) -> Any:
        """A product of this one by rows."""
        raise NotImplementedError


def is_factor(a: Any) -> bool:
    """Whether a multiplies by functions of its own."""
    return isinstance(a, SparseFactor) and not isinstance(a, SparseMatrix)


class SparseMatrix(SparseFactor):
    """A `CSR` as other families see it: its values and its pattern, the places of them (``indices``, ``indptr``, ``shape``)."""

    __slots__ = ("_data", "_pattern")

    _data: Array
    _pattern: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, cols = self._pattern.shape
        return rows, cols

    def beside(self, who: str, name: str, x: Array) -> tuple[Array, Any]:
        """Values and pattern in the library of x; a matrix of arrays is a constant among tensors."""
        arrays = isinstance(self._data, np.ndarray)
        if is_tensor(x) and arrays:
            return tensor_of(self._data), self._pattern.tensors()
        if not is_tensor(x) and not arrays:
            raise TypeError(f"{who}: {name} is a NumPy array, the matrix is made of tensors")
        return self._data, self._pattern


#: what makes a `SparseMatrix` of one of another layout or library, or says None: the family that knows how sets it
READERS: list[Callable[[str, str, Any], SparseMatrix | None]] = []


def matrix_of(who: str, name: str, x: Any) -> Any:
    """A sparse matrix of whatever layout and library as a `SparseMatrix`; what is none comes back as it is.

    Errors name the function ``who`` and its argument ``name``.
    """
    if isinstance(x, (SparseMatrix, np.ndarray)):
        return x
    return next((a for read in READERS if (a := read(who, name, x)) is not None), x)


def turned(x: Array) -> Array:
    """The last two axes exchanged; a vector stays."""
    return x if x.ndim < 2 else x.swapaxes(-1, -2)
