//! A few entries, met together. The one rule: what is found out about them is found while their rows are near, and nothing of
//! the size of the input is kept.

use super::{CHUNK, Segments, Turned};
use base::simd::Simd;
use std::ops::{Deref, Range};

/// At most [`CHUNK`] entries, and the numbers that were found of them.
#[repr(align(64))]
pub struct Chunk<N> {
    /// The entries that are here.
    range: Range<usize>,
    pub n: usize,
    /// Of entries: the row, the place in the lists, the segment among those at hand; whether they are the first of their row,
    /// and the last.
    pub rows: [usize; CHUNK],
    pub places: [usize; CHUNK],
    pub segments: [usize; CHUNK],
    pub ends: [[bool; 2]; CHUNK],
    of: N,
}

impl<N> Deref for Chunk<N> {
    type Target = N;
    #[inline(always)]
    fn deref(&self) -> &N {
        &self.of
    }
}

impl<N> Chunk<N> {
    #[inline(always)]
    pub fn new(of: N) -> Self {
        let none = [0; CHUNK];
        Chunk { range: 0..0, n: 0, rows: none, places: none, segments: none, ends: [[true; 2]; CHUNK], of }
    }

    /// Entries `range` of the segments from `first` on, which count from `base`; nothing to do if they are here.
    #[inline(always)]
    pub(super) fn take<S: Simd, G: Segments<Numbers = N>>(
        &mut self,
        s: S,
        of: &G,
        range: Range<usize>,
        first: usize,
        base: usize,
    ) {
        if self.range == range {
            return;
        }
        let (lists, mut at, mut segment) = (of.lists(), range.start, first);
        while at < range.end {
            let end = range.end.min(lists.ptr[segment + 1]);
            if at < end {
                self.segments[at - range.start..end - range.start].fill(segment - base);
                at = end;
            }
            segment += 1;
        }
        self.n = range.len();
        for i in 0..self.n {
            self.places[i] = range.start + i;
        }
        if let Some(list) = lists.list() {
            self.rows[..self.n].copy_from_slice(&list[range.clone()]);
        } else {
            for i in 0..self.n {
                self.rows[i] = range.start + i;
            }
        }
        of.lift(s, self.n, &self.rows, &self.places, &mut self.of);
        self.range = range;
    }

    /// Entries `range` row by row.
    #[inline(always)]
    pub(super) fn take_turned<S: Simd, G: Segments<Numbers = N>>(
        &mut self,
        s: S,
        of: &G,
        range: Range<usize>,
        turned: &Turned,
    ) {
        self.n = range.len();
        for (i, at) in range.enumerate() {
            let place = turned.entries[at];
            let row = of.lists().row(place);
            (self.rows[i], self.places[i], self.segments[i]) = (row, place, turned.segments[at]);
            self.ends[i] = [at == turned.ptr[row], at + 1 == turned.ptr[row + 1]];
        }
        of.lift(s, self.n, &self.rows, &self.places, &mut self.of);
        self.range = 0..0;
    }
}
