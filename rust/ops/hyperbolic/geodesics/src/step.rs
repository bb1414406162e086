//! Steps from a point along a tangent: the exponential map. The one rule: |x + u|² is put together from sums that may
//! cancel, so the forwards are `WIDE`, and 1 - c|u|² is a sech², never a difference.

use base::dd::{Dd, Num};
use base::roots::*;
use base::simd::*;
use drivers::{ball, rows::Margin};
use std::marker::PhantomData;

/// What a step from x along v needs: u = tau v is added to x, beta = 1 - c|u|².
struct Step<S: Simd> {
    alpha: f64x8<S>,
    /// 1 / (alpha beta + cq), q = |x + u|²
    d: f64x8<S>,
    beta: f64x8<S>,
    cq: f64x8<S>,
}

#[inline(always)]
fn step<S: Simd, N: Num<S>>([xx, vv, xv]: [N; 3], tau: f64x8<S>, beta: f64x8<S>, c: f64x8<S>) -> Step<S> {
    let (alpha, t) = (gap(c, xx), N::of(tau));
    let cq = c * (xx + t * (xv + xv + t * vv)).get();
    // |x + u| >= ||x| - |u||, and c|x|² - c|u|² = beta - alpha: where v points at the antipode of an x at the edge, this is
    // all that is left of the sum
    let least = (beta - alpha) * (beta - alpha) * 0.25;
    let cq = cq.simd_lt(least).select(least, cq);
    Step { alpha, d: 1.0 / alpha.mul_add(beta, cq), beta, cq }
}

/// Plain sums are good for 2^-50 of D = alpha beta + cq, of which the second weight has alpha/D.
const FEW: f64 = 1.0 / (1u64 << 20) as f64;

impl<S: Simd> Step<S> {
    /// Weights of (x + tau v) and x in x ⊕ u
    #[inline(always)]
    fn solved(self, tau: f64x8<S>) -> ([f64x8<S>; 3], [f64x8<S>; 0], f64x8<S>) {
        let Step { alpha, d, beta, cq } = self;
        // 1 - c|x ⊕ u|² = alpha beta/D, less what the rounding of x + u may add where it all but cancels
        ([tau, alpha * d, cq * d], [], alpha * d * (beta - SLACK))
    }
}

/// A number that is divided by more than once: of f32 data its reciprocal serves, of f64 data the quotients count.
struct Divisor<S: Simd, N> {
    whole: f64x8<S>,
    per: f64x8<S>,
    of: PhantomData<N>,
}
impl<S: Simd, N: Num<S>> Divisor<S, N> {
    #[inline(always)]
    fn new(whole: f64x8<S>) -> Self {
        Divisor { whole, per: 1.0 / whole, of: PhantomData }
    }
    #[inline(always)]
    fn of(&self, v: f64x8<S>) -> f64x8<S> {
        if N::SINGLE { v * self.per } else { v / self.whole }
    }
}

/// exp_x(v) = x ⊕ u, u = tau v, tau = T(s²)/alpha, s = √c|v|/alpha; 1 - c|u|² = sech²(s)
pub struct ExpMap(pub Margin);
ball! { ExpMap(x, v; c) -> (y;) within(self) { self.0 }
    dots(xx, vv, xv) { xx.dot(x, x); vv.dot(v, v); xv.dot(x, v); }
    solve(self) {
        let by = Divisor::<S, N>::new(gap(c, xx));
        // the sums of f32 data cancel, so that what scales them must have more digits than the data
        let [t, _, h] = tanh_over::<S, Dd<S>>(by.of((N::of(c) * vv).root().get()));
        let tau = by.of(t);
        step([xx, vv, xv], tau, h, c).solved(tau)
    }
    combine(t, a, b) { [v.mul_add(t, x).mul_add(a, x * b)] }
    doubt { gap(c, xx).simd_lt(a * FEW) }
}

/// With g at x ⊕ u as in Möbius addition (k, theta, D), M = <du,v>, h = sech²(s):
/// dx = ((alpha + cq) g - 2ck z)/D + 2cM h/alpha² x, dv = tau du + 2cM T'/alpha³ v;
/// dc = (theta alpha|u|² - qk/D)/D + M T'|v|²/alpha³ + |x|² M h/alpha²
pub struct ExpMapBwd;
ball! { ExpMapBwd(g, x, v; c) -> (dx, dv; dc)
    dots(xx, vv, xv, gx, gv) { xx.dot(x, x); vv.dot(v, v); xv.dot(x, v); gx.dot(g, x); gv.dot(g, v); }
    solve(self) {
        let by = Divisor::<S, N>::new(gap(c, xx));
        let [t, slope, h] = tanh_over::<S, Dd<S>>(by.of((N::of(c) * vv).root().get()));
        let tau = by.of(t);
        let back = StepBwd::new([xx, vv, xv, gx, gv], tau, h, c);
        // tau = T(s²)/alpha: its slopes in s² and in alpha
        let by_alpha = by.of(by.of(back.m));
        let (by_s, by_alpha) = (by.of(by_alpha) * slope, by_alpha * h);
        let numbers = [back.dc + by_s * vv.get() + xx.get() * by_alpha];
        (back.weights(tau, c, by_alpha, (c + c) * by_s), numbers)
    }
    combine(w0, w1, w2, w3, w4, w5, w6, w7) { step_gradients([g, x, v], [w0, w1, w2, w3, w4, w5, w6, w7]) }
}

