//! The logarithm at a point of the ball. The one rule: two points meet as y - x and |y - x|², never as <x, y>.

use base::roots::*;
use base::simd::*;
use drivers::ball;

/// log_x(y) = S(cm)/(beta √(1+cm)) (alpha (y-x) - cq x), m = q/(alpha beta)
pub struct LogMap;
ball! { LogMap(x, y; c) -> (v;)
    dots(xx, yy, q) { xx.dot(x, x); yy.dot(y, y); q.square_sum(y, -x); }
    solve(self) {
        let (alpha, beta, cq) = (gap(c, xx), gap(c, yy), c * q.get());
        let per = 1.0 / (alpha * beta);
        let [shape, _, one] = arsinh_over::<S, N>(cq * per);
        let f = shape * one * (alpha * per);
        ([alpha * f, -(cq * f)], [])
    }
    combine(a, b) { [x.mul_add(b, (y - x) * a)] }
}

/// With u = cm, E = S/√(1+u), f = E/beta, delta = y - x, G = <g, alpha delta - cq x>, K = G E'/beta,
/// P = K/(alpha beta) - f <g,x>, A = f <g,delta> - K u/alpha, B = -(K u + f G)/beta, W = f alpha g + 2cP delta:
/// dx = -W - fcq g - 2cA x, dy = W - 2cB y; dc = qP - |x|²A - |y|²B
pub struct LogMapBwd;
ball! { LogMapBwd(g, x, y; c) -> (dx, dy; dc)
    dots(xx, yy, q, gx, gd) { xx.dot(x, x); yy.dot(y, y); q.square_sum(y, -x); gx.dot(g, x); gd.dot_sum(g, y, -x); }
    solve(self) {
        let (alpha, beta, q) = (wide_gap(c, xx), gap(c, yy), q.get());
        let cq = c * q;
        let height = (alpha * gd - N::of(cq) * gx).get();
        let (alpha, gx, gd) = (alpha.get(), gx.get(), gd.get());
        let per = 1.0 / (alpha * beta);
        let (by_alpha, by_beta, u) = (per * beta, per * alpha, per * cq);
        let [shape, slope, one] = arsinh_over::<S, N>(u);
        let e = shape * one;
        let f = e * by_beta;
        let k = height * ((slope - e * one * 0.5) * one) * by_beta;
        let p = k * per - f * gx;
        let a = f * gd - k * u * by_alpha;
        let b = -(k * u + f * height) * by_beta;
        let c2 = c + c;
        // dx = -delta w1 - g (w0 + w2) - x w3; dy = g w0 + delta w1 - y w4
        ([f * alpha, c2 * p, f * cq, c2 * a, c2 * b], [q * p - xx.get() * a - yy.get() * b])
    }
    combine(w0, w1, w2, w3, w4) {
        let way = (y - x).mul_add(w1, g * w0);
        [-(way + x.mul_add(w3, g * w2)), way - y * w4]
    }
}
