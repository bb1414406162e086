//! Maps of the Poincaré ball of curvature -c: {c|x|² < 1}, c >= 0. The one rule: every formula is written with
//! alpha = 1 - c|x|² and sums of squares, never as a difference of large terms, and c = 0 is a value like any other.
//!
//! Notation: alpha = 1 - c|x|², beta = 1 - c|y|², sigma = x + y, q = |sigma|² (or |x - y|² for distances), g the gradient
//! that arrives. Forms and backwards after Ganea et al. 2018 and Ungar 2008, rearranged so that nothing cancels.

use crate::dd::Num;
use crate::math;
use crate::rows::{self, Acc, Margin, RowOp, Solved};
use crate::simd::*;
use crate::{Kind, Op, Rule};

/// Below this z the derivatives of T, A and S come from their series: the closed forms cancel.
const NEAR: f64 = 0.06;

#[inline(always)]
fn series<S: Simd>(z: f64x8<S>, coefficients: &[f64]) -> f64x8<S> {
    let mut v = f64x8::splat(z.witness(), 0.0);
    for &c in coefficients.iter().rev() {
        v = v.mul_add(z, c);
    }
    v
}

/// f(√z)/√z with its limit 1 at z = 0.
#[inline(always)]
fn over_root<S: Simd>(f: f64x8<S>, root: f64x8<S>) -> f64x8<S> {
    root.simd_gt(0.0).select(f / root, f64x8::splat(f.witness(), 1.0))
}

/// T(z) = tanh √z / √z
#[inline(always)]
fn tanh_root<S: Simd>(z: f64x8<S>) -> f64x8<S> {
    let root = z.sqrt();
    over_root(math::tanh(z.witness(), root), root)
}

/// T'(z) = (1 - T - zT²)/(2z)
#[inline(always)]
fn tanh_root_d<S: Simd>(z: f64x8<S>, t: f64x8<S>) -> f64x8<S> {
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
fn artanh_root<S: Simd>(root: f64x8<S>, rest: f64x8<S>) -> f64x8<S> {
    over_root(math::log1p(root.witness(), (root + root) * (root + 1.0) / rest) * 0.5, root)
}

/// A'(z) = (1/(1-z) - A)/(2z)
#[inline(always)]
fn artanh_root_d<S: Simd>(z: f64x8<S>, rest: f64x8<S>, a: f64x8<S>) -> f64x8<S> {
    let mut v = f64x8::splat(z.witness(), 0.0);
    for k in (1..=14).rev() {
        v = v.mul_add(z, k as f64 / (2 * k + 1) as f64);
    }
    z.simd_lt(NEAR).select(v, (1.0 / rest - a) / (z + z))
}

/// S(u) = arsinh √u / √u
#[inline(always)]
fn arsinh_root<S: Simd>(u: f64x8<S>) -> f64x8<S> {
    let root = u.sqrt();
    over_root(math::asinh(u.witness(), root), root)
}

/// S'(u) = (1/√(1+u) - S)/(2u)
#[inline(always)]
fn arsinh_root_d<S: Simd>(u: f64x8<S>, s: f64x8<S>) -> f64x8<S> {
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

/// 1 - c·p for an inner product p, with all the digits p has.
#[inline(always)]
fn gap<S: Simd, N: Num<S>>(c: f64x8<S>, p: N) -> f64x8<S> {
    (N::of(f64x8::splat(c.witness(), 1.0)) - N::of(c) * p).get()
}

/// y = T(c|x|²) x; true 1 - c|y|² = sech²(√c|x|)
struct ExpMap0(Margin);
impl RowOp<1, 1, 1, 1, 1, 0> for ExpMap0 {
    const CURVED: bool = true;
    fn margin(&self) -> Option<Margin> {
        Some(self.0)
    }
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, _: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        let z = c * xx.get();
        let t = tanh_root(z);
        Solved { weights: [t], numbers: [], gap: (z * t).mul_add(-t, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [t]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *t]
    }
}

/// dx = T g + 2cT'<g,x> x; dc = T'|x|²<g,x>
struct ExpMap0Bwd;
impl RowOp<2, 1, 2, 2, 1, 1> for ExpMap0Bwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x]: &[f64x8<S>; 2], [xx, gx]: &mut [A; 2]) {
        xx.dot(*x, *x);
        gx.dot(*g, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, gx]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 1> {
        let z = c * xx.get();
        let t = tanh_root(z);
        let slope = tanh_root_d(z, t) * gx.get();
        Solved { weights: [t, (c + c) * slope], numbers: [slope * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x]: &[f64x8<S>; 2], [t, w]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [x.mul_add(*w, *g * *t)]
    }
}

/// y = A(c|x|²) x
struct LogMap0;
impl RowOp<1, 1, 1, 1, 1, 0> for LogMap0 {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        let root = (N::of(c) * xx).root().get();
        Solved { weights: [artanh_root(root, gap(c, xx))], numbers: [], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [a]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *a]
    }
}

