"""Safetensors files and model folders, as streams. The one rule: a file is not believed until its header was checked whole,
and memory is bounded by a chunk, whatever the file holds.

Files are read with ``pread`` into memory of our own: a mapped file that somebody truncates kills the process.
"""

from tersor._op import FormatError
from tersor.checkpoint._format import Entry
from tersor.checkpoint.model import Model, load
from tersor.checkpoint.reader import Reader
from tersor.checkpoint.writer import Writer

__all__ = ["Entry", "FormatError", "Model", "Reader", "Writer", "load"]
