"""Weights turned along one of their axes. The one rule: the signs of a turn are the same ones every time, and what is turned in
one weight is turned back in the next."""

from __future__ import annotations

from typing import Any

import torch

from tersor._layers import transposed
from tersor.quant.hadamard import drawn, hadamard


def turned(w: torch.Tensor, size: int, axis: int, signs: bool = True) -> torch.Tensor:
    """A weight whose numbers along an axis are turned, so many at a time."""
    s = torch.from_numpy(drawn(size)) if signs else None
    rows = w.detach().double().cpu().movedim(axis, -1)
    y = hadamard(rows.reshape(*rows.shape[:-1], -1, size), signs=s).reshape(rows.shape)
    return y.movedim(-1, axis).to(w)


def shuffled(w: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """The same of a rotation that no type rounds: numbers in the other order, half of them with the other sign."""
    s = torch.from_numpy(drawn(size)).to(w)
    rows = w.detach().movedim(axis, -1)
    y = (rows.reshape(*rows.shape[:-1], -1, size).flip(-1) * s).reshape(rows.shape)
    return y.movedim(-1, axis)


def signed(w: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """The same of signs alone, with which sums stay those of the same numbers in the same order."""
    return (w.detach().movedim(axis, -1) * torch.from_numpy(drawn(size)).to(w)).movedim(-1, axis)


def laid(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """A weight [out, in] as the layer's parameter lies."""
    return weight.t() if transposed(layer) else weight
