//! Where sums go. The one rule: whoever asked for a product gets each sum once, and kernels are compiled once for all who ask.

use super::kernel::Weights;
use super::lanes::LANES;
use std::ops::Range;

/// Sums of some rows and some outputs beside each other: `sums[row][stride]`, of which the first are those of the outputs.
pub struct Block<'a> {
    pub rows: Range<usize>,
    pub outs: Range<usize>,
    pub sums: &'a [f32],
    pub stride: usize,
}

impl<'a> Block<'a> {
    /// The sums of some rows of some panels, of which the last may have fewer outputs than lanes.
    pub fn new(w: &Weights, rows: Range<usize>, panels: Range<usize>, sums: &'a [f32], stride: usize) -> Block<'a> {
        let outs = panels.start * LANES..(panels.end * LANES).min(w.layout.outs);
        Block { rows, outs, sums, stride }
    }

    /// Row by row.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &'a [f32])> {
        self.rows.clone().zip(self.sums.chunks_exact(self.stride).map(|sums| &sums[..self.outs.len()]))
    }
}

/// What is done with sums; not a type of its own, so that kernels are compiled once.
pub type Take<'a> = dyn Fn(Block) + Sync + 'a;
