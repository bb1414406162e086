"""The ways out of a sparse matrix: other types and devices, other layouts, other libraries. The one rule: what another library
is given is a copy, and a gradient goes back through it where that library lets it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import FLOATS, as_type, dtype_name, is_tensor
from tersor._values import called, float_name, tensor_of
from tersor.sparse._formats import BSR, COO, CSC
from tersor.sparse._operators import csr_dense
from tersor.sparse._parts import Parts, given_out
from tersor.sparse._structure import beside, index_type, placed, put_at, summed

Array = Any


def _hidden(x: Any) -> str | None:
    """Where values are that no other library can be given."""
    from tersor.sparse import _seen

    where: str | None = _seen.hidden(x, whole=True)
    return where


class Converted(Parts):
    """The conversions of a `CSR`."""

    __slots__ = ()

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """On another device, or of another float type, as ``torch.Tensor.to``: for matrices of tensors. Differentiable."""
        if not is_tensor(self._data):
            raise TypeError(
                "CSR.to: the matrix is made of NumPy arrays; astype changes their type, with_data takes tensors"
            )
        data = self._data.to(*args, **kwargs)
        if dtype_name(data.dtype) not in FLOATS:
            raise TypeError(f"CSR.to: a matrix is float64, float32, float16 or bfloat16, got {dtype_name(data.dtype)}")
        return self._of(data, self._pattern.to(data.device))

    def astype(self, dtype: Any) -> Any:
        """Of another float type, rounded to nearest; a name or a type of either library. Differentiable."""
        name = float_name(dtype)
        if name not in FLOATS:
            raise TypeError(f"CSR.astype: dtype must be float64, float32, float16 or bfloat16, got {name}")
        return self._of(as_type(self._data, name), self._pattern)

    def detach(self) -> Any:
        """The same values outside the graph, in the same memory, as ``torch.Tensor.detach``."""
        return self._of(self._data.detach() if is_tensor(self._data) else self._data, self._pattern)

    def to_dense(self) -> Array:
        """The dense matrix, an array or a tensor; differentiable with respect to data. rows × cols elements are written."""
        p = self._pattern
        if is_tensor(self._data) and self._data.device.type not in ("cpu", "meta"):
            places = p.rows(), p.indices.long()
            return put_at(self._data, p.shape, places)
        return called("CSR.to_dense", csr_dense, self._data, p.indices, p.indptr, p.shape[1])

    def to_csc(self) -> CSC:
        """By columns: the parts of the transpose."""
        a = self.T
        return CSC(a.data, a.indices, a.indptr, self.shape)

    def to_coo(self) -> COO:
        """By places: the row and the column of every entry, row by row."""
        return COO(self.data, given_out(self._pattern.rows()), self.indices, self.shape)

    def to_bsr(self, block: tuple[int, int]) -> BSR:
        """In dense blocks that hold at least one entry, ``block`` rows and columns each, 0 where nothing is stored.

        Entries of equal place are added; differentiable. ValueError where the blocks do not divide the shape.
        """
        try:
            r, c = (int(n.__index__()) for n in block)
        except (TypeError, AttributeError, ValueError):
            raise TypeError(f"CSR.to_bsr: block must be two integers, got {block!r}") from None
        rows, cols = self.shape
        if r < 1 or c < 1 or rows % r or cols % c:
            raise ValueError(f"CSR.to_bsr: blocks of {r}×{c} do not divide a matrix of {rows}×{cols}")
        indices, indptr = self._pattern.host()
        row = np.repeat(np.arange(rows), np.diff(indptr))
        column, size = indices.astype(np.int64), r * c
        # a row of blocks is a row whose columns are the elements of its blocks, one block after another
        inside = column // c * size + row % r * c + column % c
        columns, offsets, order = placed("CSR.to_bsr", row // r, inside, (rows // r, cols * r))
        new = np.ones(len(columns), bool)
        at = columns // size
        np.not_equal(at[1:], at[:-1], out=new[1:])
        new[offsets[:-1][np.diff(offsets) > 0]] = True
        kind = index_type(rows, cols, len(columns))
        starts = np.append(np.flatnonzero(new), len(columns)).astype(columns.dtype)
        blocks = np.append(0, np.cumsum(new))[offsets].astype(kind)
        at = at[new].astype(kind)
        inner = columns % size
        if is_tensor(self._data):
            import torch

            on = self._data.device
            order, inner, starts, at, blocks = (torch.from_numpy(x).to(on) for x in (order, inner, starts, at, blocks))
        dense = self._of_blocks(self._data[order], inner, starts, size)
        return BSR(dense.reshape(len(at), r, c), at, blocks, self.shape)

    @staticmethod
    def _of_blocks(data: Array, inside: Array, starts: Array, size: int) -> Array:
        if is_tensor(data) and data.device.type not in ("cpu", "meta"):
            import torch

            block = torch.repeat_interleave(starts.diff().long(), output_size=len(data))
            return put_at(data, (len(starts) - 1, size), (block, inside.long()))
        return called("CSR.to_bsr", csr_dense, data, inside, starts, size)

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.csr_array`` of copies; repeated places stay. SciPy has no 16-bit floats (TypeError).

        Other layouts: ``a.to_csc().to_scipy()``, and so for `to_coo` and `to_bsr`.
        """
        import scipy.sparse

        if dtype_name(self.dtype) not in ("float32", "float64"):
            raise TypeError(f"CSR.to_scipy: SciPy has no matrices of {dtype_name(self.dtype)}")
        parts = (self._data, self._pattern.indices, self._pattern.indptr)
        if not isinstance(self._data, np.ndarray):
            if (where := _hidden(self._data)) is not None:
                raise ValueError(f"CSR.to_scipy: the values of a matrix {where} cannot be given to SciPy")
            parts = tuple(t.detach().cpu().numpy() for t in parts)
        a = scipy.sparse.csr_array(parts, shape=self.shape, copy=True)
        a.has_sorted_indices = True
        return a

    def to_torch(self) -> Any:
        """A ``torch.sparse_csr_tensor`` of copies; repeated places, which torch does not allow, are added up. Differentiable.

        Other layouts: ``a.to_csc().to_torch()``, and so for `to_coo` and `to_bsr`.
        """
        import torch

        data = self._data if is_tensor(self._data) else tensor_of(self._data)
        if data.device.type == "meta":
            # torch's own layout has no values to compare either: places are taken as distinct
            p = self._pattern
            return torch.sparse_csr_tensor(p.indptr, p.indices, data, self.shape, check_invariants=False)
        if (where := _hidden(data)) is not None:
            raise ValueError(f"CSR.to_torch: torch has no sparse tensors {where}; to_dense() is an array")
        pattern, starts = self._pattern.merged()
        data = data.clone() if starts is None else summed(data, starts)
        p = beside(data, pattern)
        return torch.sparse_csr_tensor(p.indptr.clone(), p.indices.clone(), data, self.shape, check_invariants=True)
