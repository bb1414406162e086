//! Midpoints of tangent vectors at 0, as tangent vectors. The one rule: lengths and angles are taken apart, σ = 2√c|x| and
//! 1 − cos θ = |x̂ − m̂|²/2, so that a group far from 0 is as good as one near it.
//!
//! N = Σ wf x, T = Σ wτ; m lies along N, and R² = T² − c|N|² = (T + √c|N|) L, L = T − √c|N| = Σ w(e^−σ + (1 − cos θ) sinh σ),
//! a sum of positive terms; sinh σ_m = √c|N|/R. With g_r = ⟨g, m̂⟩ and g⊥ = g − g_r m̂, dN is (g_r cosh σ_m m̂ + s g⊥)/2R,
//! s = σ_m/sinh σ_m, and a row moves along itself by [g_r(cosh(σ − σ_m) − (1 − cos θ) cosh σ cosh σ_m) + s cosh σ⟨g⊥, x̂⟩]/R.

use super::groups::Groups;
use super::lift::{Chunk, LANES, Shares, eight, load};
use super::sums::Sums;
use crate::place::{LONGEST, sinh};
use base::simd::*;
use base::store::{STEP, Store};
use drivers::segments::{CHUNK, SLOTS};
use std::ops::Range;

/// From this σ² on, dc follows from the scaling of the whole map, which has no large terms that cancel.
const FAR: f64 = 0.2;

/// N of `n` groups as a direction, turned round if T is negative, and its length in place of what f64 leaves of T.
#[inline(always)]
pub fn units<S: Simd>(s: S, sums: &mut Sums, n: usize) {
    for k in 0..n {
        sums.t[1][k] = direction(s, sums.t[0][k] < 0.0, sums.row(k)[0]);
    }
}

/// Makes a vector one of length 1, turned round if asked, and says its length.
#[inline(always)]
fn direction<S: Simd>(s: S, turn: bool, n: &mut [f64]) -> f64 {
    let mut top = f64x8::splat(s, 0.0);
    for v in n.chunks_exact(LANES) {
        top = top.max(f64x8::from_slice(s, v).abs());
    }
    let mut most = 0.0f64;
    for &v in top.as_slice() {
        most = most.max(v);
    }
    if most == 0.0 || !most.is_finite() {
        return most;
    }
    // squares of large coordinates would overflow
    let (per, mut square) = (1.0 / most, f64x8::splat(s, 0.0));
    for v in n.chunks_exact(LANES) {
        let v = f64x8::from_slice(s, v) * per;
        square = v.mul_add(v, square);
    }
    let root = hsum(square).sqrt();
    let per = if turn { -per } else { per } / root;
    for v in n.chunks_exact_mut(LANES) {
        (f64x8::from_slice(s, v) * per).store_slice(v);
    }
    root * most
}

/// Adds to L of group k, whose N is a direction, and to its largest |x|², entry by entry. A function of its own at every level.
#[inline(never)]
pub fn low<S: Simd, T: Store>(s: S, groups: &Groups<T>, chunk: &Chunk, part: Range<usize>, sums: &mut Sums, k: usize) {
    s.vectorize(
        #[inline(always)]
        || {
            let root = groups.c.sqrt();
            let (mut q, mut low) = ([0.0; CHUNK], [0.0; CHUNK]);
            for i in part.clone() {
                let per = f64x8::splat(s, chunk.scale[i]);
                let mut sum = [f64x8::splat(s, 0.0); 2];
                for (x, n) in groups.row(chunk.rows[i]).chunks(STEP).zip(sums.axis(k).chunks_exact(STEP)) {
                    let (x, n) = (load(s, x), f64::load16(s, n));
                    for j in 0..2 {
                        let v = x[j].mul_add(per, -n[j]);
                        sum[j] = v.mul_add(v, sum[j]);
                    }
                }
                q[i] = hsum(sum[0] + sum[1]);
            }
            for at in (part.start / LANES * LANES..part.end).step_by(LANES) {
                let length = eight(s, &chunk.square, at).sqrt();
                let sinh = length * eight(s, &chunk.f, at) * root;
                let half = length.simd_gt(0.0).select(eight(s, &q, at) * 0.5, f64x8::splat(s, 0.0));
                let v = sinh.mul_add(half, 1.0 / (eight(s, &chunk.tau, at) + sinh));
                (eight(s, &chunk.w, at) * v).store_slice(&mut low[at..at + LANES]);
            }
            for i in part.clone() {
                sums.low[0][k] += low[i];
                sums.low[1][k] = chunk.square[i].max(sums.low[1][k]);
            }
        },
    );
}

