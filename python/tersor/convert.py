"""Checkpoints quantized as a stream, and read back: the public name of `tersor.jobs.quantize`."""

from tersor.jobs.gguf import write_gguf
from tersor.jobs.quantize import Summary, load, load_encoded, quantize_safetensors

__all__ = ["Summary", "load", "load_encoded", "quantize_safetensors", "write_gguf"]
