"""Adam's direction, for what is learned in NumPy too. The one rule: a step is one of size, whatever the slopes'."""

from __future__ import annotations

from typing import Any

from tersor.quant._arguments import Array

_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-12


class Adam:
    """The steps of one array."""

    def __init__(self, xp: Any, x: Array) -> None:
        self.xp, self.mean, self.square, self.steps = xp, xp.zeros_like(x), xp.zeros_like(x), 0

    def step(self, slope: Array) -> Array:
        """The direction of a step against the slope, in units of one."""
        self.steps += 1
        slope = slope.reshape(self.mean.shape)
        self.mean = _MEAN * self.mean + (1 - _MEAN) * slope
        self.square = _SQUARE * self.square + (1 - _SQUARE) * slope * slope
        mean, square = self.mean / (1 - _MEAN**self.steps), self.square / (1 - _SQUARE**self.steps)
        return mean / (self.xp.sqrt(square) + _TINY)
