//! The conformal factor lambda = 2/alpha and what it scales. The one rule: alpha is known to all its digits before anything
//! is divided by it.

use base::mix::scaled;
use base::roots::*;
use base::simd::*;
use base::{Dtype, Tensor};
use drivers::rows::{Margin, eps};
use drivers::{ball, row};

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
ball! { Project(x; c) -> (y;) within(self) { self.margin }
    dots(xx) { xx.dot(x, x); }
    solve(self, s) {
        let (one, Edge { keep, limit }) = (f64x8::splat(s, 1.0), self.edge);
        let root = (N::of(c) * xx).root().get();
        // at curvatures beyond that the points are denormal
        let scaled = root.simd_gt(limit) & root.simd_lt(1e100) & c.simd_lt(1e60);
        let gap = gap(c, xx);
        let gap = gap.simd_eq(gap).select(gap, -one);
        ([scaled.select(keep / root, one)], [], scaled.select(one, gap))
    }
    combine(k) { [x * k] }
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
ball! { ProjectBwd(g, x; c) -> (dx; dc)
    dots(xx, gx) { xx.dot(x, x); gx.dot(g, x); }
    solve(self, s) {
        // squares that are beyond all numbers are none in twice the precision
        let far = xx.get().simd_eq(f64::INFINITY) & c.simd_gt(0.0);
        let root = far.select(xx.get(), (N::of(c) * xx).root().get());
        let rest = gap(c, xx);
        let rest = rest.simd_eq(rest).select(rest, -root);
        let out = root.simd_gt(self.0.limit) | rest.simd_le(0.0);
        let (zero, gx) = (f64x8::splat(s, 0.0), gx.get());
        let k = self.0.keep / root;
        let turn = out.select(-(k * gx) / xx.get(), zero);
        let slope = out.select(-(k * gx) / (c + c), zero);
        ([out.select(k, zero + 1.0), turn], [slope])
    }
    combine(k, w) { [x.mul_add(w, g * k)] }
}

/// lambda = 2/alpha
pub struct Lambda;
ball! { Lambda(x; c) -> (; l)
    dots(xx) { xx.dot(x, x); }
    solve(self) { ([], [2.0 / gap(c, xx)]) }
}

/// dx = g c lambda² x; dc = g lambda²|x|²/2
pub struct LambdaBwd;
ball! { LambdaBwd(x; g, c) -> (dx; dc)
    dots(xx) { xx.dot(x, x); }
    solve(self) {
        let l = 2.0 / gap(c, xx);
        let gl = g * l * l;
        ([gl * c], [gl * xx.get() * 0.5])
    }
    combine(w) { [x * w] }
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
ball! { Scaled<F: Scale>(x, v; c) -> (w;)
    dots(xx) { xx.dot(x, x); }
    solve(self) { ([F::of(gap(c, xx))[0]], []) }
    combine(f) { [v * f] }
    single |f| { [scaled(v, f)] }
}

/// dv = f g; dx = -2c f'<g,v> x; dc = -f'|x|²<g,v>
pub struct ScaledBwd<F>(pub F);
ball! { ScaledBwd<F: Scale>(g, x, v; c) -> (dx, dv; dc)
    dots(xx, gv) { xx.dot(x, x); gv.dot(g, v); }
    solve(self) {
        let [f, slope] = F::of(gap(c, xx));
        let k = -(slope * gv.get());
        ([(c + c) * k, f], [k * xx.get()])
    }
    combine(k, f) { [x * k, g * f] }
}

/// <u,v>_x = lambda²<u,v>
pub struct Inner;
ball! { Inner(x, u, v; c) -> (; p)
    dots(xx, uv) { xx.dot(x, x); uv.dot(u, v); }
    solve(self) {
        let l = 2.0 / gap(c, xx);
        ([], [l * l * uv.get()])
    }
}

/// dx = 2gc lambda³<u,v> x, du = g lambda² v, dv = g lambda² u; dc = g lambda³|x|²<u,v>
pub struct InnerBwd;
ball! { InnerBwd(x, u, v; g, c) -> (dx, du, dv; dc)
    dots(xx, uv) { xx.dot(x, x); uv.dot(u, v); }
    solve(self) {
        let l = 2.0 / gap(c, xx);
        let f = g * l * l;
        let k = f * l * uv.get();
        ([(c + c) * k, f], [k * xx.get()])
    }
    combine(k, f) { [x * k, v * f, u * f] }
}

/// |u|_x = lambda|u|
pub struct Norm;
ball! { Norm(x, u; c) -> (; n)
    dots(xx, uu) { xx.dot(x, x); uu.dot(u, u); }
    solve(self) { ([], [2.0 / gap(c, xx) * uu.root().get()]) }
}

/// dx = gc lambda²|u| x, du = g lambda u/|u|, 0 at u = 0; dc = g lambda²|x|²|u|/2
pub struct NormBwd;
ball! { NormBwd(x, u; g, c) -> (dx, du; dc)
    dots(xx, uu) { xx.dot(x, x); uu.dot(u, u); }
    solve(self, s) {
        let l = 2.0 / gap(c, xx);
        let (n, f) = (uu.root().get(), g * l);
        let k = f * l * n;
        let w = n.simd_eq(0.0).select(f64x8::splat(s, 0.0), f / n);
        ([c * k, w], [k * xx.get() * 0.5])
    }
    combine(k, w) { [x * k, u * w] }
}

/// q = |x|²
pub struct SquareNorm;
row! { SquareNorm(x;) -> (; q)
    dots(xx) { xx.dot(x, x); }
    solve(self) { ([], [xx.get()]) }
}

/// dx = 2g x
pub struct SquareNormBwd;
row! { SquareNormBwd(x; g) -> (dx;)
    dots() {}
    solve(self) { ([g + g], []) }
    combine(w) { [x * w] }
}
