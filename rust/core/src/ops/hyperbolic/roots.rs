//! tanh, artanh and arsinh over their argument, as functions of its square. The one rule: each is smooth at 0, so that
//! c = 0 and a zero row need no case of their own.

use crate::dd::Num;
use crate::math;
use crate::simd::*;

/// Below this z the derivatives of T, A and S come from their series: the closed forms cancel.
const NEAR: f64 = 0.06;

/// A few roundings of a number near 1.
pub const SLACK: f64 = 1.0 / (1u64 << 48) as f64;

#[inline(always)]
pub fn series<S: Simd>(z: f64x8<S>, coefficients: &[f64]) -> f64x8<S> {
    let mut v = f64x8::splat(z.witness(), 0.0);
    for &c in coefficients.iter().rev() {
        v = v.mul_add(z, c);
    }
    v
}

/// f(√z)/√z with its limit 1 at z = 0.
#[inline(always)]
pub fn over_root<S: Simd>(f: f64x8<S>, root: f64x8<S>) -> f64x8<S> {
    root.simd_gt(0.0).select(f / root, f64x8::splat(f.witness(), 1.0))
}

/// T(z) = tanh √z / √z
#[inline(always)]
pub fn tanh_root<S: Simd>(z: f64x8<S>) -> f64x8<S> {
    let root = z.sqrt();
    over_root(math::tanh(z.witness(), root), root)
}

/// T'(z) = (1 - T - zT²)/(2z)
#[inline(always)]
pub fn tanh_root_d<S: Simd>(z: f64x8<S>, t: f64x8<S>) -> f64x8<S> {
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
    let closed = (z * t).mul_add(-t, 1.0 - t) / (z + z);
    z.simd_lt(NEAR).select(series(z, &SERIES), closed)
}

/// A(z) = artanh √z / √z, from √z and 1 - z, which the caller knows better than √z tells
#[inline(always)]
pub fn artanh_root<S: Simd>(root: f64x8<S>, rest: f64x8<S>) -> f64x8<S> {
    over_root(math::log1p(root.witness(), (root + root) * (root + 1.0) / rest) * 0.5, root)
}

/// A'(z) = (1/(1-z) - A)/(2z)
#[inline(always)]
pub fn artanh_root_d<S: Simd>(z: f64x8<S>, rest: f64x8<S>, a: f64x8<S>) -> f64x8<S> {
    let mut v = f64x8::splat(z.witness(), 0.0);
    for k in (1..=14).rev() {
        v = v.mul_add(z, k as f64 / (2 * k + 1) as f64);
    }
    z.simd_lt(NEAR).select(v, (1.0 / rest - a) / (z + z))
}

/// S(u) = arsinh √u / √u
#[inline(always)]
pub fn arsinh_root<S: Simd>(u: f64x8<S>) -> f64x8<S> {
    let root = u.sqrt();
    over_root(math::asinh(u.witness(), root), root)
}

/// S'(u) = (1/√(1+u) - S)/(2u)
#[inline(always)]
pub fn arsinh_root_d<S: Simd>(u: f64x8<S>, s: f64x8<S>) -> f64x8<S> {
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
    let closed = (1.0 / (u + 1.0).sqrt() - s) / (u + u);
    u.simd_lt(NEAR).select(series(u, &SERIES), closed)
}

/// tanh(s)/s with its limit 1 at s = 0, for s of any sign, and sech²(s), which 1 - tanh²(s) loses for large s
#[inline(always)]
pub fn tanh_over<S: Simd>(s: f64x8<S>) -> [f64x8<S>; 2] {
    let s = s.abs();
    let (t, h) = math::tanh_sech2(s.witness(), s);
    [over_root(t, s), h]
}

// Where a function is no more than a factor of the result, the digits that the data has are enough: those that the
// numbers of type N were summed from.

/// As [`tanh_over`], for a factor of the result.
#[inline(always)]
pub fn tanh_factor<S: Simd, N: Num<S>>(s: f64x8<S>) -> [f64x8<S>; 2] {
    if !N::SINGLE {
        return tanh_over(s);
    }
    let s = s.abs();
    let (t, h) = math::single::tanh_sech2(s.witness(), s);
    [over_root(t, s), h]
}

/// As [`artanh_root`], for a factor of the result.
#[inline(always)]
pub fn artanh_factor<S: Simd, N: Num<S>>(root: f64x8<S>, rest: f64x8<S>) -> f64x8<S> {
    if !N::SINGLE {
        return artanh_root(root, rest);
    }
    over_root(math::single::log1p(root.witness(), (root + root) * (root + 1.0) / rest) * 0.5, root)
}

/// As [`arsinh_root`], for a factor of the result.
#[inline(always)]
pub fn arsinh_factor<S: Simd, N: Num<S>>(u: f64x8<S>) -> f64x8<S> {
    if !N::SINGLE {
        return arsinh_root(u);
    }
    let root = u.sqrt();
    over_root(math::single::asinh(u.witness(), root), root)
}

/// sinh(s)/s with its limit 1 at s = 0, for s of any sign
#[inline(always)]
pub fn sinh_over<S: Simd>(s: f64x8<S>) -> f64x8<S> {
    let s = s.abs();
    over_root(math::sinh(s.witness(), s), s)
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
    z.simd_lt(1.0).select(series(z, &SINH_LOG_D), closed)
}

/// 1 - c·p for an inner product p, with all the digits p has.
#[inline(always)]
pub fn gap<S: Simd, N: Num<S>>(c: f64x8<S>, p: N) -> f64x8<S> {
    wide_gap(c, p).get()
}

/// As [`gap`], for sums in which it may cancel.
#[inline(always)]
pub fn wide_gap<S: Simd, N: Num<S>>(c: f64x8<S>, p: N) -> N {
    N::of(f64x8::splat(c.witness(), 1.0)) - N::of(c) * p
}
