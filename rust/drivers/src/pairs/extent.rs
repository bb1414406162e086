//! Which pairs there are. The one rule: a strip is 64 columns, so that one word says which of them a row meets; where a block of
//! rows meets none, nothing is computed.

use super::STRIP;
use std::iter::once;
use std::ops::Range;

/// The columns that each row meets.
pub trait Extent: Sync {
    /// Ranges of columns, ascending and apart, that hold every one that these rows meet; there are `m`.
    fn hull(&self, rows: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>>;
    /// Bit j: whether `row` meets column `strip.start + j`; 0 past the end of the strip.
    fn live(&self, row: usize, strip: Range<usize>) -> u64;
}

/// The bits of those of the columns that lie in a strip.
fn bits(cols: Range<usize>, strip: &Range<usize>) -> u64 {
    let (from, to) = (cols.start.max(strip.start), cols.end.min(strip.end));
    if from >= to { 0 } else { (u64::MAX >> (STRIP - (to - from))) << (from - strip.start) }
}

/// Every column.
pub struct All;
impl Extent for All {
    fn hull(&self, _: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        once(0..m)
    }
    #[inline(always)]
    fn live(&self, _: usize, strip: Range<usize>) -> u64 {
        bits(strip.clone(), &strip)
    }
}

/// Every column but that of the row's own number.
pub struct Others;
impl Extent for Others {
    fn hull(&self, _: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        once(0..m)
    }
    #[inline(always)]
    fn live(&self, row: usize, strip: Range<usize>) -> u64 {
        All.live(row, strip.clone()) & !bits(row..row + 1, &strip)
    }
}

/// Columns up to `row + ahead`.
pub struct Causal {
    pub ahead: isize,
}
impl Causal {
    fn end(&self, row: usize) -> usize {
        (row + 1).saturating_add_signed(self.ahead)
    }
}
impl Extent for Causal {
    fn hull(&self, rows: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        once(0..self.end(rows.end.saturating_sub(1)).min(m))
    }
    #[inline(always)]
    fn live(&self, row: usize, strip: Range<usize>) -> u64 {
        bits(0..self.end(row), &strip)
    }
}

/// Columns from `row − before` to `row + after`.
pub struct Band {
    pub before: usize,
    pub after: usize,
}
impl Extent for Band {
    fn hull(&self, rows: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        once(rows.start.saturating_sub(self.before).min(m)..rows.end.saturating_add(self.after).min(m))
    }
    #[inline(always)]
    fn live(&self, row: usize, strip: Range<usize>) -> u64 {
        bits(row.saturating_sub(self.before)..row.saturating_add(self.after).saturating_add(1), &strip)
    }
}

/// Rows and columns are the places of an image with `width` in a line: those at most `reach` lines and places away.
pub struct Window {
    pub width: usize,
    pub reach: [usize; 2],
}
impl Window {
    /// The lines that a line reaches, of those up to `last`.
    fn lines(&self, first: usize, last: usize, of: usize) -> Range<usize> {
        first.saturating_sub(self.reach[0])..last.saturating_add(self.reach[0]).min(of) + 1
    }
}
impl Extent for Window {
    fn hull(&self, rows: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        let (w, last) = (self.width.max(1), rows.end.saturating_sub(1));
        // rows of one line reach a part of each, others whole lines
        let whole = rows.start / w != last / w;
        let from = if whole { 0 } else { (rows.start % w).saturating_sub(self.reach[1]) };
        let to = if whole { w } else { (last % w).saturating_add(self.reach[1]).saturating_add(1).min(w) };
        let lines = self.lines(rows.start / w, last / w, m.saturating_sub(1) / w);
        lines.map(move |line| (line * w + from).min(m)..(line * w + to).min(m))
    }
    #[inline(always)]
    fn live(&self, row: usize, strip: Range<usize>) -> u64 {
        let (w, mut live) = (self.width.max(1), 0);
        let (from, to) = ((row % w).saturating_sub(self.reach[1]), (row % w).saturating_add(self.reach[1]) + 1);
        let near = self.lines(row / w, row / w, strip.end.saturating_sub(1) / w);
        for line in near.start.max(strip.start / w)..near.end {
            live |= bits(line * w + from..line * w + to.min(w), &strip);
        }
        live
    }
}

/// Columns whose label is the row's, or is another.
pub struct Labels<'a> {
    pub x: &'a [i64],
    pub y: &'a [i64],
    pub same: bool,
}
impl Extent for Labels<'_> {
    fn hull(&self, _: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        once(0..m)
    }
    #[inline(always)]
    fn live(&self, row: usize, strip: Range<usize>) -> u64 {
        let own = self.x[row];
        self.y[strip].iter().enumerate().fold(0, |live, (j, &y)| live | u64::from((y == own) == self.same) << j)
    }
}

/// What both of two extents have.
impl<A: Extent, B: Extent> Extent for (A, B) {
    fn hull(&self, rows: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        self.0.hull(rows.clone(), m).flat_map(move |a| {
            let meet = move |b: Range<usize>| a.start.max(b.start)..a.end.min(b.end);
            self.1.hull(rows.clone(), m).map(meet).filter(|both| !both.is_empty())
        })
    }
    #[inline(always)]
    fn live(&self, row: usize, strip: Range<usize>) -> u64 {
        self.0.live(row, strip.clone()) & self.1.live(row, strip)
    }
}
