//! Peaks and marks of rows: their largest elements, before anything is summed, and one element each that is known by its place.
//! The one rule: what an operator has none of is not compiled for it.

use super::TILE;
use super::functor::{Count, Of, RowOp};
use super::kind::Wide;
use super::place::{Outs, Rows, load};
use base::simd::*;
use base::store::STEP;

/// The peaks of the row at `x`, each in all lanes. The row is near when it is walked for its sums.
///
/// # Safety
/// Each input has `d` elements there.
#[inline(always)]
pub unsafe fn peaks<OP: RowOp, S: Simd, K: Wide>(
    s: S,
    x: &Of<OP::Vectors, *const K>,
    d: usize,
) -> Of<OP::Peaks, f64x8<S>> {
    let mut most = [OP::Peaks::fill(f64x8::splat(s, f64::NEG_INFINITY)); 2];
    for i in (0..d).step_by(STEP) {
        let step = STEP.min(d - i);
        // SAFETY: promised by the caller.
        let mut halves = unsafe { load::<OP, S, K>(s, x, i, step) };
        if step < STEP {
            end::<OP::Vectors, S>(s, &mut halves, step);
        }
        for (most, x) in most.iter_mut().zip(halves) {
            for (most, v) in OP::Peaks::of_mut(most).iter_mut().zip(OP::Peaks::of(&OP::peaks(x))) {
                *most = most.max(*v);
            }
        }
    }
    let [mut first, second] = most;
    for (top, v) in OP::Peaks::of_mut(&mut first).iter_mut().zip(OP::Peaks::of(&second)) {
        *top = f64x8::splat(s, top.max(*v).as_slice().iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b)));
    }
    first
}

/// Puts -inf past the end of the first vector, where `step` elements are left of it.
#[inline(always)]
pub fn end<C: Count, S: Simd>(s: S, halves: &mut [Of<C, f64x8<S>>; 2], step: usize) {
    const PAST: [f64; 2 * STEP] = {
        let mut past = [0.0; 2 * STEP];
        let mut i = STEP;
        while i < 2 * STEP {
            past[i] = f64::NEG_INFINITY;
            i += 1;
        }
        past
    };
    let past = &PAST[STEP - step..][..STEP];
    for (half, past) in halves.iter_mut().zip(past.chunks_exact(8)) {
        let first = &mut C::of_mut(half)[0];
        *first += f64x8::from_slice(s, past);
    }
}

/// Reads the marks of rows, which are at `at`; 0 of a row without one.
///
/// # Safety
/// As for [`products`](super::walk::products), of as many rows as there are places.
pub unsafe fn read<OP: RowOp, K: Wide>(rows: &Rows<OP, K>, at: &[usize], marks: &mut Of<OP::Marks, [f64; TILE]>) {
    for marks in OP::Marks::of_mut(marks) {
        let (x, far) = OP::Vectors::of(&rows.x)[0];
        for (r, (mark, &at)) in marks.iter_mut().zip(at).enumerate() {
            // SAFETY: promised by the caller; the place is looked at here.
            *mark = if at < rows.d { unsafe { (*x.add(r * far + at)).to_f64() } } else { 0.0 };
        }
    }
}

/// Makes 0 of the numbers of rows that have no mark.
pub fn left_out<OP: RowOp>(d: usize, at: &[usize], numbers: &mut Of<OP::Numbers, [f64; TILE]>) {
    for numbers in OP::Numbers::of_mut(numbers) {
        numbers.iter_mut().zip(at).filter(|(_, at)| **at >= d).for_each(|(number, _)| *number = 0.0);
    }
}

impl<OP: RowOp, K: Wide> Outs<'_, OP, K> {
    /// Writes the mark of row `r`.
    ///
    /// # Safety
    /// As for [`combine`](super::walk::combine).
    #[inline(always)]
    pub unsafe fn mark(&self, r: usize, d: usize) {
        if let (Some(mark), Some(y), true) =
            (OP::Marks::of(self.marks).first(), OP::Outputs::of(&self.y).first(), self.at[r] < d)
        {
            // SAFETY: promised by the caller; the place was looked at.
            unsafe { *y.add(r * d + self.at[r]) = K::from_f64(mark[r]) };
        }
    }

    /// Writes zeros for row `r`. True: a call in a condition.
    ///
    /// # Safety
    /// As for [`combine`](super::walk::combine).
    #[inline(always)]
    pub unsafe fn leave_out(&self, r: usize, d: usize) -> bool {
        for y in OP::Outputs::of(&self.y) {
            // SAFETY: promised by the caller.
            unsafe { std::slice::from_raw_parts_mut(y.add(r * d), d) }.fill(K::default());
        }
        true
    }
}
