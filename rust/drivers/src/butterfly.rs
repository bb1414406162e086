//! The fast Walsh–Hadamard transform of many rows. The one rule: levels go from the lowest bit of the index to the
//! highest, whatever the blocking, so that the bits of a result depend on neither blocks, threads nor ISA.
//!
//! y = (H_K ⊗ H₂ ⊗ … ⊗ H₂) x with H₂ = [1 1; 1 −1] and K one of 1, 12, 20, 28 (see `paley`); divided by √n where asked.
//! All these matrices are symmetric, so the transform is its own adjoint and, divided by √n, its own inverse.
//!
//! A row goes through walks: pieces that stay in the first caches, then levels across pieces, a few at a time, then H_K.

use crate::blocks;
use base::lane::{Lane, Stored, same};
use base::pool::{self, Shared};
use base::simd::*;
use base::store::{Bf16, F16};
use base::{Dtype, Error, Result, Tensor, stream, try_vec};
use lines::Lines;
pub use long::Fill;
use long::Given;
pub use made::{LEAST, made};
use rows::{Read, Rows, Write};
pub use work::peak;

mod aside;
mod beside;
mod finish;
mod lanes;
mod levels;
mod lines;
mod long;
mod made;
pub mod paley;
mod rows;
#[cfg(test)]
mod tests;
mod work;

/// Elements of rows that a thread takes at a time; longer rows are cut.
const UNIT: usize = 1 << 16;
/// Rows up to this length leave room in the caches for the one before and the one after.
const NEAR: usize = 1 << 14;

/// K and m of n = K·2^m, if there is a transform of that size.
pub fn split(n: usize) -> Option<(usize, u32)> {
    if n == 0 {
        return None;
    }
    let m = n.trailing_zeros();
    match n >> m {
        1 => Some((1, m)),
        odd @ (3 | 5 | 7) if m >= 2 => Some((4 * odd, m - 2)),
        _ => None,
    }
}

/// y = H x over the last axis; `y` may be `x`. With `ortho` divided by √n.
pub fn fwht(x: &Tensor, y: &Tensor, ortho: bool) -> Result<()> {
    let (_, n) = x.rows();
    if x.shape().is_empty() {
        return Err(Error::Value("the transform needs a last axis, got a 0-d array".into()));
    }
    if x.shape() != y.shape() {
        return Err(Error::Value(format!("the output has shape {:?}, the input {:?}", y.shape(), x.shape())));
    }
    let Some((k, m)) = split(n) else {
        return Err(Error::Value(format!(
            "there is no Walsh-Hadamard transform of length {n}: it must be 2^m, 12*2^m, 20*2^m or 28*2^m"
        )));
    };
    let scale = if ortho { 1.0 / (n as f64).sqrt() } else { 1.0 };
    let plan = Plan { n, k, m, scale, growth: n.next_power_of_two().trailing_zeros() as i32 };
    match x.dtype() {
        Dtype::F32 => plan.run::<f32>(x, y),
        Dtype::F64 => plan.run::<f64>(x, y),
        Dtype::F16 => plan.run::<F16>(x, y),
        Dtype::Bf16 => plan.run::<Bf16>(x, y),
        other => Err(Error::Type(format!("expected a float array, got {}", other.name()))),
    }
}

/// x = scale·H x in place, of one row of a length that there is: the caller sees to it that no sum overflows (see [`quiet`]).
pub fn row<L: Lane>(x: &mut [L], scale: f64) -> Result<()> {
    let n = x.len();
    let Some((k, m)) = split(n) else {
        return Err(Error::Value(format!("there is no Walsh-Hadamard transform of length {n}")));
    };
    let plan = Plan { n, k, m, scale, growth: 0 };
    if n <= UNIT {
        return Rows { plan, x: x.as_ptr(), y: x, stream: false }.run();
    }
    let row = Shared(x.as_mut_ptr());
    plan.walk(&Shared(row.0), &row, n)
}

