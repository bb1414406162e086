//! What depends on the metric at a point of the Poincaré ball: its conformal factor, lengths and inner products, transport; and
//! the projection into the ball. The rule and the notation are those of the maps beside it.

mod conformal;
mod transport;

use base::Op;
use conformal::*;
use drivers::{row_ops, rows::Margin};
use transport::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = row_ops! {
    ball_project(x[.., d], c[.., 1]; eps) -> (y[.., d]) = |t, s| Project::new(t, Margin::of(s[0].float())?);
    ball_project_bwd(g[.., d], x[.., d], c[.., 1]; eps) -> (dx[x], dc[c])
        = |t, s| ProjectBwd(Edge::new(t, Margin::of(s[0].float())?));
    square_norm(x[.., d]) -> (q[..]) = |t, _s| SquareNorm;
    square_norm_bwd(x[.., d], g[..]) -> (dx[x]) = |t, _s| SquareNormBwd;
    gyration(u[.., d], v[.., d], w[.., d], c[.., 1]) -> (y[.., d]) = |t, _s| Gyration;
    gyration_bwd(g[.., d], u[.., d], v[.., d], w[.., d], c[.., 1]) -> (du[u], dv[v], dw[w], dc[c])
        = |t, _s| GyrationBwd;
    parallel_transport(x[.., d], y[.., d], v[.., d], c[.., 1]) -> (w[.., d]) = |t, _s| Transport;
    parallel_transport_bwd(g[.., d], x[.., d], y[.., d], v[.., d], c[.., 1]) -> (dx[x], dy[y], dv[v], dc[c])
        = |t, _s| TransportBwd;
    parallel_transport0(x[.., d], v[.., d], c[.., 1]) -> (w[.., d]) = |t, _s| Scaled(From0);
    parallel_transport0_bwd(g[.., d], x[.., d], v[.., d], c[.., 1]) -> (dx[x], dv[v], dc[c]) = |t, _s| ScaledBwd(From0);
    parallel_transport0back(x[.., d], v[.., d], c[.., 1]) -> (w[.., d]) = |t, _s| Scaled(To0);
    parallel_transport0back_bwd(g[.., d], x[.., d], v[.., d], c[.., 1]) -> (dx[x], dv[v], dc[c])
        = |t, _s| ScaledBwd(To0);
    egrad2rgrad(x[.., d], v[.., d], c[.., 1]) -> (w[.., d]) = |t, _s| Scaled(Metric);
    egrad2rgrad_bwd(g[.., d], x[.., d], v[.., d], c[.., 1]) -> (dx[x], dv[v], dc[c]) = |t, _s| ScaledBwd(Metric);
    lambda_x(x[.., d], c[.., 1]) -> (l[..]) = |t, _s| Lambda;
    lambda_x_bwd(x[.., d], g[..], c[.., 1]) -> (dx[x], dc[c]) = |t, _s| LambdaBwd;
    inner(x[.., d], u[.., d], v[.., d], c[.., 1]) -> (p[..]) = |t, _s| Inner;
    inner_bwd(x[.., d], u[.., d], v[.., d], g[..], c[.., 1]) -> (dx[x], du[u], dv[v], dc[c]) = |t, _s| InnerBwd;
    norm(x[.., d], u[.., d], c[.., 1]) -> (n[..]) = |t, _s| Norm;
    norm_bwd(x[.., d], u[.., d], g[..], c[.., 1]) -> (dx[x], du[u], dc[c]) = |t, _s| NormBwd;
};
