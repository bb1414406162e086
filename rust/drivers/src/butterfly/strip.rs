//! Levels across rows on a narrow strip of their columns. The one rule: vectors begin where a line of the cache does, so that a line is
//! read and written once.

use super::beside::Beside;
use super::finish::{Finish, Kept};
use super::levels;
use super::lines::Lines;
use base::lane::Lane;
use base::simd::*;
use std::ops::Range;

/// What is before the first line of the cache in a row.
#[inline(always)]
pub fn lead<L>(row: *const L) -> usize {
    (row as usize).wrapping_neg() % 64 / size_of::<L>()
}

/// Levels across rows, on some of their columns. Those that do not fill a line go through `edge`, a vector for each row.
#[inline(always)]
pub fn strip<S: Simd, L: Lane>(
    s: S,
    from: Lines<L>,
    aside: Lines<L>,
    to: Lines<L>,
    bits: u32,
    columns: Range<usize>,
    edge: *mut L,
    f: impl Finish<L>,
) {
    let head = lead(to.row(0).wrapping_add(columns.start)).min(columns.len());
    let body = (columns.len() - head) / L::LANES * L::LANES;
    let (start, end) = (columns.start + head, columns.start + head + body);
    // SAFETY: the columns and what is aside are ours, by the callers' promise.
    unsafe {
        // before the others: where `aside` is `from`, these move to its left
        for (a, b) in [(columns.start, start), (end, columns.end)] {
            if a < b {
                narrow(s, from.right(a), to.right(a), bits, b - a, edge, f);
            }
        }
        if body > 0 {
            levels::across(s, from.right(start), aside, to.right(start), bits, body, f, &mut Beside::nothing());
        }
    }
}

/// The same for fewer columns than a vector has.
unsafe fn narrow<S: Simd, L: Lane>(
    s: S,
    from: Lines<L>,
    to: Lines<L>,
    bits: u32,
    width: usize,
    edge: *mut L,
    f: impl Finish<L>,
) {
    let lines = Lines::whole(edge, L::LANES);
    // SAFETY: promised by the caller.
    unsafe {
        for i in 0..1 << bits {
            let row = std::slice::from_raw_parts_mut(lines.row(i), L::LANES);
            row.fill(L::of(0.0));
            row[..width].copy_from_slice(std::slice::from_raw_parts(from.row(i), width));
        }
        levels::across(s, lines, lines, lines, bits, L::LANES, Kept, &mut Beside::nothing());
        for i in 0..1 << bits {
            for c in 0..width {
                *to.row(i).add(c) = f.one(*lines.row(i).add(c));
            }
        }
    }
}
