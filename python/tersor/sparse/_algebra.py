"""Sums and multiples of sparse matrices. The one rule: 16-bit values are computed in float32 and rounded once, sums in float64;
everything is a function of the values through which gradients go."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor._matrix import matrix_of
from tersor._values import called, check_values, tensor_of
from tersor.sparse._operators import csr_sort
from tersor.sparse._parts import Parts
from tersor.sparse._pattern import Pattern
from tersor.sparse._structure import as_type, beside, counted, index_type, runs, summed, widened

Array = Any


class Algebra(Parts):
    """What is added, scaled and read off a `CSR`."""

    __slots__ = ()

    def scale(self, rows: Array = None, cols: Array = None) -> Any:
        r"""Rows and columns times a number each, :math:`\mathrm{diag}(r)\, A\, \mathrm{diag}(c)`; one rounding of the product.

        ``rows`` [M] and ``cols`` [K] are of the type of the matrix; either may be absent. Differentiable with respect to all
        three, twice too. A normalised adjacency is ``a.scale(rows=d, cols=d)`` with ``d = a.sum(1) ** -0.5``.
        """
        a, factors = self, []
        for name, x, n in (("rows", rows, self.shape[0]), ("cols", cols, self.shape[1])):
            if x is not None:
                check_values("CSR.scale", name, x)
                if tuple(x.shape) != (n,):
                    raise ValueError(f"CSR.scale: {name} has shape {tuple(x.shape)}, the matrix {n} {name}")
                a = self._of(*self.beside("CSR.scale", name, x))
                if x.dtype != a.dtype:
                    raise TypeError(f"CSR.scale: {name} is {dtype_name(x.dtype)}, the matrix {dtype_name(a.dtype)}")
                if is_tensor(x) and x.device != a._data.device:
                    raise ValueError(f"CSR.scale: {name} is on {x.device}, the matrix on {a._data.device}")
        p = a._pattern
        for x, at in ((rows, p.rows), (cols, lambda: p.indices)):
            if x is not None:
                if is_tensor(x) != is_tensor(a._data):
                    raise TypeError("CSR.scale: rows and cols must be of one library")
                factors.append(x[at()])
        if not factors:
            return self
        data = widened(a._data)
        for x in factors:
            data = data * widened(x)
        return self._of(as_type(data, a.dtype), p)

    def sum(self, axis: int | None = None) -> Array:
        """Sums of columns (axis 0), of rows (axis 1) or of everything (None), in float64, rounded once. Differentiable."""
        if axis not in (None, 0, 1, -1, -2) or isinstance(axis, bool):
            raise ValueError(f"CSR.sum: axis must be 0, 1 or None, got {axis!r}")
        if axis in (0, -2):
            return self.T.sum(1)
        starts = self._pattern.indptr
        if axis is None:
            return self.sum(1).sum() if not self.nnz else _one(self._data)
        wide = self._data.double() if is_tensor(self._data) else self._data.astype(np.float64)
        return as_type(summed(wide, starts), self.dtype)

    def diagonal(self) -> Array:
        """The elements at (i, i), entries of equal place added. Differentiable."""
        indices, indptr = self._pattern.host()
        n = min(self.shape)
        row = np.repeat(np.arange(self.shape[0]), np.diff(indptr))
        places = np.flatnonzero(indices == row)
        starts = np.searchsorted(places, indptr[: n + 1]).astype(indptr.dtype)
        if is_tensor(self._data):
            import torch

            places, starts = (torch.from_numpy(x).to(self._data.device) for x in (places, starts))
        return summed(self._data[places], starts)

    def __add__(self, other: Any) -> Any:
        """The sum of two matrices, one entry for each place. Differentiable. TypeError for what is no `CSR` of this type."""
        other = matrix_of("CSR + CSR", "the other", other)
        if not isinstance(other, Algebra):
            return NotImplemented
        if other.shape != self.shape:
            raise ValueError(f"CSR + CSR: the shapes are {self.shape} and {other.shape}")
        if dtype_name(other.dtype) != dtype_name(self.dtype):
            raise TypeError(f"CSR + CSR: {dtype_name(self.dtype)} and {dtype_name(other.dtype)}; astype makes them one")
        tensors = is_tensor(self._data) or is_tensor(other._data)
        a, b = self.sum_duplicates(), other.sum_duplicates()  # each first, so that a - a is 0
        datas = [tensor_of(x) if tensors and not is_tensor(x) else x for x in (a._data, b._data)]
        if tensors and datas[0].device != datas[1].device:
            raise ValueError(f"CSR + CSR: on {datas[0].device} and {datas[1].device}")
        pattern, order = _joined(a._pattern, b._pattern)
        if tensors:
            import torch

            data = torch.cat(datas)[torch.from_numpy(order).to(datas[0].device)]
        else:
            data = np.concatenate(datas)[order]
        return self._of(data, beside(data, pattern)).sum_duplicates()

    def __neg__(self) -> Any:
        return self._of(-self._data, self._pattern)

    def __sub__(self, other: Any) -> Any:
        other = matrix_of("CSR - CSR", "the other", other)
        return self + -other if isinstance(other, Algebra) else NotImplemented

    def __mul__(self, number: Any) -> Any:
        """Every value times a number. Products of matrices and with arrays are ``@``, with vectors along an axis `scale`."""
        if not isinstance(number, numbers.Real):
            return NotImplemented
        return self._of(as_type(widened(self._data) * float(number), self.dtype), self._pattern)

    __rmul__ = __mul__

    def __truediv__(self, number: Any) -> Any:
        if not isinstance(number, numbers.Real):
            return NotImplemented
        return self._of(as_type(widened(self._data) / float(number), self.dtype), self._pattern)


def _one(data: Array) -> Array:
    """The sum of all values: blocks of them first, so that no sum is longer than the root of their number."""
    n = len(data)
    step = max(int(n**0.5), 1)
    starts = np.minimum(np.arange(0, n + step, step), n)
    wide = data.double() if is_tensor(data) else data.astype(np.float64)
    parts = summed(wide, starts)
    total = summed(parts, np.array([0, len(parts)]))[0]
    return as_type(total, data.dtype)


def _joined(a: Pattern, b: Pattern) -> tuple[Pattern, np.ndarray]:
    """The places of two patterns, those of a before equal ones of b, and where each stands in both lists together."""
    (ia, pa), (ib, pb) = a.host(), b.host()
    kind = index_type(*a.shape, len(ia) + len(ib))
    offsets = counted(np.diff(pa).astype(np.int64) + np.diff(pb), np.int64)
    columns, order = (np.empty(len(ia) + len(ib), kind) for _ in range(2))
    for indices, indptr, starts, first in (
        (ia, pa, offsets[:-1], 0),
        (ib, pb, offsets[:-1] + np.diff(pa), len(ia)),
    ):
        at = runs(starts, indptr.astype(np.int64))
        columns[at], order[at] = indices, np.arange(first, first + len(at), dtype=kind)
    columns, offsets, perm = called("CSR + CSR", csr_sort, columns, offsets.astype(kind), a.shape[1], kind is np.int64)
    return Pattern(columns, offsets, a.shape), order[perm]
