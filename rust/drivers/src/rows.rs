//! The driver of row operators: inner products per row, or sums over functions of its elements and its largest, then scalar
//! functions on eight rows at once, then a linear combination; a backward is the same walk. The one rule: an operator says
//! those three things, and dtype, broadcasting, tiles, tails, threads, reductions and the edge of a part of space are said
//! here once.
//!
//! Every lane is f64, but for combinations that f32 makes as well ([`RowOp::single`]). Products of f32 (and smaller) data add
//! up in f64; products of f64 data in compensated form (Dot2), and their scalar functions run on double-doubles, so that 1 - c|x|² keeps its digits at any radius.

mod aside;
mod ball;
mod block;
mod call;
mod closer;
mod functor;
mod kind;
mod peak;
mod place;
mod scaled;
mod sums;
mod table;
#[cfg(test)]
mod tests;
mod tile;
mod walk;

pub use aside::Aside;
pub use ball::{Ball, Margin, eps, inside, pull};
pub use call::{numbers, put};
pub use functor::{Anywhere, Count, Ground, N, Of, RowOp, Solved};
pub use kind::Wide;
pub use scaled::{Met, scaled};
pub use sums::Acc;

use base::simd::dispatch;
use base::{Dtype, Result, Tensor};
use call::Call;
use tile::Tiles;

/// Rows whose numbers are solved together, at most.
const TILE: usize = 32;
/// Bytes of input in a tile that is read once, and in one that is read twice: between the two walks it stays in the nearest
/// cache, which the next tile, its sums and lines on their way out want as well. Half of that cache was too much.
const ONCE: usize = 16 * 1024;
const TWICE: usize = 4 * 1024;
/// Elements per block: the unit of threads and of deterministic sums.
const BLOCK: usize = 16 * 1024;

/// Runs `op` on inputs, then outputs, as the table lists them.
///
/// A vector input of one row serves all rows, and an output of one row, where there are more, is the sum over them
/// (the gradient of such an input); the same for row numbers.
pub fn run<OP: RowOp>(op: &OP, t: &[Tensor]) -> Result<()> {
    marked(op, t, &[])
}

/// The place of a mark that there is not.
pub const NONE: usize = usize::MAX;

/// As [`run`], of an operator whose rows have a mark each: the element `at` of the row. A row whose place is none of its own
/// ([`NONE`]) is left out: its numbers and its rows of outputs are 0, and sums over rows are those of the others.
pub fn marked<OP: RowOp>(op: &OP, t: &[Tensor], at: &[usize]) -> Result<()> {
    let counts = [OP::Vectors::N, OP::Given::N, OP::Outputs::N, OP::Numbers::N, OP::Marks::N];
    let call = Call::new(t, counts, at)?;
    let ground = op.ground();
    ground.check(call.c)?;
    // 16-bit rows are widened to f32 tile by tile
    match call.x[0].dtype() {
        Dtype::F64 => block::doubles(&call, &ground, &|block| dispatch(Tiles(op, block))),
        _ => block::singles(&call, &ground, &|block| dispatch(Tiles(op, block))),
    }
}
