//! Points of a geodesic. The one rule: they are weighted sums of its ends on the hyperboloid, so that t between 0 and 1
//! adds only positive weights.

use base::math;
use base::roots::*;
use base::simd::*;
use drivers::{ball, rows::Margin};

/// sinh(s d)/sinh(d), s = 1 - t and t, for the distance d in units of the curvature radius
struct Weights<S: Simd> {
    d: f64x8<S>,
    t: f64x8<S>,
    /// of the first end, of the second
    a: f64x8<S>,
    b: f64x8<S>,
    /// d/sinh(d)
    unit: f64x8<S>,
}

impl<S: Simd> Weights<S> {
    /// From u = sinh²(d/2). Beyond 400 curvature radii every point of the geodesic is its end.
    #[inline(always)]
    fn new(mut t: f64x8<S>, u: f64x8<S>) -> Self {
        let s = u.witness();
        let d = math::asinh(s, u.sqrt()) * 2.0;
        let far = (t * d).abs().simd_gt(400.0);
        if far.any_true() {
            t = far.select((400.0 / d).copysign(t), t);
        }
        let (some, rest) = (d.simd_gt(0.0), 1.0 - t);
        let per = 1.0 / math::sinh(s, d);
        let (a, b) = (math::sinh(s, rest * d) * per, math::sinh(s, t * d) * per);
        Weights {
            d,
            t,
            a: some.select(a, rest),
            b: some.select(b, t),
            unit: some.select(d * per, f64x8::splat(s, 1.0)),
        }
    }
}

/// (a lambda_x x + b lambda_y y)/P, P = 1 + a(lambda_x - 1) + b(lambda_y - 1), a = sinh((1-t)d)/sinh d, b = sinh(td)/sinh d;
/// 1 - c|z|² = 2/P
pub struct Geodesic(pub Margin);
ball! { Geodesic(x, y; t, c) -> (z;) within(self) { self.0 }
    dots(xx, yy, q) { xx.dot(x, x); yy.dot(y, y); q.square_sum(y, -x); }
    solve(self) {
        let (alpha, beta) = (gap(c, xx), gap(c, yy));
        let Weights { a, b, .. } = Weights::new(t, c * q.get() / (alpha * beta));
        let (lx, ly) = (2.0 / alpha, 2.0 / beta);
        // P is 2/(1 - c|z|²) and cannot be less than 2, but beyond the ends it is a difference
        let whole = a * (lx - 1.0) + b * (ly - 1.0) + 1.0;
        let p = 1.0 / whole.simd_lt(2.0).select(whole * 0.0 + 2.0, whole);
        // what the rounding of a sum of terms so much larger than the point may add to it
        let slack = (a.abs() * lx + b.abs() * ly) * SLACK;
        ([a * lx * p, b * ly * p], [], p * (2.0 - slack))
    }
    combine(a, b) { [x.mul_add(a, y * b)] }
}

/// With theta = <g,z>, X = <g,x> - theta, Y = <g,y> - theta; A = (lambda_x X + theta)/P, B = (lambda_y Y + theta)/P the
/// slopes in a and b, l(s) = s² d log(sinh s/s)/ds², U = 4S(u)/√(1+u) (A a (l((1-t)d) - l(d)) + B b (l(td) - l(d))) with respect to
/// u = cq/(alpha beta), E = -a lambda_x² X/2P - U u/alpha, F likewise, K = U/(alpha beta):
/// dx = a lambda_x/P g - 2cK (y-x) - 2cE x, dy = b lambda_y/P g + 2cK (y-x) - 2cF y;
/// dt = (B cosh(td) - A cosh((1-t)d)) d/sinh d; dc = K q - |x|²E - |y|²F
pub struct GeodesicBwd;
ball! { GeodesicBwd(g, x, y; t, c) -> (dx, dy; dt, dc)
    dots(xx, yy, q, gx, gy) { xx.dot(x, x); yy.dot(y, y); q.square_sum(y, -x); gx.dot(g, x); gy.dot(g, y); }
    solve(self, s) {
        let (alpha, beta, q) = (gap(c, xx), gap(c, yy), q.get());
        let ab = alpha * beta;
        let u = c * q / ab;
        let Weights { d, t, a, b, unit } = Weights::new(t, u);
        let (lx, ly) = (2.0 / alpha, 2.0 / beta);
        let p = 1.0 / (a * (lx - 1.0) + b * (ly - 1.0) + 1.0);
        let (wx, wy) = (a * lx * p, b * ly * p);
        let theta = N::of(wx) * gx + N::of(wy) * gy;
        let (x, y, theta) = ((gx - theta).get(), (gy - theta).get(), theta.get());
        let (by_a, by_b) = ((lx * x + theta) * p, (ly * y + theta) * p);
        let rest = 1.0 - t;
        let own = sinh_over_log_d(d);
        let by_w = by_a * a * (rest * rest * sinh_over_log_d(rest * d) - own)
            + by_b * b * (t * t * sinh_over_log_d(t * d) - own);
        let by_u = by_w * 4.0 * unit;
        let e = -(wx * lx * x * 0.5) - by_u * u / alpha;
        let f = -(wy * ly * y * 0.5) - by_u * u / beta;
        let k = by_u / ab;
        let c2 = c + c;
        (
            [wx, wy, c2 * k, c2 * e, c2 * f],
            [
                (by_b * math::cosh(s, (t * d).abs()) - by_a * math::cosh(s, (rest * d).abs())) * unit,
                k * q - xx.get() * e - yy.get() * f,
            ],
        )
    }
    combine(w0, w1, w2, w3, w4) {
        let way = (y - x) * w2;
        [g.mul_add(w0, -x.mul_add(w3, way)), g.mul_add(w1, way - y * w4)]
    }
}
