//! Rows in blocks: each block has its own part of a result, or leaves something, which comes back in their order. The one rule: the
//! bounds of blocks follow from the shapes alone.

use base::Result;
use base::pool::{self, Shared};
use std::ops::Range;

/// Elements in a block, if a row is not longer.
pub const BLOCK: usize = 1 << 14;

/// What `f` leaves of each block of `each` among `n`, in order; `work` in elements.
pub fn map<V: Send>(
    n: usize,
    each: usize,
    work: usize,
    f: impl Fn(Range<usize>) -> Result<V> + Sync,
) -> Result<Vec<V>> {
    let each = each.max(1);
    pool::map(n.div_ceil(each), work, |b| f(b * each..n.min((b + 1) * each)))?.into_iter().collect()
}

/// `f` of each block of rows of `d` in `out`, with the first of its rows; an element is as much work as `cost` of others.
pub fn fill<O: Send>(
    out: &mut [O],
    d: usize,
    cost: usize,
    f: impl Fn(usize, &mut [O]) -> Result<()> + Sync,
) -> Result<()> {
    if d == 0 {
        return Ok(());
    }
    let (n, work, shared) = (out.len() / d, out.len().saturating_mul(cost), Shared(out.as_mut_ptr()));
    map(n, BLOCK / d, work, |rows| {
        // SAFETY: blocks are disjoint ranges of whole rows of `out`, which is borrowed until they are done.
        f(rows.start, unsafe { shared.part(rows.start * d, rows.len() * d) })
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Error;

    #[test]
    fn every_row_is_in_one_block_and_order_is_kept() {
        for (n, d) in [(0, 3), (5, 0), (1, 1), (7, 3), (BLOCK + 1, 1), (3, BLOCK + 5), (BLOCK, 7)] {
            let mut out = vec![0u32; n * d];
            fill(&mut out, d, 1, |first, part| {
                assert_eq!(part.len() % d, 0);
                for (i, row) in part.chunks_exact_mut(d).enumerate() {
                    for v in row {
                        *v += (first + i) as u32 + 1;
                    }
                }
                Ok(())
            })
            .unwrap();
            assert!(out.iter().enumerate().all(|(i, &v)| v as usize == i / d + 1));
            let parts = map(n, 10, usize::MAX, Ok).unwrap();
            assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
        }
        let stop = |rows: Range<usize>| if rows.contains(&25) { Err(Error::Cancelled) } else { Ok(()) };
        assert_eq!(map(100, 10, usize::MAX, stop), Err(Error::Cancelled));
    }
}
