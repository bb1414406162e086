"""Quantized folders read back as dense weights: the public name of `tersor.jobs.restore`."""

from tersor.jobs.restore import Known, check, dense, known, of, packed

__all__ = ["Known", "check", "dense", "known", "of", "packed"]
