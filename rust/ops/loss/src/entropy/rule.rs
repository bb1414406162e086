//! What a row's cross entropy and its slopes are made of, in lanes of rows. The one rule: where a factor is 0 the other may be
//! infinite, and no number is made whose share is within the type and that itself is not.

use base::math;
use base::simd::*;

/// What Σ w (m − x) is scaled by: with it no sum overflows whose share of a loss does not, and of those that are 1e-300 no digit
/// is lost that a loss has.
pub const SCALE: f64 = 1.0 / (1 << 24) as f64;

/// What all rows share: ε and ε/C, Σ w and γ.
#[derive(Clone, Copy)]
pub struct Rule {
    pub smoothing: f64,
    pub even: f64,
    pub weights: f64,
    pub gamma: f64,
}

/// e^x as the data asks for it, times `a`; 0 where that is 0, whatever `a` is: the quicker function is cut off at e^-700.
#[inline(always)]
pub fn exp<S: Simd>(s: S, single: bool, x: f64x8<S>, a: f64x8<S>) -> f64x8<S> {
    let zero = f64x8::splat(s, 0.0);
    if single { x.simd_lt(-700.0).select(zero, math::single::exp(s, x) * a) } else { times(math::exp(s, x), a) }
}

/// a·x, 0 where a is 0.
#[inline(always)]
pub fn times<S: Simd>(a: f64x8<S>, x: f64x8<S>) -> f64x8<S> {
    a.simd_eq(0.0).select(a, a * x)
}

/// (m − x)/2: the whole may be beyond the type where its share of a loss is not.
#[inline(always)]
pub fn half<S: Simd>(top: f64x8<S>, x: f64x8<S>) -> f64x8<S> {
    top * 0.5 - x * 0.5
}

/// a·−log p, of log Σ e^{x − m} and (m − x)/2.
#[inline(always)]
pub fn both<S: Simd>(a: f64x8<S>, log: f64x8<S>, half: f64x8<S>) -> f64x8<S> {
    a.mul_add(log, times(a * 2.0, half))
}

impl Rule {
    /// log Σ e^{x − m}, and ce: of that, of half of how far the label is below the top, and of the scaled Σ w (m − x).
    #[inline(always)]
    pub fn entropy<S: Simd>(
        &self,
        s: S,
        more: f64x8<S>,
        below: f64x8<S>,
        half: f64x8<S>,
        w: f64x8<S>,
    ) -> [f64x8<S>; 2] {
        let log = math::log1p(s, more);
        let mut ce = f64x8::splat(s, 0.0);
        if self.smoothing < 1.0 {
            ce += both(w * (1.0 - self.smoothing), log, half);
        }
        if self.even > 0.0 {
            ce += log.mul_add(f64x8::splat(s, self.weights * self.even), below * (self.even / SCALE));
        }
        [log, ce]
    }

    /// (1 − p_t)^γ
    #[inline(always)]
    pub fn doubt<S: Simd>(&self, s: S, other: f64x8<S>) -> f64x8<S> {
        if self.gamma == 0.0 {
            return f64x8::splat(s, 1.0) + (other - other);
        }
        math::exp(s, math::log(s, other) * self.gamma)
    }

    /// What each row of a gradient is made of: the factors of p and of w, what stands at t, and of dw there.
    #[inline(always)]
    pub fn slopes<S: Simd>(
        &self,
        s: S,
        g: f64x8<S>,
        known: [f64x8<S>; 4],
        xt: f64x8<S>,
        wt: f64x8<S>,
    ) -> [f64x8<S>; 4] {
        let [top, more, rest, below] = known;
        let zero = f64x8::splat(s, 0.0);
        let sum = more + 1.0;
        let (p, other) = (math::exp(s, xt - top) / sum, rest / sum);
        let near = half(top, xt);
        let [log, ce] = self.entropy(s, more, below, near, wt);
        let a = self.doubt(s, other);
        let mut k = zero;
        if self.gamma > 0.0 {
            let power = math::exp(s, math::log(s, other) * (self.gamma - 1.0)).min(f64::MAX);
            k = ce * (power * self.gamma) * p;
            // the limits, where a factor is 0 and another infinite
            k = (p.simd_eq(0.0) | other.simd_eq(0.0)).select(zero, k);
        }
        let u = wt * (1.0 - self.smoothing);
        let even = (p * self.weights - wt) * self.even;
        let at = a * (even - u * other) - k * other;
        let to_p = a * (u + self.weights * self.even) + k;
        let to_own = g * a * (1.0 - self.smoothing);
        let own = to_own.simd_eq(0.0).select(zero, both(to_own, log, near));
        [times(g, to_p / sum), g * a * self.even, times(g, at), own]
    }
}
