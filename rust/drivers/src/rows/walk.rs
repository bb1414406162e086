//! The two walks over the rows of a tile: to their inner products, and to their linear combinations. The one rule: what
//! can be decided per tile is not decided per row, which may be one step long; and each formula is compiled as few times
//! as that allows: for the two halves of a whole step, and for those of a part.

use super::TILE;
use super::functor::{Count, Of, RowOp};
use super::kind::Wide;
use super::peak::{end, peaks};
use super::place::{Outs, Rows, ahead, load};
use super::sums::Acc;
use base::mix::Pair;
use base::simd::*;
use base::store::STEP;
use base::{outlined, stream};
use std::ops::Range;

/// Lays the frame of the function this is inlined into on lines of the cache: vectors that no register is left for are
/// kept there, and one across two lines is late when it is read again.
#[inline(always)]
pub fn lay_frame() {
    #[repr(align(64))]
    struct Line(u8);
    std::hint::black_box(&mut Line(0).0);
}

/// Leaves the peaks of rows `0..n` in `tops`, if they have any, and their inner products in `lanes`.
///
/// # Safety
/// Each input has `n` rows of `d` elements, `n` at most TILE.
#[inline(never)]
pub unsafe fn products<OP: RowOp, S: Simd, K: Wide, A: Acc<S>>(
    s: S,
    rows: &Rows<OP, K>,
    n: usize,
    tops: &mut Of<OP::Peaks, [f64; TILE]>,
    lanes: &mut Of<OP::Products, A::Lanes>,
) {
    s.vectorize(
        #[inline(always)]
        move || {
            lay_frame();
            let &Rows { d, next, .. } = rows;
            // a row of one step has nothing to add up across steps
            let short = d <= STEP;
            let whole = if short { 0 } else { d / STEP * STEP };
            let tail = d - whole;
            for r in 0..n {
                let x = rows.at(r);
                // SAFETY: promised by the caller.
                let top = unsafe { peaks::<OP, S, K>(s, &x, if OP::Peaks::N > 0 { d } else { 0 }) };
                for (tops, top) in OP::Peaks::of_mut(tops).iter_mut().zip(OP::Peaks::of(&top)) {
                    tops[r] = top[0];
                }
                let mut sums = [OP::Products::fill(A::zero(s)); 2];
                for i in (0..whole).step_by(STEP) {
                    // SAFETY: promised by the caller.
                    let [a, b] = unsafe { load::<OP, S, K>(s, &x, i, STEP) };
                    ahead::<OP, K>(&x, Rows::<OP, K>::EARLY, i + next);
                    dots::<S, OP, A>(s, a, top, &mut sums[0]);
                    dots::<S, OP, A>(s, b, top, &mut sums[1]);
                }
                if tail > 0 {
                    // SAFETY: promised by the caller.
                    let mut halves = unsafe { load::<OP, S, K>(s, &x, whole, tail) };
                    ahead::<OP, K>(&x, Rows::<OP, K>::EARLY, whole + next);
                    if OP::Peaks::N > 0 {
                        end::<OP::Vectors, S>(s, &mut halves, tail);
                    }
                    let [a, b] = halves;
                    dots::<S, OP, A>(s, a, top, &mut sums[0]);
                    if tail > STEP / 2 {
                        if short {
                            sums[1] = sums[0];
                        }
                        dots::<S, OP, A>(s, b, top, &mut sums[1]);
                    }
                }
                let [first, second] = [OP::Products::of(&sums[0]), OP::Products::of(&sums[1])];
                keep::<S, A>(s, first, second, short, tail > STEP / 2, OP::Products::of_mut(lanes), r);
            }
        },
    );
}

