//! Where sums go. The one rule: whoever asked for a product gets each sum once, and kernels are compiled once for all who ask.

use super::kernel::Weights;
use super::lanes::LANES;
use std::ops::Range;

/// What is done with the sums of a row and some of its outputs; it gets each once. Not a type of its own: kernels are compiled
/// once, here.
pub type Take<'a> = dyn Fn(usize, Range<usize>, &[f32]) + Sync + 'a;

/// Hands over the sums `y[row][z · 16 + lane]` of some rows, of panels from one on.
pub fn give(w: &Weights, rows: Range<usize>, panel: usize, z: usize, y: &[f32], take: &Take) {
    let outs = panel * LANES..((panel + z) * LANES).min(w.layout.outs);
    for (row, y) in rows.zip(y.chunks_exact(z * LANES)) {
        take(row, outs.clone(), &y[..outs.len()]);
    }
}