/// dx = A g + 2cA'<g,x> x; dc = A'|x|²<g,x>
struct LogMap0Bwd;
impl RowOp<2, 1, 2, 2, 1, 1> for LogMap0Bwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x]: &[f64x8<S>; 2], [xx, gx]: &mut [A; 2]) {
        xx.dot(*x, *x);
        gx.dot(*g, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, gx]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 1> {
        let z = N::of(c) * xx;
        let rest = gap(c, xx);
        let a = artanh_root(z.root().get(), rest);
        let slope = artanh_root_d(z.get(), rest, a) * gx.get();
        Solved { weights: [a, (c + c) * slope], numbers: [slope * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x]: &[f64x8<S>; 2], [a, w]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [x.mul_add(*w, *g * *a)]
    }
}

/// z = (alpha sigma + c q x)/D, D = alpha beta + c q; 1 - c|z|² = alpha beta / D
struct MobiusAdd(Margin);
impl RowOp<2, 1, 3, 2, 1, 0> for MobiusAdd {
    const CURVED: bool = true;
    fn margin(&self) -> Option<Margin> {
        Some(self.0)
    }
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, y]: &[f64x8<S>; 2], [xx, yy, q]: &mut [A; 3]) {
        xx.dot(*x, *x);
        yy.dot(*y, *y);
        q.square_sum(*x, *y);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, _: S, [xx, yy, q]: [N; 3], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 0> {
        let (alpha, cq) = (gap(c, xx), c * q.get());
        let ab = alpha * gap(c, yy);
        let d = 1.0 / (ab + cq);
        Solved { weights: [alpha * d, cq * d], numbers: [], gap: ab * d }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, y]: &[f64x8<S>; 2], [a, b]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [(*x + *y).mul_add(*a, *x * *b)]
    }
}

/// With u = <g,x>, k = <g,sigma> - beta u, theta = u + alpha k / D:
/// dx = ((alpha + cq) g - 2ck z)/D, dy = (alpha/D)(g + 2c(theta y - (k/D) sigma)),
/// dc = (theta alpha |y|² - q k / D)/D
struct MobiusAddBwd;
impl RowOp<3, 1, 5, 6, 2, 1> for MobiusAddBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x, y]: &[f64x8<S>; 3], [xx, yy, q, gx, gs]: &mut [A; 5]) {
        xx.dot(*x, *x);
        yy.dot(*y, *y);
        q.square_sum(*x, *y);
        gx.dot(*g, *x);
        gs.dot_sum(*g, *x, *y);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, yy, q, gx, gs]: [N; 5], [c]: [f64x8<S>; 1]) -> Solved<S, 6, 1> {
        let (alpha, beta, cq) = (gap(c, xx), gap(c, yy), c * q.get());
        let d = 1.0 / alpha.mul_add(beta, cq);
        let k = (gs - N::of(beta) * gx).get();
        let (ad, kd) = (alpha * d, k * d);
        let theta = ad.mul_add(k, gx.get());
        let ck = (c + c) * kd;
        Solved {
            // dx = g w0 - sigma w1 - x w2; dy = g w3 + y w4 - sigma w5
            weights: [(alpha + cq) * d, ck * ad, ck * (cq * d), ad, (c + c) * ad * theta, ck * ad],
            numbers: [(theta * alpha * yy.get() - q.get() * kd) * d],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x, y]: &[f64x8<S>; 3], w: &[f64x8<S>; 6]) -> [f64x8<S>; 2] {
        let sigma = *x + *y;
        [g.mul_add(w[0], -sigma.mul_add(w[1], *x * w[2])), g.mul_add(w[3], y.mul_add(w[4], -(sigma * w[5])))]
    }
}

