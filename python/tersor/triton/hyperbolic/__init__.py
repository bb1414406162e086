"""GPU kernels of the maps of the Poincaré ball, under the operators' names: the same forms as `ops/hyperbolic/*.rs`.

The rule: alpha = 1 - c|x|^2 and sums of squares, never a difference of large terms; c = 0 is a value like any other.
Letters: alpha, beta for x and y; sigma = x + y; delta = y - x; q = |sigma|^2 or |delta|^2; g the gradient that arrives.
"""

# ruff: noqa: F401 - the dispatcher looks the names up here
from tersor.triton.hyperbolic.conformal import (
    ball_project,
    ball_project_bwd,
    egrad2rgrad,
    egrad2rgrad_bwd,
    inner,
    inner_bwd,
    lambda_x,
    lambda_x_bwd,
    norm,
    norm_bwd,
    parallel_transport0,
    parallel_transport0_bwd,
    parallel_transport0back,
    parallel_transport0back_bwd,
)
from tersor.triton.hyperbolic.geodesics import geodesic, geodesic_bwd, geodesic_unit, geodesic_unit_bwd
from tersor.triton.hyperbolic.mobius import mobius_add, mobius_add_bwd, mobius_coadd, mobius_coadd_bwd
from tersor.triton.hyperbolic.origin import (
    dist0,
    dist0_bwd,
    expmap0,
    expmap0_bwd,
    logmap0,
    logmap0_bwd,
    mobius_pointwise_mul,
    mobius_pointwise_mul_bwd,
    mobius_scalar_mul,
    mobius_scalar_mul_bwd,
)
from tersor.triton.hyperbolic.plane import dist2plane, dist2plane_bwd
from tersor.triton.hyperbolic.planes import (
    fc_rows,
    fc_rows_bwd,
    mlr_rows,
    mlr_rows_bwd,
    square_norm,
    square_norm_bwd,
)
from tersor.triton.hyperbolic.point import dist, dist_bwd, expmap, expmap_bwd, logmap, logmap_bwd
from tersor.triton.hyperbolic.transport import gyration, gyration_bwd, parallel_transport, parallel_transport_bwd
