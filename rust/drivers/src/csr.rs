//! Sparse matrices by rows (CSR). The one rule: an index is checked as it is read ([`crate::index`]), whatever was checked
//! before.
//!
//! The canonical form has ascending columns in each row (equal ones stay in the order given, and add up); [`sort`] makes
//! it, the products ask for it.

mod build;
mod few;
mod lanes;
mod matmul;
mod once;
#[cfg(target_arch = "x86_64")]
mod one;
mod plan;
mod product;
mod row;
mod rows;
mod sampled;
mod softmax;
pub mod spmm;

pub use build::{count, dense, fill, gather, sort, take, transpose};
pub use lanes::{Lanes, Lined, Place, Value, lanes};
pub use matmul::{Matmul, matmul_count, matmul_places};
pub use product::spmm;
pub use rows::{Finish, linear, turned};
pub use sampled::{Dot, column_sums, row_sums, sddmm};
pub use softmax::{softmax, softmax_bwd};

use crate::index::offsets;
use base::{Error, Result, pool};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use crate::index::Index;

/// The places of the stored entries of a matrix in canonical form.
pub struct Pattern<'a, I> {
    indices: &'a [I],
    ptr: Vec<usize>,
    cols: usize,
}

impl<'a, I: Index> Pattern<'a, I> {
    /// Checks everything there is to check: bounds, order of the rows, order and range of the columns.
    pub fn new(indices: &'a [I], indptr: &[I], cols: usize) -> Result<Self> {
        let ptr = offsets(indptr, indices.len())?;
        let (rows, bad) = (ptr.len() - 1, AtomicUsize::new(usize::MAX));
        let blocks = rows.div_ceil(ROWS);
        let limit = cols as u64;
        pool::run(blocks, indices.len(), |b| {
            for i in b * ROWS..rows.min((b + 1) * ROWS) {
                let row = &indices[ptr[i]..ptr[i + 1]];
                // counted to the end, so that it becomes vectors
                let falls = row.windows(2).map(|w| u32::from(w[0] > w[1])).sum::<u32>() > 0;
                let inside = |p: Option<&I>| {
                    // SAFETY: an element of the slice.
                    p.is_none_or(|p| (unsafe { I::read(p) } as u64) < limit)
                };
                // in ascending order the ends say all, and a negative end is larger than any size
                if falls || !inside(row.first()) || !inside(row.last()) {
                    bad.fetch_min(i, Ordering::Relaxed);
                    break;
                }
            }
        })?;
        match bad.into_inner() {
            usize::MAX => Ok(Pattern { indices, ptr, cols }),
            i => Err(Error::Value(format!("the column indices of row {i} do not ascend within 0..{cols}"))),
        }
    }

    /// Checks the bounds of the rows alone: for kernels that take columns as they come, and compare each as they read it.
    pub fn bare(indices: &'a [I], indptr: &[I], cols: usize) -> Result<Self> {
        Ok(Pattern { indices, ptr: offsets(indptr, indices.len())?, cols })
    }

    pub fn rows(&self) -> usize {
        self.ptr.len() - 1
    }
    pub fn cols(&self) -> usize {
        self.cols
    }
    pub fn entries(&self) -> usize {
        self.indices.len()
    }

    /// Bounds of `parts` runs of rows with about the same number of rows and entries together.
    fn parts(&self, parts: usize) -> impl Fn(usize) -> std::ops::Range<usize> {
        let rows = self.rows();
        let total = self.entries() as u128 + rows as u128;
        let bound = move |t: usize| -> usize {
            let want = (total * t as u128 / parts as u128) as usize;
            let (mut lo, mut hi) = (0, rows);
            while lo < hi {
                let mid = lo + (hi - lo) / 2;
                if self.ptr[mid] + mid < want {
                    lo = mid + 1;
                } else {
                    hi = mid;
                }
            }
            lo
        };
        move |t| bound(t)..if t + 1 == parts { rows } else { bound(t + 1) }
    }

    /// Where the entries of every row pass from one block of `width` columns to the next: `blocks + 1` lists, one
    /// number per row in each.
    fn cuts(&self, width: usize, blocks: usize) -> Result<Vec<usize>> {
        let rows = self.rows();
        let size = rows.saturating_mul(blocks + 1);
        let mut cuts = base::try_vec(size, 0)?;
        cuts[..rows].copy_from_slice(&self.ptr[..rows]);
        cuts[blocks * rows..].copy_from_slice(&self.ptr[1..]);
        for b in 1..blocks {
            let limit = b * width;
            for i in 0..rows {
                let (from, to) = (cuts[(b - 1) * rows + i], self.ptr[i + 1]);
                let below = self.indices[from..to].partition_point(|k| {
                    // SAFETY: an element of the slice.
                    (unsafe { I::read(k) }) < limit
                });
                cuts[b * rows + i] = from + below;
            }
        }
        Ok(cuts)
    }
}

/// Rows that one task of a pass over the structure takes.
const ROWS: usize = 1024;
/// Entries that one task of a pass over them takes.
const ENTRIES: usize = 64 * 1024;

/// Refuses operands that have not as many elements as they should.
fn sized(operands: &[(&str, usize, Option<usize>)]) -> Result<()> {
    for (name, is, should) in operands {
        if Some(*is) != *should {
            return Err(Error::Value(format!("{name} has {is} elements, {should:?} are asked for")));
        }
    }
    Ok(())
}

/// What a kernel says that met an index out of bounds after all.
pub fn raced() -> Error {
    Error::Value("the index arrays were changed while they were read".into())
}

#[cfg(test)]
mod tests;
