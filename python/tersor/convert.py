"""Checkpoints quantized as a stream, and read back: the public name of `tersor.jobs.quantize`."""

from tersor.jobs.quantize import Summary, load, quantize_safetensors

__all__ = ["Summary", "load", "quantize_safetensors"]
