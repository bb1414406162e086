//! Rows that are longer than a cache. The one rule: memory is passed as seldom as the second cache allows, once to make blocks
//! that fit into it and once for what is across them.
//!
//! A block takes the first levels, of pieces in the first cache and across these; what makes the numbers of a piece writes them
//! there, so that a row that is made costs no pass of its own. Levels across blocks go on narrow strips, which begin where a line
//! of the cache does.

use super::aside::Aside;
use super::beside::Beside;
use super::finish::{Finish, Kept, Past};
use super::levels;
use super::lines::Lines;
use super::strip::{lead, strip};
use super::{Plan, all, paley};
use base::Result;
use base::lane::Lane;
use base::pool;
use base::simd::*;
use base::stream;
use std::ops::Range;

/// Bits of a block in the second cache, and of the levels that go across blocks at a time.
const BLOCK: u32 = 16;
const MOST: u32 = 12;
const FEW: u32 = 7;
/// Bytes across a strip, and elements that it has at most.
const ACROSS: usize = 256;
const STRIP: usize = 1 << 17;
/// Elements that a thread takes at a time.
pub const UNIT: usize = 1 << 16;
/// Rows of so many bytes are written past the caches.
const FAR: usize = 32 << 20;

/// Bits of a piece in the first cache.
pub const fn piece<L: Lane>() -> u32 {
    if L::LANES == 16 { 13 } else { 12 }
}

/// What a row is made of.
pub trait Fill<L: Lane>: Sync {
    /// The numbers from `first` on, as many as `aside` has: where they lie, or in `aside`.
    fn piece<S: Simd>(&self, s: S, first: usize, aside: &mut [L]) -> *const L;
}

/// Numbers that are there, times a power of two.
pub struct Given<L> {
    pub x: *const L,
    pub factor: L,
}
// SAFETY: it is read only, and lives as long as the call.
unsafe impl<L: Lane> Sync for Given<L> {}
impl<L: Lane> Fill<L> for Given<L> {
    #[inline(always)]
    fn piece<S: Simd>(&self, _: S, first: usize, aside: &mut [L]) -> *const L {
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
}

/// All levels of one block of 2^bits numbers from `first` on, which `fill` makes. `aside` has room for a piece, and for the block
/// where that is longer.
///
/// # Safety
/// `to` is the row, and nobody else touches the block.
#[inline(always)]
pub unsafe fn block<S: Simd, L: Lane>(
    s: S,
    fill: &impl Fill<L>,
    first: usize,
    bits: u32,
    to: Lines<L>,
    aside: *mut L,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    let small = bits.min(piece::<L>());
    let size = 1 << small;
    // SAFETY: a piece of the room, which nobody else has.
    let near = unsafe { std::slice::from_raw_parts_mut(aside, size) };
    let place = to.from(first, 0).row(0);
    if bits == small {
        let x = fill.piece(s, first, near);
        // SAFETY: promised by the caller.
        unsafe { levels::pieces(s, x, place, size, size, f, beside) };
        return;
    }
    let whole = aside.wrapping_add(size);
    for at in (0..1 << bits).step_by(size) {
        let x = fill.piece(s, first + at, near);
        // SAFETY: as above; the block is longer than a piece, and so is the room.
        unsafe { levels::piece(s, x, whole.add(at + at / size * L::LANES), size, Kept, beside) };
    }
    let (from, to) = (Lines::whole(whole, size + L::LANES), Lines::whole(place, size));
    strip(s, from, from, to, bits - small, 0..size, whole.wrapping_add((size + L::LANES) << (bits - small)), f);
}

/// Numbers that a block needs room for, with the piece that is made.
pub fn room<L: Lane>(bits: u32) -> usize {
    let small = piece::<L>();
    if bits <= small { 1 << bits } else { (1 << small) + (1 << bits) + ((2 * L::LANES) << (bits - small)) }
}

/// The blocks of a row, some of them.
struct Blocks<'a, L, M, F> {
    fill: &'a M,
    to: Lines<L>,
    bits: u32,
    which: Range<usize>,
    finish: F,
}
impl<L: Lane, M: Fill<L>, F: Finish<L>> Kernel for Blocks<'_, L, M, F> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let mut aside = Aside::new(room::<L>(self.bits))?;
        for b in self.which {
            // the lines of the next block: what is not read before it is written comes in late by itself
            let next = self.to.from((b + 1) << self.bits, 0).row(0);
            let mut beside = Beside::new(next, 1 << self.bits, &[], &mut []);
            // SAFETY: each block is taken once.
            unsafe { block(s, self.fill, b << self.bits, self.bits, self.to, aside.at(), self.finish, &mut beside) };
        }
        stream::fence();
        Ok(())
    }
}