/// Writes the combinations of rows `range`.
///
/// # Safety
/// Each input and output has `range.end` rows of `d` elements; outputs belong to the caller. An output may be an input.
#[inline(never)]
pub unsafe fn combine<OP: RowOp, S: Simd, K: Wide>(s: S, rows: &Rows<OP, K>, range: Range<usize>, outs: &Outs<OP, K>) {
    s.vectorize(
        #[inline(always)]
        move || {
            lay_frame();
            let (&Rows { d, next, .. }, y) = (rows, outs.y);
            let tail = d % STEP;
            for r in range {
                // SAFETY: promised by the caller.
                if OP::Marks::N > 0 && outs.at[r] >= d && unsafe { outs.leave_out(r, d) } {
                    continue;
                }
                if const { singly::<OP, S, K>() } && outs.single[r] != 0.0 {
                    // SAFETY: promised by the caller.
                    unsafe { single(s, rows, r, outs) };
                    continue;
                }
                let (x, w) = (rows.at(r), outs.weights(s, r));
                for i in (0..d - tail).step_by(STEP) {
                    // SAFETY: promised by the caller; a step is read before it is written.
                    let [a, b] = unsafe { load::<OP, S, K>(s, &x, i, STEP) };
                    ahead::<OP, K>(&x, Rows::<OP, K>::LATE, i + next);
                    let (a, b) = (mixed::<S, OP>(s, narrow::<K>(), a, &w), mixed::<S, OP>(s, narrow::<K>(), b, &w));
                    for (o, y) in OP::Outputs::of(&y).iter().enumerate() {
                        let v = [OP::Outputs::of(&a)[o], OP::Outputs::of(&b)[o]];
                        // SAFETY: promised by the caller.
                        unsafe { whole(s, outs.past, y.add(r * d + i), |y| K::store16(s, v, y)) };
                    }
                }
                if tail > 0 {
                    let i = d - tail;
                    // SAFETY: as above.
                    let [a, b] = unsafe { load::<OP, S, K>(s, &x, i, tail) };
                    ahead::<OP, K>(&x, Rows::<OP, K>::LATE, i + next);
                    let (a, b) = (mixed::<S, OP>(s, narrow::<K>(), a, &w), mixed::<S, OP>(s, narrow::<K>(), b, &w));
                    for (o, y) in OP::Outputs::of(&y).iter().enumerate() {
                        let v = [OP::Outputs::of(&a)[o], OP::Outputs::of(&b)[o]];
                        // SAFETY: as above.
                        K::store_tail(s, v, unsafe { std::slice::from_raw_parts_mut(y.add(r * d + i), tail) });
                    }
                }
                if OP::Marks::N > 0 {
                    // SAFETY: as above.
                    unsafe { outs.mark(r, d) };
                }
            }
        },
    );
}

/// Whether functions to f32's accuracy serve rows of K.
const fn narrow<K>() -> bool {
    size_of::<K>() == size_of::<f32>()
}

/// Whether rows of K are combined in f32 where they may.
const fn singly<OP: RowOp, S: Simd, K: Wide>() -> bool {
    OP::SINGLE && size_of::<K>() == size_of::<f32>() && !portable::<S>()
}

/// Writes the combination of row `r`, made in f32.
///
/// # Safety
/// As for [`combine`].
#[inline(always)]
unsafe fn single<OP: RowOp, S: Simd, K: Wide>(s: S, rows: &Rows<OP, K>, r: usize, outs: &Outs<OP, K>) {
    let (&Rows { d, next, .. }, x) = (rows, rows.at(r));
    let mut w = OP::Weights::fill(Pair::splat(s, 0.0));
    for (w, all) in OP::Weights::of_mut(&mut w).iter_mut().zip(OP::Weights::of(outs.weights)) {
        *w = Pair::splat(s, all[r]);
    }
    let mut i = 0;
    while i < d {
        let step = STEP.min(d - i);
        let mut v = OP::Vectors::fill(f32x16::splat(s, 0.0));
        for (v, x) in OP::Vectors::of_mut(&mut v).iter_mut().zip(OP::Vectors::of(&x)) {
            // SAFETY: promised by the caller; a step is read before it is written.
            let part = unsafe { std::slice::from_raw_parts(x.add(i), step) };
            *v = if step == STEP { K::load16_f32(s, part) } else { K::load_tail_f32(s, part) };
        }
        ahead::<OP, K>(&x, Rows::<OP, K>::LATE, i + next);
        let v = OP::single(v, w);
        for (v, y) in OP::Outputs::of(&v).iter().zip(OP::Outputs::of(&outs.y)) {
            // SAFETY: promised by the caller; no reference to a row outlives its step.
            unsafe {
                let to = y.add(r * d + i);
                if step == STEP {
                    whole(s, outs.past, to, |y| K::store16_f32(s, *v, y));
                } else {
                    K::store_tail_f32(s, *v, std::slice::from_raw_parts_mut(to, step));
                }
            }
        }
        i += STEP;
    }
}

/// Writes a whole step, as `store` does.
///
/// # Safety
/// The elements at `to` belong to the caller, and are lines if they go past the caches.
#[inline(always)]
unsafe fn whole<S: Simd, K: Wide>(s: S, past: bool, to: *mut K, store: impl Fn(&mut [K])) {
    if const { stream::passes::<S>() } && past {
        let mut line = [K::default(); STEP];
        store(&mut line);
        // SAFETY: promised by the caller.
        unsafe { stream::lines(s, &line, to) };
    } else {
        // SAFETY: promised by the caller; no reference to a row outlives its step.
        store(unsafe { std::slice::from_raw_parts_mut(to, STEP) });
    }
}

