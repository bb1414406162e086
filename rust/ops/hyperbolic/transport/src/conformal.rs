//! The conformal factor lambda = 2/alpha and what it scales. The one rule: alpha is known to all its digits before anything
//! is divided by it.

use base::dd::Num;
use base::roots::*;
use base::simd::*;
use base::{Dtype, Tensor};
use drivers::rows::{Acc, Margin, RowOp, Solved, eps};

/// y = x if inside the margin, else (1 - eps) x/(√c|x|). What the rounding of y may put outside, and rows whose squares
/// overflow, the driver looks at one by one and pulls.
pub struct Project {
    margin: Margin,
    edge: Edge,
}
impl Project {
    pub fn new(t: &[Tensor], margin: Margin) -> Self {
        let edge = match t.first().map_or(Dtype::F64, Tensor::dtype) {
            // rounding moves a row by half an eps at most, so that this is inside, and by less than 2 eps
            dtype @ (Dtype::F32 | Dtype::Bf16) if margin.value(dtype) == 0.0 => {
                Edge { keep: 1.0 - 0.75 * eps(dtype), limit: 1.0 - SLACK / 2.0 }
            }
            Dtype::F32 | Dtype::Bf16 => Edge::new(t, margin),
            // k itself is off by an eps, or a coordinate may be denormal: all is left to the driver
            _ => Edge { keep: 1.0, limit: f64::INFINITY },
        };
        Project { margin, edge }
    }
}
impl RowOp<1, 1, 1, 1, 1, 0> for Project {
    const CURVED: bool = true;
    fn margin(&self) -> Option<Margin> {
        Some(self.margin)
    }
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        let (one, Edge { keep, limit }) = (f64x8::splat(s, 1.0), self.edge);
        let root = (N::of(c) * xx).root().get();
        // at curvatures beyond that the points are denormal
        let scaled = root.simd_gt(limit) & root.simd_lt(1e100) & c.simd_lt(1e60);
        let gap = gap(c, xx);
        let gap = gap.simd_eq(gap).select(gap, -one);
        Solved { weights: [scaled.select(keep / root, one)], numbers: [], gap: scaled.select(one, gap) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [k]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *k]
    }
}

/// Outside: dx = k (g - <g,x> x/|x|²), dc = -k <g,x>/(2c), k = (1 - eps)/(√c|x|); inside dx = g, dc = 0
pub struct ProjectBwd(pub Edge);

/// 1 - eps, and the largest √c|x| that is left alone; 1 stands for the last number inside.
#[derive(Clone, Copy)]
pub struct Edge {
    keep: f64,
    limit: f64,
}
impl Edge {
    pub fn new(t: &[Tensor], margin: Margin) -> Self {
        let dtype = t.first().map_or(Dtype::F64, Tensor::dtype);
        let keep = 1.0 - margin.value(dtype);
        Edge { keep, limit: if keep < 1.0 { keep * (1.0 + eps(dtype)) } else { 1.0 } }
    }
}
impl RowOp<2, 1, 2, 2, 1, 1> for ProjectBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x]: &[f64x8<S>; 2], [xx, gx]: &mut [A; 2]) {
        xx.dot(*x, *x);
        gx.dot(*g, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, gx]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 1> {
        let root = (N::of(c) * xx).root().get();
        let out = root.simd_gt(self.0.limit) | gap(c, xx).simd_le(0.0);
        let (zero, gx) = (f64x8::splat(s, 0.0), gx.get());
        let k = self.0.keep / root;
        let turn = out.select(-(k * gx) / xx.get(), zero);
        let slope = out.select(-(k * gx) / (c + c), zero);
        Solved { weights: [out.select(k, zero + 1.0), turn], numbers: [slope], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x]: &[f64x8<S>; 2], [k, w]: &[f64x8<S>; 2]) -> [f64x8<S>; 1] {
        [x.mul_add(*w, *g * *k)]
    }
}

/// lambda = 2/alpha
pub struct Lambda;
impl RowOp<1, 1, 1, 0, 0, 1> for Lambda {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 1> {
        Solved { weights: [], numbers: [2.0 / gap(c, xx)], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 1], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// dx = g c lambda² x; dc = g lambda²|x|²/2
pub struct LambdaBwd;
impl RowOp<1, 2, 1, 1, 1, 1> for LambdaBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [g, c]: [f64x8<S>; 2]) -> Solved<S, 1, 1> {
        let l = 2.0 / gap(c, xx);
        let gl = g * l * l;
        Solved { weights: [gl * c], numbers: [gl * xx.get() * 0.5], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [w]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *w]
    }
}

/// The scale f(alpha) of a vector, and f'(alpha): what moves vectors from 0 (alpha), to 0 (1/alpha), and makes a Euclidean
/// gradient Riemannian (alpha²/4)
pub trait Scale: Sync {
    fn of<S: Simd>(alpha: f64x8<S>) -> [f64x8<S>; 2];
}
pub struct From0;
impl Scale for From0 {
    #[inline(always)]
    fn of<S: Simd>(alpha: f64x8<S>) -> [f64x8<S>; 2] {
        [alpha, f64x8::splat(alpha.witness(), 1.0)]
    }
}
pub struct To0;
impl Scale for To0 {
    #[inline(always)]
    fn of<S: Simd>(alpha: f64x8<S>) -> [f64x8<S>; 2] {
        let f = 1.0 / alpha;
        [f, -(f * f)]
    }
}
pub struct Metric;
impl Scale for Metric {
    #[inline(always)]
    fn of<S: Simd>(alpha: f64x8<S>) -> [f64x8<S>; 2] {
        [alpha * alpha * 0.25, alpha * 0.5]
    }
}

