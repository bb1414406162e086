//! Maps of the Poincaré ball of curvature -c: {c|x|² < 1}, c >= 0. The one rule: every formula is written with
//! alpha = 1 - c|x|² and sums of squares, never as a difference of large terms, and c = 0 is a value like any other.
//!
//! Notation: alpha = 1 - c|x|², beta = 1 - c|y|², sigma = x + y, q = |sigma|² (or |x - y|² for distances), g the gradient
//! that arrives. Forms and backwards after Ganea et al. 2018 and Ungar 2008, rearranged so that nothing cancels.

mod conformal;
mod geodesic;
mod mobius;
mod origin;
mod plane;
mod point;
mod step;
mod transport;

use base::{Op, Rule};
use conformal::*;
use drivers::{row_ops, rows::Margin};
use geodesic::*;
use mobius::*;
use origin::*;
use plane::*;
use point::*;
use step::*;
use transport::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = row_ops! {
    ball_project(x; c; eps) -> y: Rule::Rows => |t, s| Project::new(t, Margin::of(s[0].float())?);
    ball_project_bwd(g, x; c; eps) -> dx: Rule::Like(1), dc: Rule::Like(2)
        => |t, s| ProjectBwd(Edge::new(t, Margin::of(s[0].float())?));
    square_norm(x; ;) -> q: Rule::Lead => |t, _s| SquareNorm;
    square_norm_bwd(x; g;) -> dx: Rule::Like(0) => |t, _s| SquareNormBwd;
    expmap0(x; c; eps) -> y: Rule::Rows => |t, s| ExpMap0(Margin::of(s[0].float())?);
    expmap0_bwd(g, x; c;) -> dx: Rule::Like(1), dc: Rule::Like(2) => |t, _s| ExpMap0Bwd;
    logmap0(x; c;) -> y: Rule::Rows => |t, _s| LogMap0;
    logmap0_bwd(g, x; c;) -> dx: Rule::Like(1), dc: Rule::Like(2) => |t, _s| LogMap0Bwd;
    dist0(x; c;) -> d: Rule::Lead => |t, _s| Dist0;
    dist0_bwd(x; g, c;) -> dx: Rule::Like(0), dc: Rule::Like(2) => |t, _s| Dist0Bwd;
    mobius_scalar_mul(x; r, c; eps) -> y: Rule::Rows => |t, s| ScalarMul(Margin::of(s[0].float())?);
    mobius_scalar_mul_bwd(g, x; r, c;) -> dx: Rule::Like(1), dr: Rule::Like(2), dc: Rule::Like(3)
        => |t, _s| ScalarMulBwd;
    mobius_add(x, y; c; eps) -> z: Rule::Rows => |t, s| MobiusAdd(Margin::of(s[0].float())?);
    mobius_add_bwd(g, x, y; c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dc: Rule::Like(3) => |t, _s| MobiusAddBwd;
    mobius_coadd(x, y; c; eps) -> z: Rule::Rows => |t, s| MobiusCoadd(Margin::of(s[0].float())?);
    mobius_coadd_bwd(g, x, y; c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dc: Rule::Like(3) => |t, _s| MobiusCoaddBwd;
    mobius_pointwise_mul(w, x; c; eps) -> y: Rule::Rows => |t, s| PointwiseMul(Margin::of(s[0].float())?);
    mobius_pointwise_mul_bwd(g, w, x; c;) -> dw: Rule::Like(1), dx: Rule::Like(2), dc: Rule::Like(3)
        => |t, _s| PointwiseMulBwd;
    gyration(u, v, w; c;) -> y: Rule::Rows => |t, _s| Gyration;
    gyration_bwd(g, u, v, w; c;) -> du: Rule::Like(1), dv: Rule::Like(2), dw: Rule::Like(3), dc: Rule::Like(4)
        => |t, _s| GyrationBwd;
    dist(x, y; c;) -> d: Rule::Lead => |t, _s| Dist;
    dist_bwd(x, y; g, c;) -> dx: Rule::Like(0), dy: Rule::Like(1), dc: Rule::Like(3) => |t, _s| DistBwd;
    expmap(x, v; c; eps) -> y: Rule::Rows => |t, s| ExpMap(Margin::of(s[0].float())?);
    expmap_bwd(g, x, v; c;) -> dx: Rule::Like(1), dv: Rule::Like(2), dc: Rule::Like(3) => |t, _s| ExpMapBwd;
    logmap(x, y; c;) -> v: Rule::Rows => |t, _s| LogMap;
    logmap_bwd(g, x, y; c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dc: Rule::Like(3) => |t, _s| LogMapBwd;
    geodesic(x, y; t, c; eps) -> z: Rule::Rows => |t, s| Geodesic(Margin::of(s[0].float())?);
    geodesic_bwd(g, x, y; t, c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dt: Rule::Like(3), dc: Rule::Like(4)
        => |t, _s| GeodesicBwd;
    geodesic_unit(x, v; t, c; eps) -> z: Rule::Rows => |t, s| GeodesicUnit(Margin::of(s[0].float())?);
    geodesic_unit_bwd(g, x, v; t, c;) -> dx: Rule::Like(1), dv: Rule::Like(2), dt: Rule::Like(3), dc: Rule::Like(4)
        => |t, _s| GeodesicUnitBwd;
    dist2plane(x, p, a; c; signed Bool, scaled Bool) -> d: Rule::Lead => |t, s| Dist2Plane(Plane::of(s));
    dist2plane_bwd(x, p, a; g, c; signed Bool, scaled Bool)
        -> dx: Rule::Like(0), dp: Rule::Like(1), da: Rule::Like(2), dc: Rule::Like(4)
        => |t, s| Dist2PlaneBwd(Plane::of(s));
    parallel_transport(x, y, v; c;) -> w: Rule::Rows => |t, _s| Transport;
    parallel_transport_bwd(g, x, y, v; c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dv: Rule::Like(3), dc: Rule::Like(4)
        => |t, _s| TransportBwd;
    parallel_transport0(x, v; c;) -> w: Rule::Rows => |t, _s| Scaled(From0);
    parallel_transport0_bwd(g, x, v; c;) -> dx: Rule::Like(1), dv: Rule::Like(2), dc: Rule::Like(3)
        => |t, _s| ScaledBwd(From0);
    parallel_transport0back(x, v; c;) -> w: Rule::Rows => |t, _s| Scaled(To0);
    parallel_transport0back_bwd(g, x, v; c;) -> dx: Rule::Like(1), dv: Rule::Like(2), dc: Rule::Like(3)
        => |t, _s| ScaledBwd(To0);
    egrad2rgrad(x, v; c;) -> w: Rule::Rows => |t, _s| Scaled(Metric);
    egrad2rgrad_bwd(g, x, v; c;) -> dx: Rule::Like(1), dv: Rule::Like(2), dc: Rule::Like(3)
        => |t, _s| ScaledBwd(Metric);
    lambda_x(x; c;) -> l: Rule::Lead => |t, _s| Lambda;
    lambda_x_bwd(x; g, c;) -> dx: Rule::Like(0), dc: Rule::Like(2) => |t, _s| LambdaBwd;
    inner(x, u, v; c;) -> p: Rule::Lead => |t, _s| Inner;
    inner_bwd(x, u, v; g, c;) -> dx: Rule::Like(0), du: Rule::Like(1), dv: Rule::Like(2), dc: Rule::Like(4)
        => |t, _s| InnerBwd;
    norm(x, u; c;) -> n: Rule::Lead => |t, _s| Norm;
    norm_bwd(x, u; g, c;) -> dx: Rule::Like(0), du: Rule::Like(1), dc: Rule::Like(3) => |t, _s| NormBwd;
};
