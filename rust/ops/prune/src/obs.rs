//! Weights that make up for those that were pruned before them: x_k = w_k − Σ_{i<k} (x_i − ŵ_i) V_ik, ŵ_k = x_k if kept, else 0.
//! The one rule: a sum is added up in ascending i, so that a row comes out the same whatever rows it is decided with.
//!
//! With H = R Rᵀ, R upper triangular, and V the inverse of R / diag R, these are the weights of SparseGPT (Frantar & Alistarh
//! 2023) without the inverse of H: with those before k fixed, x_k is the best it can be. What is lost by pruning it is x_k² R_kk².
//! One call decides a strip of columns; what the columns before it send is in `x` already.

use base::simd::{Kernel, Simd, dispatch};
use base::vector::Float;
use base::{Dtype, Error, Result, Scalar, Tensor, try_vec};
use drivers::blocks;
use drivers::flat::Real;
use drivers::select::{bools, bools_mut};

/// Rows side by side.
const ACROSS: usize = 16;
/// The most columns that are decided together.
const MOST: usize = 16;

/// A strip of columns of sixteen rows: x, each as it is when it is decided.
struct Strip<'a, T> {
    x: &'a mut [[T; ACROSS]],
    kept: &'a mut [[bool; ACROSS]],
    /// [n, n]: V above the diagonal, R_kk² on it.
    factor: &'a [T],
    /// How many of how many columns stay where the mask is not given.
    pattern: Option<[usize; 2]>,
}

impl<T: Float + Real> Kernel for Strip<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let n = self.x.len();
        for k in 0..n {
            if let Some([keep, m]) = self.pattern.filter(|p| k % p[1] == 0) {
                let mut lost = [[T::default(); ACROSS]; MOST];
                for (j, lost) in lost.iter_mut().enumerate().take(m) {
                    let weight = self.factor[(k + j) * (n + 1)];
                    for (lost, &x) in lost.iter_mut().zip(&self.x[k + j]) {
                        *lost = x * x * weight;
                    }
                }
                for j in 0..m {
                    for r in 0..ACROSS {
                        // of equals the first is before the others
                        let before =
                            (0..m).filter(|&i| if i < j { lost[i][r] >= lost[j][r] } else { lost[i][r] > lost[j][r] });
                        self.kept[k + j][r] = before.count() < keep;
                    }
                }
            }
            let (done, rest) = self.x.split_at_mut(k + 1);
            let mut sent = [T::default(); ACROSS];
            for r in 0..ACROSS {
                sent[r] = if self.kept[k][r] { T::default() } else { -done[k][r] };
            }
            for (x, &factor) in rest.iter_mut().zip(&self.factor[k * n + k + 1..(k + 1) * n]) {
                for r in 0..ACROSS {
                    x[r] = sent[r].fused(factor, x[r]);
                }
            }
        }
    }
}

/// obs_strip(x[r, k], factor[k, k], mask[r, k]?; n, m) -> y, kept: x as it was decided, and which of it stays
pub fn obs_strip(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    match t[0].dtype() {
        Dtype::F64 => run::<f64>(t, s),
        Dtype::F32 => run::<f32>(t, s),
        other => Err(Error::Type(format!("x must be float64 or float32, got {}", other.name()))),
    }
}

fn run<T: Float + Real + base::Element>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let [x, factor, mask, y, kept] = t else { return Err(Error::Type("expected five arrays".into())) };
    let (rows, k) = x.rows();
    factor.expect_shape("factor", &[k, k])?;
    let (n, m) = (s[0].int() as usize, s[1].int() as usize);
    let pattern = if mask.shape() != x.shape() && mask.is_empty() {
        if !(1..=MOST).contains(&m) || n > m || !k.is_multiple_of(m) {
            return Err(Error::Value(format!("{n} of {m} does not divide {k} columns; m is at most {MOST}")));
        }
        Some([n, m])
    } else {
        mask.expect_shape("mask", x.shape())?;
        None
    };
    let (x, factor) = (x.slice::<T>()?, factor.slice::<T>()?);
    let given = if pattern.is_some() { &[] } else { bools(mask)? };
    let out = y.slice_mut::<T>()?;
    let marks = bools_mut(kept)?;
    let work = x.len().saturating_mul(k);
    let done = blocks::map(rows, ACROSS, work, |some| {
        let zero = [T::default(); ACROSS];
        let mut made = try_vec(k, zero)?;
        let mut keep = try_vec(k, [false; ACROSS])?;
        for (r, row) in some.clone().enumerate() {
            let at = row * k..(row + 1) * k;
            for (made, &x) in made.iter_mut().zip(&x[at.clone()]) {
                made[r] = x;
            }
            if pattern.is_none() {
                for (keep, &mark) in keep.iter_mut().zip(&given[at]) {
                    keep[r] = mark != 0;
                }
            }
        }
        dispatch(Strip { x: &mut made, kept: &mut keep, factor, pattern });
        Ok((made, keep))
    })?;
    for (b, (made, keep)) in done.into_iter().enumerate() {
        for row in b * ACROSS..rows.min((b + 1) * ACROSS) {
            let r = row - b * ACROSS;
            for j in 0..k {
                out[row * k + j] = made[j][r];
                marks[row * k + j] = u8::from(keep[j][r]);
            }
        }
    }
    Ok(())
}
