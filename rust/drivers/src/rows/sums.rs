//! Inner products of rows. The one rule: a row's lanes are kept apart to the end and added in one fixed order, eight rows
//! at a time.

use super::TILE;
use base::dd::{Dd, Num};
use base::outlined;
use base::simd::*;

/// A sum of products over a row, lane by lane.
pub trait Acc<S: Simd>: Copy {
    type Num: Num<S>;
    /// Whether sums are kept in twice the precision.
    const TWICE: bool;
    /// The lanes of every row of a tile.
    type Lanes: Copy;
    const EMPTY: Self::Lanes;
    fn zero(s: S) -> Self;
    /// += a·b
    fn dot(&mut self, a: f64x8<S>, b: f64x8<S>);
    /// += a·(x + y)
    fn dot_sum(&mut self, a: f64x8<S>, x: f64x8<S>, y: f64x8<S>);
    /// += (x + y)²
    fn square_sum(&mut self, x: f64x8<S>, y: f64x8<S>);
    /// The sum of two, lane by lane.
    fn and(self, other: Self) -> Self;
    /// Keeps the lanes of row `r`.
    fn keep(self, lanes: &mut Self::Lanes, r: usize);
    /// The totals of rows `r..r + 8`, and what they lack of the sums.
    fn halves(s: S, lanes: &Self::Lanes, r: usize) -> [f64x8<S>; 2];
    /// The totals of rows `r..r + 8`.
    #[inline(always)]
    fn totals(s: S, lanes: &Self::Lanes, r: usize) -> Self::Num {
        let [hi, lo] = Self::halves(s, lanes, r);
        Num::pair(hi, lo)
    }
}

/// Plain f64 sums: exact enough for data of at most 24 bits.
#[derive(Clone, Copy)]
pub struct Plain<S: Simd>(f64x8<S>);
impl<S: Simd> Acc<S> for Plain<S> {
    type Num = f64x8<S>;
    const TWICE: bool = false;
    type Lanes = Lanes;
    const EMPTY: Lanes = Lanes::ZERO;
    #[inline(always)]
    fn zero(s: S) -> Self {
        Plain(f64x8::splat(s, 0.0))
    }
    #[inline(always)]
    fn dot(&mut self, a: f64x8<S>, b: f64x8<S>) {
        self.0 = a.mul_add(b, self.0);
    }
    #[inline(always)]
    fn dot_sum(&mut self, a: f64x8<S>, x: f64x8<S>, y: f64x8<S>) {
        self.dot(a, x + y);
    }
    #[inline(always)]
    fn square_sum(&mut self, x: f64x8<S>, y: f64x8<S>) {
        let v = x + y;
        self.dot(v, v);
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Plain(self.0 + other.0)
    }
    #[inline(always)]
    fn keep(self, lanes: &mut Lanes, r: usize) {
        self.0.store_slice(&mut lanes.0[r]);
    }
    #[inline(always)]
    fn halves(s: S, lanes: &Lanes, r: usize) -> [f64x8<S>; 2] {
        let sum = across(
            load8(s, lanes, r),
            #[inline(always)]
            |a, b| a + b,
        );
        [sum, f64x8::splat(s, 0.0)]
    }
}

/// Dot2 of Ogita, Rump and Oishi (2005): as if summed in twice the precision.
#[derive(Clone, Copy)]
pub struct Dot2<S: Simd> {
    hi: f64x8<S>,
    lo: f64x8<S>,
}
impl<S: Simd> Acc<S> for Dot2<S> {
    type Num = Dd<S>;
    const TWICE: bool = true;
    type Lanes = [Lanes; 2];
    const EMPTY: [Lanes; 2] = [Lanes::ZERO; 2];
    #[inline(always)]
    fn zero(s: S) -> Self {
        let zero = f64x8::splat(s, 0.0);
        Dot2 { hi: zero, lo: zero }
    }
    #[inline(always)]
    fn dot(&mut self, a: f64x8<S>, b: f64x8<S>) {
        *self = plus(a.witness(), *self, a, b);
    }
    #[inline(always)]
    fn dot_sum(&mut self, a: f64x8<S>, x: f64x8<S>, y: f64x8<S>) {
        let (v, e) = two_sum(x, y);
        self.dot(a, v);
        self.lo = a.mul_add(e, self.lo);
    }
    #[inline(always)]
    fn square_sum(&mut self, x: f64x8<S>, y: f64x8<S>) {
        let (v, e) = two_sum(x, y);
        self.dot(v, v);
        self.lo = (v + v).mul_add(e, self.lo);
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        both(self.hi.witness(), self, other)
    }
    #[inline(always)]
    fn keep(self, [hi, lo]: &mut [Lanes; 2], r: usize) {
        self.hi.store_slice(&mut hi.0[r]);
        self.lo.store_slice(&mut lo.0[r]);
    }
    #[inline(always)]
    fn halves(s: S, [hi, lo]: &[Lanes; 2], r: usize) -> [f64x8<S>; 2] {
        let (hi, lo) = (load8(s, hi, r), load8(s, lo, r));
        let mut rows = [(hi[0], lo[0]); 8];
        for i in 1..8 {
            rows[i] = (hi[i], lo[i]);
        }
        let (hi, lo) = across(
            rows,
            #[inline(always)]
            |(ah, al), (bh, bl)| {
                let (v, e) = two_sum(ah, bh);
                (v, e + (al + bl))
            },
        );
        // an infinite sum lacks nothing, where its errors are no numbers
        [hi, (hi - hi).simd_eq(0.0).select(lo, f64x8::splat(s, 0.0))]
    }
}