/// f(alpha) v
pub struct Scaled<F>(pub F);
impl<F: Scale> RowOp<2, 1, 1, 1, 1, 0> for Scaled<F> {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, _]: &[f64x8<S>; 2], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        Solved { weights: [F::of(gap(c, xx))[0]], numbers: [], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [_, v]: &[f64x8<S>; 2], [f]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*v * *f]
    }
}

/// dv = f g; dx = -2c f'<g,v> x; dc = -f'|x|²<g,v>
pub struct ScaledBwd<F>(pub F);
impl<F: Scale> RowOp<3, 1, 2, 2, 2, 1> for ScaledBwd<F> {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [g, x, v]: &[f64x8<S>; 3], [xx, gv]: &mut [A; 2]) {
        xx.dot(*x, *x);
        gv.dot(*g, *v);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, gv]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 2, 1> {
        let [f, slope] = F::of(gap(c, xx));
        let k = -(slope * gv.get());
        Solved { weights: [(c + c) * k, f], numbers: [k * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [g, x, _]: &[f64x8<S>; 3], [k, f]: &[f64x8<S>; 2]) -> [f64x8<S>; 2] {
        [*x * *k, *g * *f]
    }
}

/// <u,v>_x = lambda²<u,v>
pub struct Inner;
impl RowOp<3, 1, 2, 0, 0, 1> for Inner {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, u, v]: &[f64x8<S>; 3], [xx, uv]: &mut [A; 2]) {
        xx.dot(*x, *x);
        uv.dot(*u, *v);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, uv]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 1> {
        let l = 2.0 / gap(c, xx);
        Solved { weights: [], numbers: [l * l * uv.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 3], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// dx = 2gc lambda³<u,v> x, du = g lambda² v, dv = g lambda² u; dc = g lambda³|x|²<u,v>
pub struct InnerBwd;
impl RowOp<3, 2, 2, 2, 3, 1> for InnerBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, u, v]: &[f64x8<S>; 3], [xx, uv]: &mut [A; 2]) {
        xx.dot(*x, *x);
        uv.dot(*u, *v);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, uv]: [N; 2], [g, c]: [f64x8<S>; 2]) -> Solved<S, 2, 1> {
        let l = 2.0 / gap(c, xx);
        let f = g * l * l;
        let k = f * l * uv.get();
        Solved { weights: [(c + c) * k, f], numbers: [k * xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, u, v]: &[f64x8<S>; 3], [k, f]: &[f64x8<S>; 2]) -> [f64x8<S>; 3] {
        [*x * *k, *v * *f, *u * *f]
    }
}

/// |u|_x = lambda|u|
pub struct Norm;
impl RowOp<2, 1, 2, 0, 0, 1> for Norm {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, u]: &[f64x8<S>; 2], [xx, uu]: &mut [A; 2]) {
        xx.dot(*x, *x);
        uu.dot(*u, *u);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, uu]: [N; 2], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 1> {
        Solved { weights: [], numbers: [2.0 / gap(c, xx) * uu.root().get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 2], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// dx = gc lambda²|u| x, du = g lambda u/|u|, 0 at u = 0; dc = g lambda²|x|²|u|/2
pub struct NormBwd;
impl RowOp<2, 2, 2, 2, 2, 1> for NormBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, u]: &[f64x8<S>; 2], [xx, uu]: &mut [A; 2]) {
        xx.dot(*x, *x);
        uu.dot(*u, *u);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, uu]: [N; 2], [g, c]: [f64x8<S>; 2]) -> Solved<S, 2, 1> {
        let l = 2.0 / gap(c, xx);
        let (n, f) = (uu.root().get(), g * l);
        let k = f * l * n;
        let w = n.simd_eq(0.0).select(f64x8::splat(s, 0.0), f / n);
        Solved { weights: [c * k, w], numbers: [k * xx.get() * 0.5], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, u]: &[f64x8<S>; 2], [k, w]: &[f64x8<S>; 2]) -> [f64x8<S>; 2] {
        [*x * *k, *u * *w]
    }
}

/// q = |x|²
pub struct SquareNorm;
impl RowOp<1, 0, 1, 0, 0, 1> for SquareNorm {
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], _: [f64x8<S>; 0]) -> Solved<S, 0, 1> {
        Solved { weights: [], numbers: [xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 1], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// dx = 2g x
pub struct SquareNormBwd;
impl RowOp<1, 1, 0, 1, 1, 0> for SquareNormBwd {
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, _: &[f64x8<S>; 1], _: &mut [A; 0]) {}
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, _: [N; 0], [g]: [f64x8<S>; 1]) -> Solved<S, 1, 0> {
        Solved { weights: [g + g], numbers: [], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x]: &[f64x8<S>; 1], [w]: &[f64x8<S>; 1]) -> [f64x8<S>; 1] {
        [*x * *w]
    }
}
