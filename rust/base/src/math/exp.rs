//! exp, expm1, tanh, sinh, cosh of f64 lanes. The one rule: x = n ln 2 + r with |r| <= ln 2 / 2, and r carries its
//! rounding error, so that cancellation in what follows has nothing to uncover.

use super::{LN2_HI, LN2_LO, LOG2_E, ROUND, fast_two_sum, poly, pow2, pow2_neg};
use crate::outlined;
use crate::simd::*;

/// (e^r - 1 - r - r^2/2) / r^3, error 2^-59.9 of e^r - 1.
const EXP: [f64; 10] = [
    0.16666666666666674,
    0.04166666666666667,
    0.008333333333322215,
    0.0013888888888880949,
    0.0001984126988656652,
    2.4801587333935605e-05,
    2.755724236437333e-06,
    2.7557264334111793e-07,
    2.5110039456510637e-08,
    2.0918130714801734e-09,
];
/// (sinh r / r - 1) / r^2 in powers of r^2, error 2^-60.6 of sinh r.
const SINH: [f64; 5] =
    [0.16666666666666677, 0.008333333333321624, 0.00019841269886136206, 2.755724420704066e-06, 2.5109035286704362e-08];
/// (cosh r - 1 - r^2/2) / r^4 in powers of r^2, error 2^-67 of cosh r.
const COSH: [f64; 5] = [
    0.041666666666666685,
    0.0013888888888873472,
    2.480158734876936e-05,
    2.7557252228993537e-07,
    2.0921632933859595e-09,
];

/// n + [`ROUND`], n, and r as a sum; `low` continues x.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: f64x8<S>, low: Option<f64x8<S>>) -> (f64x8<S>, f64x8<S>, f64x8<S>, f64x8<S>) {
    let t = x.mul_add(LOG2_E, f64x8::splat(s, ROUND));
    let n = t - ROUND;
    let hi = x - n * LN2_HI; // both exact
    let lo = n * LN2_LO;
    let r = hi - lo;
    let rest = (hi - r) - lo;
    (
        t,
        n,
        r,
        low.map_or(
            rest,
            #[inline(always)]
            |l| l + rest,
        ),
    )
}

/// e^x = 2^n (1 + q + ql): n + [`ROUND`], n, q, ql.
#[inline(always)]
pub(super) fn expm1_parts<S: Simd>(
    s: S,
    x: f64x8<S>,
    low: Option<f64x8<S>>,
) -> (f64x8<S>, f64x8<S>, f64x8<S>, f64x8<S>) {
    let (t, n, r, rl) = reduce(s, x, low);
    let square = r * r;
    let tail = square * r.mul_add(poly(s, r, &EXP), 0.5) + r.mul_add(rl, rl);
    let (q, ql) = fast_two_sum(r, tail);
    (t, n, q, ql)
}

