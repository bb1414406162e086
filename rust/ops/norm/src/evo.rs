//! EvoNorm (Liu et al., 2020), of the batch y = γx/max(a, px + q) + β and of groups y = γxσ(vx)/d + β. The one rule: a channel of a
//! sample is met as one, and the moments of batches and groups are those of what they are made of.
//!
//! a = (var_B + ε)^½ of a channel, and of a channel of a sample, with b = (var_I + ε)^½ and ρ = (mean_I x² + ε)^½: p, q = v, b; ρ, ρ;
//! −1, ρ. d = (var_G + ε)^½, in the last variant (mean_G x² + ε)^½. Backwards, h = γg:
//! of the batch, k = −hx/max², where px + q > a and 0 elsewhere, k' the others: dx = h/max + kp + (x − μ_I)Σk/(n_I b) + (x − μ_B)Σk'/(n_B a),
//! with x Σk(x + 1)/(n_I ρ) or xΣk/(n_I ρ) for the third term; of groups,
//! dx = hσ(1 + vx(1 − σ))/d − (x − μ_G)Σhxσ/(n_G d³).

mod back;
mod told;

pub use back::backward;

use crate::affine::{load, store};
use base::math;
use base::near::scaled;
use base::simd::*;
use base::store::Store;
use base::{Dtype, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks::{self, BLOCK};
use drivers::segments::moments::Moment;
use drivers::segments::moments_of;
use drivers::segments::places::Out;
use drivers::segments::walk::{Piece, lanes};
use std::ops::Range;
use told::{Line, Told, Variant, var};

#[inline(always)]
fn sigmoid<S: Simd, T: Store>(s: S, z: f64x8<S>) -> f64x8<S> {
    let e = if size_of::<T>() < 8 { math::single::exp(s, -z) } else { math::exp(s, -z) };
    f64x8::splat(s, 1.0) / (e + 1.0)
}

/// The moments of planes.
struct Met<'a, T>(&'a [T], usize);
impl<T: Store> Kernel for Met<'_, T> {
    type Output = Vec<Moment>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Moment> {
        let mut all = Vec::with_capacity(self.0.len() / self.1);
        for x in self.0.chunks_exact(self.1) {
            all.push(moments_of(s, x));
        }
        all
    }
}

/// y of planes, by their lines.
struct Map<'a, T> {
    grouped: bool,
    lines: &'a [Line],
    x: &'a [T],
    y: &'a mut [T],
    i: usize,
}
impl<T: Store> Kernel for Map<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Map { grouped, lines, x, y, i } = self;
        for ((line, x), y) in lines.iter().zip(x.chunks_exact(i)).zip(y.chunks_exact_mut(i)) {
            let [a, p, q, gamma, beta] = [line.a, line.p, line.q, line.gamma, line.beta].map(|v| f64x8::splat(s, v));
            lanes(
                i,
                #[inline(always)]
                |at, n| {
                    let mut x = load(s, x, at, n);
                    for x in &mut x {
                        *x = if grouped {
                            (*x * sigmoid::<S, T>(s, *x * p)).mul_add(a * gamma, beta)
                        } else {
                            let right = x.mul_add(p, q);
                            (gamma * *x / (right.simd_gt(a) | !right.simd_eq(right)).select(right, a)) + beta
                        };
                    }
                    store(s, x, y, at, n);
                },
            );
        }
    }
}

/// What blocks left, in their order.
fn joined<V: Copy + Default>(parts: Vec<Vec<V>>, n: usize) -> Result<Vec<V>> {
    let (mut all, mut at) = (try_vec(n, V::default())?, 0);
    for part in parts {
        all[at..at + part.len()].copy_from_slice(&part);
        at += part.len();
    }
    Ok(all)
}

/// Blocks of planes of i elements.
fn planes<V: Send>([n, c, i]: [usize; 3], f: impl Fn(Range<usize>, Range<usize>) -> V + Sync) -> Result<Vec<V>> {
    let many = if i == 0 { 0 } else { n * c };
    blocks::map(many, BLOCK / i.max(1), many * i, |some| Ok(f(some.clone(), some.start * i..some.end * i)))
}

/// x, γ, β, v, variances; y, variances, and mean and variance of each channel of a sample.
pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let mut told = Told::new(&t[0], [&t[1], &t[2], &t[3], &t[4]], s)?;
    let [n, c, i] = told.shape;
    for (name, at, len) in [("y", 5, n * c * i), ("var", 6, c), ("own", 7, 2 * n * c)] {
        t[at].expect(name, len)?;
    }
    if t[0].dtype() == Dtype::F64 {
        let x = t[0].slice::<f64>()?;
        let own = moments(&told, x)?;
        return match told.near(x, &own)? {
            Some(near) => {
                let own = moments(&told, &near)?;
                map(&told, &near, &own, t)
            }
            None => map(&told, x, &own, t),
        };
    }
    by_float!(t[0], T => {
        let x = t[0].slice::<T>()?;
        map(&told, x, &moments(&told, x)?, t)
    })
}

/// The moments of the channels of samples.
fn moments<T: Store>(told: &Told, x: &[T]) -> Result<Vec<Moment>> {
    let [n, c, i] = told.shape;
    joined(planes(told.shape, |_, at| dispatch(Met(&x[at], i)))?, if i == 0 { 0 } else { n * c })
}

/// y of x, or of what stands for it, and what is known of it.
fn map<T: Store>(told: &Told, x: &[T], own: &[Moment], t: &[Tensor]) -> Result<()> {
    let (grouped, i) = (told.grouped(), told.shape[2]);
    let around = told.merged(own)?;
    let mut lines = try_vec(own.len(), Line::default())?;
    for (at, line) in lines.iter_mut().enumerate() {
        *line = told.line(at, own[at], &around);
    }
    let y = Out::new(t[5].slice_mut::<T>()?);
    planes(told.shape, |some, at| {
        let y = y.part(&Piece { at: at.start, len: at.len(), of: [] });
        dispatch(Map { grouped, lines: &lines[some], x: &x[at], y, i });
    })?;
    let square = |v: f64, plane: usize| scaled(scaled(v, told.power(plane)), told.power(plane));
    let kept = t[7].slice_mut::<f64>()?;
    kept.fill(f64::NAN);
    for (at, (to, m)) in kept.as_chunks_mut::<2>().0.iter_mut().zip(own).enumerate() {
        *to = [scaled(m.mean, told.power(at)), square(var(m), at)];
    }
    let whole = t[6].slice_mut::<f64>()?;
    match &told.given {
        _ if grouped => whole.fill(0.0),
        Some(given) => whole.copy_from_slice(given),
        None => whole.iter_mut().zip(&around).enumerate().for_each(|(c, (to, m))| *to = square(var(m), c)),
    }
    Ok(())
}
