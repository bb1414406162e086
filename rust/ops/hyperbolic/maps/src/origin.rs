//! Maps between the ball and its tangent space at 0. The one rule: a row is scaled, never turned.

use base::roots::*;
use base::simd::*;
use drivers::{ball, rows::Margin};

/// y = T(c|x|²) x; true 1 - c|y|² = sech²(√c|x|)
pub struct ExpMap0(pub Margin);
ball! { ExpMap0(x; c) -> (y;) within(self) { self.0 }
    dots(xx) { xx.dot(x, x); }
    solve(self) {
        let [t, _, h] = tanh_over::<S, N>((c * xx.get()).sqrt());
        ([t], [], h)
    }
    combine(t) { [x * t] }
}

/// dx = T g + 2cT'<g,x> x; dc = T'|x|²<g,x>
pub struct ExpMap0Bwd;
ball! { ExpMap0Bwd(g, x; c) -> (dx; dc)
    dots(xx, gx) { xx.dot(x, x); gx.dot(g, x); }
    solve(self) {
        let [t, slope, _] = tanh_over::<S, N>((c * xx.get()).sqrt());
        let slope = slope * gx.get();
        ([t, (c + c) * slope], [slope * xx.get()])
    }
    combine(t, w) { [x.mul_add(w, g * t)] }
}

/// y = A(c|x|²) x
pub struct LogMap0;
ball! { LogMap0(x; c) -> (y;)
    dots(xx) { xx.dot(x, x); }
    solve(self) {
        let root = (N::of(c) * xx).root().get();
        let [a, _] = artanh_over::<S, N>(root, gap(c, xx));
        ([a], [])
    }
    combine(a) { [x * a] }
}

/// dx = A g + 2cA'<g,x> x; dc = A'|x|²<g,x>
pub struct LogMap0Bwd;
ball! { LogMap0Bwd(g, x; c) -> (dx; dc)
    dots(xx, gx) { xx.dot(x, x); gx.dot(g, x); }
    solve(self) {
        let [a, slope] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let slope = slope * gx.get();
        ([a, (c + c) * slope], [slope * xx.get()])
    }
    combine(a, w) { [x.mul_add(w, g * a)] }
}

/// d = 2|x| A(c|x|²)
pub struct Dist0;
ball! { Dist0(x; c) -> (; d)
    dots(xx) { xx.dot(x, x); }
    solve(self) {
        let [a, _] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let r = xx.root().get();
        ([], [(r + r) * a])
    }
}

/// dx = 2g/(alpha|x|) x, 0 at x = 0; dc = 2g A'|x|³
pub struct Dist0Bwd;
ball! { Dist0Bwd(x; g, c) -> (dx; dc)
    dots(xx) { xx.dot(x, x); }
    solve(self, s) {
        let rest = gap(c, xx);
        let [_, slope] = artanh_over::<S, N>((N::of(c) * xx).root().get(), rest);
        let (r, g) = (xx.root().get(), g + g);
        let zero = f64x8::splat(s, 0.0);
        let w = r.simd_gt(0.0).select(g / (rest * r), r.simd_eq(0.0).select(zero, r));
        ([w], [g * slope * r * xx.get()])
    }
    combine(w) { [x * w] }
}

/// r ⊗ x = r A(c|x|²) T(s²) x, s = r artanh(√c|x|); true 1 - c|y|² = sech²(s)
pub struct ScalarMul(pub Margin);
ball! { ScalarMul(x; r, c) -> (y;) within(self) { self.0 }
    dots(xx) { xx.dot(x, x); }
    solve(self) {
        let root = (N::of(c) * xx).root().get();
        let [a, _] = artanh_over::<S, N>(root, gap(c, xx));
        let [t, _, h] = tanh_over::<S, N>(r * root * a);
        ([r * a * t], [], h)
    }
    combine(w) { [x * w] }
}

/// With r ⊗ x = w x, z = c|x|²: dw/dr = A sech²(s), dw/dz = r (A' sech²(s) + r² A³ T'(s²));
/// dx = w g + 2c dw/dz <g,x> x; dr = dw/dr <g,x>; dc = dw/dz |x|²<g,x>
pub struct ScalarMulBwd;
ball! { ScalarMulBwd(g, x; r, c) -> (dx; dr, dc)
    dots(xx, gx) { xx.dot(x, x); gx.dot(g, x); }
    solve(self) {
        let (root, gx) = ((N::of(c) * xx).root().get(), gx.get());
        let [a, by_z] = artanh_over::<S, N>(root, gap(c, xx));
        let ra = r * a;
        let [t, by_s, h] = tanh_over::<S, N>(ra * root);
        let slope = r * by_z.mul_add(h, ra * ra * a * by_s) * gx;
        ([ra * t, (c + c) * slope], [a * h * gx, slope * xx.get()])
    }
    combine(w, k) { [x.mul_add(k, g * w)] }
}

/// w ∘⊗ x = A T(s²) (w ∘ x), A = A(c|x|²), s = √c A |w ∘ x|; true 1 - c|y|² = sech²(s)
pub struct PointwiseMul(pub Margin);
ball! { PointwiseMul(w, x; c) -> (y;) within(self) { self.0 }
    dots(xx, nn) { xx.dot(x, x); nn.dot(w * x, w * x); }
    solve(self) {
        let [a, _] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let [t, _, h] = tanh_over::<S, N>((N::of(c) * nn).root().get() * a);
        ([a * t], [], h)
    }
    combine(f) { [w * x * f] }
}

/// With u = w ∘ x, h = <g,u>, k = h A³T', m = h A' sech²(s), du = A T g + 2ck u:
/// dw = du ∘ x, dx = du ∘ w + 2cm x; dc = k|u|² + m|x|²
pub struct PointwiseMulBwd;
ball! { PointwiseMulBwd(g, w, x; c) -> (dw, dx; dc)
    dots(xx, nn, h) { xx.dot(x, x); nn.dot(w * x, w * x); h.dot(g, w * x); }
    solve(self) {
        let [a, by_z] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let [t, by_s, sech2] = tanh_over::<S, N>((N::of(c) * nn).root().get() * a);
        let h = h.get();
        let (k, m) = (h * a * a * a * by_s, h * by_z * sech2);
        let c2 = c + c;
        ([a * t, c2 * k, c2 * m], [k * nn.get() + m * xx.get()])
    }
    combine(f, k, m) {
        let du = (w * x).mul_add(k, g * f);
        [du * x, du.mul_add(w, x * m)]
    }
}
