//! The matrix written out, for those who want to see it. The one rule: every entry is the one that the products use.

use super::matrix::Matrix;
use crate::Result;
use crate::lane::Stored;
use crate::pool::{self, Shared};
use crate::random::LANES;
use crate::simd::*;
use crate::store::Store;

/// Rows and columns that a thread writes at a time.
const ROWS: usize = 128;
const COLUMNS: usize = 1024;

/// P with its scale, each entry rounded once.
pub fn write<T: Stored>(matrix: &Matrix, out: &mut [T]) -> Result<()> {
    let (rows, columns) = (matrix.rows, matrix.cols);
    let (across, y) = (columns.div_ceil(COLUMNS), Shared(out.as_mut_ptr()));
    pool::run(rows.div_ceil(ROWS) * across, rows.saturating_mul(columns), |b| {
        let (i, j) = (b / across * ROWS, b % across * COLUMNS);
        // SAFETY: a rectangle of its own, within the matrix.
        let y = unsafe { y.at(i * columns + j) };
        dispatch(Part { matrix, y, i, j, rows: ROWS.min(rows - i), columns: COLUMNS.min(columns - j) });
    })
}

struct Part<'a, T> {
    matrix: &'a Matrix,
    y: *mut T,
    i: usize,
    j: usize,
    rows: usize,
    columns: usize,
}

impl<T: Stored> Kernel for Part<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for c in (0..self.columns).step_by(LANES) {
            let many = LANES.min(self.columns - c);
            self.matrix.columns(
                s,
                self.i,
                self.rows,
                self.j + c,
                #[inline(always)]
                |i, entries: &[T::Lane; LANES]| {
                    // SAFETY: row i − self.i and columns c … c + many of the rectangle.
                    let y = unsafe {
                        std::slice::from_raw_parts_mut(self.y.add((i - self.i) * self.matrix.cols + c), many)
                    };
                    for (y, e) in y.iter_mut().zip(entries) {
                        *y = T::from_f64(e.to_f64() * self.matrix.scale);
                    }
                },
            );
        }
    }
}
