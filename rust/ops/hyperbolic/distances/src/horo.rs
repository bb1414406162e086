//! Busemann functions. The one rule: near an ideal point the way that is left is made of the gap to the edge and of the angle, and
//! elsewhere of what x is nearer than the origin.

use base::dd::{Dd, Num};
use base::math;
use base::roots::*;
use base::simd::*;
use base::store::{STEP, Store};
use drivers::ball;
use drivers::rows::Met;

/// 2⁻⁶⁰
const SMALL: f64 = 1.0 / (1u64 << 60) as f64;

/// Rows of float64 from which the edge and p̂ are no farther: 1 − cos has no digits of them in sums of twice the precision.
const NEAR: f64 = 1e-8;

#[inline(always)]
fn next<S: Simd>(xx: f64x8<S>, pp: f64x8<S>, px: f64x8<S>, c: f64x8<S>) -> mask64x8<S> {
    (c * xx).simd_gt(1.0 - NEAR) & (c.sqrt() * px / pp.sqrt()).simd_gt(1.0 - NEAR)
}

/// kx − p/|p|, of which coordinates may cancel to their last digit, from k and 1/|p| in twice the precision
#[inline(always)]
fn apart<S: Simd>(x: f64x8<S>, p: f64x8<S>, [k, k_rest, per, per_rest]: [f64x8<S>; 4]) -> f64x8<S> {
    let s = x.witness();
    let ((a, ae), (b, be)) = (two_prod(s, x, k), two_prod(s, p, per));
    (a - b) + ((ae - be) + x.mul_add(k_rest, -(p * per_rest)))
}

#[inline(always)]
fn halves<S: Simd>(s: S, v: &[f64]) -> [f64x8<S>; 2] {
    if v.len() == STEP { f64::load16(s, v) } else { f64::load_tail(s, v) }
}

/// |kx − p̂|², coordinate by coordinate
#[inline(always)]
fn way<S: Simd>(s: S, x: &[f64], p: &[f64], c: f64) -> f64 {
    let zero = f64x8::splat(s, 0.0);
    let mut lanes = [Dd::of(zero); 2];
    for p in p.chunks(STEP) {
        for (sum, p) in lanes.iter_mut().zip(halves(s, p)) {
            *sum = *sum + Dd::product(p, p);
        }
    }
    let both = lanes[0] + lanes[1];
    let mut square = Dd::of(zero);
    for i in 0..8 {
        square = square + Dd { hi: f64x8::splat(s, both.hi[i]), lo: f64x8::splat(s, both.lo[i]) };
    }
    let (k, per) = (Dd::of(f64x8::splat(s, c)).root(), Dd::of(zero + 1.0) / square.root());
    let mut sum = zero;
    for (x, p) in x.chunks(STEP).zip(p.chunks(STEP)) {
        for (x, p) in halves(s, x).into_iter().zip(halves(s, p)) {
            let v = apart(x, p, [k.hi, k.lo, per.hi, per.lo]);
            sum = v.mul_add(v, sum);
        }
    }
    hsum(sum)
}

/// x as the ideal point p̂ sees it: k = √c, n = 2(k|x|² − ⟨x, p̂⟩), u = kn/α, v = |p̂ − kx|² = α(1 + u), which near p̂ is
/// (α/(1 + k|x|))² + 2k|x|(1 − cos), log v/α, and B.
struct Level<S: Simd> {
    k: f64x8<S>,
    alpha: f64x8<S>,
    n: f64x8<S>,
    u: f64x8<S>,
    v: f64x8<S>,
    log: f64x8<S>,
    b: f64x8<S>,
}

impl<S: Simd> Level<S> {
    #[inline(always)]
    fn new<N: Num<S>>([xx, pp, px, way]: [N; 4], c: f64x8<S>) -> Self {
        let s = c.witness();
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let (root, alpha, toward) = (N::of(c).root(), gap(c, xx), px / pp.root());
        let (k, n) = (root.get(), (root * xx - toward).get() * 2.0);
        let per = one / alpha;
        let u = k * n * per;
        let near = u.simd_lt(-0.5);
        let mut v = k.mul_add(n, alpha);
        if near.any_true() {
            let r = (N::of(c) * xx).root().get();
            let side = alpha / (r + 1.0);
            let turn = (N::of(one) - toward / xx.root()).get().max(zero);
            let way = way.get();
            let own = way.simd_gt(0.0).select(way, side.mul_add(side, (r + r) * turn));
            v = near.select(own, v);
        }
        let log = if N::SINGLE {
            math::single::log1p_of(s, near.select(v * per, u + 1.0), u)
        } else {
            near.select(math::log(s, v * per), math::log1p(s, u))
        };
        // of a small number its logarithm is it, and over k more than that
        let b = u.abs().simd_lt(SMALL).select(n * per, log / k);
        Level { k, alpha, n, u, v, log, b }
    }
}