/// Writes step `i` of the combinations of rows `range`, which may be a part of one: where an output is the sum over rows,
/// which is added to `sums`, rows of whole steps, and on the portable level, for which this is all that is compiled.
///
/// # Safety
/// As for [`combine`]; nothing is written where an output is summed.
#[inline(never)]
pub unsafe fn strip<OP: RowOp, S: Simd, K: Wide>(
    s: S,
    rows: &Rows<OP, K>,
    range: Range<usize>,
    i: usize,
    outs: &Outs<OP, K>,
    summed: &[bool],
    sums: &mut [f64],
) {
    s.vectorize(
        #[inline(always)]
        move || {
            lay_frame();
            let (&Rows { d, next, .. }, y) = (rows, outs.y);
            let step = STEP.min(d - i);
            for r in range {
                let (x, w) = (rows.at(r), outs.weights(s, r));
                // SAFETY: promised by the caller; a step is read before it is written.
                let halves = unsafe { load::<OP, S, K>(s, &x, i, step) };
                ahead::<OP, K>(&x, Rows::<OP, K>::LATE, i + next);
                let out = OP::Marks::N > 0 && outs.at[r] >= d;
                // how many halves there are is not known before, so that the formula is compiled once
                let mut v = [OP::Outputs::fill(f64x8::splat(s, 0.0)); 2];
                for (v, x) in v.iter_mut().zip(halves).take(step.div_ceil(STEP / 2)) {
                    *v = mixed::<S, OP>(s, narrow::<K>(), x, &w);
                }
                let mut at = i;
                for (o, y) in OP::Outputs::of(&y).iter().enumerate() {
                    let v = [OP::Outputs::of(&v[0])[o], OP::Outputs::of(&v[1])[o]];
                    if out {
                        at += if summed[o] { d.next_multiple_of(STEP) } else { 0 };
                        if !summed[o] {
                            // SAFETY: as below.
                            unsafe { std::slice::from_raw_parts_mut(y.add(r * d + i), step) }.fill(K::default());
                        }
                        continue;
                    }
                    if summed[o] {
                        let sum = &mut sums[at..][..STEP];
                        (f64x8::from_slice(s, &sum[..8]) + v[0]).store_slice(&mut sum[..8]);
                        (f64x8::from_slice(s, &sum[8..]) + v[1]).store_slice(&mut sum[8..]);
                        at += d.next_multiple_of(STEP);
                    } else {
                        // SAFETY: promised by the caller; no reference to a row outlives its step.
                        store::<S, K>(s, v, unsafe { std::slice::from_raw_parts_mut(y.add(r * d + i), step) });
                    }
                }
                if OP::Marks::N > 0 && !summed[0] && (i..i + step).contains(&outs.at[r]) {
                    // SAFETY: as above.
                    unsafe { outs.mark(r, d) };
                }
            }
        },
    );
}

outlined! {
    fn dots<S: Simd, OP: RowOp, A: Acc<S>>(
        s: S, x: Of<OP::Vectors, f64x8<S>>, tops: Of<OP::Peaks, f64x8<S>>, sums: &mut Of<OP::Products, A>
    ) {
        OP::dots(x, tops, sums);
    }

    /// Keeps the sums of row `r`, which are in two parts unless it is short: then in the second if that has any.
    fn keep<S: Simd, A: Acc<S>>(
        s: S, first: &[A], second: &[A], short: bool, more: bool, lanes: &mut [A::Lanes], r: usize
    ) {
        for (p, lanes) in lanes.iter_mut().enumerate() {
            let sum = match (short, more) {
                (true, true) => second[p],
                (true, false) => first[p],
                _ => first[p].and(second[p]),
            };
            sum.keep(lanes, r);
        }
    }

    fn mixed<S: Simd, OP: RowOp>(
        s: S, narrow: bool, x: Of<OP::Vectors, f64x8<S>>, w: &Of<OP::Weights, f64x8<S>>
    ) -> Of<OP::Outputs, f64x8<S>> {
        OP::combine(narrow, x, *w)
    }

    fn store<S: Simd, K: Wide>(s: S, v: [f64x8<S>; 2], y: &mut [K]) {
        if y.len() == STEP { K::store16(s, v, y) } else { K::store_tail(s, v, y) }
    }
}
