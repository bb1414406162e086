//! Midpoints of tangent vectors at 0, as tangent vectors. The one rule: lengths and angles are taken apart, σ = 2√c|x| and
//! 1 − cos θ = |x̂ − m̂|²/2, so that a group far from 0 is as good as one near it.
//!
//! N = Σ wf x, T = Σ wτ; m lies along N, and R² = T² − c|N|² = (T + √c|N|) L, L = T − √c|N| = Σ w(e^−σ + (1 − cos θ) sinh σ),
//! a sum of positive terms; sinh σ_m = √c|N|/R. With g_r = ⟨g, m̂⟩ and g⊥ = g − g_r m̂, dN is (g_r cosh σ_m m̂ + s g⊥)/2R,
//! s = σ_m/sinh σ_m, and a row moves along itself by [g_r(cosh(σ − σ_m) − (1 − cos θ) cosh σ cosh σ_m) + s cosh σ⟨g⊥, x̂⟩]/R.

use super::gather::{Groups, Lifted, each};
use super::pull::Centres;
use crate::ops::hyperbolic::place::LONGEST;
use crate::pool::{self, Shared};
use crate::simd::*;
use crate::store::{STEP, Store};
use crate::{Result, try_vec};
use std::ops::Range;

/// Entries to a task.
const BLOCK: usize = 256;
/// From this σ² on, dc follows from the scaling of the whole map, which has no large terms that cancel.
const FAR: f64 = 0.2;

/// Of every group: n̂ (padded rows), T and √c|N|, both with the sign of T, and L; then R and σ of its midpoint.
struct Polar {
    n: Vec<f64>,
    numbers: Vec<[f64; 3]>,
    pad: usize,
}

impl Polar {
    fn new<T: Store>(groups: &Groups<T>, lifted: &Lifted) -> Result<Self> {
        let pad = groups.d.next_multiple_of(STEP);
        let mut out = Polar { n: try_vec(pad * groups.len(), 0.0)?, numbers: try_vec(groups.len(), [0.0; 3])?, pad };
        let (n, numbers) = (Shared(out.n.as_mut_ptr()), Shared(out.numbers.as_mut_ptr()));
        each(groups, lifted, &|i, sums| {
            // SAFETY: each group is done once; both have room for each.
            let (n, numbers) = unsafe { (n.part(i * pad, pad), numbers.part(i, 1)) };
            n.copy_from_slice(&sums.n[..pad]);
            let length = dispatch(Unit(n, sums.t[0] < 0.0));
            numbers[0] = [sums.t[0], groups.c.sqrt() * length, 0.0];
        })?;
        out.lows(groups, lifted)?;
        Ok(out)
    }

    /// L of every group, its entries added in order.
    fn lows<T: Store>(&mut self, groups: &Groups<T>, lifted: &Lifted) -> Result<()> {
        let entries = groups.indptr[groups.len()];
        let mut parts = try_vec(entries, 0.0)?;
        let shared = Shared(parts.as_mut_ptr());
        let this = &*self;
        pool::run(entries.div_ceil(BLOCK), entries.saturating_mul(groups.d), |b| {
            let range = b * BLOCK..entries.min((b + 1) * BLOCK);
            // SAFETY: blocks of entries are disjoint.
            let out = unsafe { shared.part(range.start, range.len()) };
            dispatch(Low { groups, lifted, polar: this, range, out });
        })?;
        for (i, numbers) in self.numbers.iter_mut().enumerate() {
            let low: f64 = parts[groups.indptr[i]..groups.indptr[i + 1]].iter().sum();
            let (sign, [t, n, _]) = (if numbers[0] < 0.0 { -1.0 } else { 1.0 }, *numbers);
            let (t, low) = (sign * t, sign * low);
            let square = (t + n) * low;
            // on the edge of the ball, or past it: as far as numbers go
            let r = if square > 0.0 { square.sqrt() } else { 0.0 };
            let sigma = if n == 0.0 { 0.0 } else { (n / r).asinh().min(LONGEST) };
            *numbers = [sign * r, sigma, n];
        }
        Ok(())
    }
}

/// Makes a vector one of length 1, turned round if asked, and says its length.
struct Unit<'a>(&'a mut [f64], bool);
impl Kernel for Unit<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut top = f64x8::splat(s, 0.0);
        for v in self.0.chunks_exact(8) {
            top = top.max(f64x8::from_slice(s, v).abs());
        }
        let top = top.as_slice().iter().fold(0.0, |a: f64, &b| a.max(b));
        if top == 0.0 || !top.is_finite() {
            return top;
        }
        // squares of large coordinates would overflow
        let (per, mut square) = (1.0 / top, f64x8::splat(s, 0.0));
        for v in self.0.chunks_exact(8) {
            let v = f64x8::from_slice(s, v) * per;
            square = v.mul_add(v, square);
        }
        let root = hsum(square).sqrt();
        let per = if self.1 { -per } else { per } / root;
        for v in self.0.chunks_exact_mut(8) {
            (f64x8::from_slice(s, v) * per).store_slice(v);
        }
        root * top
    }
}

