//! A row that is made where its transform needs it. The one rule: of the 2^m numbers only those that are asked for stay; the others
//! have room as long as the call.

use super::Plan;
use super::aside::Aside;
use super::lines::Lines;
use super::long::{self, Fill, UNIT};
use base::lane::Lane;
use base::pool::{self, Shared};
use base::{Error, Result};

/// Rows of 2^m numbers from this m on are made in blocks: more than one of any type, so that there is a level across them.
pub const LEAST: u32 = 14;

/// y = scale·(H x)[first..], of x with 2^m numbers that `fill` makes; `scale` is asked for once they all were made, and each result
/// rounded once.
pub fn made<L: Lane>(
    m: u32,
    first: usize,
    y: &mut [L],
    fill: &impl Fill<L>,
    scale: impl FnOnce() -> f64,
) -> Result<()> {
    let (n, block) = (1 << m, long::block_bits::<L>(m));
    if m < LEAST || first + y.len() > n {
        return Err(Error::Value(format!("no row of 2^{m} numbers is made for {} from {first} on", y.len())));
    }
    // whole blocks of the row lie where `y` begins with them
    let split = if first == 0 { y.len() >> block << block } else { 0 };
    let mut aside = Aside::like(n - split, y.as_ptr())?;
    let rest = aside.at();
    let to = Lines { low: y.as_mut_ptr(), high: rest.wrapping_sub(split), split, stride: 0 };
    long::run(Plan { n, k: 1, m, scale: 1.0, growth: 0 }, to, fill, |_| scale(), true)?;
    let left = &mut y[split..];
    let (from, many) = (Shared(rest.wrapping_add(first)), left.len());
    let out = Shared(left.as_mut_ptr());
    pool::run(many.div_ceil(UNIT), many, |b| {
        let (at, len) = (b * UNIT, UNIT.min(many - b * UNIT));
        // SAFETY: a part of the row, which was written, and one of `y`, which is ours.
        unsafe { out.part(at, len).copy_from_slice(from.part(at, len)) };
    })
}
