//! The map that carries a cloud of points along with one of them to another, and scales distances from it. The one rule: what
//! a row becomes is a combination of three places on the hyperboloid, and so is its gradient.

use super::place::*;
use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::{ball, rows::Margin};

/// What a row is made of: Y = κX + κ(ω − C)M + (E + κω)B, with C, C_b, Δ the cosh of the distances from x to m, from x to
/// b and from m to b, d arcosh C, E = cosh rd, κ = sinh rd/sinh d, ω = (CΔ − C_b)/(1 + Δ); and y = h(τ_Y) Y.
struct Path<S: Simd, N> {
    x: Place<S, N>,
    m: Place<S, N>,
    b: Place<S, N>,
    /// x to m, x to b, m to b
    ways: [Apart<S>; 3],
    /// d/sinh d, rd/sinh rd as hyperbolic angles
    shapes: [f64x8<S>; 2],
    angles: [f64x8<S>; 2],
    kappa: f64x8<S>,
    omega: f64x8<S>,
    /// ω − C, which would cancel: −(C + C_b)/(1 + Δ)
    back: f64x8<S>,
    cosh: f64x8<S>,
    tau: f64x8<S>,
    h: f64x8<S>,
}

impl<S: Simd, N: Num<S>> Path<S, N> {
    #[inline(always)]
    fn new(s: S, ball: bool, c: f64x8<S>, r: f64x8<S>, [xx, mm, bb, xm, xb, mb]: [N; 6]) -> Self {
        let [x, m, b] = places(ball, c, [xx, mm, bb]);
        let ways = [apart(ball, c, &x, &m, xm), apart(ball, c, &x, &b, xb), apart(ball, c, &m, &b, mb)];
        let p = c * ways[0].d;
        // half the distance, and its sinh and cosh
        let half = arsinh(s, p) * p.sqrt();
        let angle = half + half;
        let longest = f64x8::splat(s, LONGEST);
        let scaled = (angle * r).abs().min(longest);
        let one = over_root((p.mul_add(p, p)).sqrt() * 2.0, angle);
        let turned = sinh(s, scaled);
        let other = over_root(turned, scaled);
        let cosh = turned.mul_add(turned, 1.0).sqrt();
        let kappa = r * other / one;
        let omega = ((ways[0].cosh * ways[2].cosh) - ways[1].cosh) / (ways[2].cosh + 1.0);
        let back = -(ways[0].cosh + ways[1].cosh) / (ways[2].cosh + 1.0);
        let tau = kappa * x.tau + kappa * back * m.tau + kappa.mul_add(omega, cosh) * b.tau;
        let tau = tau.max(f64x8::splat(s, 1.0));
        let h = if ball { 1.0 / (tau + 1.0) } else { arsinh(s, tau.mul_add(tau, -1.0)) * 0.5 };
        Path { x, m, b, ways, shapes: [one, other], angles: [angle, scaled], kappa, omega, back, cosh, tau, h }
    }
}

pub struct Carry(pub bool, pub Margin);
ball! { Carry(x, m, b; r, c) -> (y;) within(self) { self.0.then_some(self.1) }
    dots(xx, mm, bb, xm, xb, mb) {
        xx.dot(x, x);
        mm.dot(m, m);
        bb.dot(b, b);
        xm.square_sum(x, -m);
        xb.square_sum(x, -b);
        mb.square_sum(m, -b);
    }
    solve(self, s) {
        let p = Path::new(s, self.0, bent(c), r, [xx, mm, bb, xm, xb, mb]);
        let own = p.h * p.kappa;
        ([own * p.x.f, own * p.back * p.m.f, p.h * p.kappa.mul_add(p.omega, p.cosh) * p.b.f], [], 2.0 / (p.tau + 1.0))
    }
    combine(w0, w1, w2) { [x.mul_add(w0, m.mul_add(w1, b * w2))] }
}

