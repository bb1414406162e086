//! Entailment cones, of points of the ball and of space parts of the hyperboloid. The one rule: what the two points are to each
//! other is four numbers, of which none is a difference of large ones, and so are the gradients.
//!
//! On the hyperboloid x is at (τ, n) along its ray, y at (p, a) along and across it. The geodesic to y leaves x along
//! b = τ_x p − τ_y n and across a, of length √(a² + b²) = sinh(√c d)/√c, h its square: Ξ = atan2(a, b), ψ = arcsin 2K/√c n,
//! and the loss is max(0, Ξ − ψ). A row of the ball is at n = λ|x|, τ = λ − 1.

use base::Scalar;
use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::ball;

/// K, with 0 for no cone at all; and whether rows are space parts.
#[derive(Clone, Copy)]
pub struct Cone {
    pub least: f64,
    pub space: bool,
}

impl Cone {
    pub fn of(s: &[Scalar]) -> Self {
        Cone { least: s[0].float(), space: s[1].bool() }
    }
}

/// A function of eight pairs of numbers, one by one.
#[inline(always)]
fn each<S: Simd>(x: f64x8<S>, y: f64x8<S>, f: impl Fn(f64, f64) -> f64) -> f64x8<S> {
    let (mut a, mut b) = ([0.0; 8], [0.0; 8]);
    x.store_slice(&mut a);
    y.store_slice(&mut b);
    f64x8::from_slice(x.witness(), &std::array::from_fn::<f64, 8, _>(|i| f(a[i], b[i])))
}

/// Two points, in the letters above; `r`, `ahead` and `across` are lengths of the rows themselves.
struct Seen<S: Simd> {
    factors: [f64x8<S>; 2],
    times: [f64x8<S>; 2],
    r: f64x8<S>,
    ahead: f64x8<S>,
    across: f64x8<S>,
    n: f64x8<S>,
    p: f64x8<S>,
    a: f64x8<S>,
    b: f64x8<S>,
    /// p − n
    step: f64x8<S>,
    /// 2K/√c n, 0 where the cone is a half space or none
    lean: f64x8<S>,
    loss: f64x8<S>,
}

impl<S: Simd> Seen<S> {
    #[inline(always)]
    fn new<N: Num<S>>(cone: Cone, [xx, yy, q, e]: [N; 4], c: f64x8<S>) -> Self {
        let s = c.witness();
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let length = xx.root();
        let ahead = e / length;
        let across = (q - ahead * ahead).get().max(zero).sqrt();
        let (r, ahead) = (length.get(), ahead.get());
        let (factors, times, step, b);
        if cone.space {
            times = [c.mul_add(xx.get(), one).sqrt(), c.mul_add(yy.get(), one).sqrt()];
            factors = [one, one];
            step = ahead;
            let p = r + ahead;
            let (near, far) = (times[0] * p, times[1] * r);
            let less = (step * (p + r) - c * xx.get() * across * across) / (near + far);
            b = p.simd_gt(0.0).select(less, near - far);
        } else {
            factors = [2.0 / gap(c, xx), 2.0 / gap(c, yy)];
            times = [factors[0] - 1.0, factors[1] - 1.0];
            // λ_y − λ_x is λ_x λ_y c (|y|² − |x|²)/2
            step = factors[1] * (ahead + r * factors[0] * c * (e + e + q).get() * 0.5);
            b = factors[1] * (ahead - c * q.get() * r * factors[0] * 0.5);
        }
        let (n, p, a) = (factors[0] * r, factors[1] * (r + ahead), factors[1] * across);
        let k = f64x8::splat(s, cone.least);
        let lean = (k + k) / (c.sqrt() * n);
        let whole = k.simd_gt(0.0) & lean.simd_ge(1.0);
        let lean = (k.simd_gt(0.0) & lean.simd_lt(1.0)).select(lean, zero);
        let half = each(lean, lean, |v, _| v.asin());
        let half = whole.select(zero + std::f64::consts::FRAC_PI_2, half);
        let loss = each(a, b, f64::atan2) - half;
        let loss = loss.simd_lt(0.0).select(zero, loss);
        // at the origin there is no ray
        let loss = r.simd_eq(0.0).select(zero * times[1], loss);
        Seen { factors, times, r, ahead, across, n, p, a, b, step, lean, loss }
    }
}

/// max(0, Ξ − ψ)
pub struct Entail(pub Cone);
ball! { Entail(x, y; c) -> (; l)
    dots(xx, yy, q, e) { xx.dot(x, x); yy.dot(y, y); q.square_sum(y, -x); e.dot_sum(x, y, -x); }
    solve(self) { ([], [Seen::new(self.0, [xx, yy, q, e], c).loss]) }
}

/// With C = √(1 + ch), v = 2K/√c n: ∂n = aC/hτ_x + v/n√(1 − v²), ∂p = −aC/hτ_y, ∂a = (p − n + pch/(1 + C))/hτ_y; the ray turns with x,
/// which is (a∂p − p∂a)/n across; dc = an(pb + a²τ_x)/2τ_xτ_y h + v/2c√(1 − v²). Rows of the ball: λ times that, and with
/// m = ⟨·, x⟩ of it cλ²m x and λ²|x|²m/2.
pub struct EntailBwd(pub Cone);
ball! { EntailBwd(x, y; g, c) -> (dx, dy; dc)
    dots(xx, yy, q, e) { xx.dot(x, x); yy.dot(y, y); q.square_sum(y, -x); e.dot_sum(x, y, -x); }
    solve(self, s) {
        let Seen { factors, times, r, ahead, across, n, p, a, b, step, lean, loss } = Seen::new(self.0, [xx, yy, q, e], c);
        let zero = f64x8::splat(s, 0.0);
        let open = loss.simd_gt(0.0);
        let h = a.mul_add(a, b * b);
        let ch = c * h;
        let cosh = (ch + 1.0).sqrt();
        let turn = a * cosh / h;
        let slope = lean / (1.0 - lean * lean).sqrt();
        let by_n = turn / times[0] + slope / n;
        let by_p = -(turn / times[1]);
        let lies = across.simd_gt(0.0);
        let by_a = lies.select((step + p * ch / (cosh + 1.0)) / (h * times[1]), zero);
        let swing = lies.select((by_p * a - by_a * p) / n, zero);
        let mut dc = a * n * (p * b + a * a * times[0]) / (times[0] * times[1] * h * 2.0);
        dc += lean.simd_gt(0.0).select(slope / (c + c), zero);
        let per = lies.select(1.0 / across, zero);
        let mut w = [
            (by_n - swing * ahead * per) / r,
            swing * per,
            (by_p - by_a * ahead * per) / r,
            by_a * per,
        ];
        if !self.0.space {
            let m = [by_n * r * factors[0] * factors[0], (by_p * (r + ahead) + by_a * across) * factors[1] * factors[1]];
            dc += (m[0] * xx.get() + m[1] * yy.get()) * 0.5;
            w = [w[0] * factors[0] + c * m[0], w[1] * factors[0], w[2] * factors[1] + c * m[1], w[3] * factors[1] + c * m[1]];
        }
        // nothing within the cone, and NaN what is none
        let off = loss * 0.0;
        (w.map(|w| open.select(w * g, off)), [open.select(dc * g, off)])
    }
    combine(w0, w1, w2, w3) {
        let delta = y - x;
        [x.mul_add(w0, delta * w1), x.mul_add(w2, delta * w3)]
    }
}
