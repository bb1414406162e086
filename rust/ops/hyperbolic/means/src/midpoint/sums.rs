//! The sums of groups and what solves them. The one rule: N and T are kept in twice f64's precision where the data is f64.

use super::lift::{LANES, Lines, eight};
use base::Result;
use base::dd::Num;
use base::simd::*;
use base::store::STEP;
use drivers::rows::{Acc, Wide};
use drivers::segments::SLOTS;

/// Of every group at hand N, as hi and lo in padded rows, and T as hi + lo; of tangent vectors
/// the direction of N, T and |N|, L and the largest |x|².
pub struct Sums {
    n: Lines,
    pub pad: usize,
    pub t: [[f64; SLOTS]; 2],
    pub low: [[f64; SLOTS]; 2],
}

impl Sums {
    pub fn new(d: usize, slots: usize) -> Result<Self> {
        let (pad, none) = (d.next_multiple_of(STEP), [0.0; SLOTS]);
        Ok(Sums { n: Lines::new(2 * slots * pad)?, pad, t: [none; 2], low: [none; 2] })
    }
    #[inline(always)]
    pub fn clear(&mut self, n: usize) {
        self.n[..2 * n * self.pad].fill(0.0);
        (self.t, self.low) = ([[0.0; SLOTS]; 2], [[0.0; SLOTS]; 2]);
    }
    /// N of group k.
    #[inline(always)]
    pub fn row(&mut self, k: usize) -> [&mut [f64]; 2] {
        let (hi, lo) = self.n[2 * k * self.pad..][..2 * self.pad].split_at_mut(self.pad);
        [hi, lo]
    }
    /// The direction of group k.
    #[inline(always)]
    pub fn axis(&self, k: usize) -> &[f64] {
        &self.n[2 * k * self.pad..][..self.pad]
    }
    /// Adds the first group of another.
    pub fn merge(&mut self, later: &mut Sums) {
        let ([hi, lo], [other, rest]) = (self.row(0), later.row(0));
        for i in 0..hi.len() {
            let (v, e) = exact_sum(hi[i], other[i]);
            (hi[i], lo[i]) = (v, lo[i] + (e + rest[i]));
        }
        self.add_time(0, [later.t[0][0], later.t[1][0]]);
    }
    /// Adds L of the first group of another, and its largest |x|².
    pub fn merge_low(&mut self, later: &Sums) {
        self.low[0][0] += later.low[0][0];
        self.low[1][0] = later.low[1][0].max(self.low[1][0]);
    }
    /// The first group of another, with nothing of L.
    pub fn copy(&mut self, of: &Sums) {
        self.n[..2 * self.pad].copy_from_slice(&of.n[..2 * of.pad]);
        self.t = of.t;
    }
    #[inline(always)]
    pub fn add_time(&mut self, k: usize, more: [f64; 2]) {
        let (v, e) = exact_sum(self.t[0][k], more[0]);
        let e = e + (self.t[1][k] + more[1]);
        let s = v + e;
        (self.t[0][k], self.t[1][k]) = (s, e - (s - v));
    }
}

/// a + b and its error
#[inline(always)]
fn exact_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let v = s - a;
    (s, (a - (s - v)) + (b - v))
}

/// P, R and |m|² of groups, one each.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Solved {
    pub p: [f64; SLOTS],
    pub r: [f64; SLOTS],
    pub square: [f64; SLOTS],
}

impl Solved {
    pub const NONE: Solved = Solved { p: [0.0; SLOTS], r: [0.0; SLOTS], square: [0.0; SLOTS] };
}

/// P and R of `n` groups, both with the sign of T; N/P in place of N. R is 0 where the sum is no point of the ball, P where
/// there is nothing.
#[inline(always)]
pub fn solve<S: Simd, T: Wide>(s: S, c: f64, sums: &mut Sums, n: usize) -> Solved {
    let mut out = Solved::NONE;
    let (zero, one, c) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0), f64x8::splat(s, c));
    let mut lanes = <T::Acc<S> as Acc<S>>::EMPTY;
    for k in 0..n {
        let mut square = <T::Acc<S> as Acc<S>>::zero(s);
        let [hi, lo] = sums.row(k);
        for (h, l) in hi.chunks_exact(LANES).zip(lo.chunks_exact(LANES)) {
            let h = f64x8::from_slice(s, h);
            if <T::Acc<S> as Acc<S>>::TWICE {
                square.square_sum(h, f64x8::from_slice(s, l));
            } else {
                square.dot(h, h);
            }
        }
        square.keep(&mut lanes, k);
    }
    for at in (0..n).step_by(LANES) {
        let square = <T::Acc<S> as Acc<S>>::totals(s, &lanes, at);
        let t = <T::Acc<S> as Acc<S>>::Num::pair(eight(s, &sums.t[0], at), eight(s, &sums.t[1], at));
        let sign = t.get().simd_lt(0.0).select(-one, one);
        let part = square * Num::of(c);
        let left = t * t - part;
        let fine = left.get().simd_gt(0.0);
        let r = left.root() * Num::of(sign);
        let p = t + r;
        // on the edge of the ball, or past it
        let edge = part.get().sqrt().max(t.get().abs()) * sign;
        let (p, rest) = (fine.select(p.get(), edge), fine.select(p.rest(), zero));
        let r = fine.select(r.get(), zero);
        let per = <T::Acc<S> as Acc<S>>::Num::of(one) / Num::pair(p, rest);
        let nothing = p.simd_eq(0.0);
        let (hi, lo) = (nothing.select(zero, per.get()), nothing.select(zero, per.rest()));
        p.store_slice(&mut out.p[at..at + LANES]);
        r.store_slice(&mut out.r[at..at + LANES]);
        (square.get() * hi * hi).store_slice(&mut out.square[at..at + LANES]);
        for k in at..n.min(at + LANES) {
            let per = <T::Acc<S> as Acc<S>>::Num::pair(f64x8::splat(s, hi[k - at]), f64x8::splat(s, lo[k - at]));
            let [n, rest] = sums.row(k);
            for (h, l) in n.chunks_exact_mut(LANES).zip(rest.chunks_exact_mut(LANES)) {
                let m = <T::Acc<S> as Acc<S>>::Num::pair(f64x8::from_slice(s, h), f64x8::from_slice(s, l)) * per;
                m.get().store_slice(h);
                if <T::Acc<S> as Acc<S>>::TWICE {
                    m.rest().store_slice(l);
                }
            }
        }
    }
    out
}
