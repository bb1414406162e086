//! Where the rows of a tile lie, what is made of them, and how a step of them is read and the next one fetched. The one rule:
//! places are not looked at here, who makes them answers for them.

use super::TILE;
use super::functor::{Count, Of, RowOp};
use super::kind::Wide;
use base::simd::*;
use base::store::STEP;
use base::{fetch, outlined};
use std::ops::Range;

/// The inputs of a tile: for each, where its first row lies and how far the next one is.
pub struct Rows<OP: RowOp, K: Wide> {
    pub x: Of<OP::Vectors, (*const K, usize)>,
    /// Elements of a row.
    pub d: usize,
    /// Elements from a row to the one that is fetched while it is worked on: memory never rests.
    pub next: usize,
}

/// What is made of them: by which weights, and where.
pub struct Outs<'a, OP: RowOp, K: Wide> {
    pub weights: &'a Of<OP::Weights, [f64; TILE]>,
    /// 1 for rows that may be combined in f32
    pub single: &'a [f64; TILE],
    /// Rows are whole lines and go past the caches.
    pub past: bool,
    /// Where the mark of each row is, and what it becomes.
    pub at: &'a [usize],
    pub marks: &'a Of<OP::Marks, [f64; TILE]>,
    pub y: Of<OP::Outputs, *mut K>,
}

impl<OP: RowOp, K: Wide> Rows<OP, K> {
    /// How many of the inputs the first walk, if there is one, fetches; the second fetches the others.
    pub const EARLY: Range<usize> = 0..if OP::Outputs::N == 0 {
        OP::Vectors::N
    } else if OP::Products::N == 0 {
        0
    } else {
        OP::Vectors::N / 2
    };
    pub const LATE: Range<usize> = Self::EARLY.end..OP::Vectors::N;

    /// The rows from `r` on.
    #[inline(always)]
    pub fn skip(&self, r: usize) -> Self {
        let mut x = self.x;
        for x in OP::Vectors::of_mut(&mut x) {
            x.0 = x.0.wrapping_add(r * x.1);
        }
        Rows { x, ..*self }
    }

    /// Row `r` of each input.
    ///
    /// # Safety
    /// K is f64, and there is such a row.
    #[inline(always)]
    pub unsafe fn whole<'a>(&self, r: usize) -> Of<OP::Vectors, &'a [f64]> {
        let mut rows = OP::Vectors::fill::<&[f64]>(&[]);
        for (row, x) in OP::Vectors::of_mut(&mut rows).iter_mut().zip(OP::Vectors::of(&self.at(r))) {
            // SAFETY: promised by the caller.
            *row = unsafe { std::slice::from_raw_parts(x.cast(), self.d) };
        }
        rows
    }

    /// Where row `r` of each input starts.
    #[inline(always)]
    pub fn at(&self, r: usize) -> Of<OP::Vectors, *const K> {
        let mut rows = OP::Vectors::fill(std::ptr::null());
        for (row, x) in OP::Vectors::of_mut(&mut rows).iter_mut().zip(OP::Vectors::of(&self.x)) {
            *row = x.0.wrapping_add(r * x.1);
        }
        rows
    }
}

impl<OP: RowOp, K: Wide> Outs<'_, OP, K> {
    #[inline(always)]
    pub fn weights<S: Simd>(&self, s: S, r: usize) -> Of<OP::Weights, f64x8<S>> {
        splat::<OP::Weights, S>(s, self.weights, r)
    }
}

/// The numbers of row `r`, each in all lanes.
#[inline(always)]
fn splat<C: Count, S: Simd>(s: S, from: &Of<C, [f64; TILE]>, r: usize) -> Of<C, f64x8<S>> {
    let mut v = C::fill(f64x8::splat(s, 0.0));
    for (v, all) in C::of_mut(&mut v).iter_mut().zip(C::of(from)) {
        *v = f64x8::splat(s, all[r]);
    }
    v
}

/// Numbers of rows `g..g + 8`.
#[inline(always)]
pub fn eight<C: Count, S: Simd>(s: S, from: &Of<C, [f64; TILE]>, g: usize) -> Of<C, f64x8<S>> {
    let mut v = C::fill(f64x8::splat(s, 0.0));
    for (v, from) in C::of_mut(&mut v).iter_mut().zip(C::of(from)) {
        *v = f64x8::from_slice(s, &from[g..g + 8]);
    }
    v
}

/// Fetches step `i` of some of the rows, wherever that is.
#[inline(always)]
pub fn ahead<OP: RowOp, K: Wide>(x: &Of<OP::Vectors, *const K>, some: Range<usize>, i: usize) {
    for v in some {
        let p = OP::Vectors::of(x)[v].wrapping_add(i);
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
pub unsafe fn load<OP: RowOp, S: Simd, K: Wide>(
    s: S,
    x: &Of<OP::Vectors, *const K>,
    i: usize,
    step: usize,
) -> [Of<OP::Vectors, f64x8<S>>; 2] {
    let zero = f64x8::splat(s, 0.0);
    let (mut a, mut b) = (OP::Vectors::fill(zero), OP::Vectors::fill(zero));
    for (v, x) in OP::Vectors::of(x).iter().enumerate() {
        // SAFETY: promised by the caller.
        let part = unsafe { std::slice::from_raw_parts(x.add(i), step) };
        [OP::Vectors::of_mut(&mut a)[v], OP::Vectors::of_mut(&mut b)[v]] =
            if step == STEP { K::load16(s, part) } else { tail::<S, K>(s, part) };
    }
    [a, b]
}

outlined! {
    fn tail<S: Simd, K: Wide>(s: S, x: &[K]) -> [f64x8<S>; 2] {
        K::load_tail(s, x)
    }
}
