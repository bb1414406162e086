//! Midpoints of points of the ball, what is spread around them, and batch normalisation, which carries points from one to
//! another. The one rule: a point is looked at from the midpoint, where distances are short.

mod carry;
mod midpoint;
mod normal;
mod place;
mod spread;

use base::{Op, Rule};
use carry::*;
use drivers::{row_ops, rows::Margin};
use spread::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS, midpoint::OPS, normal::OPS];

pub static OPS: &[Op] = row_ops! {
    spread(x, m; c; ball Bool) -> d: Rule::Lead => |t, s| Spread(s[0].bool());
    spread_bwd(x, m; g, c; ball Bool) -> dx: Rule::Like(0), dm: Rule::Like(1), dc: Rule::Like(3)
        => |t, s| SpreadBwd(s[0].bool());
    carry(x, m, b; r, c; ball Bool, eps) -> y: Rule::Rows => |t, s| Carry(s[0].bool(), Margin::of(s[1].float())?);
    carry_bwd(g, x, m, b; r, c; ball Bool)
        -> dx: Rule::Like(1), dm: Rule::Like(2), db: Rule::Like(3), dr: Rule::Like(4), dc: Rule::Like(5)
        => |t, s| CarryBwd(s[0].bool());
};