/// R, with the sign of T, σ of the midpoint and √c|N|, of group k.
fn place(c: f64, sums: &Sums, k: usize) -> [f64; 3] {
    let (t, n) = (sums.t[0][k], c.sqrt() * sums.t[1][k]);
    let sign = if t < 0.0 { -1.0 } else { 1.0 };
    let square = (sign * t + n) * (sign * sums.low[0][k]);
    // on the edge of the ball, or past it: as far as numbers go
    let r = if square > 0.0 { square.sqrt() } else { 0.0 };
    let sigma = if n == 0.0 { 0.0 } else { (n / r).asinh().min(LONGEST) };
    [sign * r, sigma, n]
}

/// The lengths of midpoints.
pub fn lengths(c: f64, sums: &Sums, n: usize) -> [f64; SLOTS] {
    let mut out = [0.0; SLOTS];
    for (k, out) in out[..n].iter_mut().enumerate() {
        *out = place(c, sums, k)[1] / (c.sqrt() + c.sqrt());
    }
    out
}

/// What [`shares`](super::pull) needs of group k, from g_r, and what dc has of it beside its rows: 1/R, σ, g_r, s, cosh σ and
/// 1/2c where dc is made of ⟨x, dx⟩, else 0.
pub fn centre(c: f64, sums: &Sums, k: usize, along: f64) -> ([f64; 6], f64) {
    let ([r, sigma, n], root) = (place(c, sums, k), c.sqrt());
    // at the edge, or where nothing has a weight, there is no gradient
    let q = n / r;
    if r == 0.0 || !q.is_finite() {
        return ([0.0; 6], 0.0);
    }
    let far = if 4.0 * c * sums.low[1][k] > FAR { 1.0 / (c + c) } else { 0.0 };
    let shape = if q.abs() > 0.0 { sigma / q.abs() } else { 1.0 };
    let length = sigma / (root + root);
    let own = if far > 0.0 {
        -along * length * far
    } else {
        // ⟨g, m⟩(|N|/R)²(1/2 + (1 + q)S'/S), q = sinh² σ_m
        let (square, z) = (q / root * (q / root), q * q);
        let slope = if z < 1e-3 {
            // S'/S at small z, from the series of S
            let (s, d) = (1.0 - z / 6.0 + 0.075 * z * z, -1.0 / 6.0 + z * (0.15 - z * 0.133_928_571_428_571_42));
            d / s
        } else {
            (1.0 / (1.0 + z).sqrt() / shape - 1.0) / (z + z)
        };
        along * length * square * (0.5 + (1.0 + z) * slope)
    };
    ([1.0 / r, sigma, along, shape, q.mul_add(q, 1.0).sqrt(), far], own)
}

/// Those above, for tangent vectors: ⟨g⊥, v⟩ is that with x̂.
#[inline(always)]
pub fn shares<S: Simd>(
    s: S,
    c: f64,
    chunk: &Chunk,
    at: usize,
    [per, sigma, along, shape, cosh, far]: [f64x8<S>; 6],
    [q, across, _]: [f64x8<S>; 3],
) -> Shares<S> {
    let root = c.sqrt();
    let shape = shape.simd_gt(0.0).select(shape, f64x8::splat(s, 1.0));
    let (w, f, tau) = (eight(s, &chunk.w, at), eight(s, &chunk.f, at), eight(s, &chunk.tau, at));
    let (square, bend) = (eight(s, &chunk.square, at), eight(s, &chunk.bend, at));
    let length = square.sqrt();
    let step = (length * (2.0 * root)).min(f64x8::splat(s, LONGEST)) - sigma;
    let apart = sinh(s, step.abs());
    let near = apart.mul_add(apart, 1.0).sqrt();
    let apart = apart.copysign(step);
    // 1 − cos θ
    let turn = q * 0.5;
    let (half, side) = (per * 0.5, shape * across);
    let radial = per * (along * (near - tau * cosh * turn) + tau * side);
    let across = half * (along * cosh * (1.0 - turn) + side);
    let rest = square * (bend * length * across - f * half * along * (sigma / shape / root));
    Shares {
        up: w * f * half * shape,
        own: w * (radial - f * half * (side - along * cosh * turn)) * eight(s, &chunk.scale, at),
        apart: -(w * f * half * along * cosh),
        dw: half * (along * (apart / root - cosh * f * length * turn) + f * length * side),
        dc: w * far.simd_gt(0.0).select(length * radial * far, rest),
    }
}
