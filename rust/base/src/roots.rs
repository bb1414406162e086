//! tanh, artanh and arsinh over their argument, as functions of its square. The one rule: each is smooth at 0, so that
//! c = 0 and a zero row need no case of their own.

use crate::dd::Num;
use crate::math;
use crate::simd::*;

/// Below this z the derivatives of T, A and S come from their series: the closed forms cancel.
const NEAR: f64 = 0.06;

/// A few roundings of a number near 1.
pub const SLACK: f64 = 1.0 / (1u64 << 48) as f64;

/// f(√z)/√z with its limit 1 at z = 0 alone: of NaN it is NaN.
#[inline(always)]
pub fn over_root<S: Simd>(f: f64x8<S>, root: f64x8<S>) -> f64x8<S> {
    root.simd_eq(0.0).select(f64x8::splat(f.witness(), 1.0), f / root)
}

/// T'(z) = (1 - T - zT²)/(2z), T = tanh √z / √z, from T and 1/z
#[inline(always)]
fn tanh_slope<S: Simd>(z: f64x8<S>, t: f64x8<S>, inverse: f64x8<S>) -> f64x8<S> {
    const SERIES: [f64; 12] = [
        -0.3333333333333333,
        0.26666666666666666,
        -0.1619047619047619,
        0.08747795414462081,
        -0.044316177649510985,
        0.021552768219434887,
        -0.010190840709359227,
        0.004720219527564688,
        -0.002152162028191972,
        0.0009691537956929451,
        -0.0004320615627164852,
        0.00019102686083194756,
    ];
    let closed = (z * t).mul_add(-t, 1.0 - t) * inverse * 0.5;
    z.simd_lt(NEAR).select(math::poly(z.witness(), z, &SERIES), closed)
}

/// A'(z) = (1/(1-z) - A)/(2z), A = artanh √z / √z, from 1/(1-z), A and 1/z
#[inline(always)]
fn artanh_slope<S: Simd>(z: f64x8<S>, one: f64x8<S>, a: f64x8<S>, inverse: f64x8<S>) -> f64x8<S> {
    // k/(2k + 1), k = 1, 2, …
    const SERIES: [f64; 14] = {
        let mut c = [0.0; 14];
        let mut k = 1;
        while k <= 14 {
            c[k - 1] = k as f64 / (2 * k + 1) as f64;
            k += 1;
        }
        c
    };
    let closed = (one - a) * inverse * 0.5;
    z.simd_lt(NEAR).select(math::poly(z.witness(), z, &SERIES), closed)
}

/// S(u) = arsinh √u / √u
#[inline(always)]
pub fn arsinh_root<S: Simd>(u: f64x8<S>) -> f64x8<S> {
    let root = u.sqrt();
    over_root(math::asinh(u.witness(), root), root)
}

/// S'(u)
#[inline(always)]
pub fn arsinh_root_d<S: Simd>(u: f64x8<S>, s: f64x8<S>) -> f64x8<S> {
    arsinh_slope(u, 1.0 / (u + 1.0).sqrt(), s, 1.0 / u)
}

