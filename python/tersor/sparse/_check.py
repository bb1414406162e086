"""The parts of a sparse matrix as they are given. The one rule: errors are in the words of who calls, not of an operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor
from tersor._values import check_dense

Array = Any


def checked_shape(shape: Sequence[int], who: str = "CSR") -> tuple[int, int]:
    try:
        rows, cols = (int(n.__index__()) for n in shape)
    except (TypeError, AttributeError, ValueError):
        raise TypeError(f"{who}: shape must be two integers, got {shape!r}") from None
    if not (0 <= rows < 2**63 - 1 and 0 <= cols < 2**63 - 1):
        raise ValueError(f"{who}: shape must not be negative or beyond 2^63, got {shape!r}")
    return rows, cols


def checked_indices(name: str, x: Any, data: Array, who: str = "CSR") -> Array:
    """An array; without values, a tensor on the device "meta"."""
    if is_tensor(x) and dtype_name(x.dtype) in ("int32", "int64"):
        bare = x.device.type == "meta"
        if bare != (is_tensor(data) and data.device.type == "meta") and bare:
            raise ValueError(f"{who}: {name} is on meta, data is not")
        check_dense(who, name, x)
        x = x.detach() if bare else _read(who, name, x)
    if not isinstance(x, np.ndarray) and not is_tensor(x):
        raise TypeError(f"{who}: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{who}: {name} must be a plain array, got a masked one")
    if dtype_name(x.dtype) not in ("int32", "int64"):
        raise TypeError(f"{who}: {name} must be int32 or int64, got {dtype_name(x.dtype)}")
    if x.ndim != 1:
        raise ValueError(f"{who}: {name} must have one axis, got shape {tuple(x.shape)}")
    return x


def _read(who: str, name: str, x: Any) -> np.ndarray:
    import torch

    from tersor._memory import lack

    if type(x).__name__ == "FakeTensor":
        raise TypeError(f"{who}: {name} must have values, got a FakeTensor")
    if torch._C._are_functorch_transforms_active() and (why := lack(x)) is not None:
        raise TypeError(f"{who}: {name} must be a tensor whose numbers can be read, got {why}; make the matrix before")
    x = x.detach()
    if type(x) is not torch.Tensor:  # a subclass has its own ways, its plain part none
        x = x.as_subclass(torch.Tensor)
    return x.cpu().numpy()


def name_outside(columns: np.ndarray, offsets: np.ndarray, cols: int) -> None:
    """The error of the first column outside, in the words of who counts from 0 to the last."""
    bad = np.flatnonzero((columns < 0) | (columns >= cols))
    if not bad.size or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(columns):
        return
    row = int(np.searchsorted(offsets, bad[0], side="right")) - 1
    room = f"outside 0..{cols - 1}" if cols else "outside a matrix without columns"
    raise ValueError(f"CSR: indices[{bad[0]}] = {columns[bad[0]]} (row {row}) is {room}") from None
