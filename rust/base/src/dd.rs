//! Numbers of one row, eight rows at a time: plain f64, or double-double where f64 data comes near a boundary. The one
//! rule: mathematics is written once over [`Num`], and the data's type decides which of the two it runs on.
//!
//! Double-double after Joldes, Muller, Popescu, "Tight and rigorous error bounds for basic building blocks of
//! double-word arithmetic" (2017): AccurateDWPlusDW, DWTimesDW3, DWDivDW2. None of the operations is sloppy: each keeps
//! a relative error below 2^-100, under cancellation too and on levels without a fused multiply-add too. Numbers are
//! of middling size: infinities become NaN, and products below 2^-960 (without a fused multiply-add, factors beyond
//! 2^996) lose their low parts.

use crate::outlined;
use crate::simd::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Arithmetic on row numbers.
pub trait Num<S: Simd>:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    fn of(v: f64x8<S>) -> Self;
    /// Whether these are numbers of data of at most 24 bits, which functions to f32's accuracy serve.
    const SINGLE: bool;
    /// The value rounded to f64.
    fn get(self) -> f64x8<S>;
    /// What [`get`](Num::get) leaves out (zero for plain numbers).
    fn rest(self) -> f64x8<S>;
    /// The square root.
    fn root(self) -> Self;
    /// Reassembles hi + lo; plain numbers drop lo.
    fn pair(hi: f64x8<S>, lo: f64x8<S>) -> Self;
}

impl<S: Simd> Num<S> for f64x8<S> {
    const SINGLE: bool = true;
    #[inline(always)]
    fn of(v: f64x8<S>) -> Self {
        v
    }
    #[inline(always)]
    fn get(self) -> f64x8<S> {
        self
    }
    #[inline(always)]
    fn rest(self) -> f64x8<S> {
        f64x8::splat(self.witness(), 0.0)
    }
    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn pair(hi: f64x8<S>, _: f64x8<S>) -> Self {
        hi
    }
}

/// hi + lo with |lo| at most half an ulp of hi.
#[derive(Clone, Copy)]
pub struct Dd<S: Simd> {
    pub hi: f64x8<S>,
    pub lo: f64x8<S>,
}

/// a + b for |a| >= |b|, exact.
#[inline(always)]
fn fast_two_sum<S: Simd>(a: f64x8<S>, b: f64x8<S>) -> Dd<S> {
    let hi = a + b;
    Dd { hi, lo: b - (hi - a) }
}

impl<S: Simd> Dd<S> {
    /// a b, exactly.
    #[inline(always)]
    pub fn product(a: f64x8<S>, b: f64x8<S>) -> Self {
        let (hi, lo) = two_prod(a.witness(), a, b);
        Dd { hi, lo }
    }
    /// a + b, exactly.
    #[inline(always)]
    pub fn sum(a: f64x8<S>, b: f64x8<S>) -> Self {
        let (hi, lo) = two_sum(a, b);
        Dd { hi, lo }
    }
    #[inline(always)]
    pub fn square(self) -> Self {
        square(self.hi.witness(), self)
    }
}

impl<S: Simd> Num<S> for Dd<S> {
    const SINGLE: bool = false;
    #[inline(always)]
    fn of(v: f64x8<S>) -> Self {
        Dd { hi: v, lo: f64x8::splat(v.witness(), 0.0) }
    }
    #[inline(always)]
    fn get(self) -> f64x8<S> {
        self.hi
    }
    #[inline(always)]
    fn rest(self) -> f64x8<S> {
        self.lo
    }
    /// One Newton step on the f64 root; 0 stays 0.
    #[inline(always)]
    fn root(self) -> Self {
        root(self.hi.witness(), self)
    }
    #[inline(always)]
    fn pair(hi: f64x8<S>, lo: f64x8<S>) -> Self {
        fast_two_sum(hi, lo)
    }
}

impl<S: Simd> Add for Dd<S> {
    type Output = Self;
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        add(self.hi.witness(), self, o)
    }
}
impl<S: Simd> Neg for Dd<S> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Dd { hi: -self.hi, lo: -self.lo }
    }
}
impl<S: Simd> Sub for Dd<S> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        self + -o
    }
}
impl<S: Simd> Mul for Dd<S> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        mul(self.hi.witness(), self, o)
    }
}
impl<S: Simd> Div for Dd<S> {
    type Output = Self;
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        div(self.hi.witness(), self, o)
    }
}
/// A factor of plain f64.
impl<S: Simd> Mul<f64x8<S>> for Dd<S> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, o: f64x8<S>) -> Self {
        scale(self.hi.witness(), self, o)
    }
}

outlined! {
    fn square<S: Simd>(s: S, a: Dd<S>) -> Dd<S> {
        let p = Dd::product(a.hi, a.hi);
        fast_two_sum(p.hi, (a.hi + a.hi).mul_add(a.lo, p.lo))
    }

    fn root<S: Simd>(s: S, a: Dd<S>) -> Dd<S> {
        let r = a.hi.sqrt();
        let (p, e) = two_prod(s, r, r);
        let rest = ((a.hi - p) - e + a.lo) / (r + r);
        // of 0 there is no rest, nor of what is infinite
        fast_two_sum(r, (rest - rest).simd_eq(0.0).select(rest, f64x8::splat(s, 0.0)))
    }

    fn add<S: Simd>(s: S, a: Dd<S>, o: Dd<S>) -> Dd<S> {
        let (sh, sl) = two_sum(a.hi, o.hi);
        let (th, tl) = two_sum(a.lo, o.lo);
        let v = fast_two_sum(sh, sl + th);
        fast_two_sum(v.hi, tl + v.lo)
    }

    fn mul<S: Simd>(s: S, a: Dd<S>, o: Dd<S>) -> Dd<S> {
        let (ch, cl) = two_prod(s, a.hi, o.hi);
        let t = a.hi.mul_add(o.lo, a.lo * o.lo);
        fast_two_sum(ch, cl + a.lo.mul_add(o.hi, t))
    }

    fn div<S: Simd>(s: S, a: Dd<S>, o: Dd<S>) -> Dd<S> {
        let q = a.hi / o.hi;
        let r = o * Dd::of(q);
        let d = (a.hi - r.hi) + (a.lo - r.lo);
        fast_two_sum(q, d / o.hi)
    }

    fn scale<S: Simd>(s: S, a: Dd<S>, o: f64x8<S>) -> Dd<S> {
        let p = Dd::product(a.hi, o);
        fast_two_sum(p.hi, a.lo.mul_add(o, p.lo))
    }
}

#[cfg(test)]
mod tests;
