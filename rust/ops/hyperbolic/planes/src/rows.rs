//! The numbers of rows and of columns, eight at a time. The one rule: f64 for data of any type, and a power of two taken out
//! where a number would overflow.

use base::math;
use base::roots::{arsinh_root, arsinh_root_d};
use base::simd::*;
use drivers::rows::Margin;
use std::f64::consts::{LN_2, LOG2_E};

/// Which of the formulas a call means.
#[derive(Clone, Copy)]
pub struct Form {
    /// the layer; else its logits
    pub fc: bool,
    /// points of the ball, told by λ; else tangent vectors at 0, told by |v|²
    pub ball: bool,
    pub margin: Margin,
}

/// d/dz of sinh √z/√z.
const SINH_D: [f64; 11] = [
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
    4.254987187693753e-22,
];

/// sinh σ/σ and cosh σ over 2^e, and e: the least that keeps them below exp(cap).
#[inline(always)]
pub fn sinh_cosh<S: Simd>(s: S, sigma: f64x8<S>, cap: f64) -> [f64x8<S>; 3] {
    let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
    let e = ((sigma - cap) * LOG2_E).max(0.0).ceil();
    let less = e.simd_gt(0.0);
    let m = math::expm1(s, sigma - e * LN_2);
    let whole = m + 1.0;
    let back = less.select(zero, one / whole);
    let sinh = less.select(whole, m.mul_add(back, m)) * 0.5;
    let ratio = sigma.simd_eq(0.0).select(one, sinh / sigma);
    [ratio, (whole + back) * 0.5, e]
}

/// d/dz of sinh √z/√z = (cosh - ratio)/(2z) at z = σ²
#[inline(always)]
pub fn sinh_root_d<S: Simd>(z: f64x8<S>, ratio: f64x8<S>, cosh: f64x8<S>) -> f64x8<S> {
    z.simd_lt(1.0).select(math::poly(z.witness(), z, &SINH_D), (cosh - ratio) / (z + z))
}

/// a, b and the power e of a row.
#[inline(always)]
pub fn row<S: Simd>(s: S, form: Form, x: f64x8<S>, c: f64, cap: f64) -> [f64x8<S>; 3] {
    if form.ball {
        return [x * 0.5, x - 1.0, f64x8::splat(s, 0.0)];
    }
    sinh_cosh(s, (x * c).sqrt() * 2.0, cap)
}

/// What a row's sums a R1 = Σ G_π a A t and R2 = Σ G_π B make of the row's number, and of c through it.
#[inline(always)]
pub fn row_back<S: Simd>(
    s: S,
    form: Form,
    x: f64x8<S>,
    c: f64,
    [a, b]: [f64x8<S>; 2],
    [ar1, r2]: [f64x8<S>; 2],
) -> [f64x8<S>; 2] {
    let r1 = ar1 / a;
    if form.ball {
        return [r1 * 0.5 - r2, f64x8::splat(s, 0.0)];
    }
    let d = (r1 * sinh_root_d(x * (4.0 * c), a, b) - r2 * a * 0.5) * 4.0;
    [d * c, d * x]
}

/// H and N of G_w = H g + N⟨g,w⟩w, and 1 - c|y|² in the ball form; for w√c = 2^k u, |u|² = q: G_w 2^k, H for that and
/// N for w√c/2^k in place of w. Tangent: h = arsinh ρ/2ρ, ρ = 2^k√q; N = h'/ρ. Ball: E = 1 + √(1 + ρ²), H = 1/E,
/// N = -1/(E²√(1 + ρ²)).
#[inline(always)]
pub fn head<S: Simd>(s: S, form: Form, q: f64x8<S>, k: f64x8<S>) -> [f64x8<S>; 3] {
    let one = f64x8::splat(s, 1.0);
    if form.ball {
        // where k is not 0, q is so large that 1 does not count beside it
        let root = (q + 1.0).sqrt();
        let h = one / (root + 1.0);
        let gap = k.simd_gt(0.0).select(f64x8::splat(s, 0.0), h + h);
        return [h, -(h * h) / root, gap];
    }
    let ratio = arsinh_root(q) + q.simd_gt(1.0).select(k * LN_2 / q.sqrt(), f64x8::splat(s, 0.0));
    let far = (one / q.sqrt() - ratio) / (q + q);
    let near = arsinh_root_d(q, ratio);
    [ratio * 0.5, k.simd_gt(0.0).select(far, near), one]
}
