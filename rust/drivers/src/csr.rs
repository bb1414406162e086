//! Sparse matrices by rows (CSR). The one rule: an index is checked as it is read, whatever was checked before: the
//! arrays belong to the caller, who may write to them while a kernel runs.
//!
//! The canonical form has ascending columns in each row (equal ones stay in the order given, and add up); [`sort`] makes
//! it, the products ask for it.

mod build;
mod product;
mod sampled;
pub mod spmm;

pub use build::{count, dense, fill, gather, sort, take, transpose};
pub use product::spmm;
pub use sampled::{Dot, row_sums, sddmm};

use base::{Element, Error, Result, pool};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering};

/// An index as it lies in memory.
///
/// # Safety
/// `read` touches one element.
pub unsafe trait Index: Element + Ord + std::fmt::Display {
    /// Reads `*p` once, whoever may be writing it. A negative index comes back larger than any size.
    ///
    /// # Safety
    /// `p` points to an element alive and aligned.
    unsafe fn read(p: *const Self) -> usize;
    /// The index as this type, if it fits.
    fn new(i: usize) -> Option<Self>;
}

macro_rules! index { ($($t:ty, $a:ty);*) => { $(
    // SAFETY: one relaxed load of one element: an ordinary move that the compiler will not repeat.
    unsafe impl Index for $t {
        #[inline(always)]
        unsafe fn read(p: *const Self) -> usize {
            // SAFETY: an atomic has the layout of its number; the caller vouches for the pointer.
            unsafe { (*p.cast::<$a>()).load(Ordering::Relaxed) as usize }
        }
        #[inline(always)]
        fn new(i: usize) -> Option<Self> {
            Self::try_from(i).ok()
        }
    }
)* } }
index!(i32, AtomicI32; i64, AtomicI64);

/// Where the rows begin: a copy of `indptr`, found to start at 0, never to fall, and to end at `entries`.
pub fn offsets<I: Index>(indptr: &[I], entries: usize) -> Result<Vec<usize>> {
    let mut ptr: Vec<usize> = Vec::new();
    ptr.try_reserve_exact(indptr.len()).map_err(|_| Error::Memory(indptr.len().saturating_mul(size_of::<usize>())))?;
    let mut before = 0;
    for (i, p) in indptr.iter().enumerate() {
        // SAFETY: an element of the slice.
        let at = unsafe { I::read(p) };
        if i == 0 && at != 0 {
            return Err(Error::Value(format!("indptr starts at {p}, not at 0")));
        }
        if at < before || at > isize::MAX as usize {
            return Err(Error::Value(format!("indptr falls from {before} to {p} at row {}", i.saturating_sub(1))));
        }
        before = at;
        ptr.push(at);
    }
    match ptr.last() {
        None => Err(Error::Value("indptr is empty; it has one entry more than rows".into())),
        Some(&end) if end != entries => {
            Err(Error::Value(format!("indptr ends at {end}, but {entries} entries are stored")))
        }
        Some(_) => Ok(ptr),
    }
}

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

/// What a kernel says that met an index out of bounds after all.
pub fn raced() -> Error {
    Error::Value("the index arrays were changed while they were read".into())
}

#[cfg(test)]
mod tests;