/// A power of two to begin with and one to end with, so that numbers up to `peak` that grow by no more than 2^`bits` stay finite.
pub fn quiet<L: Lane>(peak: f64, bits: i32) -> (f64, f64) {
    let most = if L::LANES == 16 { f32::MAX.into() } else { f64::MAX };
    if bits <= 0 || peak <= most * 2f64.powi(-bits) { (1.0, 1.0) } else { (2f64.powi(-bits), 2f64.powi(bits)) }
}

#[derive(Clone, Copy)]
pub struct Plan {
    n: usize,
    k: usize,
    m: u32,
    scale: f64,
    /// By how many bits numbers may grow on the way, where somebody has to look at them first.
    growth: i32,
}

impl Plan {
    fn run<T: Stored>(self, x: &Tensor, y: &Tensor) -> Result<()> {
        x.slice::<T>()?;
        let out = Shared(y.slice_mut::<T>()?.as_mut_ptr());
        self.walk(&Shared(x.as_ptr().cast::<T>()), &out, x.len())
    }

    /// Of `len` numbers from `src` to `out`, which is the same memory or apart from it.
    fn walk<T: Stored>(self, src: &Shared<T>, out: &Shared<T>, len: usize) -> Result<()> {
        if self.n <= UNIT {
            let stream = T::SAME && src.0 != out.0 && self.n <= NEAR && len * size_of::<T>() >= stream::LARGE;
            // the first rows of a unit have none that go out beside them
            let unit = self.n * (if stream { 4 * UNIT } else { UNIT } / self.n).max(1);
            return all(pool::map(len.div_ceil(unit), len, |b| {
                let (at, len) = (b * unit, unit.min(len - b * unit));
                // SAFETY: units do not overlap; `src` is `out` or lies apart, by the contract of an operator.
                let (x, y) = unsafe { (src.at(at).cast_const(), out.part(at, len)) };
                let done = Rows { plan: self, x, y, stream }.run();
                stream::fence();
                done
            })?);
        }
        let mut wide = try_vec(if T::SAME { 0 } else { self.n }, T::Lane::of(0.0))?;
        for at in (0..len).step_by(self.n) {
            // SAFETY: a row of each, which are one or apart.
            let (x, y) = unsafe { (std::slice::from_raw_parts(src.at(at).cast_const(), self.n), out.part(at, self.n)) };
            if T::SAME {
                self.long(x.as_ptr().cast(), same(y).unwrap_or_default())?;
            } else {
                blocks::fill(&mut wide, 1, 1, |first, a| {
                    dispatch(Read { x: &x[first..first + a.len()], a });
                    Ok(())
                })?;
                self.long(wide.as_ptr(), &mut wide)?;
                blocks::fill(y, 1, 1, |first, y| {
                    dispatch(Write { a: &wide[first..first + y.len()], y });
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// One row that does not fit into the caches.
    fn long<L: Lane>(self, x: *const L, y: &mut [L]) -> Result<()> {
        let fill = Given { x, factor: L::of(1.0), growth: self.growth };
        let scale = |by: L| L::of(self.scale / by.to_f64()).to_f64();
        long::run(self, Lines::whole(y.as_mut_ptr(), 0), &fill, scale, false)
    }

    /// Whether no sum of a row with such numbers overflows.
    fn fits<L: Lane>(self, peak: impl FnOnce() -> f64) -> bool {
        self.growth == 0 || quiet::<L>(peak(), self.growth).0 == 1.0
    }

    /// A power of two to begin with and a factor to end with, so that no sum overflows where the result does not.
    fn quiet<L: Lane>(self, peak: f64) -> (L, f64) {
        let (down, up) = quiet::<L>(peak, self.growth);
        (L::of(down), self.scale * up)
    }
}

fn all(results: Vec<Result<()>>) -> Result<()> {
    results.into_iter().collect()
}
