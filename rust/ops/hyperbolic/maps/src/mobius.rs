//! The gyrogroup: Möbius addition, coaddition, gyration. The one rule: denominators are sums of positive terms.

use base::roots::*;
use base::simd::*;
use drivers::{ball, rows::Margin};

/// z = (alpha sigma + c q x)/D, D = alpha beta + c q; 1 - c|z|² = alpha beta / D
pub struct MobiusAdd(pub Margin);
ball! { MobiusAdd(x, y; c) -> (z;) within(self) { self.0 }
    dots(xx, yy, q) { xx.dot(x, x); yy.dot(y, y); q.square_sum(x, y); }
    solve(self) {
        let (alpha, cq) = (gap(c, xx), c * q.get());
        let ab = alpha * gap(c, yy);
        let d = 1.0 / (ab + cq);
        ([alpha * d, cq * d], [], ab * d)
    }
    combine(a, b) { [(x + y).mul_add(a, x * b)] }
}

/// With u = <g,x>, k = <g,sigma> - beta u, theta = u + alpha k / D:
/// dx = ((alpha + cq) g - 2ck z)/D, dy = (alpha/D)(g + 2c(theta y - (k/D) sigma)),
/// dc = (theta alpha |y|² - q k / D)/D
pub struct MobiusAddBwd;
ball! { MobiusAddBwd(g, x, y; c) -> (dx, dy; dc)
    dots(xx, yy, q, gx, gs) { xx.dot(x, x); yy.dot(y, y); q.square_sum(x, y); gx.dot(g, x); gs.dot_sum(g, x, y); }
    solve(self) {
        let (alpha, beta, cq) = (gap(c, xx), gap(c, yy), c * q.get());
        let d = 1.0 / alpha.mul_add(beta, cq);
        let k = (gs - N::of(beta) * gx).get();
        let (ad, kd) = (alpha * d, k * d);
        let theta = ad.mul_add(k, gx.get());
        let ck = (c + c) * kd;
        // dx = g w0 - sigma w1 - x w2; dy = g w3 + y w4 - sigma w5
        (
            [(alpha + cq) * d, ck * ad, ck * (cq * d), ad, (c + c) * ad * theta, ck * ad],
            [(theta * alpha * yy.get() - q.get() * kd) * d],
        )
    }
    combine(w0, w1, w2, w3, w4, w5) {
        let sigma = x + y;
        [g.mul_add(w0, -sigma.mul_add(w1, x * w2)), g.mul_add(w3, y.mul_add(w4, -(sigma * w5)))]
    }
}

/// x ⊞ y = (beta x + alpha y)/E, E = alpha + beta - alpha beta, as half the sum of alpha and beta times x + y, and half their
/// difference times y - x; 1 - c|z|² = alpha beta (alpha beta + c|y - x|²)/E². With s = x + y the difference is
/// c(|s|² - 2<s,x>), which loses nothing where y is close to -x, and |y|² is that more than |x|².
pub struct MobiusCoadd(pub Margin);
ball! { MobiusCoadd(x, y; c) -> (z;) within(self) { self.0 }
    dots(xx, ss, sx) { xx.dot(x, x); ss.square_sum(x, y); sx.dot_sum(x, x, y); }
    solve(self) {
        let more = ss - sx - sx;
        let yy = xx + more;
        let (alpha, beta) = (gap(c, xx), gap(c, yy));
        let half = (N::of(c) * more).get() * 0.5;
        let q = (xx + xx + yy + yy - ss).get();
        let (sum, ab) = (alpha + beta, alpha * beta);
        let d = 1.0 / (sum - ab);
        ([sum * d * 0.5, half * d], [], ab * (ab + c * q) * d * d)
    }
    combine(a, b) { [(x + y).mul_add(a, (y - x) * b)] }
}

/// With A = beta(<g,y-x> + beta<g,x>)/E², B = alpha(alpha<g,y> - <g,y-x>)/E²:
/// dx = (beta/E) g - 2cA x, dy = (alpha/E) g - 2cB y; dc = -|x|²A - |y|²B
pub struct MobiusCoaddBwd;
ball! { MobiusCoaddBwd(g, x, y; c) -> (dx, dy; dc)
    dots(xx, yy, gx, gy, gd) { xx.dot(x, x); yy.dot(y, y); gx.dot(g, x); gy.dot(g, y); gd.dot_sum(g, y, -x); }
    solve(self) {
        let (alpha, beta) = (wide_gap(c, xx), wide_gap(c, yy));
        let (a, b) = ((gd + beta * gx).get(), (alpha * gy - gd).get());
        let (alpha, beta) = (alpha.get(), beta.get());
        let d = 1.0 / (alpha + beta - alpha * beta);
        let (a, b) = (a * beta * d * d, b * alpha * d * d);
        ([beta * d, (c + c) * a, alpha * d, (c + c) * b], [-(xx.get() * a + yy.get() * b)])
    }
    combine(w0, w1, w2, w3) { [g.mul_add(w0, -(x * w1)), g.mul_add(w2, -(y * w3))] }
}
