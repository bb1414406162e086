"""What a tensor's numbers look like, from their bits: the public name of `tersor.checkpoint.summary`."""

from tersor.checkpoint.summary import FLOATS, LAYOUTS, Magnitudes, histogram

__all__ = ["FLOATS", "LAYOUTS", "Magnitudes", "histogram"]
