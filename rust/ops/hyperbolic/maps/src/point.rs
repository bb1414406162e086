//! Distances and maps at a point of the ball. The one rule: two points meet as y - x and |y - x|², never as <x, y>.

use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::rows::{Acc, RowOp, Solved};

/// d = 2√m S(cm), m = q/(alpha beta)
pub struct Dist;
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
        Solved {
            weights: [],
            numbers: [(m.sqrt() + m.sqrt()) * arsinh_over::<S, N>(c * m)[0]],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 2], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// dx = 2g/√(qD) ((x-y) + (cq/alpha) x), dy likewise, 0 at x = y;
/// dc = g√m (nu/√(1+u) + 2S'(u) m), u = cm, nu = |x|²/alpha + |y|²/beta
pub struct DistBwd;
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
        let per = 1.0 / (alpha * beta);
        let (a, b, m) = (per * beta, per * alpha, per * q);
        let [_, slope, one] = arsinh_over::<S, N>(c * m);
        let rise = m.sqrt();
        let nu = xx.get().mul_add(a, yy.get() * b);
        let f = rise.simd_gt(0.0).select((g + g) * per * one / rise, rise);
        Solved {
            weights: [f, f * (cq * a), f * (cq * b)],
            numbers: [g * rise * (slope + slope).mul_add(m, nu * one)],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, y]: &[f64x8<S>; 2], [f, a, b]: &[f64x8<S>; 3]) -> [f64x8<S>; 2] {
        let chord = (*x - *y) * *f;
        [x.mul_add(*a, chord), y.mul_add(*b, -chord)]
    }
}

/// log_x(y) = S(cm)/(beta √(1+cm)) (alpha (y-x) - cq x), m = q/(alpha beta)
pub struct LogMap;
impl RowOp<2, 1, 3, 2, 1, 0> for LogMap {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, y]: &[f64x8<S>; 2], [xx, yy, q]: &mut [A; 3]) {
        xx.dot(*x, *x);
        yy.dot(*y, *y);
        q.square_sum(*y, -*x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, yy, q]: [N; 3], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 0> {
        let (alpha, beta, cq) = (gap(c, xx), gap(c, yy), c * q.get());
        let per = 1.0 / (alpha * beta);
        let [shape, _, one] = arsinh_over::<S, N>(cq * per);
        let f = shape * one * (alpha * per);
        Solved { weights: [alpha * f, -(cq * f)], numbers: [], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, y]: &[f64x8<S>; 2], [a, b]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [x.mul_add(*b, (*y - *x) * *a)]
    }
}

/// With u = cm, E = S/√(1+u), f = E/beta, delta = y - x, G = <g, alpha delta - cq x>, K = G E'/beta,
/// P = K/(alpha beta) - f <g,x>, A = f <g,delta> - K u/alpha, B = -(K u + f G)/beta, W = f alpha g + 2cP delta:
/// dx = -W - fcq g - 2cA x, dy = W - 2cB y; dc = qP - |x|²A - |y|²B
pub struct LogMapBwd;
impl RowOp<3, 1, 5, 5, 2, 1> for LogMapBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x, y]: &[f64x8<S>; 3], [xx, yy, q, gx, gd]: &mut [A; 5]) {
        xx.dot(*x, *x);
        yy.dot(*y, *y);
        q.square_sum(*y, -*x);
        gx.dot(*g, *x);
        gd.dot_sum(*g, *y, -*x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, yy, q, gx, gd]: [N; 5], [c]: [f64x8<S>; 1]) -> Solved<S, 5, 1> {
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
        Solved {
            // dx = -delta w1 - g (w0 + w2) - x w3; dy = g w0 + delta w1 - y w4
            weights: [f * alpha, c2 * p, f * cq, c2 * a, c2 * b],
            numbers: [q * p - xx.get() * a - yy.get() * b],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x, y]: &[f64x8<S>; 3], w: &[f64x8<S>; 5]) -> [f64x8<S>; 2] {
        let way = (*y - *x).mul_add(w[1], *g * w[0]);
        [-(way + x.mul_add(w[3], *g * w[2])), way - *y * w[4]]
    }
}
