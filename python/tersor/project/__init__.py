r"""Random projections that are never stored, and the fast Walsh–Hadamard transform.

A `Projection` is a :math:`k \times d` random matrix with :math:`\mathbb E\|Px\|^2 = \|x\|^2`, of which a few numbers are kept:
its entries, or what they are made of, come from (seed, stream, position) where they are needed (the table in `tersor.random`
says how). The same seed gives the same matrix for any number of threads, on any machine, whatever part of it is asked for.

=============  ================================================  ===========================================
kind           entries                                           variance of :math:`\|Px\|^2`, unit x
=============  ================================================  ===========================================
gaussian       normal, variance 1/k                              :math:`2/k`
rademacher     :math:`\pm 1/\sqrt k`                             :math:`(2 - 2\sum x_j^4)/k`
sparse         :math:`\pm\sqrt{s/k}`, one in s, the rest 0       :math:`(2 + (s - 3)\sum x_j^4)/k`
countsketch    one :math:`\pm 1` in a column                      :math:`(2 - 2\sum x_j^4)/k`
osnap          c of :math:`\pm 1/\sqrt c` in a column             :math:`(2 - 2\sum x_j^4)/k`
srht           k rows of :math:`H D/\sqrt k`                      :math:`\frac{N-k}{N-1}(2 - 2\sum x_j^4)/k`
spinner        :math:`\sqrt{N/k}` of orthogonal blocks H D H D…   0 where k is a multiple of N
fastfood       :math:`H G \Pi H B/\sqrt{k\sum G^2}`              :math:`4(1 - \sum x_j^4)/(N+2)` for k = N, 0 if G = ±1
=============  ================================================  ===========================================

H is the Walsh–Hadamard transform of length N, a power of two that is not below d (nor, for fastfood, k); B and D are
diagonals of signs, G of normals or signs, Π a permutation. A sketch of columns that come block by block is the sum of the
sketches of the blocks (`Projection.cols`).
"""

from typing import Any as _Any

from tersor.project.dual import dual, ntk
from tersor.project.features import arccos_features, rff, tensorsketch
from tersor.project.jl import jl_dim
from tersor.project.projection import Projection, project
from tersor.project.ridge import ridge_path
from tersor.project.singular import patch_kernel, singular_vote
from tersor.project.walsh import fwht

__all__ = [
    "Projection",
    "arccos_features",
    "dual",
    "fwht",
    "jl_dim",
    "ntk",
    "patch_kernel",
    "project",
    "rff",
    "ridge_path",
    "singular_vote",
    "tensorsketch",
]

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
