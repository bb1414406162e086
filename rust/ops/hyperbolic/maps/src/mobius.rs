//! The gyrogroup: Möbius addition, coaddition, gyration. The one rule: denominators are sums of positive terms.

use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::rows::{Acc, Margin, RowOp, Solved};

/// z = (alpha sigma + c q x)/D, D = alpha beta + c q; 1 - c|z|² = alpha beta / D
pub struct MobiusAdd(pub Margin);
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
pub struct MobiusAddBwd;
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

/// x ⊞ y = (beta x + alpha y)/E, E = alpha + beta - alpha beta, as half the sum of alpha and beta times x + y, and half their
/// difference times y - x; 1 - c|z|² = alpha beta (alpha beta + c|y - x|²)/E². With s = x + y the difference is
/// c(|s|² - 2<s,x>), which loses nothing where y is close to -x, and |y|² is that more than |x|².
pub struct MobiusCoadd(pub Margin);
impl RowOp<2, 1, 3, 2, 1, 0> for MobiusCoadd {
    const CURVED: bool = true;
    fn margin(&self) -> Option<Margin> {
        Some(self.0)
    }
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, y]: &[f64x8<S>; 2], [xx, ss, sx]: &mut [A; 3]) {
        xx.dot(*x, *x);
        ss.square_sum(*x, *y);
        sx.dot_sum(*x, *x, *y);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, _: S, [xx, ss, sx]: [N; 3], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 0> {
        let more = ss - sx - sx;
        let yy = xx + more;
        let (alpha, beta) = (gap(c, xx), gap(c, yy));
        let half = (N::of(c) * more).get() * 0.5;
        let q = (xx + xx + yy + yy - ss).get();
        let (sum, ab) = (alpha + beta, alpha * beta);
        let d = 1.0 / (sum - ab);
        Solved { weights: [sum * d * 0.5, half * d], numbers: [], gap: ab * (ab + c * q) * d * d }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, y]: &[f64x8<S>; 2], [a, b]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [(*x + *y).mul_add(*a, (*y - *x) * *b)]
    }
}

/// With A = beta(<g,y-x> + beta<g,x>)/E², B = alpha(alpha<g,y> - <g,y-x>)/E²:
/// dx = (beta/E) g - 2cA x, dy = (alpha/E) g - 2cB y; dc = -|x|²A - |y|²B
pub struct MobiusCoaddBwd;
impl RowOp<3, 1, 5, 4, 2, 1> for MobiusCoaddBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x, y]: &[f64x8<S>; 3], [xx, yy, gx, gy, gd]: &mut [A; 5]) {
        xx.dot(*x, *x);
        yy.dot(*y, *y);
        gx.dot(*g, *x);
        gy.dot(*g, *y);
        gd.dot_sum(*g, *y, -*x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, yy, gx, gy, gd]: [N; 5], [c]: [f64x8<S>; 1]) -> Solved<S, 4, 1> {
        let (alpha, beta) = (wide_gap(c, xx), wide_gap(c, yy));
        let (a, b) = ((gd + beta * gx).get(), (alpha * gy - gd).get());
        let (alpha, beta) = (alpha.get(), beta.get());
        let d = 1.0 / (alpha + beta - alpha * beta);
        let (a, b) = (a * beta * d * d, b * alpha * d * d);
        Solved {
            weights: [beta * d, (c + c) * a, alpha * d, (c + c) * b],
            numbers: [-(xx.get() * a + yy.get() * b)],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x, y]: &[f64x8<S>; 3], w: &[f64x8<S>; 4]) -> [f64x8<S>; 2] {
        [g.mul_add(w[0], -(*x * w[1])), g.mul_add(w[2], -(*y * w[3]))]
    }
}
