//! Sparse times dense, `y = clamp(A x + b)`. The one rule: a sum runs over the columns of A in ascending order in one
//! chain (see `spmm`), so neither threads nor the cuts made here can show in the bits.
//!
//! x is cut into panels of as many columns as the registers hold, and a panel into blocks of rows that fit the L2 cache.
//! A panel is copied together first: read in place, rows a multiple of 4 KiB apart would all fall into the same few sets
//! of the cache. Where each row of x serves only a few nonzeros (a graph, say) the copy does not pay and x is read as it lies.
//! Where hardly one is read twice, see `once`.

use super::plan::{Plan, line};
use super::{Index, Pattern, once, raced, sized};
use crate::csr::spmm::{Panel, Real, Start};
use base::Result;
use base::pool::{self, Shared};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// Where this thread puts its panel together.
    static SCRATCH: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

/// `y[b] = clamp(A x[b] + bias)` for every `b < batch`: x is `[batch, cols, n]`, y `[batch, rows, n]`.
pub fn spmm<T: Real, I: Index>(
    a: &Pattern<I>,
    data: &[T],
    x: &[T],
    [batch, n]: [usize; 2],
    bias: Option<&[T]>,
    clamp: Option<[T; 2]>,
    y: &mut [T],
) -> Result<()> {
    let (rows, cols) = (a.rows(), a.cols());
    sized(&[
        ("data", data.len(), Some(a.entries())),
        ("x", x.len(), cols.checked_mul(n).and_then(|v| v.checked_mul(batch))),
        ("y", y.len(), rows.checked_mul(n).and_then(|v| v.checked_mul(batch))),
        ("bias", bias.map_or(rows, <[T]>::len), Some(rows)),
    ])?;
    if y.is_empty() {
        return Ok(());
    }
    let plan = Plan::new::<T, I>(a, batch, n);
    if (rows..=cols / 2).contains(&a.entries()) && plan.panels > 1 {
        return once::product(&plan, a, data, x, batch, bias, clamp, y);
    }
    let cuts = a.cuts(plan.height, plan.blocks)?;
    let runs = a.parts(plan.parts);
    let (out, raced_once) = (Shared(y.as_mut_ptr()), AtomicBool::new(false));
    let tasks = batch * plan.panels * plan.parts;
    let work = (a.entries() + rows).saturating_mul(n).saturating_mul(batch);
    pool::run(tasks, work, |task| {
        let (run, at) = (runs(task % plan.parts), task / plan.parts);
        let (columns, b) = (plan.columns(at % plan.panels), at / plan.panels);
        let (j, width) = (columns.start, columns.len());
        for block in 0..plan.blocks {
            let first = block * plan.height;
            let count = plan.height.min(cols - first);
            let x = &x[(b * cols + first) * n..][..count * n];
            let done = panel(x, n, j, width, plan.copied, |x, ldx| {
                let p = Panel {
                    data,
                    indices: a.indices,
                    from: &cuts[block * rows..][run.clone()],
                    to: &cuts[(block + 1) * rows..][run.clone()],
                    first,
                    count,
                    x,
                    ldx,
                    // SAFETY: within y: run.start < rows or the panel has no rows, j < n.
                    y: unsafe { out.at((b * rows + run.start) * n + j) },
                    ldy: n,
                    width,
                    start: match bias {
                        _ if block > 0 => Start::Sum,
                        Some(bias) => Start::Bias(&bias[run.clone()]),
                        None => Start::Zero,
                    },
                    clamp: clamp.filter(|_| block + 1 == plan.blocks),
                };
                // SAFETY: the panel's x has `count` rows of at least `width` columns `ldx` apart; the rows `run` and columns
                // `j..j + width` of y are this task's alone; `cuts` are the offsets checked by `Pattern`, which ascend and
                // end at the number of entries, that of `data` too; a bias has `rows` numbers; `width` is at most the plan's.
                unsafe { T::panel(plan.isa, &p) }
            });
            if !done {
                raced_once.store(true, Ordering::Relaxed);
                break;
            }
        }
    })?;
    if raced_once.into_inner() { Err(raced()) } else { Ok(()) }
}

/// Hands `f` the columns `j..j + width` of x, a matrix with rows of `n`: copied together if `copied`, else where they lie.
fn panel<T: Real>(
    x: &[T],
    n: usize,
    j: usize,
    width: usize,
    copied: bool,
    f: impl Fn(*const T, usize) -> bool,
) -> bool {
    if x.is_empty() {
        return f(x.as_ptr(), n);
    }
    if !copied {
        return f(x[j..].as_ptr(), n);
    }
    let ld = width.next_multiple_of(line::<T>());
    let rows = x.len() / n;
    let made = scratch(rows * ld, |at: *mut T| {
        for (r, row) in x.chunks_exact(n).enumerate() {
            // SAFETY: `rows * ld` elements are there, `width <= ld`; the scratch is no part of x.
            unsafe {
                at.add(r * ld).copy_from_nonoverlapping(row[j..j + width].as_ptr(), width);
            };
        }
        f(at, ld)
    });
    made.unwrap_or_else(|| f(x[j..].as_ptr(), n))
}

/// Hands `f` room for `n` elements that this thread keeps, from a cache line on; None where there is none.
pub(super) fn scratch<T: Real, R>(n: usize, f: impl FnOnce(*mut T) -> R) -> Option<R> {
    SCRATCH.with_borrow_mut(|scratch| {
        let words = (n * size_of::<T>()).div_ceil(8) + 8;
        if scratch.len() < words {
            let more = words - scratch.len();
            scratch.try_reserve_exact(more).ok()?;
            scratch.resize(words, 0.0);
        }
        let at = scratch.as_mut_ptr();
        // SAFETY: at most seven words further, and eight more than needed are there.
        Some(f(unsafe { at.add((64 - at as usize % 64) % 64 / 8) }.cast::<T>()))
    })
}
