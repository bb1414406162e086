//! The matrix written out, for those who want to see it. The one rule: every entry is the one that the products use.

use super::form::Projection;
use super::matrix::Matrix;
use base::lane::Stored;
use base::pool::{self, Shared};
use base::random::LANES;
use base::store::Store;
use base::{Result, try_vec};

/// Rows and columns that a thread writes at a time.
const ROWS: usize = 128;
const COLUMNS: usize = 1024;

/// Rows that are made of unit rows at a time, and how many numbers they may have.
const UNITS: usize = 256;
const MADE: usize = 1 << 20;

/// P with its scale, each entry rounded once.
pub fn write<T: Stored>(mut projection: Projection, out: &mut [T]) -> Result<()> {
    if let Projection::Entries(matrix) = projection {
        return entries(&matrix, out);
    }
    // no entry is made by itself: row i is the adjoint of unit vector i
    let (rows, columns) = (projection.matrix().rows, projection.matrix().cols);
    projection.matrix_mut().adjoint = true;
    let row = projection.matrix().row;
    let many = (MADE / columns.max(1)).clamp(1, UNITS).min(rows.max(1));
    let mut made = try_vec(many * columns, 0.0)?;
    for (n, out) in out.chunks_mut((many * columns).max(1)).enumerate() {
        let matrix = projection.matrix_mut();
        (matrix.row, matrix.rows) = (row + (n * many) as u64, out.len() / columns);
        let units = matrix.rows;
        let mut unit = try_vec(units * units, 0.0)?;
        unit.iter_mut().step_by(units + 1).for_each(|v| *v = 1.0);
        projection.apply(&unit, &mut made[..out.len()])?;
        for (y, &v) in out.iter_mut().zip(&made) {
            *y = T::from_f64(v);
        }
    }
    Ok(())
}

fn entries<T: Stored>(matrix: &Matrix, out: &mut [T]) -> Result<()> {
    let (rows, columns) = (matrix.rows, matrix.cols);
    let (across, y) = (columns.div_ceil(COLUMNS), Shared(out.as_mut_ptr()));
    pool::run(rows.div_ceil(ROWS) * across, rows.saturating_mul(columns), |b| {
        let (i, j) = (b / across * ROWS, b % across * COLUMNS);
        let mut entries = [[T::Lane::default(); LANES]; ROWS];
        let entries = &mut entries[..ROWS.min(rows - i)];
        for j in (j..columns.min(j + COLUMNS)).step_by(LANES) {
            matrix.block(i, j, entries);
            for (r, entries) in entries.iter().enumerate() {
                // SAFETY: a piece of a row that no other block writes.
                let y = unsafe { y.part((i + r) * columns + j, LANES.min(columns - j)) };
                for (y, e) in y.iter_mut().zip(entries) {
                    *y = T::from_f64(e.to_f64() * matrix.scale);
                }
            }
        }
    })
}
