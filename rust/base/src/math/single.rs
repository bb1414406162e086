//! The functions to f32 accuracy on f64 lanes: relative error below 2^-29 for arguments of any size that f32 has, and
//! far beyond. The one rule: f64 has 29 bits to spare, so nothing is compensated.

use super::erf::SLOPE;
use super::log::{or_special, split};
use super::{LOG2_E, ROUND, poly, pow2, pow2_neg};
use crate::outlined;
use crate::simd::*;
use std::f64::consts::LN_2;

/// As the tables of the full functions: errors 2^-31.3, 2^-37.5, 2^-32.2, 2^-30.3, 2^-31.0.
const EXP: [f64; 5] =
    [0.16666666299321928, 0.04166648270568876, 0.008333419611148973, 0.0013933245188552069, 0.00019824130678913925];
const SINH: [f64; 3] = [0.1666666675450218, 0.008333288970676884, 0.00019904949181918322];
const COSH: [f64; 2] = [0.041666459555155924, 0.0013935396341141527];
/// (log(1 + f) - f + f^2/2) / f^3
const LOG: [f64; 9] = [
    0.3333331260276356,
    -0.25000009598871886,
    0.20002118781403622,
    -0.16667996032484725,
    0.14219549499915818,
    -0.12405583040841558,
    0.11888180146239967,
    -0.11675699972038057,
    0.06746658094594028,
];
#[allow(clippy::approx_constant)] // the first is 2/pi only nearly
const ERF: [f64; 9] = [
    0.6366198164029648,
    0.10277146642963537,
    -0.019118542320416147,
    -0.0002510947937488003,
    0.0017967748565924084,
    -0.0007387108371603977,
    0.00016661015291570186,
    -2.1150743928927503e-05,
    1.1737562815463786e-06,
];

/// n + [`ROUND`] and r of x = n ln 2 + r, for x cut to ±700.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let x = x.max(-700.0).min(700.0);
    let t = x.mul_add(LOG2_E, f64x8::splat(s, ROUND));
    (t, (t - ROUND).mul_add(-LN_2, x))
}

/// e^x = p (1 + q): p, q. Finite for every x.
#[inline(always)]
fn expm1_parts<S: Simd>(s: S, x: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let (t, r) = reduce(s, x);
    let q = (r * r).mul_add(r.mul_add(poly(s, r, &EXP), 0.5), r);
    (pow2(t), q)
}

#[inline(always)]
fn keep_nan<S: Simd>(x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
    x.simd_eq(x).select(y, x)
}

outlined! {
    /// e^x; cut off at e^±700.
    pub fn exp<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (p, q) = expm1_parts(s, x);
        keep_nan(x, p.mul_add(q, p))
    }

    /// e^x - 1; cut off at e^700.
    pub fn expm1<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (p, q) = expm1_parts(s, x);
        keep_nan(x, p.mul_add(q, p - 1.0).copysign(x))
    }

    /// tanh x.
    pub fn tanh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        tanh_sech2(s, x).0
    }

    /// tanh x = e / (e + 2) and sech^2 x = 4 (e + 1) / (e + 2)^2, e = e^2x - 1; the second for |x| up to 170.
    pub fn tanh_sech2<S: Simd>(s: S, x: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
        let a = x.abs().min(170.0);
        let (p, q) = expm1_parts(s, a + a);
        let e = p.mul_add(q, p - 1.0);
        let inverse = 1.0 / (e + 2.0);
        (keep_nan(x, (e * inverse).copysign(x)), keep_nan(x, p.mul_add(q, p) * 4.0 * (inverse * inverse)))
    }
}

/// 2^n, 2^-n, sinh r, cosh r.
#[inline(always)]
fn halves<S: Simd>(s: S, x: f64x8<S>) -> (f64x8<S>, f64x8<S>, f64x8<S>, f64x8<S>) {
    let (t, r) = reduce(s, x.abs());
    let z = r * r;
    let sinh = (r * z).mul_add(poly(s, z, &SINH), r);
    let cosh = z.mul_add(z.mul_add(poly(s, z, &COSH), 0.5), 1.0);
    (pow2(t), pow2_neg(s, t), sinh, cosh)
}

outlined! {
    /// sinh x; cut off at sinh 700.
    pub fn sinh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (p, w, sinh, cosh) = halves(s, x);
        let y = (p + w).mul_add(sinh, (p - w) * cosh) * 0.5;
        keep_nan(x, y.copysign(x))
    }

    /// cosh x; cut off at cosh 700.
    pub fn cosh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (p, w, sinh, cosh) = halves(s, x);
        keep_nan(x, (p - w).mul_add(sinh, (p + w) * cosh) * 0.5)
    }

    /// The error function.
    pub fn erf<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let a = x.abs().min(3.95);
        let (p, q) = expm1_parts(s, -(a * a.mul_add(poly(s, a, &ERF), SLOPE)));
        keep_nan(x, (-p.mul_add(q, p - 1.0)).copysign(x))
    }
}

/// k ln 2 + log(1 + f)
#[inline(always)]
fn log_parts<S: Simd>(s: S, k: f64x8<S>, f: f64x8<S>) -> f64x8<S> {
    let y = (f * f).mul_add(f.mul_add(poly(s, f, &LOG), -0.5), f);
    k.mul_add(LN_2, y)
}

outlined! {
    /// The natural logarithm; arguments below 2^-1022 are out of its range.
    pub fn log<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (k, _, m) = split(x);
        or_special(s, x, log_parts(s, k, m - 1.0))
    }

    /// log(1 + x).
    pub fn log1p<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        log1p_of(s, x + 1.0, x)
    }

    /// log(1 + x), where 1 + x is known, better than by x if it is below 1/2.
    pub fn log1p_of<S: Simd>(s: S, u: f64x8<S>, x: f64x8<S>) -> f64x8<S> {
        let (k, e, m) = split(u);
        let f = e.simd_eq(1023).select(x, m - 1.0);
        or_special(s, u, log_parts(s, k, f)).copysign(x)
    }

    /// asinh x = log1p(a + a^2 / (1 + sqrt(1 + a^2))), a = |x|; for |x| below 2^500.
    pub fn asinh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let a = x.abs();
        let square = a * a;
        let y = a + square / ((square + 1.0).sqrt() + 1.0);
        let y = log1p(s, x.abs().simd_lt(f64::INFINITY).select(y, a));
        y.copysign(x)
    }

    /// acosh x = log1p(d + sqrt(d (x + 1))), d = x - 1; for x below 2^500.
    pub fn acosh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let d = x - 1.0;
        let y = log1p(s, d + (d * (x + 1.0)).sqrt());
        d.simd_ge(0.0).select(y, f64x8::splat(s, f64::NAN))
    }

    /// atanh x = log1p(2a / (1 - a)) / 2, a = |x|.
    pub fn atanh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let a = x.abs();
        let y = (a + a) / (f64x8::splat(s, 1.0) - a);
        (log1p(s, y) * 0.5).copysign(x)
    }
}
