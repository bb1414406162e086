"""The places of a sparse matrix's entries. The one rule: a pattern is never written to, and never handed out but as a copy.

What two threads may make at once is a function of the structure and is set in one assignment.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from tersor._values import called, lasting, speaker
from tersor.sparse._operators import csr_lanes, csr_transpose

Array = Any

#: beyond these, offsets do not fit the places of lanes
LONGEST = 2**31 - 1
#: bytes of as many numbers as there are rows, up to which lanes are faster than panels
FEW = 64


class Pattern:
    """The places of a matrix's entries, shared by all matrices with the same; what is derived from them is kept here.

    ``perm`` says where each entry stood when it was given, None if as it stands.
    """

    __slots__ = ("_lanes", "_merged", "_transposed", "_turned", "_twin", "indices", "indptr", "perm", "shape")

    def __init__(self, indices: Array, indptr: Array, shape: tuple[int, int], perm: Array = None) -> None:
        self.indices = indices
        self.indptr = indptr
        self.shape = shape
        self.perm = perm
        # all are functions of the structure, set in one assignment: two threads may make them, either is right
        self._transposed: tuple[Any, Any, Any] | None = None
        self._turned: Pattern | None = None
        self._twin: Pattern | None = None
        self._merged: tuple[Pattern | None, Any] | None = None
        self._lanes: tuple[Any, Any] | None = None

    @classmethod
    def distinct(cls, indices: Array, indptr: Array, shape: tuple[int, int]) -> Pattern:
        """A pattern whose places are known to differ."""
        made = cls(indices, indptr, shape)
        made._merged = None, None
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Pattern, (self.indices, self.indptr, self.shape, self.perm)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pattern:
        if isinstance(self.indices, np.ndarray):
            return self
        return self._made(*(copy.deepcopy(t, memo) for t in (self.indices, self.indptr, self.perm)))

    def _made(self, indices: Array, indptr: Array, perm: Array) -> Pattern:
        """The same places in other arrays."""
        made = Pattern(indices, indptr, self.shape, perm)
        if self._merged == (None, None):
            made._merged = None, None
        return made

    def transposed(self) -> tuple[Any, Any, Any]:
        """Where each entry of the transpose stands here, its indices, its offsets."""
        done = self._transposed
        if done is None:
            indices, indptr, cols = self.indices, self.indptr, self.shape[1]
            if isinstance(indices, np.ndarray) or indices.device.type in ("cpu", "meta"):
                rows, offsets, perm = called(speaker("CSR"), csr_transpose, indices, indptr, cols)
            else:
                on = indices.device
                rows, offsets, perm = (
                    t.to(on) for t in called(speaker("CSR"), csr_transpose, indices.cpu(), indptr.cpu(), cols)
                )
            done = perm, rows, offsets
            if isinstance(indices, np.ndarray) or lasting(indices, perm):
                self._transposed = done
        return done

    def turned(self) -> Pattern:
        """The pattern of the transpose, whose entries stood where they stand here, or where those here stood."""
        done = self._turned
        if done is None:
            perm, rows, offsets = self.transposed()
            done = Pattern(rows, offsets, self.shape[::-1], perm if self.perm is None else self.perm[perm])
            if self._merged == (None, None):
                done._merged = None, None
            if self._transposed is not None:
                self._turned = done
        return done

    def merged(self) -> tuple[Pattern, Any]:
        """The pattern with one entry for each place, and where the entries of each begin here; itself where places differ."""
        done = self._merged
        if done is None:
            indices, indptr = self.host()
            fresh = np.ones(len(indices), bool)
            np.not_equal(indices[1:], indices[:-1], out=fresh[1:])
            fresh[indptr[:-1][np.diff(indptr) > 0]] = True
            done = None, None
            if not fresh.all():
                starts = np.append(np.flatnonzero(fresh), len(indices)).astype(indptr.dtype)
                offsets = np.append(0, np.cumsum(fresh))[indptr].astype(indptr.dtype)
                pattern = Pattern.distinct(indices[fresh], offsets, self.shape)
                done = (
                    (pattern if isinstance(self.indices, np.ndarray) else pattern.tensors().to(self.indices.device)),
                    starts,
                )
            self._merged = done
        return done[0] or self, done[1]

    def host(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices and offsets as NumPy reads them, which must not write."""
        if isinstance(self.indices, np.ndarray):
            return self.indices, self.indptr
        from tersor.sparse import _seen

        return _seen.read("CSR", "the places of a matrix", self.indices), _seen.read("CSR", "indptr", self.indptr)

    def lanes(self) -> tuple[Any, Any]:
        """The columns as products with a few vectors read them, and the order of the rows; of patterns on the CPU."""
        done = self._lanes
        if done is None:
            done = called(speaker("CSR"), csr_lanes, self.indices, self.indptr, self.shape[1])
            if isinstance(self.indices, np.ndarray) or lasting(self.indices, done[0]):
                self._lanes = done
        return done

    def brief(self, x: Array) -> bool:
        """Whether a product with rows x takes lanes."""
        few = math.prod(x.shape[:-1]) * max(x.dtype.itemsize, 4) <= FEW
        return few and max(self.shape[1], self.indices.shape[0]) <= LONGEST

    def rows(self) -> Any:
        """The row of each entry."""
        if isinstance(self.indices, np.ndarray):
            return np.repeat(np.arange(self.shape[0], dtype=self.indices.dtype), np.diff(self.indptr))
        import torch

        lengths = (self.indptr[1:] - self.indptr[:-1]).long()
        rows = torch.arange(self.shape[0], device=lengths.device)
        return torch.repeat_interleave(rows, lengths, output_size=self.indices.shape[0])

    def to(self, device: Any) -> Pattern:
        """The same pattern on a device."""
        if self.indices.device == device:
            return self
        return self._made(*(None if t is None else t.to(device) for t in (self.indices, self.indptr, self.perm)))

    def tensors(self) -> Pattern:
        """The same pattern in tensors on the CPU."""
        if not isinstance(self.indices, np.ndarray):
            return self
        twin = self._twin
        if twin is None:
            import torch

            parts = [None if x is None else torch.from_numpy(x) for x in (self.indices, self.indptr, self.perm)]
            twin = self._made(*parts)
            if lasting(twin.indices):
                self._twin = twin
        return twin
