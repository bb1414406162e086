//! Maps of the Poincaré ball of curvature -c: {c|x|² < 1}, c >= 0. The one rule: every formula is written with
//! alpha = 1 - c|x|² and sums of squares, never as a difference of large terms, and c = 0 is a value like any other.
//!
//! Notation: alpha = 1 - c|x|², beta = 1 - c|y|², sigma = x + y, q = |sigma|² (or |x - y|² for distances), g the gradient
//! that arrives. Forms and backwards after Ganea et al. 2018 and Ungar 2008, rearranged so that nothing cancels.

mod cone;
mod horo;
mod mobius;
mod origin;
mod plane;
mod point;

use base::{Op, ops};
use cone::*;
use drivers::row_ops;
use drivers::rows::{Margin, scaled};
use horo::*;
use mobius::*;
use origin::*;
use plane::*;
use point::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS, SIZED];

pub static OPS: &[Op] = row_ops! {
    expmap0_bwd(g[.., d], x[.., d], c[.., 1]) -> (dx[x], dc[c]) = |t, _s| ExpMap0Bwd;
    logmap0(x[.., d], c[.., 1]) -> (y[.., d]) = |t, _s| LogMap0;
    logmap0_bwd(g[.., d], x[.., d], c[.., 1]) -> (dx[x], dc[c]) = |t, _s| LogMap0Bwd;
    mobius_scalar_mul(x[.., d], r[.., 1], c[.., 1]; eps) -> (y[.., d]) = |t, s| ScalarMul(Margin::of(s[0].float())?);
    mobius_scalar_mul_bwd(g[.., d], x[.., d], r[.., 1], c[.., 1]) -> (dx[x], dr[r], dc[c]) = |t, _s| ScalarMulBwd;
    mobius_add(x[.., d], y[.., d], c[.., 1]; eps) -> (z[.., d]) = |t, s| MobiusAdd(Margin::of(s[0].float())?);
    mobius_add_bwd(g[.., d], x[.., d], y[.., d], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| MobiusAddBwd;
    mobius_coadd(x[.., d], y[.., d], c[.., 1]; eps) -> (z[.., d]) = |t, s| MobiusCoadd(Margin::of(s[0].float())?);
    mobius_coadd_bwd(g[.., d], x[.., d], y[.., d], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| MobiusCoaddBwd;
    mobius_pointwise_mul(w[.., d], x[.., d], c[.., 1]; eps) -> (y[.., d])
        = |t, s| PointwiseMul(Margin::of(s[0].float())?);
    mobius_pointwise_mul_bwd(g[.., d], w[.., d], x[.., d], c[.., 1]) -> (dw[w], dx[x], dc[c]) = |t, _s| PointwiseMulBwd;
    logmap(x[.., d], y[.., d], c[.., 1]) -> (v[.., d]) = |t, _s| LogMap;
    logmap_bwd(g[.., d], x[.., d], y[.., d], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| LogMapBwd;
    dist2plane(x[.., d], p[.., d], a[.., d], c[.., 1]; signed: bool, scaled: bool) -> (d[..])
        = |t, s| Dist2Plane(Plane::of(s));
    dist2plane_bwd(x[.., d], p[.., d], a[.., d], g[..], c[.., 1]; signed: bool, scaled: bool) -> (dx[x], dp[p], da[a], dc[c])
        = |t, s| Dist2PlaneBwd(Plane::of(s));
    entail(x[.., d], y[.., d], c[.., 1]; k, space: bool) -> (l[..]) = |t, s| Entail(Cone::of(s));
    entail_bwd(x[.., d], y[.., d], g[..], c[.., 1]; k, space: bool) -> (dx[x], dy[y], dc[c]) = |t, s| EntailBwd(Cone::of(s));
};

/// What is told of rows of any size: what has the unit of a length, and its gradients.
static SIZED: &[Op] = ops! {
    expmap0(x[.., d], c[.., 1]; eps) -> (y[.., d]) in place = |t, s| expmap0(t, Margin::of(s[0].float())?);
    dist0(x[.., d], c[.., 1]) -> (d[..]) = |t, _| scaled(&Dist0::default(), |op| &op.0, t, 1, 1);
    dist0_bwd(x[.., d], g[..], c[.., 1]) -> (dx[x], dc[c]) = |t, _| scaled(&Dist0Bwd::default(), |op| &op.0, t, 1, 3);
    dist(x[.., d], y[.., d], c[.., 1]) -> (d[..]) = |t, _| scaled(&Dist::default(), |op| &op.0, t, 2, 1);
    dist_bwd(x[.., d], y[.., d], g[..], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _| scaled(&DistBwd::default(), |op| &op.0, t, 2, 3);
    busemann(x[.., d], p[.., d], c[.., 1]) -> (b[..]) = |t, _| scaled(&Busemann::default(), |op| &op.0, t, 1, 1);
    busemann_bwd(x[.., d], p[.., d], g[..], c[.., 1]) -> (dx[x], dp[p], dc[c]) = |t, _| scaled(&BusemannBwd::default(), |op| &op.0, t, 1, 3);
};
