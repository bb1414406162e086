//! The projection of sparse rows. The one rule: the numbers of a row are taken in the order in which they are stored, and
//! every index is checked before anything is written and again as it is read.
//!
//! Where the entries are very sparse and the columns come up often, the lists of nonzero entries of all columns are drawn
//! once per call, as for dense rows. Otherwise the column that a number meets is drawn when it is met. Where a matrix is made of
//! transforms there are no columns to draw: some rows at a time are written out.

use super::form::Projection;
use super::matrix::{Kind, Matrix};
use super::sketch::Sketch;
use super::sparse::{self, INDICES};
use base::lane::Stored;
use base::pool::{self, Shared};
use base::simd::*;
use base::store::Store;
use base::{Dtype, Error, Result, try_vec};
use drivers::index::{Index, offsets, within};

/// Numbers of a result that are added up at a time.
const SEGMENT: usize = 8192;
/// Work of a thread at a time, in additions.
const UNIT: usize = 1 << 18;

/// Rows of x in CSR form: bounds that were checked, and columns that the caller may still write to.
pub struct Csr<'a, T, I> {
    data: &'a [T],
    indices: &'a [I],
    ptr: Vec<usize>,
}

impl<'a, T: Copy + Sync, I: Index> Csr<'a, T, I> {
    /// Refuses bounds that decrease or lie outside, and columns outside `0..columns`. Numbers after the last row are let be.
    pub fn new(data: &'a [T], indices: &'a [I], indptr: &[I], columns: usize) -> Result<Self> {
        let (n, m) = (data.len(), indices.len());
        if n != m {
            return Err(Error::Value(format!("data has {n} entries, indices {m}")));
        }
        // SAFETY: an element of the slice.
        let end = indptr.last().map_or(0, |p| unsafe { I::read(p) });
        if end > n {
            return Err(Error::Value(format!("indptr ends at {}, but {n} entries are stored", end as i64)));
        }
        let ptr = offsets(indptr, end)?;
        within("indices", &indices[..end], columns)?;
        Ok(Csr { data, indices, ptr })
    }

    /// Columns and numbers of a row.
    fn row(&self, r: usize) -> impl Iterator<Item = (usize, T)> {
        let part = self.ptr[r]..self.ptr[r + 1];
        // SAFETY: an element of the slice.
        self.indices[part.clone()].iter().map(|i| unsafe { I::read(i) }).zip(self.data[part].iter().copied())
    }
}

/// y = x Pᵀ, or x P for the adjoint.
pub fn apply<T: Stored, I: Index>(projection: &Projection, x: &Csr<T, I>, y: &mut [T]) -> Result<()> {
    match projection {
        Projection::Entries(matrix) => by_columns(matrix, None, x, y),
        Projection::Sketch(sketch) if !sketch.matrix.adjoint => by_columns(&sketch.matrix, Some(sketch), x, y),
        _ => written_out(projection, x, y),
    }
}

/// The numbers of some rows that are written out.
const DENSE: usize = 1 << 20;

fn written_out<T: Stored, I: Index>(projection: &Projection, x: &Csr<T, I>, y: &mut [T]) -> Result<()> {
    let (outputs, terms, n) = (projection.matrix().outputs(), projection.matrix().terms(), x.ptr.len() - 1);
    let many = (DENSE / terms.max(outputs).max(1)).clamp(1, n.max(1));
    let (mut dense, mut result) = (try_vec(many * terms, 0.0)?, try_vec(many * outputs, 0.0)?);
    for (first, y) in (0..n).step_by(many).zip(y.chunks_mut((many * outputs).max(1))) {
        let rows = many.min(n - first);
        let (dense, result) = (&mut dense[..rows * terms], &mut result[..rows * outputs]);
        dense.fill(0.0);
        for (r, dense) in dense.chunks_exact_mut(terms.max(1)).enumerate() {
            // what is out of bounds now was not when it was checked
            for (c, v) in x.row(first + r).filter(|&(c, _)| c < terms) {
                dense[c] += v.to_f64();
            }
        }
        projection.apply(dense, result)?;
        for (y, &v) in y.iter_mut().zip(&*result) {
            *y = T::from_f64(v);
        }
    }
    Ok(())
}

