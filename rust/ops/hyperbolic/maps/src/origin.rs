//! Maps between the ball and its tangent space at 0. The one rule: a row is scaled, never turned.

use base::mix::scaled;
use base::roots::*;
use base::simd::*;
use base::{Dtype, Result, Tensor};
use drivers::ball;
use drivers::rows::{self, Margin, Met, inside, numbers};

/// y = T(c|x|²) x; true 1 - c|y|² = sech²(√c|x|). Where c|x|² is beyond all numbers y is x, which is brought to the edge.
pub struct ExpMap0(pub Margin, pub Met);
ball! { ExpMap0(x; c) -> (y;) within(self) { self.0 }
    dots(xx) { xx.dot(x, x); }
    solve(self, s) {
        self.1.see(xx);
        let root = (c * xx.get()).sqrt();
        let [t, _, h] = tanh_over::<S, N>(root);
        let beyond = root.simd_eq(f64::INFINITY);
        let (one, zero) = (f64x8::splat(s, 1.0), f64x8::splat(s, 0.0));
        ([beyond.select(one, t)], [], beyond.select(zero, h))
    }
    combine(t) { [x * t] }
    single |t| { [scaled(x, t)] }
}

/// [`ExpMap0`] of rows of any length: the squares of some of float64 are no numbers.
pub fn expmap0(t: &[Tensor], margin: Margin) -> Result<()> {
    let [x, c, y] = [&t[0], &t[1], &t[2]];
    let op = ExpMap0(margin, Met::default());
    if x.dtype() != Dtype::F64 {
        return rows::run(&op, t);
    }
    let d = x.rows().1;
    let far = |row: &[f64]| row.iter().any(|v| v.abs() > LONG) && row.iter().all(|v| v.is_finite());
    let all = || -> Result<Vec<(usize, Vec<f64>)>> {
        let each = x.slice::<f64>()?.chunks_exact(d.max(1)).enumerate();
        Ok(each.filter(|(_, row)| far(row)).map(|(r, row)| (r, row.to_vec())).collect())
    };
    // rows that are written in place are gone when their sums are known
    let before = if x.as_ptr() == y.as_ptr() { all()? } else { Vec::new() };
    rows::run(&op, t)?;
    let found = if before.is_empty() && op.1.any() && x.as_ptr() != y.as_ptr() { all()? } else { before };
    for (r, row) in found {
        let mut curvature = 0.0;
        numbers(c, if c.len() == 1 { 0 } else { r }, std::slice::from_mut(&mut curvature));
        let to = &mut y.slice_mut::<f64>()?[r * d..][..d];
        beyond(&row, curvature, margin, to);
    }
    Ok(())
}

/// Elements of rows whose squares may be no numbers, or leave none beside them.
const LONG: f64 = f64::from_bits((1023 + 440) << 52);

/// T(c|x|²) x of one such row
#[cold]
fn beyond(x: &[f64], c: f64, margin: Margin, y: &mut [f64]) {
    let top = x.iter().fold(0.0, |top: f64, v| top.max(v.abs()));
    let s = c.sqrt() * top * x.iter().map(|v| (v / top) * (v / top)).sum::<f64>().sqrt();
    let most = 1.0 - margin.value(Dtype::F64);
    // of so small a curvature the square of the radius is no number
    if s > 20.0 && most == 1.0 && c > 1e-290 {
        y.copy_from_slice(x);
        return inside(y, c, margin);
    }
    let t = if s > 0.0 { s.tanh().min(most).min(1.0 - 2.0 * f64::EPSILON) / s } else { 1.0 };
    for (y, x) in y.iter_mut().zip(x) {
        *y = x * t;
    }
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
    single |a| { [scaled(x, a)] }
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
#[derive(Default)]
pub struct Dist0(pub Met);
ball! { Dist0(x; c) -> (; d)
    dots(xx) { xx.dot(x, x); }
    solve(self) {
        self.0.see(xx);
        let [a, _] = artanh_over::<S, N>((N::of(c) * xx).root().get(), gap(c, xx));
        let r = xx.root().get();
        ([], [(r + r) * a])
    }
}

/// dx = 2g/(alpha|x|) x, 0 at x = 0; dc = 2g A'|x|³
#[derive(Default)]
pub struct Dist0Bwd(pub Met);
ball! { Dist0Bwd(x; g, c) -> (dx; dc)
    dots(xx) { xx.dot(x, x); }
    solve(self, s) {
        self.0.see(xx);
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
