"""torch's norms on `tersor.norm`. The one rule: they are torch's layers with another forward: their arguments, parameters,
buffers and states are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor import norm
from tersor._arrays import sizes
from tersor._autocast import autocast_type, off
from tersor.nn._cast import accept, exactly

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "RMSNorm",
    "exchanged",
]


def taken(layer: nn.Module, x: Any, channels: int | None = None) -> None:
    """Raises unless x goes with the layer: floats of the parameters' type, or 16 bits beside float32; so many channels."""
    like = next((p for p in layer._parameters.values() if p is not None), None)
    beside = like is not None and like.dtype == torch.float32 and isinstance(x, Tensor) and x.dtype.itemsize == 2
    accept(layer, x, channels, 1, None if beside else like)


def ends(layer: Any, x: Any) -> None:
    """The same of a norm of the last axes."""
    taken(layer, x)
    shape = layer.normalized_shape
    if tuple(x.shape[-len(shape) :]) != tuple(shape):
        who = type(layer).__name__
        raise ValueError(f"{who}: the input must end in {tuple(shape)}, got shape {sizes(x.shape)}")


def as_it_is(function: Callable[..., Any], x: Tensor, *args: Any, **options: Any) -> Any:
    """``function(x, …)`` with nothing lowered within: as torch's batch norms, what comes in 16 bits goes out so, beside
    float32."""
    if autocast_type(x) is None:
        return function(x, *args, **options)
    with off(x.device.type):
        return function(x, *args, **options)


class LayerNorm(nn.LayerNorm):
    """``torch.nn.LayerNorm`` on `tersor.norm.layer_norm`: no ratio of mean to deviation costs a digit."""

    def forward(self, input: Tensor) -> Tensor:
        ends(self, input)
        return exactly(norm.layer_norm, input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """``torch.nn.RMSNorm`` on `tersor.norm.rms_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        ends(self, x)
        return exactly(norm.rms_norm, x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(nn.GroupNorm):
    """``torch.nn.GroupNorm`` on `tersor.norm.group_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        taken(self, input, self.num_channels)
        return exactly(norm.group_norm, input, self.num_groups, self.weight, self.bias, self.eps)


class Batch(nn.modules.batchnorm._BatchNorm):
    """Running statistics as torch moves them."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"{type(self).__name__}: the input must be [N, C, ...], got shape {sizes(input.shape)}")

    @property
    def _counts(self) -> bool:
        return self.training and self.track_running_stats and self.num_batches_tracked is not None

    def _factor(self) -> Any:
        """How far this batch moves the running statistics, before it is counted."""
        if self.momentum is not None:
            return self.momentum
        return 1.0 / float(self.num_batches_tracked + 1) if self._counts else 0.0

    def _count(self) -> None:
        """Counts this batch, where batches are counted: once nothing can refuse it."""
        if self._counts:
            self.num_batches_tracked.add_(1)

    def _batch(self, input: Tensor, **options: Any) -> Tensor:
        """By the batch, whose statistics are kept, or by the running ones."""
        training = self.training or self.running_mean is None
        kept = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if kept else (None, None)
        affine = self.weight, self.bias
        y: Tensor = norm.batch_norm(input, mean, var, *affine, training, self._factor(), self.eps, **options)
        self._count()
        return y

    def forward(self, input: Tensor) -> Tensor:
        taken(self, input, self.num_features)
        self._check_input_dim(input)
        return as_it_is(self._batch, input)


class BatchNorm1d(Batch, nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` on `tersor.norm.batch_norm`."""


class BatchNorm2d(Batch, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` on `tersor.norm.batch_norm`."""


class BatchNorm3d(Batch, nn.BatchNorm3d):
    """``torch.nn.BatchNorm3d`` on `tersor.norm.batch_norm`."""


class _Instance(nn.modules.instancenorm._InstanceNorm):
    """Each sample by itself; one that tracks statistics is torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        taken(self, input)
        self._check_input_dim(input)
        if self.track_running_stats:
            return super().forward(input)
        batch = input if input.ndim > self._get_no_batch_dim() else input[None]
        if self.training and batch.shape[2:].numel() == 1:
            raise ValueError(f"{type(self).__name__}: one element has no variance, got shape {sizes(input.shape)}")
        if batch.shape[1] != self.num_features:
            raise ValueError(f"{type(self).__name__}: {self.num_features} channels are taken, got {sizes(input.shape)}")
        return exactly(norm.instance_norm, batch, self.weight, self.bias, self.eps).reshape(input.shape)


class InstanceNorm1d(_Instance, nn.InstanceNorm1d):
    """``torch.nn.InstanceNorm1d`` on `tersor.norm.instance_norm`."""


class InstanceNorm2d(_Instance, nn.InstanceNorm2d):
    """``torch.nn.InstanceNorm2d`` on `tersor.norm.instance_norm`."""


class InstanceNorm3d(_Instance, nn.InstanceNorm3d):
    """``torch.nn.InstanceNorm3d`` on `tersor.norm.instance_norm`."""


#: torch's norms and ours, both ways
OURS: dict[type, type] = {
    nn.LayerNorm: LayerNorm,
    nn.RMSNorm: RMSNorm,
    nn.GroupNorm: GroupNorm,
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
    nn.InstanceNorm1d: InstanceNorm1d,
    nn.InstanceNorm2d: InstanceNorm2d,
    nn.InstanceNorm3d: InstanceNorm3d,
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}


def exchanged(layer: Any) -> Any:
    """The same norm, torch's as ours and ours as torch's: with its own parameters, buffers, hooks and mode."""
    kind = OURS.get(type(layer)) or THEIRS.get(type(layer))
    if kind is None:
        torchs = type(layer).__module__.startswith("torch.")
        raise TypeError(f"a {type(layer).__name__} " + ("stays torch's" if torchs else "of its own class"))
    if "forward" in vars(layer):
        raise TypeError("a forward of its own")
    if getattr(layer, "track_running_stats", False) and isinstance(layer, nn.modules.instancenorm._InstanceNorm):
        raise TypeError("instance norms that track statistics are torch's")
    new: nn.Module = object.__new__(kind)
    new.__dict__ = layer.__dict__.copy()
    return new
