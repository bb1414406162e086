"""Rows and columns of a sparse matrix. The one rule: as of a dense one, but what is chosen stays a matrix.

A run of rows is a view of the values, any other choice one gather of them; gradients go back to the values chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor.sparse._parts import Parts
from tersor.sparse._pattern import Pattern
from tersor.sparse._structure import beside, counted, runs

_WHOLE = slice(None)


class Selected(Parts):
    """``a[rows]`` and ``a[rows, cols]``."""

    __slots__ = ()

    #: a matrix is no sequence of rows
    __iter__ = None

    def __getitem__(self, key: Any) -> Any:
        """Rows, or rows and columns: slices, lists or arrays of integers (from the end where negative), or masks.

        Those of a list come in its order, as often as it names them. TypeError for single integers and what is none of these,
        ValueError for places outside.
        """
        rows, cols = key if isinstance(key, tuple) and len(key) == 2 else (key, _WHOLE)
        a = self._rows(rows, "rows")
        if isinstance(cols, slice) and cols.step in (None, 1):
            return a._run_of_columns(*cols.indices(self.shape[1])[:2])
        return a.T._rows(cols, "columns").T

    def _rows(self, key: Any, name: str) -> Any:
        n, p = self.shape[0], self._pattern
        if isinstance(key, slice):
            first, end, step = key.indices(n)
            if (first, end, step) == (0, n, 1):
                return self
            if step == 1:
                end = max(first, end)
                offsets = p.host()[1][first : end + 1]
                run = slice(int(offsets[0]), int(offsets[-1]))
                return self._chosen(run, p.indices[run], offsets - offsets[0], self.shape[1])
            key = np.arange(first, end, step)
        indices, indptr = p.host()  # first, as a trace has no word for lists either
        which = _listed(key, n, name)
        offsets = counted(np.diff(indptr)[which], np.int64)
        places = runs(indptr[which].astype(np.int64), offsets)
        return self._chosen(places, indices[places], offsets, self.shape[1])

    def _run_of_columns(self, first: int, end: int) -> Any:
        end = max(first, end)
        if (first, end) == (0, self.shape[1]):
            return self
        indices, indptr = self._pattern.host()
        places = np.flatnonzero((indices >= first) & (indices < end))
        offsets = np.searchsorted(places, indptr)
        return self._chosen(places, indices[places] - first, offsets, end - first)

    def _chosen(self, places: Any, columns: Any, offsets: np.ndarray, cols: int) -> Any:
        """The entries at these places as a matrix; of a run, its columns are those of this matrix."""
        kind = self._pattern.host()[1].dtype
        offsets = offsets.astype(kind)
        if isinstance(places, slice):
            if is_tensor(self._data):
                import torch

                offsets = torch.from_numpy(offsets).to(self._data.device)
            return self._of(self._data[places], Pattern(columns, offsets, (len(offsets) - 1, cols)))
        pattern = beside(self._data, Pattern(columns.astype(kind, copy=False), offsets, (len(offsets) - 1, cols)))
        if is_tensor(self._data):
            import torch

            places = torch.from_numpy(places).to(self._data.device)
        return self._of(self._data[places], pattern)


def _listed(key: Any, n: int, name: str) -> np.ndarray:
    """What a list, an array or a mask chooses of n."""
    if is_tensor(key):
        key = key.detach().cpu().numpy()
    elif isinstance(key, (list, range)):
        key = np.asarray(key) if len(key) else np.zeros(0, np.int64)
    if not isinstance(key, np.ndarray) or key.dtype.kind not in "bi":
        got = dtype_name(key.dtype) if isinstance(key, np.ndarray) else type(key).__name__
        hint = "; a[i:i + 1] is one row" if hasattr(key, "__index__") else ""
        raise TypeError(f"CSR[...]: {name} must be a slice, integers or a mask, got {got}{hint}")
    if key.ndim != 1:
        raise ValueError(f"CSR[...]: {name} must have one axis, got shape {key.shape}")
    if key.dtype.kind == "b":
        if len(key) != n:
            raise ValueError(f"CSR[...]: a mask of {len(key)} for {n} {name}")
        return np.flatnonzero(key)
    bad = np.flatnonzero((key < -n) | (key >= n))
    if bad.size:
        raise ValueError(f"CSR[...]: {name}[{bad[0]}] = {key[bad[0]]} is outside -{n}..{n - 1}")
    return np.where(key < 0, key + n, key).astype(np.int64)
