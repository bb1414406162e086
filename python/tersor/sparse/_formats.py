"""Other layouts of a sparse matrix. The one rule: parts as other libraries have them, checked where they become a `CSR` again.

What is computed is computed by rows; these are ways in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor._matrix import KINDS, matrix_of

Array = Any


@dataclass(frozen=True, eq=False)
class Layout:
    """Values, their places and the shape of the whole."""

    data: Array

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    def to_csr(self) -> Any:
        """The `CSR`, checked. Differentiable with respect to data."""
        return matrix_of(f"{type(self).__name__}.to_csr", "", self)

    def to_dense(self) -> Array:
        """The dense matrix, as that of the `CSR`."""
        return self.to_csr().to_dense()

    def _checked(self, door: str) -> None:
        """Refuses parts that are no matrix: the other libraries look at some of them, and SciPy at few."""
        matrix_of(f"{type(self).__name__}.{door}", "", self)

    def _plain(self, *names: str) -> tuple[Any, ...]:
        """Parts as NumPy has them, copied."""
        self._checked("to_scipy")
        if dtype_name(self.dtype) not in ("float32", "float64"):
            raise TypeError(f"{type(self).__name__}.to_scipy: SciPy has no matrices of {dtype_name(self.dtype)}")
        parts = (getattr(self, name) for name in names)
        return tuple(x.detach().cpu().numpy().copy() if is_tensor(x) else np.array(x) for x in parts)

    def _tensors(self, *names: str) -> tuple[Any, ...]:
        """Parts as torch has them, copied; a gradient goes to the values."""
        import torch

        self._checked("to_torch")
        return tuple(
            x.clone() if is_tensor(x) else torch.from_numpy(np.array(x)) for x in (getattr(self, n) for n in names)
        )


@dataclass(frozen=True, eq=False)
class CSC(Layout):
    """A sparse matrix by columns: column k has its entries at ``indptr[k]:indptr[k + 1]`` of ``data`` and ``indices``.

    Attributes
    ----------
    data : array or tensor [nnz], of a float type
    indices : array or tensor [nnz], int32 or int64
        Row of each entry.
    indptr : array or tensor [cols + 1], int32 or int64
    shape : (int, int)
    """

    indices: Array
    indptr: Array
    shape: tuple[int, int]

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.csc_array`` of copies."""
        import scipy.sparse

        return scipy.sparse.csc_array(self._plain("data", "indices", "indptr"), shape=self.shape)

    def to_torch(self) -> Any:
        """A ``torch.sparse_csc_tensor`` of copies; repeated places, which torch does not allow, are added up."""
        import torch

        one = self.to_csr().sum_duplicates().to_csc()
        data, indices, indptr = one._tensors("data", "indices", "indptr")
        return torch.sparse_csc_tensor(indptr, indices, data, self.shape, check_invariants=True)


@dataclass(frozen=True, eq=False)
class COO(Layout):
    """A sparse matrix by places: entry e is ``data[e]`` at (``rows[e]``, ``cols[e]``), in any order.

    Attributes
    ----------
    data : array or tensor [nnz], of a float type
    rows, cols : arrays or tensors [nnz], int32 or int64
    shape : (int, int)
    """

    rows: Array
    cols: Array
    shape: tuple[int, int]

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.coo_array`` of copies; repeated places stay."""
        import scipy.sparse

        data, rows, cols = self._plain("data", "rows", "cols")
        return scipy.sparse.coo_array((data, (rows, cols)), shape=self.shape)

    def to_torch(self) -> Any:
        """A ``torch.sparse_coo_tensor`` of copies; repeated places stay."""
        import torch

        data, rows, cols = self._tensors("data", "rows", "cols")
        return torch.sparse_coo_tensor(torch.stack([rows, cols]), data, self.shape, check_invariants=True)


@dataclass(frozen=True, eq=False)
class BSR(Layout):
    """A sparse matrix in dense blocks: row i of blocks has those at ``indptr[i]:indptr[i + 1]`` of ``data`` and ``indices``.

    Attributes
    ----------
    data : array or tensor [blocks, r, c], of a float type
    indices : array or tensor [blocks], int32 or int64
        The column of each block, in blocks.
    indptr : array or tensor [rows / r + 1], int32 or int64
    shape : (int, int)
        In elements; r and c divide it. As a `CSR` every element of a block is stored, zeros too.
    """

    indices: Array
    indptr: Array
    shape: tuple[int, int]

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.bsr_array`` of copies."""
        import scipy.sparse

        return scipy.sparse.bsr_array(self._plain("data", "indices", "indptr"), shape=self.shape)

    def to_torch(self) -> Any:
        """A ``torch.sparse_bsr_tensor`` of copies."""
        import torch

        data, indices, indptr = self._tensors("data", "indices", "indptr")
        return torch.sparse_bsr_tensor(indptr, indices, data, self.shape, check_invariants=True)


KINDS["COO"] = COO
