"""Riemannian optimisers for points of the ball and of the hyperboloid. The one rule: one update serves dense parameters and
gathered rows.

Needs torch.
"""

from tersor.optim.adam import RiemannianAdam
from tersor.optim.sgd import RiemannianSGD

__all__ = ["RiemannianAdam", "RiemannianSGD"]

for _kind in (RiemannianAdam, RiemannianSGD):  # where pickles find them
    _kind.__module__ = __name__
