//! Combinations of f32 vectors as f64 would make them. The one rule: a result is rounded once for itself and once for what is
//! added to its first term, and what f32 loses elsewhere is carried along.
//!
//! Data of 24 bits need not be widened for that: weights are two numbers of f32, and so are sums of two elements. On levels
//! without a fused multiply-add it is no use.

use crate::simd::*;

/// An unevaluated sum, of about 48 bits.
#[derive(Clone, Copy)]
pub struct Pair<S: Simd> {
    hi: f32x16<S>,
    lo: f32x16<S>,
}

/// Weights that two numbers of f32 hold, and whose products with data of f32 lose nothing that matters: 0, and those between
/// these bounds.
const LEAST: f64 = 1.0 / (1u128 << 100) as f64;
const MOST: f64 = (1u64 << 20) as f64;

/// Whether each of eight weights is one that a [`Pair`] serves.
#[inline(always)]
pub fn fits<S: Simd>(w: f64x8<S>) -> mask64x8<S> {
    let size = w.abs();
    (size.simd_ge(LEAST) & size.simd_le(MOST)) | w.simd_eq(0.0)
}

impl<S: Simd> Pair<S> {
    /// A weight that [`fits`].
    #[inline(always)]
    pub fn splat(s: S, w: f64) -> Self {
        let hi = w as f32;
        Pair { hi: f32x16::splat(s, hi), lo: f32x16::splat(s, (w - f64::from(hi)) as f32) }
    }
    /// x + y, exactly (Knuth).
    #[inline(always)]
    pub fn sum(x: f32x16<S>, y: f32x16<S>) -> Self {
        let hi = x + y;
        let other = hi - x;
        Pair { hi, lo: (x - (hi - other)) + (y - other) }
    }
}

/// What is weighted: data, or sums of two.
pub trait Part<S: Simd>: Copy {
    /// to + the part of self·w that f32 leaves over
    fn rest(self, w: Pair<S>, to: Option<f32x16<S>>) -> f32x16<S>;
    /// to + self·w without that
    fn most(self, w: Pair<S>, to: f32x16<S>) -> f32x16<S>;
}
impl<S: Simd> Part<S> for f32x16<S> {
    #[inline(always)]
    fn rest(self, w: Pair<S>, to: Option<f32x16<S>>) -> f32x16<S> {
        match to {
            Some(to) => self.mul_add(w.lo, to),
            None => self * w.lo,
        }
    }
    #[inline(always)]
    fn most(self, w: Pair<S>, to: f32x16<S>) -> f32x16<S> {
        self.mul_add(w.hi, to)
    }
}
impl<S: Simd> Part<S> for Pair<S> {
    #[inline(always)]
    fn rest(self, w: Pair<S>, to: Option<f32x16<S>>) -> f32x16<S> {
        self.lo.mul_add(w.hi, self.hi.rest(w, to))
    }
    #[inline(always)]
    fn most(self, w: Pair<S>, to: f32x16<S>) -> f32x16<S> {
        self.hi.most(w, to)
    }
}

/// a·w
#[inline(always)]
pub fn scaled<S: Simd>(a: impl Part<S>, w: Pair<S>) -> f32x16<S> {
    a.most(w, a.rest(w, None))
}

/// a·v + b·w
#[inline(always)]
pub fn mixed<S: Simd>(a: impl Part<S>, v: Pair<S>, b: impl Part<S>, w: Pair<S>) -> f32x16<S> {
    let rest = b.rest(w, Some(a.rest(v, None)));
    a.most(v, b.most(w, rest))
}