/// w(e^−σ + (1 − cos θ) sinh σ) of entries
struct Low<'a, T> {
    groups: &'a Groups<'a, T>,
    lifted: &'a Lifted,
    polar: &'a Polar,
    range: Range<usize>,
    out: &'a mut [f64],
}
impl<T: Store> Kernel for Low<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Low { groups, lifted, polar, range, out } = self;
        let (d, pad, root) = (groups.d, polar.pad, groups.c.sqrt());
        let mut group = groups.indptr.partition_point(|&p| p <= range.start) - 1;
        for (entry, out) in range.zip(out) {
            while groups.indptr[group + 1] <= entry {
                group += 1;
            }
            let row = groups.row(entry);
            let (x, n) = (&groups.x[row * d..][..d], &polar.n[group * pad..][..pad]);
            let length = lifted.squares[row].sqrt();
            let per = f64x8::splat(s, if length > 0.0 { 1.0 / length } else { 0.0 });
            let mut q = [f64x8::splat(s, 0.0); 2];
            for (x, n) in x.chunks(STEP).zip(n.chunks_exact(STEP)) {
                let (x, n) = (if x.len() == STEP { T::load16(s, x) } else { T::load_tail(s, x) }, f64::load16(s, n));
                for k in 0..2 {
                    let v = x[k].mul_add(per, -n[k]);
                    q[k] = v.mul_add(v, q[k]);
                }
            }
            let sinh = root * length * lifted.f[row];
            let half = if length > 0.0 { hsum(q[0] + q[1]) * 0.5 } else { 0.0 };
            *out = groups.weight(entry) * sinh.mul_add(half, 1.0 / (lifted.tau[row] + sinh));
        }
    }
}

pub fn midpoints<T: Store>(groups: &Groups<T>, lifted: &Lifted, out: &mut [T]) -> Result<()> {
    let polar = Polar::new(groups, lifted)?;
    let (d, root) = (groups.d, groups.c.sqrt());
    for (i, &[_, sigma, _]) in polar.numbers.iter().enumerate() {
        let length = sigma / (root + root);
        for (o, n) in out[i * d..][..d].iter_mut().zip(&polar.n[i * polar.pad..]) {
            *o = T::from_f64(n * length);
        }
    }
    Ok(())
}

/// How dc is made of what rows add up to.
pub struct Curve {
    /// Whether rows add up ⟨x, dx⟩.
    pub far: bool,
    c: f64,
    /// Σ⟨g, m⟩, or what it adds beside the rows.
    own: f64,
}
impl Curve {
    pub fn dc(&self, rows: f64) -> f64 {
        if self.far { (rows - self.own) / (self.c + self.c) } else { rows + self.own }
    }
}

/// What [`pull`](super::pull) needs of every group.
pub fn centres<T: Store>(groups: &Groups<T>, lifted: &Lifted, g: &[T]) -> Result<(Centres, Curve)> {
    let polar = Polar::new(groups, lifted)?;
    let (d, pad, root) = (groups.d, polar.pad, groups.c.sqrt());
    let longest = lifted.squares.iter().fold(0.0, |a: f64, &b| a.max(b));
    let mut curve = Curve { far: 4.0 * groups.c * longest > FAR, c: groups.c, own: 0.0 };
    let mut up = try_vec(pad * groups.len(), 0.0)?;
    let mut numbers = try_vec(groups.len(), [0.0; 5])?;
    for i in 0..groups.len() {
        let ([r, sigma, n], axis) = (polar.numbers[i], &polar.n[i * pad..][..d]);
        let (g, up) = (&g[i * d..][..d], &mut up[i * pad..][..d]);
        let mut along = 0.0;
        for (g, n) in g.iter().zip(axis) {
            along += g.to_f64() * n;
        }
        for ((up, g), n) in up.iter_mut().zip(g).zip(axis) {
            *up = g.to_f64() - along * n;
        }
        // at the edge, or where nothing has a weight, there is no gradient
        let q = n / r;
        if r == 0.0 || !q.is_finite() {
            continue;
        }
        let shape = if q.abs() > 0.0 { sigma / q.abs() } else { 1.0 };
        numbers[i] = [1.0 / r, sigma, along, shape, q.mul_add(q, 1.0).sqrt()];
        let length = sigma / (root + root);
        curve.own += if curve.far {
            along * length
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
    }
    Ok((Centres { m: polar.n, lo: Vec::new(), up, numbers, pad, far: curve.far }, curve))
}