/// With G = (h g, h'⟨g, Y⟩) on the hyperboloid and k_p = ⟨G, P⟩ of each point: the gradients of κ, ω, E and C, then those
/// of the three distances, then those of the points
pub struct CarryBwd(pub bool);
ball! { CarryBwd(g, x, m, b; r, c) -> (dx, dm, db; dr, dc)
    dots(xx, mm, bb, xm, xb, mb, gx, gm, gb) {
        xx.dot(x, x);
        mm.dot(m, m);
        bb.dot(b, b);
        xm.square_sum(x, -m);
        xb.square_sum(x, -b);
        mb.square_sum(m, -b);
        gx.dot(g, x);
        gm.dot(g, m);
        gb.dot(g, b);
    }
    solve(self, s) {
        let c = bent(c);
        let p = Path::new(s, self.0, c, r, [xx, mm, bb, xm, xb, mb]);
        let Path { x, m, b, ways, kappa, omega, back, tau, h, .. } = p;
        // what X, M and B count for in Y
        let parts = [kappa, kappa * back, kappa.mul_add(omega, p.cosh)];
        let (points, dots) = ([x, m, b], [gx.get(), gm.get(), gb.get()]);
        let mut gy = parts[0] * x.f * dots[0];
        gy = (parts[1] * m.f).mul_add(dots[1], gy);
        gy = (parts[2] * b.f).mul_add(dots[2], gy);
        let q = tau.mul_add(tau, -1.0);
        let slope = if self.0 { -(h * h) } else { tau * arsinh_root_d(q, h + h) };
        let up = slope * gy;
        let mut k = [up; 3];
        for i in 0..3 {
            k[i] = (h * points[i].f).mul_add(dots[i], up * points[i].tau);
        }
        // κ, ω, E, C
        let by_kappa = k[0] + back * k[1] + omega * k[2];
        let by_omega = kappa * (k[1] + k[2]) / (ways[2].cosh + 1.0);
        let [one, other] = p.shapes;
        let (l, lr) = (log_d(p.angles[0], one), log_d(p.angles[1], other));
        let bent_kappa = kappa * (r * r * lr - l) * 2.0 / one;
        let by_cosh = by_kappa * bent_kappa + k[2] * r * kappa + by_omega * ways[2].cosh - kappa * k[1];
        let by_r = by_kappa * p.cosh / one + k[2] * (p.angles[0] * p.angles[0]) * one * kappa;
        // the three distances, each 1 + 2cD
        let slopes = [by_cosh, -by_omega, -(by_omega * back)];
        let mut dc = f64x8::splat(s, 0.0);
        let (mut away, mut own) = (slopes, [dc; 3]);
        for i in 0..3 {
            dc = slopes[i].mul_add((c * ways[i].by_c + ways[i].d) * 2.0, dc);
            away[i] = c * slopes[i] * ways[i].both;
        }
        for (i, (a, b)) in [(0, 1), (0, 2), (1, 2)].into_iter().enumerate() {
            own[a] = (c * slopes[i]).mul_add(ways[i].k[0], own[a]);
            own[b] = (c * slopes[i]).mul_add(ways[i].k[1], own[b]);
        }
        let mut w = own;
        for i in 0..3 {
            let p = &points[i];
            let bend = parts[i] * (p.r * h).mul_add(dots[i], p.t * up);
            own[i] = (c + c).mul_add(bend, own[i]);
            dc = bend.mul_add(p.square.get(), dc);
            w[i] = parts[i] * h * p.f;
        }
        (
            [
                w[0],
                w[1],
                w[2],
                own[0] + away[0] + away[1],
                -away[0],
                -away[1],
                own[1] + away[0] + away[2],
                -away[2],
                own[2] + away[1] + away[2],
            ],
            [by_r, dc],
        )
    }
    combine(w0, w1, w2, w3, w4, w5, w6, w7, w8) {
        [
            g.mul_add(w0, x.mul_add(w3, m.mul_add(w4, b * w5))),
            g.mul_add(w1, m.mul_add(w6, x.mul_add(w4, b * w7))),
            g.mul_add(w2, b.mul_add(w8, x.mul_add(w5, m * w7))),
        ]
    }
}

/// The derivative of log(sinh s/s) by s², from s and sinh(s)/s
#[inline(always)]
fn log_d<S: Simd>(s: f64x8<S>, shape: f64x8<S>) -> f64x8<S> {
    let sinh = s * shape;
    sinh_log_d(s, shape, sinh.mul_add(sinh, 1.0).sqrt())
}