/// `bits` levels from bit `low` of the index on, for some of the strips.
struct Strips<L, F> {
    to: Lines<L>,
    low: u32,
    bits: u32,
    which: Range<usize>,
    finish: F,
}
impl<L: Lane, F: Finish<L>> Strips<L, F> {
    fn wide(bits: u32) -> usize {
        (ACROSS / size_of::<L>()).min(STRIP >> bits)
    }
    /// Columns of the row that lie in a line whose beginning is before it.
    fn before(to: Lines<L>) -> usize {
        (L::LANES - lead(to.row(0))) % L::LANES
    }
    /// How many strips there are side by side.
    fn many(to: Lines<L>, low: u32, bits: u32) -> usize {
        ((1 << low) + Self::before(to)).div_ceil(Self::wide(bits))
    }
}
impl<L: Lane, F: Finish<L>> Kernel for Strips<L, F> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let (wide, before, many) =
            (Self::wide(self.bits), Self::before(self.to), Self::many(self.to, self.low, self.bits));
        // a line between rows: a power of two would have them push each other out of the first cache
        let apart = wide + L::LANES;
        let mut aside = Aside::<L>::new((apart + L::LANES) << self.bits)?;
        let edge = aside.at().wrapping_add(apart << self.bits);
        for t in self.which {
            let start = (t % many * wide).saturating_sub(before);
            let end = ((t % many + 1) * wide - before).min(1 << self.low);
            let lines = self.to.from((t / many) << (self.low + self.bits), 1 << self.low);
            strip(s, lines, Lines::whole(aside.at(), apart), lines, self.bits, start..end, edge, self.finish);
        }
        stream::fence();
        Ok(())
    }
}

/// H_K across the K parts of a row, on some of their columns.
struct Mix<L> {
    row: *mut L,
    k: usize,
    stride: usize,
    columns: Range<usize>,
    scale: L,
}
impl<L: Lane> Kernel for Mix<L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: columns are taken once.
        unsafe { paley::mix(s, self.row.add(self.columns.start), self.k, self.stride, self.columns.len(), self.scale) };
    }
}

/// A row that `fill` makes; `finish` is asked for once all of it was made.
pub fn run<L: Lane, M: Fill<L>, F: Finish<L>>(
    plan: Plan,
    to: Lines<L>,
    fill: &M,
    finish: impl FnOnce() -> F,
) -> Result<()> {
    let Plan { n, k, m, .. } = plan;
    let inner = block_bits::<L>(m);
    let far = n * size_of::<L>() >= FAR;
    let shared = Together(to);
    let group = (UNIT >> inner).max(1);
    all(pool::map((n >> inner).div_ceil(group), n, |b| {
        let which = b * group..((b + 1) * group).min(n >> inner);
        dispatch(Blocks { fill, to: shared.get(), bits: inner, which, finish: Past(Kept, far) })
    })?)?;
    let finish = finish();
    let mut low = inner;
    while low < m {
        let rest = m - low;
        let bits = if rest <= MOST { rest } else { rest.div_ceil(2) };
        let many = Strips::<L, F>::many(to, low, bits);
        let tasks = many * (n >> (low + bits));
        let group = (UNIT / (Strips::<L, F>::wide(bits) << bits)).max(1);
        let last = low + bits == m && k == 1;
        all(pool::map(tasks.div_ceil(group), n, |b| {
            let which = b * group..((b + 1) * group).min(tasks);
            let to = shared.get();
            if last {
                dispatch(Strips { to, low, bits, which, finish: Past(finish, far) })
            } else {
                dispatch(Strips { to, low, bits, which, finish: Past(Kept, far) })
            }
        })?)?;
        low += bits;
    }
    if k > 1 {
        let (stride, each) = (n / k, (UNIT / k).next_multiple_of(64));
        pool::run(stride.div_ceil(each), n, |b| {
            let columns = b * each..((b + 1) * each).min(stride);
            dispatch(Mix { row: shared.get().low, k, stride, columns, scale: L::of(plan.scale) });
        })?;
    }
    Ok(())
}

/// Bits of a block of a row of 2^m: what is left of 2^BLOCK goes in one walk.
pub fn block_bits<L: Lane>(m: u32) -> u32 {
    m.saturating_sub(FEW).clamp(piece::<L>(), BLOCK).min(m)
}

/// Lines that tasks share, each touching its own part.
#[derive(Clone, Copy)]
struct Together<L>(Lines<L>);
// SAFETY: tasks touch disjoint parts.
unsafe impl<L> Send for Together<L> {}
// SAFETY: as above.
unsafe impl<L> Sync for Together<L> {}
impl<L: Copy> Together<L> {
    fn get(&self) -> Lines<L> {
        self.0
    }
}
