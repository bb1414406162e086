"""Checkpoints quantized as a stream, and read back: the public names of `tersor.jobs`."""

from tersor.jobs.gguf import write_gguf
from tersor.jobs.load import load, load_encoded
from tersor.jobs.quantize import Summary, quantize_safetensors
from tersor.jobs.repack import Repacked, repack

__all__ = ["Repacked", "Summary", "load", "load_encoded", "quantize_safetensors", "repack", "write_gguf"]