outlined! {
    fn plus<S: Simd>(s: S, sum: Dot2<S>, a: f64x8<S>, b: f64x8<S>) -> Dot2<S> {
        let (p, e) = two_prod(s, a, b);
        let (hi, r) = two_sum(sum.hi, p);
        Dot2 { hi, lo: sum.lo + (e + r) }
    }

    fn both<S: Simd>(s: S, sum: Dot2<S>, other: Dot2<S>) -> Dot2<S> {
        let (hi, e) = two_sum(sum.hi, other.hi);
        Dot2 { hi, lo: e + (sum.lo + other.lo) }
    }
}

/// Totals of the rows of a tile, and what they lack.
pub type Sums = [[f64; TILE]; 2];

/// The totals of rows `0..n` of each product. A function of its own: it is the same for every operator.
#[inline(never)]
pub fn totals<S: Simd, A: Acc<S>>(s: S, lanes: &[A::Lanes], n: usize, sums: &mut [Sums]) {
    s.vectorize(
        #[inline(always)]
        move || {
            for (lanes, [hi, lo]) in lanes.iter().zip(sums) {
                for g in (0..n).step_by(8) {
                    let [h, l] = A::halves(s, lanes, g);
                    h.store_slice(&mut hi[g..g + 8]);
                    if A::TWICE {
                        l.store_slice(&mut lo[g..g + 8]);
                    }
                }
            }
        },
    );
}

/// Eight lanes of every row of a tile; aligned, so that no vector of them lies across two lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Lanes([[f64; 8]; TILE]);

impl Lanes {
    const ZERO: Lanes = Lanes([[0.0; 8]; TILE]);
}

#[inline(always)]
fn load8<S: Simd>(s: S, lanes: &Lanes, r: usize) -> [f64x8<S>; 8] {
    // not array::from_fn: it is not inlined into code of a higher instruction set, and neither is what it calls
    let mut v = [f64x8::splat(s, 0.0); 8];
    for i in 0..8 {
        v[i] = f64x8::from_slice(s, &lanes.0[r + i]);
    }
    v
}

/// One vector or several that are shuffled alike.
trait Halves: Copy {
    /// The even and the odd lanes of two, as two.
    fn halves(a: Self, b: Self) -> (Self, Self);
}
impl<S: Simd> Halves for f64x8<S> {
    #[inline(always)]
    fn halves(a: Self, b: Self) -> (Self, Self) {
        a.deinterleave(b)
    }
}
impl<S: Simd> Halves for (f64x8<S>, f64x8<S>) {
    #[inline(always)]
    fn halves(a: Self, b: Self) -> (Self, Self) {
        let ((ae, ao), (be, bo)) = (a.0.deinterleave(b.0), a.1.deinterleave(b.1));
        ((ae, be), (ao, bo))
    }
}

/// Adds up the lanes of eight vectors; sum i comes out in lane i. Neighbours first, then pairs, then fours.
#[inline(always)]
fn across<T: Halves>(v: [T; 8], add: impl Fn(T, T) -> T + Copy) -> T {
    let pairs = [fold(v[0], v[1], add), fold(v[2], v[3], add), fold(v[4], v[5], add), fold(v[6], v[7], add)];
    fold(fold(pairs[0], pairs[1], add), fold(pairs[2], pairs[3], add), add)
}

#[inline(always)]
fn fold<T: Halves>(a: T, b: T, add: impl Fn(T, T) -> T) -> T {
    let (even, odd) = T::halves(a, b);
    add(even, odd)
}
