//! How a product is cut: x into panels of columns and blocks of rows, A into runs of rows. The one rule: no cut shows in the bits.

use super::{Index, Pattern};
use crate::csr::spmm::Real;
use base::pool;
use base::vector::Isa;

/// Bytes of x that a panel block may hold: half of the smallest L2 cache among machines with AVX-512.
const PANEL: usize = 512 * 1024;
/// Entries per row and block that make it worth storing and reloading the sums.
const PER_BLOCK: usize = 16;
/// Entries per row of x that pay for copying it.
const REUSE: usize = 4;
/// Multiply-adds in one task, about: a call can be stopped between tasks.
const TASK: usize = 1 << 28;

/// Elements in a cache line.
pub(super) const fn line<T>() -> usize {
    64 / size_of::<T>()
}

/// How a product is cut.
pub(super) struct Plan {
    pub(super) isa: Isa,
    /// Columns of x: this many, in vectors of so many lanes, so many vectors in all, dealt evenly to panels.
    pub(super) n: usize,
    pub(super) lanes: usize,
    pub(super) vectors: usize,
    pub(super) panels: usize,
    /// Rows of x per block, and blocks.
    pub(super) height: usize,
    pub(super) blocks: usize,
    pub(super) copied: bool,
    /// Runs of rows of A.
    pub(super) parts: usize,
}

impl Plan {
    pub(super) fn new<T: Real, I: Index>(a: &Pattern<I>, batch: usize, n: usize) -> Plan {
        let isa = Isa::current();
        let (lanes, most) = T::shape(isa);
        let vectors = n.div_ceil(lanes);
        let panels = vectors.div_ceil(most);
        let width = (vectors.div_ceil(panels) * lanes).min(n);
        let (entries, rows, cols) = (a.entries(), a.rows().max(1), a.cols().max(1));
        let line = line::<T>();
        let fits = (PANEL / (width.next_multiple_of(line) * size_of::<T>())).max(1);
        let mut blocks = cols.div_ceil(fits);
        if entries / rows / blocks < PER_BLOCK {
            blocks = 1;
        }
        let height = cols.div_ceil(blocks);
        let copied = n >= line && height <= fits && entries / cols >= REUSE;
        let tasks = batch.saturating_mul(panels);
        let wanted = (4 * pool::threads()).div_ceil(tasks);
        // a run of rows copies the panel again
        let cheap = if copied { entries / cols / 16 } else { rows };
        let parts = if pool::threads() == 1 { 1 } else { wanted.min(cheap) };
        let parts = parts.max(entries.saturating_mul(width) / TASK).clamp(1, rows);
        Plan { isa, n, lanes, vectors, panels, height, blocks: cols.div_ceil(height), copied, parts }
    }

    /// The columns of a panel: never fewer than a vector has lanes, unless all of x has fewer.
    pub(super) fn columns(&self, panel: usize) -> std::ops::Range<usize> {
        let bound = |p: usize| (p * self.vectors / self.panels * self.lanes).min(self.n);
        bound(panel)..bound(panel + 1)
    }
}
