//! temporary lane by lane versions
use crate::simd::*;
#[inline(always)]
fn lanes<S: Simd>(x: f64x8<S>, f: impl Fn(f64) -> f64) -> f64x8<S> {
    let mut a = [0.0; 8];
    x.store_slice(&mut a);
    f64x8::from_slice(x.witness(), &a.map(f))
}
pub fn tanh<S: Simd>(x: f64x8<S>) -> f64x8<S> {
    lanes(x, f64::tanh)
}
pub fn log1p<S: Simd>(x: f64x8<S>) -> f64x8<S> {
    lanes(x, f64::ln_1p)
}
pub fn asinh<S: Simd>(x: f64x8<S>) -> f64x8<S> {
    lanes(x, f64::asinh)
}
