//! Sparse times dense where rows of x are read once, if at all: the few activations of a token. The one rule: rows are read from
//! end to end, as the memory likes it, some side by side; their sums go to the first cache and back between them.

use super::plan::Plan;
use super::spmm::{Panel, Real, Start};
use super::{Index, Pattern, raced};
use base::Result;
use base::pool::{self, Shared};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of x that are read side by side, and panels of one task.
const ABREAST: usize = 8;
const ALONG: usize = 16;

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
    let (bands, runs) = (plan.panels.div_ceil(ALONG), a.parts(plan.parts));
    let (out, changed) = (Shared(y.as_mut_ptr()), AtomicBool::new(false));
    let work = (a.entries() + rows).saturating_mul(n).saturating_mul(batch);
    pool::run(batch * bands * plan.parts, work, |task| {
        let (run, at) = (runs(task % plan.parts), task / plan.parts);
        let (band, b) = (at % bands, at / bands);
        let x = &x[b * cols * n..][..cols * n];
        for i in run {
            let (first, end) = (a.ptr[i], a.ptr[i + 1]);
            for from in (first..end.max(first + 1)).step_by(ABREAST) {
                let to = end.min(from + ABREAST);
                for columns in (band * ALONG..plan.panels.min((band + 1) * ALONG)).map(|p| plan.columns(p)) {
                    let p = Panel {
                        data,
                        indices: a.indices,
                        from: &[from],
                        to: &[to],
                        first: 0,
                        count: cols,
                        x: x.as_ptr().wrapping_add(columns.start),
                        ldx: n,
                        // SAFETY: row i of y number b, at a column below n.
                        y: unsafe { out.at((b * rows + i) * n + columns.start) },
                        ldy: n,
                        width: columns.len(),
                        start: match bias {
                            _ if from > first => Start::Sum,
                            Some(bias) => Start::Bias(&bias[i..=i]),
                            None => Start::Zero,
                        },
                        clamp: clamp.filter(|_| to == end),
                    };
                    // SAFETY: x has `cols` rows of n; these columns of row i of y are this task's alone; offsets were checked by
                    // `Pattern`, `to` is `end` at most and `from` below it but in a row without entries.
                    if !unsafe { T::panel(plan.isa, &p) } {
                        changed.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            }
        }
    })?;
    if changed.into_inner() { Err(raced()) } else { Ok(()) }
}
