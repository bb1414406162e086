//! The two walks over the rows of a tile: to their inner products, and to their linear combinations. The one rule: what
//! can be decided per tile is not decided per row, which may be one step long.

use super::kind::Wide;
use super::sums::Acc;
use super::{RowOp, TILE};
use base::fetch;
use base::simd::*;
use base::store::STEP;
use std::ops::Range;

/// The inputs of a tile: for each, where its first row lies and how far the next one is.
#[derive(Clone, Copy)]
pub struct Rows<K, const V: usize> {
    pub x: [(*const K, usize); V],
    /// Elements of a row.
    pub d: usize,
    /// Elements from a row to the one that is fetched while it is worked on: memory never rests.
    pub next: usize,
    /// How many of the inputs the first walk fetches; the second fetches the others.
    pub early: usize,
}

/// Leaves the inner products of rows `0..n` in `lanes`.
///
/// # Safety
/// Each input has `n` rows of `d` elements, `n` at most TILE.
#[inline(always)]
pub unsafe fn products<
    OP,
    S: Simd,
    K: Wide,
    A: Acc<S>,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(
    s: S,
    op: &OP,
    rows: Rows<K, V>,
    n: usize,
    lanes: &mut [A::Lanes; P],
) where
    OP: RowOp<V, C, P, W, O, R>,
{
    let Rows { d, next, early, .. } = rows;
    if (1..=STEP).contains(&d) {
        // a row is one step: nothing to add up across steps
        for r in 0..n {
            let x = rows.at(r);
            let mut sums = [A::zero(s); P];
            // SAFETY: promised by the caller.
            let [a, b] = unsafe { load::<S, K, V>(s, &x, 0, d) };
            ahead(&x[..early], next);
            op.dots(&a, &mut sums);
            if d > STEP / 2 {
                op.dots(&b, &mut sums);
            }
            for p in 0..P {
                sums[p].keep(&mut lanes[p], r);
            }
        }
        return;
    }
    let tail = d % STEP;
    for r in 0..n {
        let x = rows.at(r);
        let mut sums = [[A::zero(s); P]; 2];
        let mut i = 0;
        while i + STEP <= d {
            // SAFETY: promised by the caller.
            let [a, b] = unsafe { load::<S, K, V>(s, &x, i, STEP) };
            ahead(&x[..early], i + next);
            op.dots(&a, &mut sums[0]);
            op.dots(&b, &mut sums[1]);
            i += STEP;
        }
        if tail > 0 {
            // SAFETY: promised by the caller.
            let [a, b] = unsafe { load::<S, K, V>(s, &x, i, tail) };
            op.dots(&a, &mut sums[0]);
            if tail > STEP / 2 {
                op.dots(&b, &mut sums[1]);
            }
        }
        for p in 0..P {
            sums[0][p].and(sums[1][p]).keep(&mut lanes[p], r);
        }
    }
}

/// Writes the combinations of rows `range` to `y`.
///
/// # Safety
/// Each input and output has `range.end` rows of `d` elements; outputs belong to the caller. An output may be an input.
#[inline(always)]
pub unsafe fn combine<
    OP,
    S: Simd,
    K: Wide,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(
    s: S,
    op: &OP,
    rows: Rows<K, V>,
    range: Range<usize>,
    weights: &[[f64; TILE]; W],
    y: &[*mut K; O],
) where
    OP: RowOp<V, C, P, W, O, R>,
{
    let Rows { d, next, early, .. } = rows;
    let tail = d % STEP;
    for r in range {
        let (x, w) = (rows.at(r), row_weights(s, weights, r));
        let mut i = 0;
        while i + STEP <= d {
            // SAFETY: promised by the caller; a step is read before it is written.
            let [a, b] = unsafe { load::<S, K, V>(s, &x, i, STEP) };
            ahead(&x[early..], i + next);
            let (a, b) = (op.combine(&a, &w), op.combine(&b, &w));
            for o in 0..O {
                // SAFETY: promised by the caller; no reference to a row outlives its step.
                let step = unsafe { std::slice::from_raw_parts_mut(y[o].add(r * d + i), STEP) };
                K::store16(s, [a[o], b[o]], step);
            }
            i += STEP;
        }
        if tail > 0 {
            // SAFETY: as above.
            let [a, b] = unsafe { load::<S, K, V>(s, &x, i, tail) };
            ahead(&x[early..], i + next);
            let (a, b) = (op.combine(&a, &w), op.combine(&b, &w));
            for o in 0..O {
                // SAFETY: as above.
                let step = unsafe { std::slice::from_raw_parts_mut(y[o].add(r * d + i), tail) };
                K::store_tail(s, [a[o], b[o]], step);
            }
        }
    }
}

