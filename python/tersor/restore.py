"""Quantized folders read back as dense weights: the public name of `tersor.jobs.restore`."""

from tersor.jobs.declared import Known, check, known, of
from tersor.jobs.restore import dense, packed

__all__ = ["Known", "check", "dense", "known", "of", "packed"]
