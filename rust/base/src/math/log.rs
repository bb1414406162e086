//! log, log1p, asinh, acosh, atanh of f64 lanes. The one rule: the argument of the logarithm is a sum of two numbers,
//! exact or nearly so, down to the last step.

use super::{LN2_HI, LN2_LO, fast_two_sum, poly};
use crate::outlined;
use crate::simd::*;

/// (2 atanh(v) / v - 2) / v^2 in powers of v^2 up to 0.0402, error 2^-59.6 of the function.
const ATANH: [f64; 8] = [
    0.666666666666666,
    0.40000000000058034,
    0.2857142855551313,
    0.2222222433114757,
    0.18181663842878537,
    0.1539117717503104,
    0.13172518714460651,
    0.13850264369427157,
];

/// The bits of 1 less those of sqrt(1/2): adding them brings the mantissa into [sqrt(1/2), sqrt 2).
const TO_SQRT: u64 = 0x3ff0_0000_0000_0000 - 0x3fe6_a09e_667f_3bcd;
const ONE: u64 = 1023 << 52;
/// 2^52, whose low bits hold an integer, and the same with the exponent's bias.
const INTEGER: u64 = 0x4330_0000_0000_0000;
const BIASED: f64 = 4_503_599_627_371_519.0;

/// u = 2^k m: k as a number, k + 1023 as bits, m.
#[inline(always)]
pub(super) fn split<S: Simd>(u: f64x8<S>) -> (f64x8<S>, u64x8<S>, f64x8<S>) {
    let bits: u64x8<S> = u.bitcast();
    let e = (bits + TO_SQRT) >> 52;
    let k: f64x8<S> = (e | INTEGER).bitcast();
    (k - BIASED, e, (bits - (e << 52) + ONE).bitcast())
}

/// k ln 2 + log(1 + f + fl) = k ln 2 + f - (f^2/2 - v (f^2/2 + R(v^2))), v = f / (2 + f).
#[inline(always)]
fn log_parts<S: Simd>(s: S, k: f64x8<S>, f: f64x8<S>, fl: Option<f64x8<S>>) -> f64x8<S> {
    let v = f / (f + 2.0);
    let z = v * v;
    let half = f * f * 0.5;
    let (h, l) = fast_two_sum(k * LN2_HI, f);
    let mut low = k.mul_add(LN2_LO, l);
    if let Some(fl) = fl {
        // fl / (1 + f) = fl (1 - v) / (1 + v)
        low += fl.mul_add(v * (v + v - 2.0), fl);
    }
    let tail = v.mul_add(z.mul_add(poly(s, z, &ATANH), half), low);
    h - (half - tail)
}

/// The result where `u` is a positive finite number; what IEEE says of log(u) elsewhere.
#[inline(always)]
pub(super) fn or_special<S: Simd>(s: S, u: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
    let positive = u.simd_gt(0.0);
    let rest = positive.select(u, f64x8::splat(s, f64::NAN));
    let rest = u.simd_eq(0.0).select(f64x8::splat(s, f64::NEG_INFINITY), rest);
    (positive & u.simd_lt(f64::INFINITY)).select(y, rest)
}

/// log(u + ul) + add ln 2, |ul| at most about an ulp of u unless u is 1.
#[inline(always)]
fn log_sum<S: Simd>(s: S, u: f64x8<S>, ul: f64x8<S>, add: Option<f64x8<S>>) -> f64x8<S> {
    let (k, e, m) = split(u);
    // 2^(1 - k): a number for every k that u can have
    let twice: f64x8<S> = (u64x8::splat(s, 2047 << 52) - (e << 52)).bitcast();
    let (f, fl) = two_sum(m - 1.0, ul * twice * 0.5);
    let k = add.map_or(
        k,
        #[inline(always)]
        |a| a + k,
    );
    or_special(s, u, log_parts(s, k, f, Some(fl)))
}

