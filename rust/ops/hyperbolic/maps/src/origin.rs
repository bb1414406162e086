//! Maps between the ball and its tangent space at 0. The one rule: a row is scaled, never turned.

use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::rows::{Acc, Margin, RowOp, Solved};

/// y = T(c|x|²) x; true 1 - c|y|² = sech²(√c|x|)
pub struct ExpMap0(pub Margin);
impl RowOp<1, 1, 1, 1, 1, 0> for ExpMap0 {
    const CURVED: bool = true;
    fn margin(&self) -> Option<Margin> {
        Some(self.0)
    }
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, _: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        let [t, _, h] = tanh_over::<S, N>((c * xx.get()).sqrt());
        Solved { weights: [t], numbers: [], gap: h }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [t]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *t]
    }
}

/// dx = T g + 2cT'<g,x> x; dc = T'|x|²<g,x>
pub struct ExpMap0Bwd;
impl RowOp<2, 1, 2, 2, 1, 1> for ExpMap0Bwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x]: &[f64x8<S>; 2], [xx, gx]: &mut [A; 2]) {
        xx.dot(*x, *x);
        gx.dot(*g, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, gx]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 1> {
        let [t, slope, _] = tanh_over::<S, N>((c * xx.get()).sqrt());
        let slope = slope * gx.get();
        Solved { weights: [t, (c + c) * slope], numbers: [slope * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x]: &[f64x8<S>; 2], [t, w]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [x.mul_add(*w, *g * *t)]
    }
}

/// y = A(c|x|²) x
pub struct LogMap0;
impl RowOp<1, 1, 1, 1, 1, 0> for LogMap0 {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        let root = (N::of(c) * xx).root().get();
        let [a, _] = artanh_over::<S, N>(root, gap(c, xx));
        Solved { weights: [a], numbers: [], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [a]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *a]
    }
}

/// dx = A g + 2cA'<g,x> x; dc = A'|x|²<g,x>
pub struct LogMap0Bwd;
impl RowOp<2, 1, 2, 2, 1, 1> for LogMap0Bwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x]: &[f64x8<S>; 2], [xx, gx]: &mut [A; 2]) {
        xx.dot(*x, *x);
        gx.dot(*g, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, gx]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 1> {
        let [a, slope] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let slope = slope * gx.get();
        Solved { weights: [a, (c + c) * slope], numbers: [slope * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x]: &[f64x8<S>; 2], [a, w]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [x.mul_add(*w, *g * *a)]
    }
}

/// d = 2|x| A(c|x|²)
pub struct Dist0;
impl RowOp<1, 1, 1, 0, 0, 1> for Dist0 {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 1> {
        let [a, _] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let r = xx.root().get();
        Solved { weights: [], numbers: [(r + r) * a], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 1], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// dx = 2g/(alpha|x|) x, 0 at x = 0; dc = 2g A'|x|³
pub struct Dist0Bwd;
impl RowOp<1, 2, 1, 1, 1, 1> for Dist0Bwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [g, c]: [f64x8<S>; 2]) -> Solved<S, 1, 1> {
        let rest = gap(c, xx);
        let [_, slope] = artanh_over::<S, N>((N::of(c) * xx).root().get(), rest);
        let (r, g) = (xx.root().get(), g + g);
        let zero = f64x8::splat(s, 0.0);
        let w = r.simd_gt(0.0).select(g / (rest * r), r.simd_eq(0.0).select(zero, r));
        Solved { weights: [w], numbers: [g * slope * r * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [w]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *w]
    }
}

/// r ⊗ x = r A(c|x|²) T(s²) x, s = r artanh(√c|x|); true 1 - c|y|² = sech²(s)
pub struct ScalarMul(pub Margin);
impl RowOp<1, 2, 1, 1, 1, 0> for ScalarMul {
    const CURVED: bool = true;
    fn margin(&self) -> Option<Margin> {
        Some(self.0)
    }
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, _: S, [xx]: [N; 1], [r, c]: [f64x8<S>; 2]) -> Solved<S, 1, 0> {
        let root = (N::of(c) * xx).root().get();
        let [a, _] = artanh_over::<S, N>(root, gap(c, xx));
        let [t, _, h] = tanh_over::<S, N>(r * root * a);
        Solved { weights: [r * a * t], numbers: [], gap: h }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [w]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *w]
    }
}

