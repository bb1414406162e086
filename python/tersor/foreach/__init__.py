"""Operators over lists of arrays: the parameters of a model, its gradients, the weights of several models. The one rule: all
entries of a list go through one call, whatever their sizes and types, and entry i meets the other lists' entry i.
"""

from tersor.foreach._combine import ema, lincomb
from tersor.foreach._norms import norms

__all__ = ["ema", "lincomb", "norms"]
