"""Quantized weights as the `compressed-tensors` package lays them out: the public names of `tersor.jobs`."""

from tersor.jobs.choice import Choice, choose, configuration
from tersor.jobs.compressed import Scheme, encode, encode_affine, layout, pack, widen

__all__ = ["Choice", "Scheme", "choose", "configuration", "encode", "encode_affine", "layout", "pack", "widen"]