outlined! {
    /// e^x, at most 0.78 ulp off.
    pub fn exp<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let inside = x.max(-746.0).min(710.0);
        let (_, n, r, rl) = reduce(s, inside, None);
        let (h, l) = fast_two_sum(f64x8::splat(s, 1.0), r);
        let square = r * r;
        let y = h + (l + (square * r.mul_add(poly(s, r, &EXP), 0.5) + rl));
        // in two steps, for 2^n may be no number
        let t1 = n.mul_add(0.5, f64x8::splat(s, ROUND));
        let t2 = n - (t1 - ROUND) + ROUND;
        x.simd_eq(x).select(y * pow2(t1) * pow2(t2), x)
    }

    /// e^x - 1, at most 0.92 ulp off.
    pub fn expm1<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (t, n, q, ql) = expm1_parts(s, x.max(-40.0).min(710.0), None);
        let p = pow2(t - 1.0);
        let (a, al) = fast_two_sum(p, f64x8::splat(s, -0.5));
        let (h, l) = fast_two_sum(a, p * q);
        let y = (h + p.mul_add(ql, al + l)) * 2.0;
        let y = n.simd_eq(0.0).select(q, y).copysign(x);
        x.simd_eq(x).select(y, x)
    }

    /// tanh x, at most 0.76 ulp off.
    pub fn tanh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        tanh_sech2(s, x).0
    }

    /// tanh x = e / (e + 2) and sech^2 x = 4 (e + 1) / (e + 2)^2, e = e^2x - 1, numerators and denominators over 2^n; at most
    /// 0.76 and 2.4 ulp off, the second for |x| up to 350.
    pub fn tanh_sech2<S: Simd>(s: S, x: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
        let a = x.abs().min(350.0);
        let (t, _, q, ql) = expm1_parts(s, a + a, None);
        let w = pow2_neg(s, t);
        let one = f64x8::splat(s, 1.0);
        // only for the last n, where w is less than an ulp of 1, are the second parts not zero
        let ((n, nr), (d, dr)) = (fast_two_sum(one, -w), fast_two_sum(one, w));
        let ((nh, nl), (dh, dl)) = (fast_two_sum(n, q), fast_two_sum(d, q));
        let (nl, dl) = (nl + (ql + nr), dl + (ql + dr));
        let inverse = one / dh;
        let y = nh * inverse;
        let (p, e) = two_prod(s, y, dh);
        let rest = ((nh - p) - e) + (nl - y * dl);
        let y = rest.mul_add(inverse, y).copysign(x);
        // what the inverse lacks, twice
        let (p, e) = two_prod(s, dh, inverse);
        let lost = ((one - p) - e) - dl * inverse;
        let square = (w * 4.0) * ((q + one + ql) * (inverse * inverse));
        let square = square.mul_add(lost + lost, square);
        let number = x.simd_eq(x);
        (number.select(y, x), number.select(square, x))
    }
}

/// For |x|: n, 2^-2n, r, its error, sinh r - r and cosh r - 1, with e^|x| = 2^n (cosh r + sinh r).
#[inline(always)]
fn halves<S: Simd>(s: S, x: f64x8<S>) -> (f64x8<S>, f64x8<S>, f64x8<S>, f64x8<S>, f64x8<S>) {
    // beyond 710.6 both functions are infinite, and so is the result here
    let (t, n, r, rl) = reduce(s, x.abs().min(710.6), None);
    let z = r * r;
    let sinh = (r * z) * poly(s, z, &SINH);
    let cosh = z * z.mul_add(poly(s, z, &COSH), 0.5);
    // 2^-n only as far as it counts
    let w = pow2_neg(s, t.min(ROUND + 64.0));
    // the error of r times e^r, near enough for both
    (n, w * w, r, sinh + rl.mul_add(r, rl), cosh)
}

/// 2^(n-1) y, where 2^n may be no number.
#[inline(always)]
fn scale<S: Simd>(s: S, y: f64x8<S>, n: f64x8<S>) -> f64x8<S> {
    (y * pow2(n + f64x8::splat(s, ROUND - 2.0))) * 2.0
}

outlined! {
    /// sinh x = 2^(n-1) ((1 - 2^-2n) cosh r + (1 + 2^-2n) sinh r), at most 0.82 ulp off.
    pub fn sinh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (n, w, r, sinh, cosh) = halves(s, x);
        let one = f64x8::splat(s, 1.0);
        let ((less, lost), more) = (fast_two_sum(one, -w), one + w);
        let (p, e) = two_prod(s, more, r);
        let (h, l) = fast_two_sum(less, p);
        let y = h + (more.mul_add(sinh, less * cosh) + (l + e + lost));
        let y = n.simd_eq(0.0).select(r + sinh, scale(s, y, n)).copysign(x);
        x.simd_eq(x).select(y, x)
    }

    /// cosh x = 2^(n-1) ((1 + 2^-2n) cosh r + (1 - 2^-2n) sinh r), at most 0.74 ulp off.
    pub fn cosh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
        let (n, w, r, sinh, cosh) = halves(s, x);
        let one = f64x8::splat(s, 1.0);
        let (less, (more, lost)) = (one - w, fast_two_sum(one, w));
        let (p, e) = two_prod(s, less, r);
        let (h, l) = fast_two_sum(more, p);
        let y = scale(s, h + (less.mul_add(sinh, more * cosh) + (l + e + lost)), n);
        x.simd_eq(x).select(y, x)
    }
}
