//! Rows far from one, brought near it by powers of two. The one rule: a row whose squares are ordinary numbers stays as it is,
//! and what is done to others is exact.

use crate::{Result, Tensor, try_vec};

/// Where squares, and their sums over any row, neither overflow nor vanish.
const ORDINARY: std::ops::RangeInclusive<f64> = {
    let most = f64::from_bits((1023 + 480) << 52);
    1.0 / most..=most
};

/// Rows x = rows · 2^by.
pub struct Near {
    pub rows: Vec<f64>,
    pub by: Vec<i32>,
}

/// The rows of `x`, if any of them is far; one that is not finite, or zero, is not.
pub fn near(x: &[f64], d: usize) -> Result<Option<Near>> {
    let top = |row: &[f64]| row.iter().fold(0.0, |top: f64, v| if v.abs() > top || v.is_nan() { v.abs() } else { top });
    let far = |row: &[f64]| Some(top(row)).filter(|m| *m > 0.0 && m.is_finite() && !ORDINARY.contains(m));
    if d == 0 || !x.chunks_exact(d).any(|row| far(row).is_some()) {
        return Ok(None);
    }
    let mut made = Near { rows: try_vec(x.len(), 0.0)?, by: try_vec(x.len() / d, 0)? };
    for ((from, to), by) in x.chunks_exact(d).zip(made.rows.chunks_exact_mut(d)).zip(&mut made.by) {
        *by = far(from).map_or(0, |m| (m.to_bits() >> 52) as i32 - 1023);
        to.copy_from_slice(from);
        times(to, -*by);
    }
    Ok(Some(made))
}

/// v · 2^e of a row
pub fn times(row: &mut [f64], e: i32) {
    // in two steps, since 2^e may be none of the numbers itself
    let [first, second] = [e / 2, e - e / 2].map(|e| f64::from_bits(((1023 + e) as u64) << 52));
    for v in row.iter_mut().filter(|_| e != 0) {
        *v = *v * first * second;
    }
}

/// v · 2^e
pub fn scaled(v: f64, e: i32) -> f64 {
    let mut v = [v];
    times(&mut v, e);
    v[0]
}

impl Near {
    /// The rows as an array of the shape of `like`.
    pub fn tensor<'a>(&'a mut self, like: &Tensor) -> Result<Tensor<'a>> {
        // SAFETY: as many numbers as `like` has, for as long as they are borrowed.
        unsafe { Tensor::new(self.rows.as_mut_ptr().cast(), like.shape(), crate::Dtype::F64, true) }
    }

    /// Gradients of the rows as those of x.
    pub fn back(&self, d: &Tensor) -> Result<()> {
        let d = d.slice_mut::<f64>()?;
        let width = d.len() / self.by.len().max(1);
        for (row, &by) in d.chunks_exact_mut(width.max(1)).zip(&self.by) {
            times(row, -by);
        }
        Ok(())
    }
}
