"""Which pixels the windows of images hold. The one rule: windows have no part in what lies past the border."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


def spans(size: int, k: int, step: int, edge: int) -> list[tuple[int, int]]:
    """Where the windows along one axis begin and end, without what lies past the border."""
    return [(max(i, 0), min(i + k, size)) for i in range(-edge, size + edge - k + 1, step)]


@functools.lru_cache(maxsize=16)
def windows(shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]) -> Any:
    """Rows and offsets of the windows of images [B, H, W], those at the border without what lies outside."""
    b, h, w = shape
    ys = [np.arange(*s) for s in spans(h, kernel[0], stride[0], pad[0])]
    xs = [np.arange(*s) for s in spans(w, kernel[1], stride[1], pad[1])]
    one = [np.add.outer(y * w, x).reshape(-1) for y in ys for x in xs]
    counts = np.array([len(v) for v in one], np.int64)
    flat = np.concatenate(one) if one else np.zeros(0, np.int64)
    indices = (np.arange(b)[:, None] * (h * w) + flat).reshape(-1).astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(np.tile(counts, b))]).astype(np.int64)
    indices.flags.writeable = indptr.flags.writeable = False
    return indices, indptr, (len(ys), len(xs))
