//! Rows whose squares are no ordinary numbers. The one rule: they and their curvature are brought near 1 by powers of two, which
//! changes no digit of what they are to each other.

use super::call::{numbers, put};
use super::functor::{Count, RowOp};
use super::run;
use base::dd::Num;
use base::near::times;
use base::simd::*;
use base::{Dtype, Result, Tensor, try_vec};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether rows were met whose squares, or those of differences by an ulp, are no ordinary numbers of twice the precision.
#[derive(Default)]
pub struct Met(AtomicBool);

const LEAST: f64 = f64::from_bits((1023 - 800) << 52);
const MOST: f64 = f64::from_bits((1023 + 960) << 52);
/// Exponents of rows with such squares, whatever their number of elements.
const ORDINARY: std::ops::RangeInclusive<i32> = -400..=440;

impl Met {
    /// Looks at a sum of squares of float64 data: of each row, or of all that meet.
    #[inline(always)]
    pub fn see<S: Simd, N: Num<S>>(&self, squares: N) {
        let v = squares.get();
        if !N::SINGLE && !(v.simd_ge(LEAST) & v.simd_le(MOST)).all_true() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A row's largest element as a power of two; none where it has no element that is finite and not 0.
fn exponent(row: &[f64]) -> Option<i32> {
    let top = row.iter().fold(0.0, |top: f64, v| if v.abs() > top || v.is_nan() { v.abs() } else { top });
    (top > 0.0 && top.is_finite()).then(|| (top.to_bits() >> 52) as i32 - 1023)
}

/// Runs an operator whose last row number is a curvature, and once more with rows that were scaled if by what it `met` it has
/// to. The first `lengths` vectors are lengths, as 1/√c is, and each other one may have any; the results are a number that is a
/// length to the power of `degree`, after gradients of such a length by the vectors. No output may be an input.
pub fn scaled<OP: RowOp>(op: &OP, met: impl Fn(&OP) -> &Met, t: &[Tensor], lengths: usize, degree: i32) -> Result<()> {
    run(op, t)?;
    let (v, g, o) = (OP::Vectors::N, OP::Given::N, OP::Outputs::N);
    if t[0].dtype() != Dtype::F64 || !met(op).any() {
        return Ok(());
    }
    let (x, given, y, number) = (&t[..v], &t[v..v + g], &t[v + g..v + g + o], &t[v + g + o]);
    let d = x[0].rows().1;
    let n = x.iter().map(|x| x.rows().0).chain(given.iter().map(Tensor::len)).max().unwrap_or(0);
    if n == 0 || x.iter().any(Tensor::is_empty) {
        return Ok(());
    }
    // the power of two of every row: what is a length has that of the longest
    let mut by = try_vec((v + 1) * n, 0)?;
    for (k, x) in x.iter().enumerate() {
        let (one, x) = (x.rows().0 == 1, x.slice::<f64>()?);
        let own = &mut by[(k + 1) * n..(k + 2) * n];
        for (r, e) in own.iter_mut().enumerate() {
            *e = exponent(&x[if one { 0 } else { r * d }..][..d]).unwrap_or(i32::MIN);
        }
    }
    for r in 0..n {
        by[r] = (1..=lengths).map(|k| by[k * n + r]).max().unwrap_or(i32::MIN);
        (1..=lengths).for_each(|k| by[k * n + r] = by[r]);
    }
    if !by.iter().any(|e| *e != i32::MIN && !ORDINARY.contains(e)) {
        return Ok(()); // rows of zeros
    }
    by.iter_mut().filter(|e| **e == i32::MIN).for_each(|e| *e = 0);
    let mut rows = Vec::new();
    for (k, x) in x.iter().enumerate() {
        let (one, x) = (x.rows().0 == 1, x.slice::<f64>()?);
        let mut own = try_vec(n * d, 0.0)?;
        for (r, row) in own.chunks_exact_mut(d).enumerate() {
            row.copy_from_slice(&x[if one { 0 } else { r * d }..][..d]);
            times(row, -by[(k + 1) * n + r]);
        }
        rows.push(own);
    }
    let mut c = try_vec(n, 0.0)?;
    let mut found = try_vec(n, 0.0)?;
    for (r, c) in c.iter_mut().enumerate() {
        numbers(&given[g - 1], if given[g - 1].len() == 1 { 0 } else { r }, std::slice::from_mut(c));
        (0..2).for_each(|_| times(std::slice::from_mut(c), by[r]));
        *c = c.min(f64::MAX); // beyond that, rows of this length are outside
    }
    let mut out = Vec::new();
    for _ in 0..o {
        out.push(try_vec(n * d, 0.0)?);
    }
    let array = |a: &mut Vec<f64>, shape: &[usize]| {
        // SAFETY: as many numbers as the shape says, which live until the call is over; moving their vector leaves them.
        unsafe { Tensor::new(a.as_mut_ptr().cast(), shape, Dtype::F64, true) }
    };
    let mut all = Vec::new();
    for a in &mut rows {
        all.push(array(a, &[n, d])?);
    }
    all.extend_from_slice(&given[..g - 1]);
    all.push(array(&mut c, &[n])?);
    for a in &mut out {
        all.push(array(a, &[n, d])?);
    }
    all.push(array(&mut found, &[n])?);
    run(op, &all)?;
    for (r, v) in found.iter_mut().enumerate() {
        (0..degree).for_each(|_| times(std::slice::from_mut(v), by[r]));
    }
    write(number, &found, 1)?;
    for (k, (y, own)) in y.iter().zip(&mut out).enumerate() {
        for (r, row) in own.chunks_exact_mut(d).enumerate() {
            times(row, by[r] - by[(k + 1) * n + r]);
        }
        write(y, own, d)?;
    }
    Ok(())
}

/// Rows of `d`, or their sum where the output is one row.
fn write(y: &Tensor, own: &[f64], d: usize) -> Result<()> {
    let mut sum = try_vec(d, 0.0)?;
    let whole = if y.len() == own.len() {
        own
    } else {
        for row in own.chunks_exact(d) {
            for (s, v) in sum.iter_mut().zip(row) {
                *s += v;
            }
        }
        &sum
    };
    // SAFETY: as many numbers as the output has; the caller's call owns it.
    unsafe { put(y, 0, whole) };
    Ok(())
}
