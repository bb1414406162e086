//! Distance of two points of the ball. The one rule: two points meet as y - x and |y - x|², never as <x, y>.

use base::math;
use base::roots::*;
use base::simd::*;
use drivers::ball;
use drivers::rows::Met;

/// d = 2√m S(cm), m = q/(alpha beta)
#[derive(Default)]
pub struct Dist(pub Met);
ball! { Dist(x, y; c) -> (; d)
    dots(xx, yy, q) { xx.dot(x, x); yy.dot(y, y); q.square_sum(x, -y); }
    solve(self, s) {
        self.0.see(xx + yy);
        let m = q.get() / (gap(c, xx) * gap(c, yy));
        // so small a curvature changes no digit of an f32, whose largest numbers are not near the edge
        let d = if N::SINGLE && c.simd_ge(1e-100).all_true() {
            // 2 arsinh √u = log(1 + 2(u + √(u(1 + u))))
            let u = c * m;
            math::single::log1p(s, (u + (u * (u + 1.0)).sqrt()) * 2.0) / c.sqrt()
        } else {
            (m.sqrt() + m.sqrt()) * arsinh_over::<S, N>(c * m)[0]
        };
        ([], [m.simd_eq(f64::INFINITY).select(m, d)]) // on the edge, where the factor is 0
    }
}

/// dx = 2g/√(qD) ((x-y) + (cq/alpha) x), dy likewise, 0 at x = y;
/// dc = g√m (nu/√(1+u) + 2S'(u) m), u = cm, nu = |x|²/alpha + |y|²/beta
#[derive(Default)]
pub struct DistBwd(pub Met);
ball! { DistBwd(x, y; g, c) -> (dx, dy; dc)
    dots(xx, yy, q) { xx.dot(x, x); yy.dot(y, y); q.square_sum(x, -y); }
    solve(self) {
        self.0.see(xx + yy);
        let (alpha, beta, q) = (gap(c, xx), gap(c, yy), q.get());
        let cq = c * q;
        let per = 1.0 / (alpha * beta);
        let (a, b, m) = (per * beta, per * alpha, per * q);
        let [_, slope, one] = arsinh_over::<S, N>(c * m);
        let rise = m.sqrt();
        let nu = xx.get().mul_add(a, yy.get() * b);
        let f = rise.simd_gt(0.0).select((g + g) * per * one / rise, rise);
        ([f, f * (cq * a), f * (cq * b)], [g * rise * (slope + slope).mul_add(m, nu * one)])
    }
    combine(f, a, b) {
        let chord = (x - y) * f;
        [x.mul_add(a, chord), y.mul_add(b, -chord)]
    }
}