fn by_columns<T: Stored, I: Index>(matrix: &Matrix, sketch: Option<&Sketch>, x: &Csr<T, I>, y: &mut [T]) -> Result<()> {
    let (outputs, terms, n) = (matrix.outputs(), matrix.terms(), x.ptr.len() - 1);
    let nnz = x.data.len();
    let out = Shared(y.as_mut_ptr());
    let segment = SEGMENT.min(outputs).max(1);
    let indices = matrix.density() * terms as f64 * segment as f64;
    let table =
        sketch.is_none() && matches!(matrix.kind, Kind::Sparse(_)) && terms / 4 <= nnz && indices <= INDICES as f64;
    // rows of about equal work, by their number: bounds that do not depend on the threads
    let each = (UNIT / (nnz / n.max(1) + 1) / if table || sketch.is_some() { 4 } else { segment }).clamp(1, 4096);
    for first in (0..outputs).step_by(segment) {
        let width = segment.min(outputs - first);
        let lists = if table { sparse::by_term(matrix, first, width)? } else { Vec::new() };
        let work = nnz.saturating_add(n).saturating_mul(width);
        pool::map(n.div_ceil(each), work, |b| {
            let mut sums = Sums::new::<T>(width)?;
            let mut line = try_vec(if table { 0 } else { width }, 0f32)?;
            for r in b * each..n.min((b + 1) * each) {
                sums.clear();
                // what is out of bounds now was not when it was checked
                for (c, v) in x.row(r).filter(|&(c, _)| c < terms) {
                    let v = v.to_f64();
                    if let Some(sketch) = sketch {
                        let within = |o: usize| o.checked_sub(first).filter(|&o| o < width);
                        sketch.each(c, |o, sign| within(o).into_iter().for_each(|o| sums.add(o, v * sign)));
                    } else if table {
                        sparse::each(&lists, width, c, |o, sign| sums.add(o, v * sign));
                    } else {
                        matrix.line(c, first, &mut line);
                        dispatch(Axpy { v, line: &line, sums: &mut sums });
                    }
                }
                // SAFETY: this row's part of the result is this block's own.
                let y = unsafe { out.part(r * outputs + first, width) };
                for (o, y) in y.iter_mut().enumerate() {
                    *y = T::from_f64(sums.total(o) * matrix.scale);
                }
            }
            Ok(())
        })?
        .into_iter()
        .collect::<Result<()>>()?;
    }
    Ok(())
}

/// Sums in f64; those of f64 terms with their rounding errors (TwoSum). Smaller types have none that matter.
struct Sums {
    totals: Vec<f64>,
    errors: Vec<f64>,
    exact: bool,
}

impl Sums {
    fn new<T: Store>(n: usize) -> Result<Self> {
        Ok(Sums { totals: try_vec(n, 0.0)?, errors: try_vec(n, 0.0)?, exact: T::DTYPE == Dtype::F64 })
    }
    fn clear(&mut self) {
        self.totals.fill(0.0);
        self.errors.fill(0.0);
    }
    #[inline(always)]
    fn add(&mut self, o: usize, v: f64) {
        if self.exact {
            keep(&mut self.totals[o], &mut self.errors[o], v);
        } else {
            self.totals[o] += v;
        }
    }
    /// An infinite sum has errors that are not numbers.
    fn total(&self, o: usize) -> f64 {
        if self.errors[o].is_nan() { self.totals[o] } else { self.totals[o] + self.errors[o] }
    }
}

#[inline(always)]
fn keep(sum: &mut f64, error: &mut f64, v: f64) {
    let s = *sum + v;
    let b = s - *sum;
    *error += (*sum - (s - b)) + (v - b);
    *sum = s;
}

/// sums += v·line, where the line is not 0.
struct Axpy<'a> {
    v: f64,
    line: &'a [f32],
    sums: &'a mut Sums,
}

impl Kernel for Axpy<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Sums { totals, errors, exact } = self.sums;
        for ((sum, error), &e) in totals.iter_mut().zip(errors).zip(self.line) {
            let v = if e == 0.0 { 0.0 } else { self.v * f64::from(e) };
            if *exact {
                keep(sum, error, v);
            } else {
                *sum += v;
            }
        }
    }
}
