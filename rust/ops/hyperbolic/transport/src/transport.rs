//! Gyration and the transport of vectors, which is a gyration. The one rule: a rotation in the plane of two rows is
//! written with their sum sigma, so that it stays one at any radius.

use base::roots::*;
use base::simd::*;
use drivers::ball;

/// gyr[u,v]w = w + (2c/D)((beta <sigma,w> + cq <v,w>) u - (<sigma,w> - alpha <v,w>) sigma), D = alpha beta + cq,
/// alpha = 1 - c|u|², beta = 1 - c|v|², sigma = u + v, q = |sigma|²
pub struct Gyration;
ball! { Gyration(u, v, w; c) -> (y;)
    dots(uu, vv, q, sw, vw) { uu.dot(u, u); vv.dot(v, v); q.square_sum(u, v); sw.dot_sum(w, u, v); vw.dot(v, w); }
    solve(self) {
        let (alpha, beta, cq) = (wide_gap(c, uu), wide_gap(c, vv), N::of(c) * q);
        let k = (c + c) / (alpha * beta + cq).get();
        ([k * (beta * sw + cq * vw).get(), k * (alpha * vw - sw).get()], [])
    }
    combine(a, b) { [(u + v).mul_add(b, u.mul_add(a, w))] }
}

/// With K = 2c/D, a = beta <sigma,w> + cq <v,w>, e = <sigma,w> - alpha <v,w>, b = (a <g,u> - e <g,sigma>)/D,
/// P = <g,u><v,w> - b, A = K(<g,sigma><v,w> - b beta), B = K(<g,u><sigma,w> - b alpha),
/// V = K(beta <g,u> - <g,sigma>) w - K e g + 2KcP sigma:
/// du = V + K a g - 2cA u, dv = V + K(cq <g,u> + alpha <g,sigma>) w - 2cB v,
/// dw = gyr[v,u]g; dc = 2b + KqP - |u|²A - |v|²B
pub struct GyrationBwd;
ball! { GyrationBwd(g, u, v, w; c) -> (du, dv, dw; dc)
    dots(uu, vv, q, sw, vw, gu, gs) {
        uu.dot(u, u);
        vv.dot(v, v);
        q.square_sum(u, v);
        sw.dot_sum(w, u, v);
        vw.dot(v, w);
        gu.dot(g, u);
        gs.dot_sum(g, u, v);
    }
    solve(self) {
        let (alpha, beta, cq) = (wide_gap(c, uu), wide_gap(c, vv), N::of(c) * q);
        let d = 1.0 / (alpha * beta + cq).get();
        let (a, e) = (beta * sw + cq * vw, sw - alpha * vw);
        let (f, h) = (beta * gu - gs, cq * gu + alpha * gs);
        let b = (a * gu - e * gs).get() * d;
        let k = (c + c) * d;
        let (alpha, beta, q, vw) = (alpha.get(), beta.get(), q.get(), vw.get());
        let p = gu.get() * vw - b;
        let by_alpha = k * (gs.get() * vw - b * beta);
        let by_beta = k * (gu.get() * sw.get() - b * alpha);
        let (a, e, f, h) = (k * a.get(), k * e.get(), k * f.get(), k * h.get());
        let c2 = c + c;
        (
            [f, e, c2 * k * p, a, c2 * by_alpha, h, c2 * by_beta],
            [b + b + k * q * p - uu.get() * by_alpha - vv.get() * by_beta],
        )
    }
    combine(w0, w1, w2, w3, w4, w5, w6) {
        let sigma = u + v;
        let turn = sigma.mul_add(w2, w * w0) - g * w1;
        [
            turn + g.mul_add(w3, -(u * w4)),
            turn + w.mul_add(w5, -(v * w6)),
            sigma.mul_add(w0, v.mul_add(w5, g)),
        ]
    }
}

/// P(x→y) v = (beta/alpha) gyr[y,-x]v, written with delta = y - x:
/// (beta/alpha)(v + (2c/D)((alpha <delta,v> - cq <x,v>) y - (<delta,v> + beta <x,v>) delta))
pub struct Transport;
ball! { Transport(x, y, v; c) -> (w;)
    dots(xx, yy, q, dv, xv) { xx.dot(x, x); yy.dot(y, y); q.square_sum(y, -x); dv.dot_sum(v, y, -x); xv.dot(x, v); }
    solve(self) {
        let (alpha, beta, cq) = (wide_gap(c, xx), wide_gap(c, yy), N::of(c) * q);
        let ratio = beta.get() / alpha.get();
        let k = ratio * (c + c) / (alpha * beta + cq).get();
        let (a, b) = (alpha * dv - cq * xv, -(dv + beta * xv));
        ([ratio, k * a.get(), k * b.get()], [])
    }
    combine(r, a, b) { [(y - x).mul_add(b, y.mul_add(a, v * r))] }
}

/// With r = beta/alpha, K = 2c/D, a = alpha <delta,v> - cq <x,v>, e = <delta,v> + beta <x,v>, b = (a <g,y> - e <g,delta>)/D,
/// L = <g,v> + 2cb, f = alpha <g,y> - <g,delta>, h = cq <g,y> + beta <g,delta>, P = -(<g,y><x,v> + b),
/// A = K(<g,y><delta,v> - b beta) - L/alpha, B = L/beta - K(<g,delta><x,v> + b alpha), V = K f v - K e g + 2KcP delta:
/// dx = -r(V + K h v + 2cA x), dy = r(V + K a g - 2cB y), dv = r(g - K h x + K f delta);
/// dc = r(2b + KqP - |x|²A - |y|²B)
pub struct TransportBwd;
ball! { TransportBwd(g, x, y, v; c) -> (dx, dy, dv; dc)
    dots(xx, yy, q, dv, xv, gy, gd, gv) {
        xx.dot(x, x);
        yy.dot(y, y);
        q.square_sum(y, -x);
        dv.dot_sum(v, y, -x);
        xv.dot(x, v);
        gy.dot(g, y);
        gd.dot_sum(g, y, -x);
        gv.dot(g, v);
    }
    solve(self) {
        let (alpha, beta, cq) = (wide_gap(c, xx), wide_gap(c, yy), N::of(c) * q);
        let d = 1.0 / (alpha * beta + cq).get();
        let (a, e) = (alpha * dv - cq * xv, dv + beta * xv);
        let (f, h) = (alpha * gy - gd, cq * gy + beta * gd);
        let b = (a * gy - e * gd).get() * d;
        let c2 = c + c;
        let k = c2 * d;
        let l = c2.mul_add(b, gv.get());
        let (alpha, beta, q, xv, gy) = (alpha.get(), beta.get(), q.get(), xv.get(), gy.get());
        let r = beta / alpha;
        let p = -(gy * xv + b);
        let by_alpha = r * (k * (gy * dv.get() - b * beta) - l / alpha);
        let by_beta = r * (l / beta - k * (gd.get() * xv + b * alpha));
        let k = r * k;
        (
            [r, k * f.get(), k * e.get(), c2 * k * p, k * h.get(), c2 * by_alpha, k * a.get(), c2 * by_beta],
            [r * (b + b) + k * q * p - xx.get() * by_alpha - yy.get() * by_beta],
        )
    }
    combine(w0, w1, w2, w3, w4, w5, w6, w7) {
        let delta = y - x;
        let turn = delta.mul_add(w3, v * w1) - g * w2;
        [
            -(turn + v.mul_add(w4, x * w5)),
            turn + g.mul_add(w6, -(y * w7)),
            delta.mul_add(w1, g * w0) - x * w4,
        ]
    }
}
