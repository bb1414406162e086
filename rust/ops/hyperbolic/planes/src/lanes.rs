//! sinh(2n arsinh p) and what its derivative needs, in f32 and in f64 lanes. The one rule: the logarithm and the exponential
//! meet in base 2, where the whole part of 2n log₂(…) is exact, so that large arguments lose no digit on the way.

use base::Dtype;
use base::lane::Lane;
use base::math;
use base::simd::*;
use drivers::rows::Aside;
use std::f64::consts::{LN_2, LOG2_E};

/// A lane type with the two halves of sinh(2n arsinh p).
pub trait Real: Lane {
    /// The largest σ that sinh and cosh of a row are made for as they are.
    const CAP: f64;
    /// 2n arsinh p as a whole number and a rest, in units of the type's own, and 1/√(1 + p²). Where |p| is large it stands
    /// for |p| 2^e. `single`: f32's digits are enough.
    fn turns<S: Simd>(s: S, p: Self::V<S>, e: Self::V<S>, n2: Self::V<S>, single: bool) -> [Self::V<S>; 3];
    /// The power of two to take out of a row whose largest whole number is `top`.
    fn power(top: f64) -> f64;
    /// sinh and cosh of what [`Real::turns`] gave, over 2^k.
    fn sinh_cosh<S: Simd>(s: S, n: Self::V<S>, rest: Self::V<S>, k: Self::V<S>, single: bool) -> [Self::V<S>; 2];
    /// 2n arsinh p from its two parts.
    fn angle<S: Simd>(n: Self::V<S>, rest: Self::V<S>) -> Self::V<S>;
    /// Adds the products of two vectors to eight sums.
    fn dot<S: Simd>(sums: f64x8<S>, x: Self::V<S>, y: Self::V<S>) -> f64x8<S>;
    /// Adds a vector to eight sums.
    fn pour<S: Simd>(sums: f64x8<S>, x: Self::V<S>) -> f64x8<S>;
    /// p³S'(p²) with S(u) = arsinh √u/√u, for p² below [`NEAR`].
    fn arsinh_d<S: Simd>(s: S, u: Self::V<S>) -> Self::V<S>;
    /// d/dz of sinh √z/√z for z < 1.
    fn sinh_d<S: Simd>(s: S, z: Self::V<S>) -> Self::V<S>;
    /// The largest |element|.
    fn top<S: Simd>(x: Self::V<S>) -> f64;
    /// How rows come and go where results are of another type than this.
    fn aside(dtype: Dtype) -> Option<Aside<Self>>;
}

/// Below this p² the derivative of arsinh √u/√u comes from its series.
pub const NEAR: f64 = 0.06;

const ARSINH_D: [f64; 14] = [
    -0.16666666666666666,
    0.15,
    -0.13392857142857142,
    0.12152777777777778,
    -0.11186079545454546,
    0.10411658653846154,
    -0.09775390625,
    0.09241440716911764,
    -0.08785448576274671,
    0.08390335809616815,
    -0.0804377846095873,
    0.07736652374267577,
    -0.07462048972094501,
    0.07214633555247865,
];
const SINH_D: [f64; 10] = [
    0.16666666666666666,
    0.016666666666666666,
    0.0005952380952380953,
    1.1022927689594357e-05,
    1.252605419272086e-07,
    9.635426302092969e-10,
    5.353014612273871e-12,
    2.2491658034764165e-14,
    7.398571721961897e-17,
    1.9572941063391261e-19,
];

#[inline(always)]
fn poly<S: Simd, L: Lane>(s: S, x: L::V<S>, c: &[f64]) -> L::V<S> {
    let mut v = L::V::<S>::splat(s, L::of(c[c.len() - 1]));
    for i in (0..c.len() - 1).rev() {
        v = v.mul_add(x, L::V::<S>::splat(s, L::of(c[i])));
    }
    v
}

// 1.5·2²³: adding it rounds to an integer and leaves it in the low bits
const WHOLE: f32 = 12_582_912.0;
/// (log(1 + f) - f + f²/2)/f³ and sinh, cosh as in `math::single`
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
const SINH: [f64; 3] = [0.1666666675450218, 0.008333288970676884, 0.00019904949181918322];
const COSH: [f64; 3] = [0.5, 0.041666459555155924, 0.0013935396341141527];
/// The bits of 1 less those of √½; 2²³, whose low bits hold an integer.
const TO_SQRT: u32 = 0x3f80_0000 - 0x3f35_04f3;
const ONE: u32 = 0x3f80_0000;
const INTEGER: u32 = 0x4b00_0000;
const BIASED: f32 = 8_388_735.0;

/// 2^n for a whole n in -127 … 127, 0 below.
#[inline(always)]
fn pow2<S: Simd>(n: f32x16<S>) -> f32x16<S> {
    let t: u32x16<S> = (n.max(-127.0) + (WHOLE + 127.0)).bitcast();
    (t << 23).bitcast()
}

