//! A product that whole vectors make, of the rows that ask for it: what sums in twice f64's precision do not tell. The one rule: rows
//! that are not near cost one look at eight of them.

use super::TILE;
use super::functor::{Count, Of, RowOp};
use super::kind::Wide;
use super::place::{Rows, eight};
use super::sums::Sums;
use base::simd::*;

/// Makes the last product of those of rows `0..n` that are near, and 0 of the others.
///
/// # Safety
/// As for [`products`](super::walk::products); K is f64.
#[inline(never)]
pub unsafe fn closer<OP: RowOp, S: Simd, K: Wide>(
    s: S,
    rows: &Rows<OP, K>,
    n: usize,
    sums: &mut Of<OP::Products, Sums>,
    given: &Of<OP::Given, [f64; TILE]>,
) {
    s.vectorize(
        #[inline(always)]
        move || {
            let last = OP::Products::N - 1;
            OP::Products::of_mut(sums)[last] = [[0.0; TILE]; 2];
            for g in (0..n).step_by(8) {
                let mut p = OP::Products::fill(f64x8::splat(s, 0.0));
                for (p, [hi, _]) in OP::Products::of_mut(&mut p).iter_mut().zip(OP::Products::of(sums)) {
                    *p = f64x8::from_slice(s, &hi[g..g + 8]);
                }
                let near = OP::near(s, p, eight::<OP::Given, S>(s, given, g));
                if !near.any_true() {
                    continue;
                }
                let near = near.select(f64x8::splat(s, 1.0), f64x8::splat(s, 0.0));
                for r in (g..n.min(g + 8)).filter(|r| near[r - g] != 0.0) {
                    let mut own = OP::Given::fill(0.0);
                    for (own, given) in OP::Given::of_mut(&mut own).iter_mut().zip(OP::Given::of(given)) {
                        *own = given[r];
                    }
                    // SAFETY: promised by the caller.
                    OP::Products::of_mut(sums)[last][0][r] = OP::closer(s, unsafe { rows.whole(r) }, own);
                }
            }
        },
    );
}
