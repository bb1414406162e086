"""Which pixels the windows of images hold, as torch's graph sees it: one operator. The one rule: sizes are numbers, known while
tracing, and the places are made when the graph runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tersor._library import opaque
from tersor.hyperbolic._spans import spans, windows


def _places(
    shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int]
) -> tuple[Tensor, Tensor]:
    indices, indptr, _ = windows(tuple(shape), tuple(kernel), tuple(stride), tuple(pad))
    return torch.from_numpy(indices.copy()), torch.from_numpy(indptr.copy())


def _sizes(
    shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int]
) -> tuple[Tensor, Tensor]:
    b, h, w = shape
    ys, xs = spans(h, kernel[0], stride[0], pad[0]), spans(w, kernel[1], stride[1], pad[1])
    entries = sum(top - low for low, top in ys) * sum(top - low for low, top in xs)
    return (
        torch.empty(b * entries, dtype=torch.int64, device="cpu"),
        torch.empty(b * len(ys) * len(xs) + 1, dtype=torch.int64, device="cpu"),
    )


_windows = opaque(
    "hyperbolic_windows(int[] shape, int[] kernel, int[] stride, int[] pad) -> (Tensor, Tensor)",
    _sizes,
    CompositeExplicitAutograd=_places,
)


def places(
    shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], like: Tensor
) -> tuple[Tensor, Tensor]:
    """The places of `windows` on the device of a tensor."""
    indices, indptr = _windows(shape, kernel, stride, pad)
    return indices.to(like.device), indptr.to(like.device)
