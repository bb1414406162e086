//! The matrix written out, for those who want to see it. The one rule: every entry is the one that the products use.

use super::matrix::Matrix;
use base::Result;
use base::lane::Stored;
use base::pool::{self, Shared};
use base::random::LANES;
use base::store::Store;

/// Rows and columns that a thread writes at a time.
const ROWS: usize = 128;
const COLUMNS: usize = 1024;

/// P with its scale, each entry rounded once.
pub fn write<T: Stored>(matrix: &Matrix, out: &mut [T]) -> Result<()> {
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
