//! Maps of the Poincaré ball of curvature -c: {c|x|² < 1}, c >= 0. The one rule: every formula is written with
//! alpha = 1 - c|x|² and sums of squares, never as a difference of large terms, and c = 0 is a value like any other.
//!
//! Notation: alpha = 1 - c|x|², beta = 1 - c|y|², sigma = x + y, q = |sigma|² (or |x - y|² for distances), g the gradient
//! that arrives. Forms and backwards after Ganea et al. 2018 and Ungar 2008, rearranged so that nothing cancels.

mod cone;
mod mobius;
mod origin;
mod plane;
mod point;

use base::Op;
use cone::*;
use drivers::{row_ops, rows::Margin};
use mobius::*;
use origin::*;
use plane::*;
use point::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = row_ops! {
    expmap0(x[.., d], c[.., 1]; eps) -> (y[.., d]) = |t, s| ExpMap0(Margin::of(s[0].float())?);
    expmap0_bwd(g[.., d], x[.., d], c[.., 1]) -> (dx[x], dc[c]) = |t, _s| ExpMap0Bwd;
    logmap0(x[.., d], c[.., 1]) -> (y[.., d]) = |t, _s| LogMap0;
    logmap0_bwd(g[.., d], x[.., d], c[.., 1]) -> (dx[x], dc[c]) = |t, _s| LogMap0Bwd;
    dist0(x[.., d], c[.., 1]) -> (d[..]) = |t, _s| Dist0;
    dist0_bwd(x[.., d], g[..], c[.., 1]) -> (dx[x], dc[c]) = |t, _s| Dist0Bwd;
    mobius_scalar_mul(x[.., d], r[.., 1], c[.., 1]; eps) -> (y[.., d]) = |t, s| ScalarMul(Margin::of(s[0].float())?);
    mobius_scalar_mul_bwd(g[.., d], x[.., d], r[.., 1], c[.., 1]) -> (dx[x], dr[r], dc[c]) = |t, _s| ScalarMulBwd;
    mobius_add(x[.., d], y[.., d], c[.., 1]; eps) -> (z[.., d]) = |t, s| MobiusAdd(Margin::of(s[0].float())?);
    mobius_add_bwd(g[.., d], x[.., d], y[.., d], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| MobiusAddBwd;
    mobius_coadd(x[.., d], y[.., d], c[.., 1]; eps) -> (z[.., d]) = |t, s| MobiusCoadd(Margin::of(s[0].float())?);
    mobius_coadd_bwd(g[.., d], x[.., d], y[.., d], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| MobiusCoaddBwd;
    mobius_pointwise_mul(w[.., d], x[.., d], c[.., 1]; eps) -> (y[.., d])
        = |t, s| PointwiseMul(Margin::of(s[0].float())?);
    mobius_pointwise_mul_bwd(g[.., d], w[.., d], x[.., d], c[.., 1]) -> (dw[w], dx[x], dc[c]) = |t, _s| PointwiseMulBwd;
    dist(x[.., d], y[.., d], c[.., 1]) -> (d[..]) = |t, _s| Dist;
    dist_bwd(x[.., d], y[.., d], g[..], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| DistBwd;
    logmap(x[.., d], y[.., d], c[.., 1]) -> (v[.., d]) = |t, _s| LogMap;
    logmap_bwd(g[.., d], x[.., d], y[.., d], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| LogMapBwd;
    dist2plane(x[.., d], p[.., d], a[.., d], c[.., 1]; signed: bool, scaled: bool) -> (d[..])
        = |t, s| Dist2Plane(Plane::of(s));
    dist2plane_bwd(x[.., d], p[.., d], a[.., d], g[..], c[.., 1]; signed: bool, scaled: bool) -> (dx[x], dp[p], da[a], dc[c])
        = |t, s| Dist2PlaneBwd(Plane::of(s));
    entail(x[.., d], y[.., d], c[.., 1]; k, space: bool) -> (l[..]) = |t, s| Entail(Cone::of(s));
    entail_bwd(x[.., d], y[.., d], g[..], c[.., 1]; k, space: bool) -> (dx[x], dy[y], dc[c]) = |t, s| EntailBwd(Cone::of(s));
};