/// S'(u) = (1/√(1+u) - S)/(2u), from 1/√(1+u), S and 1/u
#[inline(always)]
fn arsinh_slope<S: Simd>(u: f64x8<S>, one: f64x8<S>, s: f64x8<S>, inverse: f64x8<S>) -> f64x8<S> {
    const SERIES: [f64; 14] = [
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
    let closed = (one - s) * inverse * 0.5;
    u.simd_lt(NEAR).select(math::poly(u.witness(), u, &SERIES), closed)
}

// Numbers of data of 24 bits are good for as many: their functions are those to f32's accuracy, and reciprocals are taken
// early, beside what the result waits for, and serve more than once.

/// For s of any sign: T(s²) = tanh(s)/s, T'(s²), and sech²(s), which 1 - tanh²(s) loses for large s
#[inline(always)]
pub fn tanh_over<S: Simd, N: Num<S>>(s: f64x8<S>) -> [f64x8<S>; 3] {
    let s = s.abs();
    if !N::SINGLE {
        let (t, h) = math::tanh_sech2(s.witness(), s);
        let (t, z) = (over_root(t, s), s * s);
        return [t, tanh_slope(z, t, 1.0 / z), h];
    }
    let one = f64x8::splat(s.witness(), 1.0);
    // tanh = e/(e + 2), sech² = 4(e + 1)/(e + 2)²
    let double = s + s;
    let e = math::single::expm1(s.witness(), double.simd_gt(340.0).select(one * 340.0, double)); // NaN stays
    let (per, part) = (1.0 / s, 1.0 / (e + 2.0));
    let t = s.simd_eq(0.0).select(one, per * e * part);
    [t, tanh_slope(s * s, t, per * per), (e + 1.0) * 4.0 * (part * part)]
}

/// A(z) = artanh √z / √z and A'(z), from √z and 1 - z, which the caller knows better than √z tells
#[inline(always)]
pub fn artanh_over<S: Simd, N: Num<S>>(root: f64x8<S>, rest: f64x8<S>) -> [f64x8<S>; 2] {
    let (double, z) = ((root + root) * (root + 1.0), root * root);
    if !N::SINGLE {
        let a = over_root(math::log1p(root.witness(), double / rest) * 0.5, root);
        return [a, artanh_slope(z, 1.0 / rest, a, 1.0 / z)];
    }
    let (one, per) = (1.0 / rest, 1.0 / root);
    let log = math::single::log1p(root.witness(), double * one);
    let a = root.simd_eq(0.0).select(f64x8::splat(root.witness(), 1.0), per * 0.5 * log);
    [a, artanh_slope(z, one, a, per * per)]
}

/// S(u) = arsinh √u / √u, S'(u) and 1/√(1 + u)
#[inline(always)]
pub fn arsinh_over<S: Simd, N: Num<S>>(u: f64x8<S>) -> [f64x8<S>; 3] {
    let whole = (u + 1.0).sqrt();
    if !N::SINGLE {
        let s = arsinh_root(u);
        return [s, arsinh_root_d(u, s), 1.0 / whole];
    }
    let (root, one) = (u.sqrt(), f64x8::splat(u.witness(), 1.0));
    let (none, both) = (root.simd_eq(0.0), root * whole);
    let inverse = 1.0 / both;
    let (part, per) = (none.select(one, inverse * root), inverse * whole);
    // 2 arsinh √u = log(1 + 2(u + √(u(1 + u))))
    let log = math::single::log1p(u.witness(), (u + both) * 2.0);
    let s = none.select(one, log * per * 0.5);
    [s, arsinh_slope(u, part, s, per * per), part]
}

/// The series of d/dz log(sinh √z/√z) at z = 0.
pub const SINH_LOG_D: [f64; 17] = [
    0.16666666666666666,
    -0.011111111111111112,
    0.0010582010582010583,
    -0.00010582010582010582,
    1.0688899577788467e-05,
    -1.0822021404031986e-06,
    1.0962973925936889e-07,
    -1.1107304394989839e-08,
    1.1253923258404497e-09,
    -1.1402575602296092e-10,
    1.1553216299501312e-11,
    -1.1705853409912441e-12,
    1.1860508700116827e-13,
    -1.2017207666653852e-14,
    1.2175977014591684e-15,
    -1.2336844022586037e-16,
    1.2499836385610405e-17,
];

/// d/dz log(sinh √z/√z) = (s coth s - 1)/(2z) at z = s²
#[inline(always)]
pub fn sinh_over_log_d<S: Simd>(s: f64x8<S>) -> f64x8<S> {
    let (s, z) = (s.abs(), s * s);
    let closed = (s / math::tanh(s.witness(), s) - 1.0) / (z + z);
    z.simd_lt(1.0).select(math::poly(z.witness(), z, &SINH_LOG_D), closed)
}

/// 1 - c·p for an inner product p, with all the digits p has; NaN where it is negative: such a row is no point of the ball, and
/// every formula would take it for another.
#[inline(always)]
pub fn gap<S: Simd, N: Num<S>>(c: f64x8<S>, p: N) -> f64x8<S> {
    wide_gap(c, p).get()
}

/// As [`gap`], for sums in which it may cancel.
#[inline(always)]
pub fn wide_gap<S: Simd, N: Num<S>>(c: f64x8<S>, p: N) -> N {
    let s = c.witness();
    let rest = N::of(f64x8::splat(s, 1.0)) - N::of(c) * p;
    let outside = rest.get().simd_lt(0.0);
    rest + N::of(outside.select(f64x8::splat(s, f64::NAN), f64x8::splat(s, 0.0)))
}