/// The gradient of x ⊕ tau v: what belongs to x, to v and to c, and m = <du,v>, the gradient of tau.
struct StepBwd<S: Simd> {
    alpha: f64x8<S>,
    d: f64x8<S>,
    cq: f64x8<S>,
    kd: f64x8<S>,
    theta: f64x8<S>,
    m: f64x8<S>,
    dc: f64x8<S>,
}

impl<S: Simd> StepBwd<S> {
    #[inline(always)]
    fn new<N: Num<S>>([xx, vv, xv, gx, gv]: [N; 5], tau: f64x8<S>, beta: f64x8<S>, c: f64x8<S>) -> Self {
        let Step { alpha, d, cq, .. } = step([xx, vv, xv], tau, beta, c);
        let t = N::of(tau);
        // 1 - beta = c|u|², so that <g,sigma> - beta <g,x> does not cancel
        let k = (t * gv + N::of(c) * (t * t * vv) * gx).get();
        let kd = k * d;
        let theta = (alpha * d).mul_add(k, gx.get());
        let (ad, c2) = (alpha * d, c + c);
        let uu = (t * t * vv).get();
        let q = (xx + t * (xv + xv + t * vv)).get();
        let m = ad * (gv.get() + c2 * (theta * (t * vv).get() - kd * (xv + t * vv).get()));
        StepBwd { alpha, d, cq, kd, theta, m, dc: (theta * alpha * uu - q * kd) * d }
    }

    /// dx = g w1 - sigma w2 + x w3; dv = g w4 + v (w5 + w7) - sigma w6, sigma = x + v w0
    #[inline(always)]
    fn weights(&self, tau: f64x8<S>, c: f64x8<S>, by_alpha: f64x8<S>, along: f64x8<S>) -> [f64x8<S>; 8] {
        let &StepBwd { alpha, d, cq, kd, theta, .. } = self;
        let (ad, c2) = (alpha * d, c + c);
        let ck = c2 * kd;
        [
            tau,
            (alpha + cq) * d,
            ck * ad,
            c2 * by_alpha - ck * (cq * d),
            tau * ad,
            c2 * tau * tau * ad * theta,
            tau * ad * ck,
            along,
        ]
    }
}

#[inline(always)]
fn step_gradients<S: Simd>([g, x, v]: [f64x8<S>; 3], w: [f64x8<S>; 8]) -> [f64x8<S>; 2] {
    let sigma = v.mul_add(w[0], x);
    [x.mul_add(w[3], g * w[1]) - sigma * w[2], g.mul_add(w[4], v * (w[5] + w[7])) - sigma * w[6]]
}

/// x ⊕ u, u = tau v, tau = (t/2) T(s²)/|v|, s = √c t/2; 1 - c|u|² = sech²(s); x itself at v = 0
pub struct GeodesicUnit(pub Margin);
ball! { GeodesicUnit(x, v; t, c) -> (z;) within(self) { self.0 }
    dots(xx, vv, xv) { xx.dot(x, x); vv.dot(v, v); xv.dot(x, v); }
    solve(self) {
        let (half, n) = (t * 0.5, vv.root().get());
        let arg = c.sqrt() * half;
        let rest = n.simd_eq(0.0);
        let [t, _, h] = tanh_over::<S, Dd<S>>(arg);
        let tau = rest.select(n, half * t / n);
        step([xx, vv, xv], tau, rest.select(n + 1.0, h), c).solved(tau)
    }
    combine(w, a, b) { [v.mul_add(w, x).mul_add(a, x * b)] }
    doubt { gap(c, xx).simd_lt(a * FEW) }
}

/// With g at x ⊕ u as in `ExpMapBwd`: dv = tau du - M tau/|v|² v; dt = M sech²(s)/2|v|;
/// dc is that of x ⊕ u and M (t/2)³ T'/|v|
pub struct GeodesicUnitBwd;
ball! { GeodesicUnitBwd(g, x, v; t, c) -> (dx, dv; dt, dc)
    dots(xx, vv, xv, gx, gv) { xx.dot(x, x); vv.dot(v, v); xv.dot(x, v); gx.dot(g, x); gv.dot(g, v); }
    solve(self, s) {
        let (half, n) = (t * 0.5, vv.root().get());
        let arg = c.sqrt() * half;
        let rest = n.simd_eq(0.0);
        let (one, zero) = (f64x8::splat(s, 1.0), f64x8::splat(s, 0.0));
        let [shape, slope, h] = tanh_over::<S, Dd<S>>(arg);
        let h = rest.select(one, h);
        let per = rest.select(zero, 1.0 / n);
        let tau = half * shape * per;
        let back = StepBwd::new([xx, vv, xv, gx, gv], tau, h, c);
        let m = back.m * per;
        let numbers = [m * h * 0.5, back.dc + m * half * half * half * slope];
        (back.weights(tau, c, zero, -(m * tau * per)), numbers)
    }
    combine(w0, w1, w2, w3, w4, w5, w6, w7) { step_gradients([g, x, v], [w0, w1, w2, w3, w4, w5, w6, w7]) }
}
