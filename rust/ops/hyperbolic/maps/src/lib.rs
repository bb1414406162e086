//! Maps of the Poincaré ball of curvature -c: {c|x|² < 1}, c >= 0. The one rule: every formula is written with
//! alpha = 1 - c|x|² and sums of squares, never as a difference of large terms, and c = 0 is a value like any other.
//!
//! Notation: alpha = 1 - c|x|², beta = 1 - c|y|², sigma = x + y, q = |sigma|² (or |x - y|² for distances), g the gradient
//! that arrives. Forms and backwards after Ganea et al. 2018 and Ungar 2008, rearranged so that nothing cancels.

mod mobius;
mod origin;
mod plane;
mod point;

use base::{Op, Rule};
use drivers::{row_ops, rows::Margin};
use mobius::*;
use origin::*;
use plane::*;
use point::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = row_ops! {
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
    dist(x, y; c;) -> d: Rule::Lead => |t, _s| Dist;
    dist_bwd(x, y; g, c;) -> dx: Rule::Like(0), dy: Rule::Like(1), dc: Rule::Like(3) => |t, _s| DistBwd;
    logmap(x, y; c;) -> v: Rule::Rows => |t, _s| LogMap;
    logmap_bwd(g, x, y; c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dc: Rule::Like(3) => |t, _s| LogMapBwd;
    dist2plane(x, p, a; c; signed Bool, scaled Bool) -> d: Rule::Lead => |t, s| Dist2Plane(Plane::of(s));
    dist2plane_bwd(x, p, a; g, c; signed Bool, scaled Bool)
        -> dx: Rule::Like(0), dp: Rule::Like(1), da: Rule::Like(2), dc: Rule::Like(4)
        => |t, s| Dist2PlaneBwd(Plane::of(s));
};
