//! What depends on the metric at a point of the Poincaré ball: its conformal factor, lengths and inner products, exponential
//! maps, geodesics, transport; and the projection into the ball. The rule and the notation are those of the maps beside it.

mod conformal;
mod geodesic;
mod step;
mod transport;

use base::{Op, Rule};
use conformal::*;
use drivers::{row_ops, rows::Margin};
use geodesic::*;
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
    gyration(u, v, w; c;) -> y: Rule::Rows => |t, _s| Gyration;
    gyration_bwd(g, u, v, w; c;) -> du: Rule::Like(1), dv: Rule::Like(2), dw: Rule::Like(3), dc: Rule::Like(4)
        => |t, _s| GyrationBwd;
    expmap(x, v; c; eps) -> y: Rule::Rows => |t, s| ExpMap(Margin::of(s[0].float())?);
    expmap_bwd(g, x, v; c;) -> dx: Rule::Like(1), dv: Rule::Like(2), dc: Rule::Like(3) => |t, _s| ExpMapBwd;
    geodesic(x, y; t, c; eps) -> z: Rule::Rows => |t, s| Geodesic(Margin::of(s[0].float())?);
    geodesic_bwd(g, x, y; t, c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dt: Rule::Like(3), dc: Rule::Like(4)
        => |t, _s| GeodesicBwd;
    geodesic_unit(x, v; t, c; eps) -> z: Rule::Rows => |t, s| GeodesicUnit(Margin::of(s[0].float())?);
    geodesic_unit_bwd(g, x, v; t, c;) -> dx: Rule::Like(1), dv: Rule::Like(2), dt: Rule::Like(3), dc: Rule::Like(4)
        => |t, _s| GeodesicUnitBwd;
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
