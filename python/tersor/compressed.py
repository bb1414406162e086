"""Quantized weights as the `compressed-tensors` package lays them out: the public name of `tersor.jobs.compressed`."""

from tersor.jobs.compressed import Choice, Scheme, choose, configuration, encode, encode_affine, layout, pack, widen

__all__ = ["Choice", "Scheme", "choose", "configuration", "encode", "encode_affine", "layout", "pack", "widen"]