/// B = log(v/α)/√c
#[derive(Default)]
pub struct Busemann(pub Met);
ball! { Busemann(x, p; c) -> (; b)
    dots(xx, pp, px, v) { xx.dot(x, x); pp.dot(p, p); px.dot(x, p); }
    solve(self) {
        self.0.see(xx);
        self.0.see(pp);
        ([], [Level::new([xx, pp, px, v], c).b])
    }
    doubt { lost(xx, pp, px, c) }
    near { next(xx, pp, px, c) }
    closer(s) { way(s, x, p, c) }
}

/// Whether n or v have lost more than f32 results bear: an error of each is some ε(k|x| + c|x|²).
#[inline(always)]
fn lost<S: Simd>(xx: f64x8<S>, pp: f64x8<S>, px: f64x8<S>, c: f64x8<S>) -> mask64x8<S> {
    let (z, k) = (c * xx, c.sqrt());
    let alpha = 1.0 - z;
    let n = k * (k * xx - px / pp.sqrt()) * 2.0;
    let v = alpha + n;
    let error = (z.sqrt() + z) * v.max(alpha) * (v + alpha) * (1.0 / (1u64 << 23) as f64);
    !(n.abs() * v * alpha).simd_ge(error)
}

/// dx = 2g((kx − p̂)/v + kx/α), dp = −(2g/v|p|)(x − ⟨x, p̂⟩p̂), dc = g(|x|²/α − (n/α)² h(u)/2)/k, 0 at c = 0, where
/// h(u) = (log(1 + u) − u/(1 + u))/u²
#[derive(Default)]
pub struct BusemannBwd(pub Met);
ball! { BusemannBwd(x, p; g, c) -> (dx, dp; dc)
    dots(xx, pp, px, way) { xx.dot(x, x); pp.dot(p, p); px.dot(x, p); }
    solve(self, s) {
        self.0.see(xx);
        self.0.see(pp);
        let Level { k, alpha, n, u, v, log, .. } = Level::new([xx, pp, px, way], c);
        let (long, zero) = (pp.root(), f64x8::splat(s, 0.0));
        let f = (g + g) / v;
        let (root, per, t) = (N::of(c).root(), N::of(zero + 1.0) / long, px / pp);
        let closed = (log - 1.0 + alpha / v) / (u * u);
        let h = (u.abs()).simd_lt(0.06).select(math::poly(s, u, &SLOPE), closed);
        let part = n / alpha;
        let dc = g * (xx.get() / alpha - part * part * h * 0.5) / k;
        let dc = k.simd_eq(0.0).select(zero * v, dc);
        (
            [f, k * ((g + g) / alpha), k, root.rest(), per.get(), per.rest(), f * per.get(), t.get(), t.rest()],
            [dc],
        )
    }
    combine(f, own, k, k_rest, per, per_rest, e, t, t_rest) {
        let way = apart(x, p, [k, k_rest, per, per_rest]);
        let (along, rest) = two_prod(x.witness(), p, t);
        [way.mul_add(f, x * own), (along - x + p.mul_add(t_rest, rest)) * e]
    }
    doubt { lost(xx, pp, px, c) }
    near { next(xx, pp, px, c) }
    closer(s) { way(s, x, p, c) }
}

/// (log(1 + u) − u/(1 + u))/u² in powers of u: (−1)^j (j + 1)/(j + 2)
const SLOPE: [f64; 14] = {
    let mut c = [0.0; 14];
    let mut j = 0;
    while j < 14 {
        let v = (j + 1) as f64 / (j + 2) as f64;
        c[j] = if j % 2 == 0 { v } else { -v };
        j += 1;
    }
    c
};
