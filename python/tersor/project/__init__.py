r"""Random projections that are never stored, and the fast Walsh–Hadamard transform.

A `Projection` is a :math:`k \times d` random matrix with :math:`\mathbb E\|Px\|^2 = \|x\|^2`, of which a few numbers are kept:
each entry is made from (seed, stream, row, column) where it is needed (the table in `tersor.random` says how). The same
seed gives the same matrix for any number of threads, on any machine, whatever part of it is asked for.

=============  ================================================  ===========================================
kind           entries                                           variance of :math:`\|Px\|^2`, unit x
=============  ================================================  ===========================================
gaussian       normal, variance 1/k                              :math:`2/k`
rademacher     :math:`\pm 1/\sqrt k`                             :math:`(2 - 2\sum x_j^4)/k`
sparse         :math:`\pm\sqrt{s/k}`, one in s, the rest 0       :math:`(2 + (s - 3)\sum x_j^4)/k`
=============  ================================================  ===========================================
"""

from typing import Any as _Any

from tersor.project.dual import dual, ntk
from tersor.project.jl import jl_dim
from tersor.project.projection import Projection, project
from tersor.project.ridge import ridge_path
from tersor.project.walsh import fwht

__all__ = ["Projection", "dual", "fwht", "jl_dim", "ntk", "project", "ridge_path"]

#: what needs scikit-learn, imported at first use
_ESTIMATORS = ("GaussianRandomProjection", "SparseRandomProjection")


def __getattr__(name: str) -> _Any:
    if name not in _ESTIMATORS:
        raise AttributeError(f"module 'tersor.project' has no attribute {name!r}")
    try:
        from tersor.project import estimators
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] != "sklearn":
            raise
        raise ImportError(
            f"project.{name} needs scikit-learn, which is not installed: pip install tersor[sklearn]"
        ) from e
    return getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ESTIMATORS})
