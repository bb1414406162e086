//! Distances in the Poincaré ball: of two points, to planes and to points at infinity; and cones, which are told by angles. The
//! rule and the notation are those of the maps beside it.

mod cone;
mod horo;
mod plane;
mod point;

use base::{Op, ops};
use cone::*;
use drivers::row_ops;
use drivers::rows::scaled;
use horo::*;
use plane::*;
use point::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS, SIZED];

pub static OPS: &[Op] = row_ops! {
    dist2plane(x[.., d], p[.., d], a[.., d], c[.., 1]; signed: bool, scaled: bool) -> (d[..])
        = |t, s| Dist2Plane(Plane::of(s));
    dist2plane_bwd(x[.., d], p[.., d], a[.., d], g[..], c[.., 1]; signed: bool, scaled: bool) -> (dx[x], dp[p], da[a], dc[c])
        = |t, s| Dist2PlaneBwd(Plane::of(s));
    entail(x[.., d], y[.., d], c[.., 1]; k, space: bool) -> (l[..]) = |t, s| Entail(Cone::of(s));
    entail_bwd(x[.., d], y[.., d], g[..], c[.., 1]; k, space: bool) -> (dx[x], dy[y], dc[c]) = |t, s| EntailBwd(Cone::of(s));
};

/// What is told of rows of any size: what has the unit of a length, and its gradients.
static SIZED: &[Op] = ops! {
    dist(x[.., d], y[.., d], c[.., 1]) -> (d[..]) = |t, _| scaled(&Dist::default(), |op| &op.0, t, 2, 1);
    dist_bwd(x[.., d], y[.., d], g[..], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _| scaled(&DistBwd::default(), |op| &op.0, t, 2, 3);
    busemann(x[.., d], p[.., d], c[.., 1]) -> (b[..]) = |t, _| scaled(&Busemann::default(), |op| &op.0, t, 1, 1);
    busemann_bwd(x[.., d], p[.., d], g[..], c[.., 1]) -> (dx[x], dp[p], dc[c]) = |t, _| scaled(&BusemannBwd::default(), |op| &op.0, t, 1, 3);
};