impl Real for f32 {
    const CAP: f64 = 60.0;
    #[inline(always)]
    fn turns<S: Simd>(s: S, p: f32x16<S>, e: f32x16<S>, n2: f32x16<S>, _: bool) -> [f32x16<S>; 3] {
        let (one, zero) = (f32x16::splat(s, 1.0), f32x16::splat(s, 0.0));
        let a = p.abs();
        let big = a.simd_gt(1_073_741_824.0);
        let root = big.select(a, a.mul_add(a, one).sqrt());
        // arsinh a = log(1 + y)
        let y = (a / (root + 1.0)).mul_add(a, a);
        let u = y + 1.0;
        let bits: u32x16<S> = u.bitcast();
        let x = (bits + TO_SQRT) >> 23;
        let k: f32x16<S> = (x | INTEGER).bitcast();
        let k = k - BIASED + big.select(e, zero);
        let m: f32x16<S> = (bits - (x << 23) + ONE).bitcast();
        let back: f32x16<S> = ((u32x16::splat(s, 254) - x) << 23).bitcast();
        let f = (y - (u - 1.0)).mul_add(back, m - 1.0);
        let log = (f * f).mul_add(f.mul_add(poly::<S, f32>(s, f, &LOG), -0.5), f) * (LOG2_E as f32);
        let n = n2.mul_add(k, n2 * log) + WHOLE - WHOLE;
        let rest = n2.mul_add(log, n2.mul_add(k, -n));
        [n.copysign(p), rest * one.copysign(p), one / root]
    }
    #[inline(always)]
    fn power(top: f64) -> f64 {
        (top - 57.0).max(0.0)
    }
    #[inline(always)]
    fn sinh_cosh<S: Simd>(s: S, n: f32x16<S>, rest: f32x16<S>, k: f32x16<S>, _: bool) -> [f32x16<S>; 2] {
        let r = rest * (LN_2 as f32);
        let z = r * r;
        let sinh = (r * z).mul_add(poly::<S, f32>(s, z, &SINH), r);
        let cosh = z.mul_add(poly::<S, f32>(s, z, &COSH), 1.0);
        let (up, down) = (pow2(n - k) * 0.5, pow2(-n - k) * 0.5);
        let (sum, less) = (up + down, up - down);
        [sum.mul_add(sinh, less * cosh), sum.mul_add(cosh, less * sinh)]
    }
    #[inline(always)]
    fn angle<S: Simd>(n: f32x16<S>, rest: f32x16<S>) -> f32x16<S> {
        n.mul_add(LN_2 as f32, rest * (LN_2 as f32))
    }
    #[inline(always)]
    fn dot<S: Simd>(sums: f64x8<S>, x: f32x16<S>, y: f32x16<S>) -> f64x8<S> {
        let ((a, b), (c, d)) = (x.widen(), y.widen());
        b.mul_add(d, a.mul_add(c, sums))
    }
    #[inline(always)]
    fn pour<S: Simd>(sums: f64x8<S>, x: f32x16<S>) -> f64x8<S> {
        let (a, b) = x.widen();
        sums + (a + b)
    }
    #[inline(always)]
    fn arsinh_d<S: Simd>(s: S, u: f32x16<S>) -> f32x16<S> {
        poly::<S, f32>(s, u, &ARSINH_D[..6])
    }
    #[inline(always)]
    fn sinh_d<S: Simd>(s: S, z: f32x16<S>) -> f32x16<S> {
        poly::<S, f32>(s, z, &SINH_D[..5])
    }
    #[inline(always)]
    fn top<S: Simd>(x: f32x16<S>) -> f64 {
        let (a, b) = x.widen();
        <f64 as Real>::top(a.max(b))
    }
    fn aside(dtype: Dtype) -> Option<Aside<f32>> {
        Aside::half(dtype)
    }
}

impl Real for f64 {
    const CAP: f64 = 300.0;
    #[inline(always)]
    fn turns<S: Simd>(s: S, p: f64x8<S>, e: f64x8<S>, n2: f64x8<S>, single: bool) -> [f64x8<S>; 3] {
        let (one, zero) = (f64x8::splat(s, 1.0), f64x8::splat(s, 0.0));
        let a = p.abs();
        let big = a.simd_gt(1_073_741_824.0);
        let root = big.select(a, a.mul_add(a, one).sqrt());
        let few = single && !big.any_true();
        let asinh = if few { math::single::asinh(s, a) } else { math::asinh(s, a) };
        let x = (asinh + big.select(e, zero) * LN_2) * n2;
        [x.copysign(p), zero, one / root]
    }
    #[inline(always)]
    fn power(top: f64) -> f64 {
        ((top - 200.0) * LOG2_E).max(0.0).ceil()
    }
    #[inline(always)]
    fn sinh_cosh<S: Simd>(s: S, n: f64x8<S>, _: f64x8<S>, k: f64x8<S>, single: bool) -> [f64x8<S>; 2] {
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let less = k.simd_gt(0.0);
        let x = n.abs() - k * LN_2;
        let m = if single { math::single::expm1(s, x) } else { math::expm1(s, x) };
        let whole = m + 1.0;
        let back = less.select(zero, one / whole);
        let sinh = less.select(whole, m.mul_add(back, m)) * 0.5;
        [sinh.copysign(n), (whole + back) * 0.5]
    }
    #[inline(always)]
    fn angle<S: Simd>(n: f64x8<S>, _: f64x8<S>) -> f64x8<S> {
        n
    }
    #[inline(always)]
    fn dot<S: Simd>(sums: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        x.mul_add(y, sums)
    }
    #[inline(always)]
    fn pour<S: Simd>(sums: f64x8<S>, x: f64x8<S>) -> f64x8<S> {
        sums + x
    }
    #[inline(always)]
    fn arsinh_d<S: Simd>(s: S, u: f64x8<S>) -> f64x8<S> {
        poly::<S, f64>(s, u, &ARSINH_D)
    }
    #[inline(always)]
    fn sinh_d<S: Simd>(s: S, z: f64x8<S>) -> f64x8<S> {
        poly::<S, f64>(s, z, &SINH_D)
    }
    #[inline(always)]
    fn top<S: Simd>(x: f64x8<S>) -> f64 {
        let mut top = 0.0f64;
        for i in 0..8 {
            top = top.max(x[i]);
        }
        top
    }
    fn aside(dtype: Dtype) -> Option<Aside<f64>> {
        Aside::rounded(dtype)
    }
}
