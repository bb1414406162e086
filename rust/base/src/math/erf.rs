//! erf of f64 lanes. The one rule: erf x = 1 - e^-P(x), with one polynomial from 0 to where the result is 1.

use super::{exp::expm1_parts, fast_two_sum, poly, pow2};
use crate::outlined;
use crate::simd::*;

/// (-log(erfc x) - c x) / x^2, c = 2/sqrt(pi), on [0, 5.93], error 2^-57 of erf x.
#[allow(clippy::approx_constant)] // the first is 2/pi only nearly
const ERF: [f64; 24] = [
    0.6366197723675828,
    0.10277260330182048,
    -0.019128447005656173,
    -0.00020919468869482012,
    0.0016962063446339878,
    -0.0005901253645888752,
    2.5877983839092907e-05,
    6.449338358428203e-05,
    -2.972690197055756e-05,
    3.4114365441894763e-06,
    2.8303290974553944e-06,
    -1.7371204848001042e-06,
    3.3309291739321357e-07,
    1.391316310337902e-07,
    -1.4269952200894066e-07,
    6.609671110029701e-08,
    -2.1075405762045544e-08,
    5.025486782483067e-09,
    -9.135753369944077e-10,
    1.2562885175448682e-10,
    -1.2696436234586935e-11,
    8.909824676895179e-13,
    -3.880419653998185e-14,
    7.898937727653947e-16,
];
/// 2/sqrt(pi) and what rounding took from it.
pub(super) const SLOPE: f64 = std::f64::consts::FRAC_2_SQRT_PI;
const SLOPE_LOW: f64 = 1.533545961316588e-17;

outlined! {
    /// The error function, at most 0.96 ulp off (1.2 for denormals without a fused multiply-add).
    pub fn erf<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let a = x.abs().min(5.93);
        let (p, pe) = two_prod(s, a, f64x8::splat(s, -SLOPE));
        let (p, pl) = fast_two_sum(p, -(a * a) * poly(s, a, &ERF));
        let low = a.mul_add(-SLOPE_LOW, pe + pl);
        let (t, n, q, ql) = expm1_parts(s, p, Some(low));
        let w = pow2(t);
        let (h, l) = fast_two_sum(w - 1.0, w * q);
        let y = n.simd_eq(0.0).select(q, h + w.mul_add(ql, l));
        x.simd_eq(x).select((-y).copysign(x), x)
    }
}
