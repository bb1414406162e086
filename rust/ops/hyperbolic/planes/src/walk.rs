//! The walk over rows of t in blocks. The one rule: column sums go tile by tile, block by block, in one order for any number of
//! threads.

use super::Call;
use super::columns::Columns;
use super::lanes::Real;
use super::tile::{Block, TILE};
use base::pool::{self, Shared};
use base::simd::*;
use base::stream;
use base::{Result, try_vec};
use drivers::rows::{Aside, eps, put};

/// Elements per block at least, and blocks at most: the unit of threads and of column sums.
const BLOCK: usize = 16 * 1024;
const BLOCKS: usize = 256;

/// The call in lanes of `L`.
pub fn run<L: Real>(call: &Call) -> Result<()> {
    match (call.g.is_some(), call.form.fc) {
        (false, false) => blocks::<L, false, false>(call),
        (false, true) => blocks::<L, false, true>(call),
        (true, false) => blocks::<L, true, false>(call),
        (true, true) => blocks::<L, true, true>(call),
    }
}

fn blocks<L: Real, const BACK: bool, const FC: bool>(call: &Call) -> Result<()> {
    let (rows, d) = (call.rows, call.columns);
    let pad = d.next_multiple_of(L::LANES);
    let columns = Columns::of(call, pad)?;
    let block = (BLOCK / pad.max(1)).max(rows.div_ceil(BLOCKS)).max(1).next_multiple_of(TILE);
    let count = rows.div_ceil(block);
    let own = if BACK { 3 * pad + 1 } else { 0 };
    let mut partial = try_vec(count.saturating_mul(own), 0.0f64)?;
    let share = Shared(partial.as_mut_ptr());
    let (tile, sums) = (TILE.saturating_mul(pad), if BACK { pad } else { 0 });
    let dtype = call.out[0].dtype();
    let margin = 1.0 - call.form.margin.value(dtype);
    let large = call.out[0].bytes() >= stream::LARGE;
    let aside = L::aside(dtype).or_else(|| large.then(Aside::past));
    // each thread asks for as much again
    drop(try_vec(tile.saturating_mul(6), L::of(0.0))?);
    pool::run(count, rows.saturating_mul(d), |i| {
        let used = |k: usize| match k {
            0 | 3 => true,
            1 | 4 => BACK,
            2 => FC,
            _ => BACK || !FC,
        };
        dispatch(Block::<L, BACK, FC> {
            call,
            columns: &columns,
            pad,
            aside,
            edge: 1.0 - margin * margin + 8.0 * eps(dtype),
            range: i * block..rows.min((i + 1) * block),
            space: [0, 1, 2, 3, 4, 5].map(|k| vec![L::of(0.0); if used(k) { tile } else { 0 }]),
            lanes: [0; 3].map(|_| vec![L::of(0.0); sums]),
            // SAFETY: each block has its own part of the sums.
            sums: unsafe { share.part(i * own, own) },
        });
        stream::fence();
    })?;
    if BACK {
        let total = |k: usize| (0..count).map(|i| partial[i * own + k]).sum::<f64>();
        finish(call, &columns, pad, total);
    }
    Ok(())
}

/// dn, dr and dc from the sums over all rows.
fn finish<L>(call: &Call, columns: &Columns<L>, pad: usize, total: impl Fn(usize) -> f64) {
    let (c, root) = (call.c, call.c.sqrt());
    let mut dc = total(3 * pad);
    for k in 0..call.columns {
        let [n, r, a, b, cosh, slope] = [0, 1, 2, 3, 4, 5].map(|i| columns.wide[i][k]);
        let (u, v, y) = (total(k), total(pad + k), total(2 * pad + k));
        let per = if n > 0.0 { 1.0 / n } else { 0.0 };
        let (dn, dr) = ((y / root - a * u) * per, 4.0 * c * b * per * u - cosh * v);
        dc += 2.0 * r * b * per * u - slope * v;
        // SAFETY: outputs of one number per column, and the blocks are done.
        unsafe {
            put(&call.out[2], k, &[dn]);
            put(&call.out[3], k, &[dr]);
        }
    }
    if call.curved {
        // SAFETY: an output of one number.
        unsafe { put(&call.out[4], 0, &[dc]) };
    }
}
