"""A sparse matrix as its values and its pattern. The one rule: nothing that it hands out leads back to its places."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor._matrix import SparseMatrix
from tersor.sparse._pattern import Pattern
from tersor.sparse._structure import summed, taken

Array = Any


class Placed:
    """What has a pattern shows its places."""

    __slots__ = ()

    _pattern: Pattern

    @property
    def indices(self) -> Array:
        return given_out(self._pattern.indices)

    @property
    def indptr(self) -> Array:
        return given_out(self._pattern.indptr)


class Parts(Placed, SparseMatrix):
    """What every part of a `CSR` stands on."""

    __slots__ = ()

    @classmethod
    def _of(cls, data: Array, pattern: Pattern) -> Any:
        a = cls.__new__(cls)
        a._data = data
        a._pattern = pattern
        return a

    @property
    def data(self) -> Array:
        return self._data if is_tensor(self._data) else given_out(self._data)

    @property
    def perm(self) -> Array:
        p = self._pattern
        if p.perm is not None:
            return given_out(p.perm)
        if is_tensor(p.indices):
            return p.indices.new_ones(self.nnz).cumsum(0, dtype=p.indices.dtype) - 1
        perm = np.arange(self.nnz, dtype=p.indices.dtype)
        perm.flags.writeable = False
        return perm

    @property
    def dtype(self) -> Any:
        return self._data.dtype

    @property
    def nnz(self) -> int:
        """Stored entries, explicit zeros and repeated places among them."""
        return int(self._data.shape[0])

    @property
    def T(self) -> Any:
        """The transpose. One pass; its structure is made once, ``a.T.T`` is a again, and ``perm`` still says where each entry
        stood when it was given: ``a.T.with_data(v, order="given")`` is the transpose of ``a.with_data(v, order="given")``."""
        data, perm = self._data, self._pattern.transposed()[0]
        return self._of(taken(data, perm), self._pattern.turned())

    def sum_duplicates(self) -> Any:
        """The matrix with one entry for each place, entries of equal place added in their order. Differentiable.

        Itself where places differ already. Two reads of the structure, once.
        """
        pattern, starts = self._pattern.merged()
        return self if starts is None else self._of(summed(self._data, starts), pattern)

    def __repr__(self) -> str:
        rows, cols = self.shape
        where = "NumPy" if isinstance(self._data, np.ndarray) else f"torch, {self._data.device}"
        return f"CSR({rows}×{cols}, {self.nnz} entries of {dtype_name(self.dtype)}, {where})"


def given_out(x: Array) -> Array:
    """A copy, read-only where there is such a thing: read-only views can be written to through other libraries."""
    if is_tensor(x):
        return x.clone()
    x = x.copy()
    x.flags.writeable = False
    return x