/// As [`combine`], where an output is the sum over rows: those outputs are added to `sums`, rows of whole steps.
///
/// # Safety
/// As for [`combine`]; nothing is written to `y` where an output is summed.
#[inline(always)]
pub unsafe fn combine_summed<
    OP,
    S: Simd,
    K: Wide,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(
    s: S,
    op: &OP,
    rows: Rows<K, V>,
    n: usize,
    weights: &[[f64; TILE]; W],
    y: &[*mut K; O],
    summed: &[bool; O],
    sums: &mut [f64],
) where
    OP: RowOp<V, C, P, W, O, R>,
{
    let d = rows.d;
    for r in 0..n {
        let (x, w) = (rows.at(r), row_weights(s, weights, r));
        for i in (0..d).step_by(STEP) {
            let step = STEP.min(d - i);
            // SAFETY: promised by the caller; a step is read before it is written.
            let [a, b] = unsafe { load::<S, K, V>(s, &x, i, step) };
            let (a, b) = (op.combine(&a, &w), op.combine(&b, &w));
            let mut at = i;
            for o in 0..O {
                if summed[o] {
                    let sum = &mut sums[at..][..STEP];
                    (f64x8::from_slice(s, &sum[..8]) + a[o]).store_slice(&mut sum[..8]);
                    (f64x8::from_slice(s, &sum[8..]) + b[o]).store_slice(&mut sum[8..]);
                    at += d.next_multiple_of(STEP);
                } else {
                    // SAFETY: promised by the caller; no reference to a row outlives its step.
                    let row = unsafe { std::slice::from_raw_parts_mut(y[o].add(r * d + i), step) };
                    if step == STEP {
                        K::store16(s, [a[o], b[o]], row);
                    } else {
                        K::store_tail(s, [a[o], b[o]], row);
                    }
                }
            }
        }
    }
}

impl<K, const V: usize> Rows<K, V> {
    /// The rows from `r` on.
    #[inline(always)]
    pub fn skip(mut self, r: usize) -> Self {
        for x in &mut self.x {
            x.0 = x.0.wrapping_add(r * x.1);
        }
        self
    }

    /// Where row `r` of each input starts.
    #[inline(always)]
    fn at(&self, r: usize) -> [*const K; V] {
        let mut rows = [std::ptr::null(); V];
        for v in 0..V {
            rows[v] = self.x[v].0.wrapping_add(r * self.x[v].1);
        }
        rows
    }
}

#[inline(always)]
fn row_weights<S: Simd, const W: usize>(s: S, weights: &[[f64; TILE]; W], r: usize) -> [f64x8<S>; W] {
    let mut w = [f64x8::splat(s, 0.0); W];
    for k in 0..W {
        w[k] = f64x8::splat(s, weights[k][r]);
    }
    w
}

/// Fetches step `i` of each row, wherever that is.
#[inline(always)]
fn ahead<K: Wide>(x: &[*const K], i: usize) {
    for v in 0..x.len() {
        let p = x[v].wrapping_add(i);
        fetch(p);
        if size_of::<K>() == 8 {
            fetch(p.wrapping_add(STEP / 2));
        }
    }
}

/// Step `i` of each row: two halves of eight lanes, zeros past the end.
///
/// # Safety
/// Each row has `i + step` elements at least.
#[inline(always)]
unsafe fn load<S: Simd, K: Wide, const V: usize>(s: S, x: &[*const K; V], i: usize, step: usize) -> [[f64x8<S>; V]; 2] {
    let zero = f64x8::splat(s, 0.0);
    let (mut a, mut b) = ([zero; V], [zero; V]);
    for v in 0..V {
        // SAFETY: promised by the caller.
        let part = unsafe { std::slice::from_raw_parts(x[v].add(i), step) };
        [a[v], b[v]] = if step == STEP { K::load16(s, part) } else { K::load_tail(s, part) };
    }
    [a, b]
}
