r"""The hyperboloid (Lorentz model) of curvature -c, :math:`\{t^2 - \|s\|^2 = 1/c\}`, for NumPy arrays and torch tensors.

A point is kept as its space part s alone: the time :math:`t = \sqrt{1/c + \|s\|^2}` follows, so that no array leaves the
model. A tangent at a point is kept as its space part too; at the origin that is the vector itself, of its own length, where
the ball of `tersor.hyperbolic` measures twice the length of its coordinates (:math:`\lambda_0 = 2`): ``expmap0(2 * v)`` here
is ``from_poincare(hyperbolic.expmap0(v))``. c = 0 is flat space, in which s is the point.

Everything is computed in float64 and rounded once. Names are geoopt's; curvature c stands for its -1/k.
"""

from tersor.lorentz._said import SAID
from tersor.lorentz._space import time
from tersor.lorentz.checks import check_points, is_point
from tersor.lorentz.cones import entailment_loss, exterior_angle, half_aperture
from tersor.lorentz.convert import (
    add_time,
    drop_time,
    from_klein,
    from_poincare,
    klein_to_poincare,
    poincare_to_klein,
    to_klein,
    to_poincare,
)
from tersor.lorentz.distance import cdist, dist, dist0, dist2
from tersor.lorentz.frechet import frechet_mean, frechet_variance
from tersor.lorentz.horo import busemann
from tersor.lorentz.layers import fc, linear, mlr
from tersor.lorentz.maps import expmap, expmap0, geodesic, gyro_add, logmap, logmap0
from tersor.lorentz.metric import egrad2rgrad, inner, norm
from tersor.lorentz.midpoint import midpoint, segment_midpoint, weighted_midpoint_bmm
from tersor.lorentz.transport import parallel_transport, parallel_transport0, parallel_transport0back

#: what docstrings repeat; and every function here is about rows
_SAID = SAID
_ROWS = True

__all__ = [
    "add_time",
    "busemann",
    "cdist",
    "check_points",
    "dist",
    "dist0",
    "dist2",
    "drop_time",
    "egrad2rgrad",
    "entailment_loss",
    "expmap",
    "expmap0",
    "exterior_angle",
    "fc",
    "frechet_mean",
    "frechet_variance",
    "from_klein",
    "from_poincare",
    "geodesic",
    "gyro_add",
    "half_aperture",
    "inner",
    "is_point",
    "klein_to_poincare",
    "linear",
    "logmap",
    "logmap0",
    "midpoint",
    "mlr",
    "norm",
    "parallel_transport",
    "parallel_transport0",
    "parallel_transport0back",
    "poincare_to_klein",
    "segment_midpoint",
    "time",
    "to_klein",
    "to_poincare",
    "weighted_midpoint_bmm",
]
