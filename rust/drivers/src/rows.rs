//! The driver of row operators: inner products per row, then scalar functions on eight rows at once, then a linear
//! combination; a backward is the same walk. The one rule: an operator says those three things, and dtype, broadcasting,
//! tiles, tails, threads, reductions and the ball's edge are said here once.
//!
//! Every lane is f64. Products of f32 (and smaller) data add up in f64; products of f64 data in compensated form (Dot2),
//! and their scalar functions run on double-doubles, so that 1 - c|x|² keeps its digits at any radius.

mod aside;
mod call;
mod kind;
mod margin;
mod sums;
mod table;
#[cfg(test)]
mod tests;
mod tile;
mod walk;

pub use aside::{Aside, pull};
pub use call::{numbers, put};
pub use kind::Wide;
pub use margin::{Margin, eps, inside};
pub use sums::Acc;

use base::dd::Num;
use base::pool::{self, Shared};
use base::simd::*;
use base::store::STEP;
use base::stream;
use base::{Dtype, Result, Tensor, try_vec};
use call::Call;
use tile::{Block, Plan, Tiles};

/// Rows whose numbers are solved together, at most.
const TILE: usize = 32;
/// Bytes of input in a tile: it is read twice, and the next one comes in beside it.
const NEAR: usize = 16 * 1024;
/// Elements per block: the unit of threads and of deterministic sums.
const BLOCK: usize = 16 * 1024;

/// What the scalar functions of a row give: weights of the combination, numbers to write, and, for a point of the ball,
/// the size of 1 - c|y|², by which the driver knows which rows may have been rounded onto the edge.
pub struct Solved<S: Simd, const W: usize, const R: usize> {
    pub weights: [f64x8<S>; W],
    pub numbers: [f64x8<S>; R],
    pub gap: f64x8<S>,
}

/// An operator on rows: V vectors and C row numbers in; P inner products; W weights; O vectors and R row numbers out.
pub trait RowOp<const V: usize, const C: usize, const P: usize, const W: usize, const O: usize, const R: usize>:
    Sync
{
    /// The last row number is a curvature (finite, not negative).
    const CURVED: bool = false;
    /// Plain sums of f32 data may cancel too far: rows in [`doubt`](RowOp::doubt) are summed again in twice f64's precision.
    const WIDE: bool = false;
    /// Output 0 is a point of the ball and is kept strictly inside it, by this margin.
    fn margin(&self) -> Option<Margin> {
        None
    }
    fn dots<S: Simd, A: Acc<S>>(&self, x: &[f64x8<S>; V], sums: &mut [A; P]);
    fn solve<S: Simd, N: Num<S>>(&self, s: S, p: [N; P], c: [f64x8<S>; C]) -> Solved<S, W, R>;
    /// Of an operator that is `WIDE`: the rows whose plain sums cancelled more than f32 results bear.
    #[inline(always)]
    fn doubt<S: Simd>(&self, _: [f64x8<S>; P], _: [f64x8<S>; C], solved: &Solved<S, W, R>) -> mask64x8<S> {
        solved.gap.simd_eq(solved.gap)
    }
    fn combine<S: Simd>(&self, x: &[f64x8<S>; V], w: &[f64x8<S>; W]) -> [f64x8<S>; O];
}

/// Runs `op` on inputs, then outputs, as the table lists them.
///
/// A vector input of one row serves all rows, and an output of one row, where there are more, is the sum over them
/// (the gradient of such an input); the same for row numbers.
pub fn run<OP, const V: usize, const C: usize, const P: usize, const W: usize, const O: usize, const R: usize>(
    op: &OP,
    t: &[Tensor],
) -> Result<()>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    let call = Call::<V, C, O, R>::new(t, OP::CURVED)?;
    match call.x[0].dtype() {
        Dtype::F64 => walk::<OP, f64, V, C, P, W, O, R>(op, &call),
        _ => walk::<OP, f32, V, C, P, W, O, R>(op, &call),
    }
}

/// K is the type the tile kernel is compiled for; 16-bit rows are widened to f32 tile by tile.
fn walk<OP, K: Wide, const V: usize, const C: usize, const P: usize, const W: usize, const O: usize, const R: usize>(
    op: &OP,
    call: &Call<V, C, O, R>,
) -> Result<()>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    let (rows, d, dtype) = (call.rows, call.d, call.x[0].dtype());
    let block = (BLOCK / d.max(1)).clamp(1, BLOCK).next_multiple_of(TILE);
    let blocks = rows.div_ceil(block);
    let pad = d.next_multiple_of(STEP);
    let plan = Plan {
        d,
        one: std::array::from_fn(|v| call.x[v].rows().0 == 1),
        summed_rows: std::array::from_fn(|k| call.y[k].rows().0 != rows),
        summed: std::array::from_fn(|k| call.n[k].len() != rows),
        tile: (NEAR / (d * V * size_of::<K>()).max(1) / 8 * 8).clamp(8, TILE),
        aside: K::aside(dtype, call.large()),
        // below this 1 - c|y|², rounding (or the margin) can matter
        edge: op.margin().map(|m| {
            let keep = 1.0 - m.value(dtype);
            (m, 1.0 - keep * keep + 8.0 * eps(dtype))
        }),
    };
    // partial sums of each block, added up in the order of blocks at the end
    let sums = plan.summed_rows.iter().filter(|&&b| b).count() * pad;
    let mut partial_rows = try_vec(blocks.saturating_mul(sums), 0.0f64)?;
    // eight lanes of each
    let mut partial = try_vec(blocks * R * 8, 0.0f64)?;
    let (share_rows, share) = (Shared(partial_rows.as_mut_ptr()), Shared(partial.as_mut_ptr()));
    let scratch = if plan.aside.is_some() { plan.tile.saturating_mul(d).saturating_mul(V + O) } else { 0 };
    drop(try_vec(scratch, K::default())?); // each thread asks for as much again
    pool::run(blocks, rows.saturating_mul(d), |b| {
        // SAFETY: each block has its own part of the partial sums.
        let (sum_rows, sum) = unsafe { (share_rows.part(b * sums, sums), share.part(b * R * 8, R * 8)) };
        let mut space = vec![K::default(); scratch];
        dispatch(Tiles::<OP, K, V, C, P, W, O, R>(Block {
            op,
            call,
            plan: &plan,
            range: b * block..rows.min((b + 1) * block),
            space: &mut space,
            sum_rows,
            sum,
        }));
        stream::fence();
    })?;
    for (at, y) in call.y.iter().zip(plan.summed_rows).filter(|y| y.1).map(|y| y.0).enumerate() {
        for i in 0..d {
            // SAFETY: a float output of d numbers, and the blocks are done.
            unsafe { put(y, i, &[(0..blocks).map(|b| partial_rows[b * sums + at * pad + i]).sum()]) };
        }
    }
    for (k, n) in call.n.iter().enumerate().filter(|(k, _)| plan.summed[*k]) {
        // SAFETY: a float output of one number.
        unsafe { put(n, 0, &[partial.chunks_exact(R * 8).map(|p| p[8 * k..8 * k + 8].iter().sum::<f64>()).sum()]) };
    }
    Ok(())
}
