//! Rows that are longer than a cache. The one rule: a pass goes along eight rows at most, which lie in one set of the cache without
//! pushing each other out, and begins with those that are in the nearest cache.
//!
//! A block is pieces in the first cache and the levels across these in the second; what makes the numbers of a piece writes them
//! there, so that a row that is made costs no pass of its own. Then go the levels across blocks, of as much as the last cache holds,
//! then those across that.

use super::aside::Aside;
use super::beside::Beside;
use super::finish::Finish;
use super::lines::Lines;
use super::work::{Across, MOST, Mix, Pieces, across, mix, peak, pieces};
use super::{Plan, quiet};
use base::lane::Lane;
use base::pool;
use base::{Error, Result};
use std::ops::Range;

/// Bits of a block in the second cache.
const BLOCK: u32 = 16;
/// Bytes, as a power of two, that the last cache holds beside others'.
const HELD: u32 = 24;
/// Elements that a thread takes at a time.
pub const UNIT: usize = 1 << 16;

/// Bits of a piece in the first cache.
pub const fn piece<L: Lane>() -> u32 {
    if L::LANES == 16 { 13 } else { 12 }
}

/// What a row is made of.
pub trait Fill<L: Lane>: Sync + Sized {
    /// The numbers from `first` on, as many as `aside` has: where they lie, or in `aside`.
    fn piece(&self, first: usize, aside: &mut [L]) -> *const L;

    /// A power of two and the same row times it, if sums of numbers as large as those of a block could overflow.
    fn quiet(&self, _block: Range<usize>) -> Option<(L, Self)> {
        None
    }
}

/// Numbers that are there, times a power of two.
pub struct Given<L> {
    pub x: *const L,
    pub factor: L,
    /// By how many bits they may grow on the way, where somebody has to look at them first.
    pub growth: i32,
}
// SAFETY: it is read only, and lives as long as the call.
unsafe impl<L: Lane> Sync for Given<L> {}
impl<L: Lane> Fill<L> for Given<L> {
    fn piece(&self, first: usize, aside: &mut [L]) -> *const L {
        let x = self.x.wrapping_add(first);
        if self.factor == L::of(1.0) {
            return x;
        }
        for (i, a) in aside.iter_mut().enumerate() {
            // SAFETY: whoever made this says that a row is there.
            *a = unsafe { *x.add(i) } * self.factor;
        }
        aside.as_ptr()
    }

    fn quiet(&self, block: Range<usize>) -> Option<(L, Self)> {
        if self.growth == 0 {
            return None;
        }
        // SAFETY: as above, and nobody has written this block.
        let most = peak(unsafe { std::slice::from_raw_parts(self.x.add(block.start), block.len()) });
        let factor = L::of(quiet::<L>(most, self.growth).0);
        (factor != L::of(1.0)).then_some((factor, Given { x: self.x, factor, growth: 0 }))
    }
}

/// All levels of one block of 2^bits numbers from `first` on, which `fill` makes. `aside` has room for a piece.
///
/// # Safety
/// `to` is the row, and nobody else touches the block.
pub unsafe fn block<L: Lane>(
    fill: &impl Fill<L>,
    first: usize,
    bits: u32,
    to: Lines<L>,
    aside: *mut L,
    finish: Finish,
) {
    let small = bits.min(piece::<L>());
    let size = 1 << small;
    for at in (first..first + (1 << bits)).step_by(size) {
        // SAFETY: a piece of the room, which nobody else has.
        let x = fill.piece(at, unsafe { std::slice::from_raw_parts_mut(aside, size) });
        let y = to.from(at, 0).row(0);
        // the lines of the next piece: what is not read before it is written comes in late by itself
        let mut beside = if x == y { Beside::nothing() } else { Beside::fetching(y.wrapping_add(size), size) };
        let room = (!(y as usize).is_multiple_of(64)).then_some(aside);
        let finish = if bits == small { finish } else { Finish::NONE };
        pieces(Pieces { x, y, room, len: size, size, finish, beside: &mut beside });
    }
    let mut low = small;
    while low < bits {
        let (now, finish) = pass(low, bits, finish);
        for from in (first..first + (1 << bits)).step_by(1 << (low + now)) {
            across(Across { rows: to.from(from, 1 << low), bits: now, columns: 0..1 << low, finish });
        }
        low += now;
    }
}

