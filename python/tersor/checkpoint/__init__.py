"""Safetensors files, model folders and GGUF files, as streams. The one rule: a file is not believed until its header was
checked whole, and memory is bounded by a chunk, whatever the file holds.

Files are read with ``pread`` into memory of our own: a mapped file that somebody truncates kills the process.
"""

from tersor._op import FormatError
from tersor.checkpoint._format import Entry
from tersor.checkpoint.gguf import GGUF, GGUFWriter
from tersor.checkpoint.model import Model, load
from tersor.checkpoint.reader import Reader
from tersor.checkpoint.writer import Writer

__all__ = ["GGUF", "Entry", "FormatError", "GGUFWriter", "Model", "Reader", "Writer", "load"]
