"""Riemannian optimisers for points of the ball and of the hyperboloid. The one rule: one update serves dense parameters and
gathered rows.

Needs torch.
"""

import sys as _sys

from tersor import _made
from tersor.optim.adam import RiemannianAdam
from tersor.optim.sgd import RiemannianSGD

__all__ = ["RiemannianAdam", "RiemannianSGD"]

_made.open_layers(_sys.modules[__name__])
for _kind in (RiemannianAdam, RiemannianSGD):  # where pickles find them
    _kind.__module__ = __name__
