//! Rows and panels in tiles. The one rule: what is read of the rows meets all panels of a task while it is near, and what is read of
//! the panels all rows of a block.

use super::{Aligned, BLOCK, Force, HIGH, PAIR, TILE};
use crate::packed::kernel::Weights;
use crate::packed::lanes::{LANES, Lanes};
use crate::packed::layout::Layout;
use crate::packed::lines::Lines;
use crate::packed::take::{Block, Take};
use base::Result;
use std::arch::x86_64::*;
use std::ops::Range;

/// Some inputs of a group, beside which all that is done is done.
#[derive(Clone, Copy)]
pub struct Run {
    pub group: usize,
    /// The first of them, in the group.
    pub from: usize,
    pub inputs: usize,
}

/// What is multiplied in tiles, and how.
///
/// # Safety
/// Of all methods but the first two: AVX-512, and tiles are in force where they multiply; memory is as they say.
pub trait Unit: Copy {
    type Sum: Copy + Default;
    fn rows(&self) -> usize;
    /// Inputs of a group of so many that are multiplied before sums are scaled and added, at most.
    fn run(&self, filled: usize) -> usize;
    /// Bytes that the weights of two panels take where they are laid out anew.
    fn room(l: &Layout, run: usize) -> usize;
    /// The weights of two panels as tiles, whose groups begin at `heads`; laid out in `room` if need be.
    unsafe fn weights(self, l: &Layout, heads: [*const u8; 2], run: Run, room: *mut u8) -> [*const u8; 2];
    /// Sums of the rows of two tiles, from these rows on, and the outputs of two panels, as four tiles one after the other.
    unsafe fn multiply(self, l: &Layout, rows: [usize; 2], run: Run, weights: [*const u8; 2], out: *mut Self::Sum);
    /// Sixteen sums of a row as numbers, less what its zero points make of it, scaled and added to what `y` holds.
    unsafe fn add(self, l: &Layout, sums: *const Self::Sum, row: usize, run: Run, head: *const u8, y: __m512)
    -> __m512;
}

/// The product of some panels.
///
/// # Safety
/// Tiles are permitted and fit the rows; the panels are there.
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
pub unsafe fn product<U: Unit>(unit: U, w: &Weights, panels: Range<usize>, take: &Take) -> Result<()> {
    let (z, width) = (panels.len(), w.layout.filled());
    assert!(z <= super::MANY);
    let run = unit.run(width).min(width);
    let room = U::room(&w.layout, run);
    let mut rooms = Lines::zeros(z.div_ceil(2) * room)?;
    let mut y = Lines::zeros(unit.rows().min(BLOCK) * z * LANES)?;
    let mut force = Force::new();
    for first in (0..unit.rows()).step_by(BLOCK) {
        let block = first..unit.rows().min(first + BLOCK);
        let y = &mut y[..block.len() * z * LANES];
        for group in 0..w.layout.groups() {
            for from in (0..width).step_by(run) {
                let run = Run { group, from, inputs: run.min(width - from) };
                // SAFETY: the caller's promise.
                unsafe { rows(unit, w, panels.clone(), block.clone(), run, &mut force, &mut rooms, room, y) };
            }
        }
        take(Block::new(w, block, panels.clone(), y, z * LANES));
    }
    Ok(())
}

/// What a run of inputs adds to the sums `[row][panel][output]` of a block of rows; the first begins them.
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
unsafe fn rows<U: Unit>(
    unit: U,
    w: &Weights,
    panels: Range<usize>,
    block: Range<usize>,
    run: Run,
    force: &mut Force,
    rooms: &mut [u8],
    room: usize,
    y: &mut [f32],
) {
    let (l, z) = (&w.layout, panels.len());
    let begins = run.group == 0 && run.from == 0;
    let mut sums = Aligned([U::Sum::default(); 4 * TILE / 4]);
    let sums = &mut sums.0;
    // the last of an odd number stands in for the one beside it
    let heads = |pair: usize| {
        [0, 1].map(|i| {
            let panel = (panels.start + 2 * pair + i).min(panels.end - 1);
            w.panel(panel)[run.group * l.group_bytes()..].as_ptr()
        })
    };
    let mut weights = [[std::ptr::null(); 2]; super::MANY.div_ceil(2)];
    for (pair, weights) in weights[..z.div_ceil(2)].iter_mut().enumerate() {
        // SAFETY: the group is there, and so is the room.
        *weights = unsafe { unit.weights(l, heads(pair), run, rooms[pair * room..].as_mut_ptr()) };
    }
    for first in block.clone().step_by(PAIR) {
        let left = (block.end - first).min(PAIR);
        // SAFETY: tiles are permitted.
        let tiles = [first, unsafe { force.rows(first, left) }];
        for (pair, weights) in weights[..z.div_ceil(2)].iter().enumerate() {
            let heads = heads(pair);
            // SAFETY: rows and weights are there; `sums` are four tiles; the sums of a row and a panel lie in `y`.
            unsafe {
                unit.multiply(l, tiles, run, *weights, sums.as_mut_ptr());
                for r in 0..left {
                    for i in 0..(z - 2 * pair).min(2) {
                        let part = sums[(r / HIGH * 2 + i) * TILE / 4 + r % HIGH * LANES..].as_ptr();
                        let y = y[((first - block.start + r) * z + 2 * pair + i) * LANES..].as_mut_ptr();
                        let held = if begins { _mm512_setzero_ps() } else { <__m512 as Lanes>::load(y) };
                        unit.add(l, part, first + r, run, heads[i], held).store(y);
                    }
                }
            }
        }
    }
}