outlined! {
    /// The natural logarithm, at most 0.79 ulp off.
    pub fn log<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let zero = f64x8::splat(s, 0.0);
        let least = x.simd_lt(f64::MIN_POSITIVE);
        let (k, _, m) = split(least.select(x * 18_014_398_509_481_984.0, x));
        let k = k - least.select(zero + 54.0, zero);
        or_special(s, x, log_parts(s, k, m - 1.0, None))
    }

    /// log(1 + x), at most 0.78 ulp off.
    pub fn log1p<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (u, ul) = two_sum(x, f64x8::splat(s, 1.0));
        log_sum(s, u, ul, None).copysign(x)
    }
}

/// Beyond this the root is the argument to 60 bits.
const BIG: f64 = 268_435_456.0;

outlined! {
    /// asinh x = log(a + sqrt(1 + a^2)), a = |x|; at most 0.84 ulp off.
    pub fn asinh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let (whole, big) = (x.abs(), x.abs().simd_gt(BIG));
        let a = big.select(one, whole);
        let (p, pe) = two_prod(s, a, a);
        let (t, te) = two_sum(one, p);
        let root = t.sqrt();
        let (q, qe) = two_prod(s, root, root);
        let rest = ((t - q) - qe) + (te + pe);
        // 1 / 2 root: exact at 1, where it matters most; past 2.4 the remainder is of no account
        let rest = rest * root.mul_add(-0.3536, 0.8536).max(0.0);
        let (u, ul) = fast_two_sum(root, a);
        let (u, ul) = (big.select(whole, u), big.select(zero, ul + rest));
        log_sum(s, u, ul, Some(big.select(one, zero))).copysign(x)
    }

    /// acosh x = log(x + sqrt(x^2 - 1)), at most 0.78 ulp off.
    pub fn acosh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let big = x.simd_gt(BIG);
        let a = big.select(one + one, x);
        let (p, pe) = two_prod(s, a, a);
        let (t, te) = two_sum(p, -one);
        let root = t.sqrt();
        let (q, qe) = two_prod(s, root, root);
        let rest = (((t - q) - qe) + (te + pe)) / (root + root);
        let (u, ul) = fast_two_sum(a, root);
        let (u, ul) = (big.select(x, u), big.select(zero, ul + rest));
        let y = log_sum(s, u, ul, Some(big.select(one, zero)));
        let rest = x.simd_eq(1.0).select(zero, f64x8::splat(s, f64::NAN));
        x.simd_gt(1.0).select(y, rest)
    }

    /// atanh x = k/2 ln 2 + atanh v, v = (2^-k (1 + a) - (1 - a)) / (2^-k (1 + a) + (1 - a)), a = |x|;
    /// at most 0.58 ulp off.
    pub fn atanh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let one = f64x8::splat(s, 1.0);
        let a = x.abs();
        let (u, ul) = fast_two_sum(one, a);
        let (v, vl) = fast_two_sum(one, -a);
        // bits are a logarithm, good to 0.09: k is off by at most that from the nearest integer, and |v| <= 0.2005
        let (ub, vb): (u64x8<S>, u64x8<S>) = (u.bitcast(), v.bitcast());
        let e = (ub - vb + (ONE + (1 << 51))) >> 52;
        let k: f64x8<S> = (e | INTEGER).bitcast();
        let k = k - BIASED;
        let inverse: f64x8<S> = (u64x8::splat(s, 2046 << 52) - (e << 52)).bitcast();
        let (u, ul) = (u * inverse, ul * inverse);
        let ((n, nl), (d, dl)) = (two_sum(u, -v), two_sum(u, v));
        let (nl, dl) = (nl + (ul - vl), dl + (ul + vl));
        let inverse = one / d;
        let q = n * inverse;
        let (p, pe) = two_prod(s, q, d);
        let ql = (((n - p) - pe) + (nl - q * dl)) * inverse;
        let z = q * q;
        let (h, l) = fast_two_sum(k * (LN2_HI * 0.5), q);
        let tail = (q * z * 0.5).mul_add(poly(s, z, &ATANH), k.mul_add(LN2_LO * 0.5, l + ql));
        // (a - 1) * inf: the pole, NaN beyond it and for NaN
        let pole = a.simd_eq(one).select(f64x8::splat(s, f64::INFINITY), f64x8::splat(s, f64::NAN));
        a.simd_lt(1.0).select(h + tail, pole).copysign(x)
    }
}
