"""Checkpoints quantized as a stream, and read back: the public name of `tersor.jobs.quantize`."""

from tersor.jobs.gguf import write_gguf
from tersor.jobs.quantize import Summary, load, load_encoded, quantize_safetensors
from tersor.jobs.repack import Repacked, repack

__all__ = ["Repacked", "Summary", "load", "load_encoded", "quantize_safetensors", "repack", "write_gguf"]
