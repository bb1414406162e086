//! What a level of the machine is asked for: pieces of rows, levels across rows, H_K, the largest number. The one rule: all who need one
//! call it here, where it is compiled once for each type.

use super::beside::Beside;
use super::finish::Finish;
use super::lanes::packed;
use super::levels;
use super::lines::Lines;
use super::paley;
use base::lane::Lane;
use base::simd::*;
use std::ops::{BitAnd, Range};

/// Levels across rows that are taken in one pass: as many rows as the first cache has lines in a set.
pub const MOST: u32 = 3;
/// Bytes of the rows of [`Across`] that go together: what the first cache holds where a step does not take all levels.
const TOGETHER: usize = 2048;

/// All levels of consecutive rows of `size` numbers, a power of two.
pub struct Pieces<'a, 'b, L> {
    pub x: *const L,
    /// As many, from `x` on or apart from it.
    pub y: *mut L,
    /// Room for a row where it lies between steps, if not in `y`: lines of the cache begin there.
    pub room: Option<*mut L>,
    /// Whole rows.
    pub len: usize,
    pub size: usize,
    /// Of the type itself.
    pub finish: Finish,
    pub beside: &'a mut Beside<'b>,
}

/// The levels across 2^`bits` rows, in place; at most 2^[`MOST`] of them, of whole vectors.
pub struct Across<L> {
    pub rows: Lines<L>,
    pub bits: u32,
    pub columns: Range<usize>,
    pub finish: Finish,
}

/// H_K across K rows of `stride` numbers, on some of their columns, of so many groups of K rows.
pub struct Mix<L> {
    pub row: *mut L,
    pub groups: usize,
    pub k: usize,
    pub stride: usize,
    pub columns: Range<usize>,
    pub scale: f64,
}

/// max |x| as the bits of a float without their sign, which are `mask`: those of a NaN are beyond infinity's.
struct Peak<'a, B>(&'a [B], B);

/// One function of each for each type, whoever calls it from which crate.
macro_rules! once { ($($what:ident<$($life:lifetime),*> $call:ident $narrow:ident $wide:ident;)*) => { $(
    pub fn $call<L: Lane>(work: $what<$($life,)* L>) {
        if L::LANES == 16 { $narrow(work.cast()) } else { $wide(work.cast()) }
    }
    #[inline(never)]
    fn $narrow(work: $what<$($life,)* f32>) {
        dispatch(work);
    }
    #[inline(never)]
    fn $wide(work: $what<$($life,)* f64>) {
        dispatch(work);
    }
)* } }
once! {
    Pieces<'_, '_> pieces pieces32 pieces64;
    Across<> across across32 across64;
    Mix<> mix mix32 mix64;
}

/// max |x|, infinite where one is, and no number where one is none.
pub fn peak<L: Lane>(x: &[L]) -> f64 {
    let (at, n) = (x.as_ptr(), x.len());
    // SAFETY: floats of 4 bytes and 8, as what they are.
    unsafe {
        if L::LANES == 16 {
            peak32(std::slice::from_raw_parts(at.cast(), n))
        } else {
            peak64(std::slice::from_raw_parts(at.cast(), n))
        }
    }
}
#[inline(never)]
fn peak32(x: &[u32]) -> f64 {
    f32::from_bits(dispatch(Peak(x, u32::MAX >> 1))).into()
}
#[inline(never)]
fn peak64(x: &[u64]) -> f64 {
    f64::from_bits(dispatch(Peak(x, u64::MAX >> 1)))
}

impl<'a, 'b, L> Pieces<'a, 'b, L> {
    /// The same of L by its own name.
    fn cast<M>(self) -> Pieces<'a, 'b, M> {
        let Pieces { x, y, room, len, size, finish, beside } = self;
        Pieces { x: x.cast(), y: y.cast(), room: room.map(<*mut L>::cast), len, size, finish, beside }
    }
}
impl<L> Across<L> {
    fn cast<M>(self) -> Across<M> {
        let Across { rows, bits, columns, finish } = self;
        Across { rows: rows.cast(), bits, columns, finish }
    }
}
impl<L> Mix<L> {
    fn cast<M>(self) -> Mix<M> {
        let Mix { row, groups, k, stride, columns, scale } = self;
        Mix { row: row.cast(), groups, k, stride, columns, scale }
    }
}

