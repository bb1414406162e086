//! Vectors of f32 times one weight, as f64 would make them. The one rule: a result is rounded once.
//!
//! Data of 24 bits need not be widened for that: the weight is two numbers of f32. On levels without a fused multiply-add it is
//! no use.

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
}

/// a·w; what is infinite stays so, where the two parts of a weight would pull it both ways.
#[inline(always)]
pub fn scaled<S: Simd>(a: f32x16<S>, w: Pair<S>) -> f32x16<S> {
    let lo = a.abs().simd_lt(f32::INFINITY).select(a * w.lo, w.lo);
    a.mul_add(w.hi, lo)
}