/// A row that `fill` makes; `finish` is asked for once all of it was made, and told what the row was multiplied by.
///
/// Blocks that would be too loud wait for those of their part, which are divided as they are: what is looked at is read where it
/// is transformed, and only a row that has such a block pays for it.
pub fn run<L: Lane, M: Fill<L>>(
    plan: Plan,
    to: Lines<L>,
    fill: &M,
    finish: impl FnOnce(L) -> f64,
    rounded: bool,
) -> Result<()> {
    let Plan { n, k, m, .. } = plan;
    let inner = block_bits::<L>(m);
    let shared = Together(to);
    let held = m.min(HELD - size_of::<L>().trailing_zeros());
    // a row of which the last cache holds a part is made part by part
    let part = if held == m { n } else { 1 << held };
    let group = (UNIT >> inner).max(1);
    let make = |fill: &M, at: usize, aside: &mut Aside<L>| {
        // SAFETY: each block is taken once.
        unsafe { block(fill, at, inner, shared.get(), aside.at(), Finish::NONE) };
    };
    let room = || Aside::new(1 << inner.min(piece::<L>()));
    let blocks = |from: usize| {
        let waiting = pool::map((part >> inner).div_ceil(group), part, |b| {
            let (mut aside, mut waiting) = (room()?, Vec::new());
            for b in b * group..((b + 1) * group).min(part >> inner) {
                let at = from + (b << inner);
                if fill.quiet(at..at + (1 << inner)).is_some() {
                    waiting.push(at);
                } else {
                    make(fill, at, &mut aside);
                }
            }
            Ok(waiting)
        })?;
        Ok::<_, Error>(waiting.into_iter().collect::<Result<Vec<_>>>()?.concat())
    };
    // the last levels wait for their factor
    let last = if m > held { held } else { m - pass(inner, m, Finish::NONE).0 };
    let (mut factor, mut loud) = (L::of(1.0), Vec::new());
    for from in (0..n).step_by(part) {
        let waiting = blocks(from)?;
        if let Some((by, quiet)) = waiting.first().and_then(|&at| fill.quiet(at..at + (1 << inner))) {
            factor = by;
            loud.push(from);
            let mut aside = room()?;
            for at in (from..from + part).step_by(1 << inner) {
                if waiting.contains(&at) {
                    make(&quiet, at, &mut aside);
                } else {
                    shared.times(at..at + (1 << inner), factor);
                }
            }
        }
        climb(&shared, from..from + part, inner, last, Finish::NONE)?;
    }
    if !loud.is_empty() {
        for from in (0..n).step_by(part).filter(|from| !loud.contains(from)) {
            shared.times(from..from + part, factor);
        }
    }
    let factor = finish(factor);
    let finish = if rounded { Finish::rounded(factor) } else { Finish::times(factor) };
    if k == 1 {
        return climb(&shared, 0..n, last, m, finish);
    }
    climb(&shared, 0..n, last, m, Finish::NONE)?;
    let (stride, each) = (n / k, (UNIT / k).next_multiple_of(64));
    pool::run(stride.div_ceil(each), n, |b| {
        let columns = b * each..((b + 1) * each).min(stride);
        mix(Mix { row: shared.get().low, groups: 1, k, stride, columns, scale: factor });
    })
}

/// How many levels the next pass of those from `low` to `high` takes, and what it does to its numbers.
fn pass(low: u32, high: u32, finish: Finish) -> (u32, Finish) {
    let passes = (high - low).div_ceil(MOST).max(1);
    ((high - low).div_ceil(passes), if passes == 1 { finish } else { Finish::NONE })
}

/// The levels from bit `low` of the index to `high`, of a part of the row.
fn climb<L: Lane>(to: &Together<L>, part: Range<usize>, mut low: u32, high: u32, finish: Finish) -> Result<()> {
    while low < high {
        let (bits, finish) = pass(low, high, finish);
        // columns of one block, which lies in one memory
        let wide = (UNIT >> bits).min(1 << low);
        let many = (1 << low) / wide;
        pool::run((part.len() >> (low + bits)) * many, part.len(), |t| {
            let at = part.start + ((t / many) << (low + bits)) + t % many * wide;
            across(Across { rows: to.get().from(at, 1 << low), bits, columns: 0..wide, finish });
        })?;
        low += bits;
    }
    Ok(())
}

/// Bits of a block of a row of 2^m, if there is a level across blocks at all.
pub fn block_bits<L: Lane>(m: u32) -> u32 {
    if m > piece::<L>() { (m - 1).min(BLOCK) } else { m }
}

/// Lines that tasks share, each touching its own part.
#[derive(Clone, Copy)]
struct Together<L>(Lines<L>);
// SAFETY: tasks touch disjoint parts.
unsafe impl<L> Send for Together<L> {}
// SAFETY: as above.
unsafe impl<L> Sync for Together<L> {}
impl<L: Lane> Together<L> {
    /// Multiplies what was written of a block or a part.
    fn times(&self, of: Range<usize>, factor: L) {
        for at in of {
            // SAFETY: nobody else is at work on it.
            unsafe { *self.0.from(at, 0).row(0) *= factor };
        }
    }
    fn get(&self) -> Lines<L> {
        self.0
    }
}
