"""torch layers over the operators. The one rule: a layer holds arrays and calls public functions, it computes nothing."""

from tersor.nn.quant import QuantLinear
from tersor.nn.sparse import SparseLinear

__all__ = ["QuantLinear", "SparseLinear"]