/// With r ⊗ x = w x, z = c|x|²: dw/dr = A sech²(s), dw/dz = r (A' sech²(s) + r² A³ T'(s²));
/// dx = w g + 2c dw/dz <g,x> x; dr = dw/dr <g,x>; dc = dw/dz |x|²<g,x>
pub struct ScalarMulBwd;
impl RowOp<2, 2, 2, 2, 1, 2> for ScalarMulBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x]: &[f64x8<S>; 2], [xx, gx]: &mut [A; 2]) {
        xx.dot(*x, *x);
        gx.dot(*g, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, gx]: [N; 2], [r, c]: [f64x8<S>; 2]) -> Solved<S, 2, 2> {
        let (root, gx) = ((N::of(c) * xx).root().get(), gx.get());
        let [a, by_z] = artanh_over::<S, N>(root, gap(c, xx));
        let ra = r * a;
        let [t, by_s, h] = tanh_over::<S, N>(ra * root);
        let slope = r * by_z.mul_add(h, ra * ra * a * by_s) * gx;
        Solved {
            weights: [ra * t, (c + c) * slope],
            numbers: [a * h * gx, slope * xx.get()],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x]: &[f64x8<S>; 2], [w, k]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [x.mul_add(*k, *g * *w)]
    }
}

/// w ∘⊗ x = A T(s²) (w ∘ x), A = A(c|x|²), s = √c A |w ∘ x|; true 1 - c|y|² = sech²(s)
pub struct PointwiseMul(pub Margin);
impl RowOp<2, 1, 2, 1, 1, 0> for PointwiseMul {
    const CURVED: bool = true;
    fn margin(&self) -> Option<Margin> {
        Some(self.0)
    }
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [w, x]: &[f64x8<S>; 2], [xx, nn]: &mut [A; 2]) {
        xx.dot(*x, *x);
        nn.dot(*w * *x, *w * *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, _: S, [xx, nn]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        let [a, _] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let [t, _, h] = tanh_over::<S, N>((N::of(c) * nn).root().get() * a);
        Solved { weights: [a * t], numbers: [], gap: h }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [w, x]: &[f64x8<S>; 2], [f]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*w * *x * *f]
    }
}

/// With u = w ∘ x, h = <g,u>, k = h A³T', m = h A' sech²(s), du = A T g + 2ck u:
/// dw = du ∘ x, dx = du ∘ w + 2cm x; dc = k|u|² + m|x|²
pub struct PointwiseMulBwd;
impl RowOp<3, 1, 3, 3, 2, 1> for PointwiseMulBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, w, x]: &[f64x8<S>; 3], [xx, nn, h]: &mut [A; 3]) {
        xx.dot(*x, *x);
        nn.dot(*w * *x, *w * *x);
        h.dot(*g, *w * *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, nn, h]: [N; 3], [c]: [f64x8<S>; 1]) -> Solved<S, 3, 1> {
        let [a, by_z] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let [t, by_s, sech2] = tanh_over::<S, N>((N::of(c) * nn).root().get() * a);
        let h = h.get();
        let (k, m) = (h * a * a * a * by_s, h * by_z * sech2);
        let c2 = c + c;
        Solved { weights: [a * t, c2 * k, c2 * m], numbers: [k * nn.get() + m * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, w, x]: &[f64x8<S>; 3], [f, k, m]: &[f64x8<S>; 3]) -> [f64x8<S>; 2] {
        let du = (*w * *x).mul_add(*k, *g * *f);
        [du * *x, du.mul_add(*w, *x * *m)]
    }
}