/// d = 2√m S(cm), m = q/(alpha beta)
struct Dist;
impl RowOp<2, 1, 3, 0, 0, 1> for Dist {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, y]: &[f64x8<S>; 2], [xx, yy, q]: &mut [A; 3]) {
        xx.dot(*x, *x);
        yy.dot(*y, *y);
        q.square_sum(*x, -*y);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, yy, q]: [N; 3], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 1> {
        let m = q.get() / (gap(c, xx) * gap(c, yy));
        Solved { weights: [], numbers: [(m.sqrt() + m.sqrt()) * arsinh_root(c * m)], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 2], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// dx = 2g/√(qD) ((x-y) + (cq/alpha) x), dy likewise, 0 at x = y;
/// dc = g√m (nu/√(1+u) + 2S'(u) m), u = cm, nu = |x|²/alpha + |y|²/beta
struct DistBwd;
impl RowOp<2, 2, 3, 3, 2, 1> for DistBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, y]: &[f64x8<S>; 2], [xx, yy, q]: &mut [A; 3]) {
        xx.dot(*x, *x);
        yy.dot(*y, *y);
        q.square_sum(*x, -*y);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, yy, q]: [N; 3], [g, c]: [f64x8<S>; 2]) -> Solved<S, 3, 1> {
        let (alpha, beta, q) = (gap(c, xx), gap(c, yy), q.get());
        let cq = c * q;
        let ab = alpha * beta;
        let zero = f64x8::splat(s, 0.0);
        let f = (g + g) / (q.sqrt() * (ab + cq).sqrt());
        let f = q.simd_gt(0.0).select(f, q.simd_eq(0.0).select(zero, f));
        let m = q / ab;
        let u = c * m;
        let nu = xx.get() / alpha + yy.get() / beta;
        let slope = arsinh_root_d(u, arsinh_root(u)) * 2.0;
        Solved {
            weights: [f, f * (cq / alpha), f * (cq / beta)],
            numbers: [g * m.sqrt() * slope.mul_add(m, nu / (u + 1.0).sqrt())],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, y]: &[f64x8<S>; 2], [f, a, b]: &[f64x8<S>; 3]) -> [f64x8<S>; 2] {
        let chord = (*x - *y) * *f;
        [x.mul_add(*a, chord), y.mul_add(*b, -chord)]
    }
}

/// `name(vectors; row numbers; scalars) -> outputs => functor`, the functor made from the scalars `s`.
macro_rules! row_ops {
    ($($name:ident($($v:ident),+; $($c:ident),*; $($k:ident),*) -> $($out:ident: $rule:expr),+ => |$s:ident| $op:expr;)*) => {
        &[$(Op {
            name: stringify!($name),
            inputs: &[$(stringify!($v),)+ $(stringify!($c)),*],
            vectors: [$(stringify!($v)),+].len(),
            outputs: &[$((stringify!($out), $rule)),+],
            scalars: &[$((stringify!($k), Kind::Float)),*],
            alias: true,
            run: |t, $s| rows::run(&$op, t),
        }),*]
    };
}

pub static OPS: &[Op] = row_ops! {
    expmap0(x; c; eps) -> y: Rule::Rows => |s| ExpMap0(Margin::of(s[0].float())?);
    expmap0_bwd(g, x; c;) -> dx: Rule::Like(1), dc: Rule::Like(2) => |_s| ExpMap0Bwd;
    logmap0(x; c;) -> y: Rule::Rows => |_s| LogMap0;
    logmap0_bwd(g, x; c;) -> dx: Rule::Like(1), dc: Rule::Like(2) => |_s| LogMap0Bwd;
    mobius_add(x, y; c; eps) -> z: Rule::Rows => |s| MobiusAdd(Margin::of(s[0].float())?);
    mobius_add_bwd(g, x, y; c;) -> dx: Rule::Like(1), dy: Rule::Like(2), dc: Rule::Like(3) => |_s| MobiusAddBwd;
    dist(x, y; c;) -> d: Rule::Lead => |_s| Dist;
    dist_bwd(x, y; g, c;) -> dx: Rule::Like(0), dy: Rule::Like(1), dc: Rule::Like(3) => |_s| DistBwd;
};
