r"""Maps of the Poincaré ball, the open ball :math:`\{x : c\|x\|^2 < 1\}` of sectional curvature :math:`-c`.

Every function takes its curvature last, as a number, a 0-d array or an array that broadcasts over rows (``[..., 1]``), and
differentiates with respect to it. ``c = 0`` is Euclidean space (distances and the exponential map of a point keep the
conformal factor 2 of the ball's metric), in value and in gradient. A Python number stays float64 inside; an array is
what its dtype says. Rows outside the ball are no points: whatever is measured there or made of them is NaN, and `project` alone
brings them back.

float32 and smaller data is computed in float64 and rounded once; float64 data is summed in twice its precision (Dot2),
so that results keep their digits at any radius. Second and higher derivatives (``create_graph=True``) are taken in float64
through the formula of the first, by torch's own operations, at their speed. Notation: :math:`\lambda_x = 2/(1 - c\|x\|^2)`.
"""

from tersor.hyperbolic import _normal as _normal  # declares the operators of batch normalisation
from tersor.hyperbolic._said import SAID
from tersor.hyperbolic.checks import check_points, is_point
from tersor.hyperbolic.composed import dist2
from tersor.hyperbolic.cones import entailment_loss, exterior_angle, half_aperture
from tersor.hyperbolic.conformal import (
    egrad2rgrad,
    inner,
    lambda_x,
    norm,
    parallel_transport0,
    parallel_transport0back,
    project,
)
from tersor.hyperbolic.delta import delta_hyperbolicity
from tersor.hyperbolic.frechet import frechet_mean, frechet_variance
from tersor.hyperbolic.functions import mobius_fn_apply, mobius_fn_apply_chain, mobius_matvec, mobiusify
from tersor.hyperbolic.geodesics import geodesic, geodesic_unit
from tersor.hyperbolic.horo import busemann
from tersor.hyperbolic.linear import poincare_fc, poincare_fc_tangent, poincare_mlr
from tersor.hyperbolic.midpoint import weighted_midpoint, weighted_midpoint_bmm
from tersor.hyperbolic.mobius import mobius_add, mobius_coadd, mobius_cosub, mobius_sub
from tersor.hyperbolic.origin import dist0, expmap0, logmap0, mobius_pointwise_mul, mobius_scalar_mul
from tersor.hyperbolic.pairwise import cdist, knn, softmin_dist
from tersor.hyperbolic.plane import dist2plane
from tersor.hyperbolic.point import dist, expmap, logmap
from tersor.hyperbolic.principal import horo_pca, tangent_pca
from tersor.hyperbolic.projected import horo_project, tangent_project
from tersor.hyperbolic.segments import segment_midpoint, window_midpoint
from tersor.hyperbolic.sphere import antipode, inv_sproj, sproj
from tersor.hyperbolic.transport import gyration, parallel_transport

#: what docstrings repeat; and every function here is about rows
_SAID = SAID
_ROWS = True

__all__ = [
    "antipode",
    "busemann",
    "cdist",
    "check_points",
    "delta_hyperbolicity",
    "dist",
    "dist0",
    "dist2",
    "dist2plane",
    "egrad2rgrad",
    "entailment_loss",
    "expmap",
    "expmap0",
    "exterior_angle",
    "frechet_mean",
    "frechet_variance",
    "geodesic",
    "geodesic_unit",
    "gyration",
    "half_aperture",
    "horo_pca",
    "horo_project",
    "inner",
    "inv_sproj",
    "is_point",
    "knn",
    "lambda_x",
    "logmap",
    "logmap0",
    "mobius_add",
    "mobius_coadd",
    "mobius_cosub",
    "mobius_fn_apply",
    "mobius_fn_apply_chain",
    "mobius_matvec",
    "mobius_pointwise_mul",
    "mobius_scalar_mul",
    "mobius_sub",
    "mobiusify",
    "norm",
    "parallel_transport",
    "parallel_transport0",
    "parallel_transport0back",
    "poincare_fc",
    "poincare_fc_tangent",
    "poincare_mlr",
    "project",
    "segment_midpoint",
    "softmin_dist",
    "sproj",
    "tangent_pca",
    "tangent_project",
    "weighted_midpoint",
    "weighted_midpoint_bmm",
    "window_midpoint",
]
