//! Midpoints of points of the ball, what is spread around them, and batch normalisation, which carries points from one to
//! another. The one rule: a point is looked at from the midpoint, where distances are short.

mod carry;
mod midpoint;
mod normal;
mod place;
mod spread;

use base::Op;
use carry::*;
use drivers::{row_ops, rows::Margin};
use spread::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS, midpoint::OPS, normal::OPS];

pub static OPS: &[Op] = row_ops! {
    spread(x[.., d], m[.., d], c[.., 1]; ball: bool) -> (d[..]) = |t, s| Spread(s[0].bool());
    spread_bwd(x[.., d], m[.., d], g[..], c[.., 1]; ball: bool) -> (dx[x], dm[m], dc[c])
        = |t, s| SpreadBwd(s[0].bool());
    carry(x[.., d], m[.., d], b[.., d], r[.., 1], c[.., 1]; ball: bool, eps) -> (y[.., d])
        = |t, s| Carry(s[0].bool(), Margin::of(s[1].float())?);
    carry_bwd(g[.., d], x[.., d], m[.., d], b[.., d], r[.., 1], c[.., 1]; ball: bool) -> (dx[x], dm[m], db[b], dr[r], dc[c])
        = |t, s| CarryBwd(s[0].bool());
};
