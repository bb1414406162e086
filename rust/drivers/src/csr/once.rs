//! Sparse times dense where rows of x are read once, if at all: the few activations of a token. The one rule: rows are read from
//! end to end, as the memory likes it, some side by side, and as many after them are asked for meanwhile; their sums stay in the
//! first cache.

use super::plan::Plan;
use super::row::{ABREAST, Row};
use super::spmm::Real;
use super::{Index, Pattern, raced};
use base::Result;
use base::pool::{self, Shared};
use base::vector::clamped;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of sums of one task: half a first cache, and the least that are worth one.
const MOST: usize = 16 * 1024;
const LEAST: usize = 2 * 1024;

/// As [`super::spmm`], of a matrix with fewer entries than columns, but one or more a row.
pub(super) fn product<T: Real, I: Index>(
    plan: &Plan,
    a: &Pattern<I>,
    data: &[T],
    x: &[T],
    batch: usize,
    bias: Option<&[T]>,
    clamp: Option<[T; 2]>,
    y: &mut [T],
) -> Result<()> {
    let (rows, cols, n) = (a.rows(), a.cols(), plan.n);
    let wide = n.div_ceil(pool::threads()).next_multiple_of(64).clamp(LEAST / size_of::<T>(), MOST / size_of::<T>());
    let (bands, runs) = (n.div_ceil(wide), a.parts(plan.parts));
    let (out, changed) = (Shared(y.as_mut_ptr()), AtomicBool::new(false));
    let work = (a.entries() + rows).saturating_mul(n).saturating_mul(batch);
    pool::run(batch * bands * plan.parts, work, |task| {
        let (run, at) = (runs(task % plan.parts), task / plan.parts);
        let (band, b) = (at % bands, at / bands);
        let columns = band * wide..n.min((band + 1) * wide);
        let x = &x[b * cols * n..][..cols * n];
        // SAFETY: an element of the indices.
        let column = |e: usize| unsafe { I::read(&raw const a.indices[e]) };
        for i in run {
            // SAFETY: columns of row i of y number b, which are this task's alone.
            let sums = unsafe { out.part((b * rows + i) * n + columns.start, columns.len()) };
            sums.fill(bias.map_or(T::default(), |bias| bias[i]));
            let end = a.ptr[i + 1];
            for from in (a.ptr[i]..end).step_by(ABREAST) {
                let (mut these, mut next) = ([(T::default(), &x[..0]); ABREAST], [std::ptr::null(); ABREAST]);
                let some = ABREAST.min(end - from);
                for (l, (this, next)) in these.iter_mut().zip(&mut next).take(some).enumerate() {
                    let k = column(from + l);
                    if k >= cols {
                        changed.store(true, Ordering::Relaxed);
                        return;
                    }
                    *this = (data[from + l], &x[k * n..][columns.clone()]);
                    // where there is none, or none any more, nothing is read
                    *next = x.as_ptr().wrapping_add(column((from + l + ABREAST).min(end - 1)) * n + columns.start);
                }
                T::row(plan.isa, &Row { these: &these[..some], next }, sums);
            }
            if let Some([lo, hi]) = clamp {
                for sum in sums {
                    *sum = clamped(*sum, lo, hi);
                }
            }
        }
    })?;
    if changed.into_inner() { Err(raced()) } else { Ok(()) }
}
