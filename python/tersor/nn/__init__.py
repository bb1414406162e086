"""torch layers over the operators. The one rule: a layer holds arrays and calls public functions, it computes nothing."""

from tersor.nn.curvature import Curvature
from tersor.nn.linear import PoincareLinear, PoincareMLR, identity_
from tersor.nn.quant import QuantLinear
from tersor.nn.sparse import SparseLinear

__all__ = ["Curvature", "PoincareLinear", "PoincareMLR", "QuantLinear", "SparseLinear", "identity_"]
