//! Distance to a hyperplane through p, normal to a. The one rule: as for points, x and p meet as x - p.

use base::Scalar;
use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::ball;

/// Whether the sign is kept, and whether the distance is multiplied by |a|.
#[derive(Clone, Copy)]
pub struct Plane {
    pub signed: bool,
    pub scaled: bool,
}

impl Plane {
    pub fn of(s: &[Scalar]) -> Self {
        Plane { signed: s[0].bool(), scaled: s[1].bool() }
    }
}

/// r = 2h/(alpha beta |a|), h = alpha <x-p,a> - cq <p,a>, alpha = 1 - c|p|², beta = 1 - c|x|²; 0 at a = 0
#[inline(always)]
fn ratio<S: Simd, N: Num<S>>(h: N, ab: N, n: N) -> f64x8<S> {
    n.get().simd_eq(0.0).select(n.get(), ((h + h) / (ab * n)).get())
}

/// d = r S(cr²), the arsinh(√c r)/√c of r
pub struct Dist2Plane(pub Plane);
ball! { Dist2Plane(x, p, a; c) -> (; d)
    dots(xx, pp, q, da, pa, aa) {
        xx.dot(x, x);
        pp.dot(p, p);
        q.square_sum(x, -p);
        da.dot_sum(a, x, -p);
        pa.dot(p, a);
        aa.dot(a, a);
    }
    solve(self) {
        let (alpha, n) = (wide_gap(c, pp), aa.root());
        let r = ratio(alpha * da - N::of(c) * q * pa, alpha * wide_gap(c, xx), n);
        let d = if self.0.signed { r } else { r.abs() } * arsinh_over::<S, N>(c * r * r)[0];
        ([], [if self.0.scaled { d * n.get() } else { d }])
    }
}

/// With G = g/√(1 + cr²), F = 2G/(alpha beta|a|), A = F<x-p,a> - Gr/alpha, B = -Gr/beta, W = F alpha a - 2cF<p,a>(x-p):
/// dx = W - 2cB x, dp = -W - Fcq a - 2cA p, da = F(alpha(x-p) - cq p) - Gr/|a|² a;
/// dc = g r³S' - Fq<p,a> - |p|²A - |x|²B. Unsigned: g sign(h); scaled: g|a|, and da receives g d/|a| a.
pub struct Dist2PlaneBwd(pub Plane);
ball! { Dist2PlaneBwd(x, p, a; g, c) -> (dx, dp, da; dc)
    dots(xx, pp, q, da, pa, aa) {
        xx.dot(x, x);
        pp.dot(p, p);
        q.square_sum(x, -p);
        da.dot_sum(a, x, -p);
        pa.dot(p, a);
        aa.dot(a, a);
    }
    solve(self, s) {
        let (alpha, beta, n) = (wide_gap(c, pp), wide_gap(c, xx), aa.root());
        let h = alpha * da - N::of(c) * q * pa;
        let r = ratio(h, alpha * beta, n);
        let (alpha, beta, q, pa, n, h) = (alpha.get(), beta.get(), q.get(), pa.get(), n.get(), h.get());
        let zero = f64x8::splat(s, 0.0);
        let g = if self.0.signed { g } else { h.simd_gt(zero).select(g, h.simd_lt(zero).select(-g, h * g)) };
        let [shape, slope, one] = arsinh_over::<S, N>(c * r * r);
        let long = if self.0.scaled { g * n } else { g };
        let top = long * one;
        let flat = n.simd_eq(0.0);
        let per = 1.0 / (alpha * beta);
        let long_per = flat.select(zero, 1.0 / n);
        let f = (top + top) * per * long_per;
        let own = top * r - if self.0.scaled { g * r * shape * n } else { zero };
        let own = own * (long_per * long_per);
        let by_p = f * da.get() - top * r * (per * beta);
        let by_x = -(top * r * (per * alpha));
        let c2 = c + c;
        // W = a w0 - delta w1; dx = W - x w2; dp = -W - a w3 - p w4; da = delta w0 - p w3 - a w5
        (
            [f * alpha, c2 * f * pa, c2 * by_x, f * c * q, c2 * by_p, own],
            [long * r * r * r * slope - f * q * pa - pp.get() * by_p - xx.get() * by_x],
        )
    }
    combine(w0, w1, w2, w3, w4, w5) {
        let delta = x - p;
        let way = a.mul_add(w0, -(delta * w1));
        [way - x * w2, -(way + a.mul_add(w3, p * w4)), delta.mul_add(w0, -p.mul_add(w3, a * w5))]
    }
}