impl<L: Lane> Kernel for Pieces<'_, '_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pieces { x, y, room, len, size, finish, beside } = self;
        let finish = finish.narrow();
        // SAFETY: as the fields say, offsets stay inside.
        unsafe {
            if size >= 2 * L::LANES {
                for at in (0..len).step_by(size) {
                    let y = y.add(at);
                    levels::piece(s, x.add(at), room.unwrap_or(y), y, size, finish, beside);
                }
            } else {
                // copying memory onto itself is allowed
                std::ptr::copy(x, y, len);
                let y = std::slice::from_raw_parts_mut(y, len);
                if size > 1 {
                    packed(s, y, size);
                }
                for y in y {
                    *y = finish.one(*y);
                }
            }
        }
    }
}

impl<L: Lane> Kernel for Across<L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Across { rows, bits, columns, finish } = self;
        let lanes = L::LANES;
        // vectors begin where a line of the cache does; what is before the first and after the last are one vector by themselves
        let lead = (rows.row(0).wrapping_add(columns.start) as usize).wrapping_neg() % 64 / size_of::<L>();
        let (mut at, end) = (columns.start + lead, columns.end - (lanes - lead) % lanes);
        let mut edge = [L::of(0.0); 16 << MOST];
        let aside = Lines::whole(edge.as_mut_ptr(), lanes);
        let mut narrow = lead > 0;
        let ends = Ends { rows, aside, many: 1 << bits, parts: [(columns.start, 0, lead), (end, lead, lanes - lead)] };
        // SAFETY: columns of rows that are ours alone.
        unsafe {
            if narrow {
                ends.copy(false);
            }
            while narrow || at < end {
                let width = if narrow { lanes } else { (TOGETHER / size_of::<L>()).min(end - at) };
                let lines = if narrow { aside } else { rows.right(at) };
                levels::across(s, lines, lines, bits, width, finish, &mut Beside::nothing());
                if narrow {
                    ends.copy(true);
                } else {
                    at += width;
                }
                narrow = false;
            }
        }
    }
}

/// What is left of rows at both ends, and the vector that both make: (column, column aside, how many).
struct Ends<L> {
    rows: Lines<L>,
    aside: Lines<L>,
    many: usize,
    parts: [(usize, usize, usize); 2],
}
impl<L> Ends<L> {
    /// # Safety
    /// Both are rows of memory that is ours.
    unsafe fn copy(&self, back: bool) {
        for i in 0..self.many {
            for (column, aside, n) in self.parts {
                // SAFETY: promised by the caller; what is aside is apart.
                unsafe {
                    let (a, b) = (self.rows.row(i).add(column), self.aside.row(i).add(aside));
                    let (from, to) = if back { (b, a) } else { (a, b) };
                    std::ptr::copy_nonoverlapping(from, to, n);
                }
            }
        }
    }
}

impl<L: Lane> Kernel for Mix<L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, each) = (self.columns.len(), self.k * self.stride);
        for group in 0..self.groups {
            let row = self.row.wrapping_add(group * each + self.columns.start);
            // SAFETY: columns are taken once.
            unsafe { paley::mix(s, row, self.k, self.stride, width, L::of(self.scale)) };
        }
    }
}

impl<B: Copy + Ord + Default + BitAnd<Output = B>> Kernel for Peak<'_, B> {
    type Output = B;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> B {
        #[inline(always)]
        fn of<B: Copy + Ord + BitAnd<Output = B>>(most: &mut [B; 64], x: &[B], mask: B) {
            for (m, &x) in most.iter_mut().zip(x) {
                *m = (x & mask).max(*m);
            }
        }
        let mut most = [B::default(); 64];
        let (chunks, rest) = self.0.as_chunks::<64>();
        for x in chunks {
            of(&mut most, x, self.1);
        }
        of(&mut most, rest, self.1);
        most.into_iter().fold(B::default(), B::max)
    }
}
