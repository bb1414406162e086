//! Maps of the Poincaré ball of curvature -c, {c|x|² < 1}, c >= 0, at its origin and by addition. The one rule: every formula is written with
//! alpha = 1 - c|x|² and sums of squares, never as a difference of large terms, and c = 0 is a value like any other.
//!
//! Notation: alpha = 1 - c|x|², beta = 1 - c|y|², sigma = x + y, q = |sigma|² (or |x - y|² for distances), g the gradient
//! that arrives. Forms and backwards after Ganea et al. 2018 and Ungar 2008, rearranged so that nothing cancels.

mod mobius;
mod origin;

use base::{Op, ops};
use drivers::row_ops;
use drivers::rows::{Margin, scaled};
use mobius::*;
use origin::*;

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
};

/// What is told of rows of any size: what has the unit of a length, and its gradients.
static SIZED: &[Op] = ops! {
    expmap0(x[.., d], c[.., 1]; eps) -> (y[.., d]) in place = |t, s| expmap0(t, Margin::of(s[0].float())?);
    dist0(x[.., d], c[.., 1]) -> (d[..]) = |t, _| scaled(&Dist0::default(), |op| &op.0, t, 1, 1);
    dist0_bwd(x[.., d], g[..], c[.., 1]) -> (dx[x], dc[c]) = |t, _| scaled(&Dist0Bwd::default(), |op| &op.0, t, 1, 3);
};
