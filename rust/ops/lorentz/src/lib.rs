//! The hyperboloid of curvature −c, {t² − |s|² = 1/c}, points kept as s. The one rule: two points meet as s − r, and what
//! their times differ by comes from inner products of that.
//!
//! Notation: τ = √(1 + c|s|²) = √c t, Δ = s − r, p = ⟨Δ, s + r⟩ = |s|² − |r|², Q = |Δ|² − c p²/(τ_s + τ_r)², the squared
//! chord of the hyperboloid.

mod across;
mod beyond;
mod far;
mod meet;

use base::dd::Num;
use base::roots::{arsinh_root, arsinh_root_d};
use base::simd::*;
use base::{Dtype, Op, Result, Tensor, ops, try_vec};
use drivers::{ball, rows};
use std::sync::atomic::{AtomicBool, Ordering};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    dist(x[.., d], y[.., d], c[.., 1]) -> (d[..]) = |t, _| dist(t);
    dist_bwd(x[.., d], y[.., d], g[..], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _| dist_bwd(t);
};

/// τ_x, τ_y, p, Q
#[inline(always)]
fn chord<S: Simd, N: Num<S>>([xx, yy, q, xd, yd]: [N; 5], c: f64x8<S>) -> [N; 4] {
    let (c, one) = (N::of(c), N::of(f64x8::splat(c.witness(), 1.0)));
    let (tx, ty) = ((one + c * xx).root(), (one + c * yy).root());
    let p = xd + yd;
    let e = p / (tx + ty);
    [tx, ty, p, q - c * e * e] // e² may be beyond f64 where ce² is not
}

/// Where Q is this small a part of |Δ|², plain sums leave too little of it.
const FEW: f64 = 1.0 / (1u64 << 20) as f64;
/// And here, for near pairs from a radius of 15 on, sums of twice the precision do.
const FAR: f64 = 1.0 / (1u64 << 44) as f64;
/// Elements of a gradient have no more than f64: f64 data is left where 12 bits would be lost, from a radius of 8 on.
const SHORT: f64 = 1.0 / (1u64 << 24) as f64;

/// Rows of exact sums that are left to [`far`], because Q is less than `part` of |Δ|², and whether there are any.
struct Left {
    part: f64,
    any: AtomicBool,
}
impl Left {
    fn below(part: f64) -> Self {
        Left { part, any: AtomicBool::new(false) }
    }
    /// Those of these rows; of plain sums none, which are made again where it matters.
    #[inline(always)]
    fn mark<S: Simd, N: Num<S>>(&self, [xx, yy, delta]: [N; 3], c: f64x8<S>, q: f64x8<S>) -> mask64x8<S> {
        if N::SINGLE {
            return q.simd_lt(f64x8::splat(q.witness(), f64::NEG_INFINITY));
        }
        let far = q.simd_lt(delta.get() * self.part) | beyond::outside(xx.get(), yy.get(), c);
        if far.any_true() {
            self.any.store(true, Ordering::Relaxed);
        }
        far
    }
    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
}

fn dist(t: &[Tensor]) -> Result<()> {
    let op = Dist(Left::below(FAR));
    rows::run(&op, t)?;
    if op.0.any() { far::distances(t) } else { Ok(()) }
}

fn dist_bwd(t: &[Tensor]) -> Result<()> {
    let part = if t[0].dtype() == Dtype::F64 { SHORT } else { FAR };
    let op = DistBwd(Left::below(part));
    rows::run(&op, t)?;
    if !op.0.any() {
        return Ok(());
    }
    // which rows they are the same sums say once more: an output may be the sum of them all
    let n = t[0].rows().0.max(t[1].rows().0);
    let mut marks = try_vec(n, 0.0f64)?;
    let marks = Tensor::of(&mut marks);
    rows::run(&Dist(Left::below(part)), &[t[0], t[1], t[3], marks])?;
    far::gradients(t, &marks)
}

/// d = √Q S(cQ/4), S(u) = arsinh √u/√u; −1 for rows that are left
struct Dist(Left);
ball! { Dist(x, y; c) -> (; d)
    dots(xx, yy, q, xd, yd) {
        xx.dot(x, x);
        yy.dot(y, y);
        q.square_sum(x, -y);
        xd.dot_sum(x, x, -y);
        yd.dot_sum(y, x, -y);
    }
    solve(self, s) {
        let delta = q;
        let q = chord([xx, yy, q, xd, yd], c)[3].get();
        let left = self.0.mark([xx, yy, delta], c, q);
        // rounding may leave less than nothing where points all but coincide; NaN stays
        let q = q.simd_lt(0.0).select(f64x8::splat(s, 0.0), q);
        let d = left.select(f64x8::splat(s, -1.0), q.sqrt() * arsinh_root(c * q * 0.25));
        ([], [d])
    }
    doubt { chord([xx, yy, q, xd, yd], c)[3].simd_lt(q * FEW) }
}

/// With f = g/√(Q(1 + u)), u = cQ/4, k = cp/(τ_x + τ_y): dx = f(Δ − k/τ_x x), dy = f(k/τ_y y − Δ), 0 at Q = 0; of rows
/// of unlike lengths, where these cancel, dx = f(τ_y/τ_x x − y), dy = f(τ_x/τ_y y − x);
/// dc = g√Q (S'(u) Q/4) − f/2 (p/(τ_x + τ_y))²/(τ_x τ_y); 0 for rows that are left
struct DistBwd(Left);
ball! { DistBwd(x, y; g, c) -> (dx, dy; dc)
    dots(xx, yy, q, xd, yd) {
        xx.dot(x, x);
        yy.dot(y, y);
        q.square_sum(x, -y);
        xd.dot_sum(x, x, -y);
        yd.dot_sum(y, x, -y);
    }
    solve(self, s) {
        let delta = q;
        let [tx, ty, p, q] = chord([xx, yy, q, xd, yd], c);
        let (tx, ty, p, q) = (tx.get(), ty.get(), p.get(), q.get());
        let (zero, left) = (f64x8::splat(s, 0.0), self.0.mark([xx, yy, delta], c, q));
        let q = (q.simd_lt(0.0) | left).select(zero, q);
        let u = c * q * 0.25;
        let f = q.simd_eq(0.0).select(zero, g / (q * (u + 1.0)).sqrt());
        let e = left.select(zero, p / (tx + ty));
        let (tx, ty) = (left.select(zero + 1.0, tx), left.select(zero + 1.0, ty));
        let slope = arsinh_root_d(u, arsinh_root(u));
        let unlike = tx.simd_gt(ty + ty) | ty.simd_gt(tx + tx);
        let weights = [
            unlike.select(zero, f),
            unlike.select(f, zero),
            f * unlike.select(ty / tx, -(c * e / tx)),
            f * unlike.select(tx / ty, c * e / ty),
        ];
        (weights, [g * q.sqrt() * slope * q * 0.25 - f * e * e / (tx * ty) * 0.5])
    }
    combine(f, h, a, b) {
        let chord = (x - y) * f;
        [x.mul_add(a, chord - y * h), y.mul_add(b, -x.mul_add(h, chord))]
    }
    doubt { chord([xx, yy, q, xd, yd], c)[3].simd_lt(q * FEW) }
}

#[cfg(test)]
mod tests;
