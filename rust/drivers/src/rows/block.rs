//! A call in blocks of rows. The one rule: nothing here is compiled per operator, and what a block computes depends on its
//! rows and the plan alone.

use super::aside::Aside;
use super::call::{Call, numbers, put};
use super::functor::Ground;
use super::kind::Wide;
use super::{BLOCK, ONCE, TILE, TWICE};
use base::pool::{self, Shared};
use base::simd::*;
use base::store::STEP;
use base::{Result, Tensor, stream, try_vec};
use std::ops::Range;

/// Arrays of one kind that an operator has, at most.
const MOST: usize = 8;

/// What all blocks of a call share.
pub struct Plan<'a, K> {
    pub d: usize,
    /// rows in a tile
    pub tile: usize,
    /// inputs of one row that serves all
    one: [bool; MOST],
    pub summed_rows: [bool; MOST],
    summed: [bool; MOST],
    pub aside: Option<Aside<K>>,
    /// Outputs go past the caches as they are made: their rows are whole lines.
    pub past: bool,
    ground: &'a dyn Ground,
    /// rows nearer to the edge than this may have been rounded over it
    pub edge: f64,
}

pub struct Block<'a, K> {
    pub call: &'a Call<'a>,
    pub plan: &'a Plan<'a, K>,
    pub range: Range<usize>,
    pub sum_rows: &'a mut [f64],
    sum: &'a mut [f64],
    space: &'a mut [K],
}

/// Whether whole lines go past the caches at the level in force.
struct Passes;
impl Kernel for Passes {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        const { stream::passes::<S>() }
    }
}

fn flags(t: &[Tensor], f: impl Fn(&Tensor) -> bool) -> [bool; MOST] {
    assert!(t.len() <= MOST);
    let mut flags = [false; MOST];
    for (flag, t) in flags.iter_mut().zip(t) {
        *flag = f(t);
    }
    flags
}

/// Does each block of a call on f64 data. Not generic, nor is its twin: compiled once, whatever the operator.
pub fn doubles(call: &Call, ground: &dyn Ground, each: &(dyn Fn(Block<f64>) + Sync)) -> Result<()> {
    blocks(call, ground, each)
}

/// The same on data that is computed from f32.
pub fn singles(call: &Call, ground: &dyn Ground, each: &(dyn Fn(Block<f32>) + Sync)) -> Result<()> {
    blocks(call, ground, each)
}

/// K is the type tile kernels are compiled for.
fn blocks<K: Wide>(call: &Call, ground: &dyn Ground, each: &(dyn Fn(Block<K>) + Sync)) -> Result<()> {
    let &Call { rows, d, x, y, n, .. } = call;
    let dtype = x[0].dtype();
    let block = (BLOCK / d.max(1)).clamp(1, BLOCK).next_multiple_of(TILE);
    let blocks = rows.div_ceil(block);
    let pad = d.next_multiple_of(STEP);
    let aside = K::aside(dtype, call.large());
    let summed_rows = flags(y, |y| y.rows().0 != rows);
    let lines = |y: &Tensor| y.dtype() == K::DTYPE && (y.as_ptr() as usize).is_multiple_of(64);
    let past = dtype == K::DTYPE
        && call.large()
        && (d * size_of::<K>()).is_multiple_of(64)
        && d.is_multiple_of(STEP)
        && !summed_rows.contains(&true)
        && x.iter().all(|x| x.dtype() == dtype)
        && y.iter().all(lines)
        && dispatch(Passes);
    let plan = Plan {
        d,
        tile: (if y.is_empty() { ONCE } else { TWICE } / (d * x.len() * size_of::<K>()).max(1) / 8 * 8).clamp(8, TILE),
        one: flags(x, |x| x.rows().0 == 1),
        summed_rows,
        summed: flags(n, |n| n.len() != rows),
        aside: aside.filter(|_| !past),
        past,
        ground,
        edge: ground.edge(dtype),
    };
    // partial sums of each block, added up in the order of blocks at the end
    let sums = plan.summed_rows.iter().filter(|&&b| b).count() * pad;
    let mut partial_rows = try_vec(blocks.saturating_mul(sums), 0.0f64)?;
    // eight lanes of each
    let lanes = n.len() * 8;
    let mut partial = try_vec(blocks * lanes, 0.0f64)?;
    let (share_rows, share) = (Shared(partial_rows.as_mut_ptr()), Shared(partial.as_mut_ptr()));
    let vectors = x.len() + y.len();
    let scratch = if plan.aside.is_some() { plan.tile.saturating_mul(d).saturating_mul(vectors) } else { 0 };
    drop(try_vec(scratch, K::default())?); // each thread asks for as much again
    pool::run(blocks, rows.saturating_mul(d), |b| {
        // SAFETY: each block has its own part of the partial sums.
        let (sum_rows, sum) = unsafe { (share_rows.part(b * sums, sums), share.part(b * lanes, lanes)) };
        let mut space = vec![K::default(); scratch];
        let range = b * block..rows.min((b + 1) * block);
        each(Block { call, plan: &plan, range, sum_rows, sum, space: &mut space });
        stream::fence();
    })?;
    for (at, y) in y.iter().zip(plan.summed_rows).filter(|y| y.1).map(|y| y.0).enumerate() {
        for i in 0..d {
            // SAFETY: a float output of d numbers, and the blocks are done.
            unsafe { put(y, i, &[total((0..blocks).map(|b| partial_rows[b * sums + at * pad + i]))]) };
        }
    }
    for (k, n) in n.iter().enumerate().filter(|(k, _)| plan.summed[*k]) {
        // SAFETY: a float output of one number.
        unsafe { put(n, 0, &[total(partial.chunks_exact(lanes).map(|p| p[8 * k..8 * k + 8].iter().sum::<f64>()))]) };
    }
    Ok(())
}

impl<K: Wide> Block<'_, K> {
    /// Rows `start..start + n` of input `v` as K, with their stride; widened into the buffer if need be.
    pub fn input(&mut self, v: usize, start: usize, n: usize) -> (*const K, usize) {
        let (t, d) = (&self.call.x[v], self.plan.d);
        let one = self.plan.one[v];
        let (first, count) = if one { (0, 1) } else { (start, n) };
        let stride = if one { 0 } else { d };
        let read = self.plan.aside.and_then(|aside| aside.read).filter(|_| t.dtype() != K::DTYPE);
        let Some(read) = read else {
            return (t.as_ptr().cast::<K>().cast_const().wrapping_add(first * d), stride);
        };
        let space = &mut self.space[v * self.plan.tile * d..][..count * d];
        read(t, first * d, space);
        (space.as_ptr(), stride)
    }

    /// Row numbers of rows `start..start + n`; of one that serves all, before the first.
    pub fn given(&self, all: bool, start: usize, n: usize, into: &mut [[f64; TILE]]) {
        for (into, t) in into.iter_mut().zip(self.call.c) {
            if (t.len() == 1) == all {
                numbers(t, start, &mut into[..n]);
            }
        }
    }

    /// Where the rows of output `o` go: its memory, or the buffer.
    pub fn output(&mut self, o: usize, start: usize) -> *mut K {
        if self.plan.aside.is_some() {
            return self.space[(self.call.x.len() + o) * self.plan.tile * self.plan.d..].as_mut_ptr();
        }
        // row `start` exists unless this output is summed, and then the pointer is not used
        self.call.y[o].as_ptr().cast::<K>().wrapping_add(start * self.plan.d)
    }

    /// Writes the numbers of rows `start..start + n`, or adds them to the block's sums.
    ///
    /// # Safety
    /// The rows belong to this block.
    #[inline(never)]
    pub unsafe fn found<S: Simd>(&mut self, s: S, start: usize, n: usize, found: &[[f64; TILE]]) {
        s.vectorize(
            #[inline(always)]
            || {
                for (k, found) in found.iter().enumerate() {
                    if !self.plan.summed[k] {
                        // SAFETY: promised by the caller.
                        unsafe { self.put(s, k, start, &found[..n]) };
                        continue;
                    }
                    // lane by lane: a sum of one number after the other is a chain that all else would wait for
                    let lanes = &mut self.sum[8 * k..][..8];
                    let whole = n / 8 * 8;
                    let mut v = f64x8::from_slice(s, lanes);
                    for g in (0..whole).step_by(8) {
                        v += f64x8::from_slice(s, &found[g..g + 8]);
                    }
                    v.store_slice(lanes);
                    for r in whole..n {
                        lanes[r - whole] += found[r];
                    }
                }
            },
        );
    }

    /// Writes the numbers of rows `start..`; without a call where they are of the type and the number most are.
    ///
    /// # Safety
    /// The rows belong to this block.
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, s: S, k: usize, start: usize, from: &[f64]) {
        let t = &self.call.n[k];
        if t.dtype() != K::DTYPE || !from.len().is_multiple_of(STEP) {
            // SAFETY: promised by the caller.
            return unsafe { put(t, start, from) };
        }
        for i in (0..from.len()).step_by(STEP) {
            // SAFETY: promised by the caller; there is a number for each row.
            let to = unsafe { std::slice::from_raw_parts_mut(t.as_ptr().cast::<K>().add(start + i), STEP) };
            K::store16(s, [f64x8::from_slice(s, &from[i..i + 8]), f64x8::from_slice(s, &from[i + 8..i + 16])], to);
        }
    }

    /// Brings what the buffer holds of output `o` before row `done` of a tile, as far as lines are whole, to memory:
    /// elements from `written`, which is moved on.
    pub fn part(&self, o: usize, start: usize, done: usize, written: &mut usize) {
        let d = self.plan.d;
        let line = stream::line(&self.call.y[o], start * d, done * d);
        self.write(o, start, *written..line);
        *written = line;
    }

    /// The rest of output `o`, all `n` rows of which are there. Of rows that may lie over the edge: how far from it they
    /// are, and the last of their numbers.
    pub fn rest(&self, o: usize, start: usize, n: usize, written: usize, near: Option<(&[f64; TILE], &[f64; TILE])>) {
        let (y, d) = (&self.call.y[o], self.plan.d);
        self.write(o, start, written..n * d);
        let Some((gap, last)) = near else { return };
        for r in (0..n).filter(|&r| gap[r] < self.plan.edge) {
            // SAFETY: rows start..start + n of output o belong to this block.
            unsafe { self.plan.ground.mend(y, (start + r) * d, d, last[r]) };
        }
    }

    /// Brings elements `part` of a tile from the buffer to output `o`, if there is a buffer.
    fn write(&self, o: usize, start: usize, part: Range<usize>) {
        if let Some(aside) = self.plan.aside {
            let (d, tile) = (self.plan.d, self.plan.tile);
            let space = &self.space[(self.call.x.len() + o) * tile * d..][part.clone()];
            let y = &self.call.y[o];
            let write = if y.dtype() == K::DTYPE { Aside::past().write } else { aside.write };
            write(space, y, start * d + part.start);
        }
    }
}

/// Zero of no blocks, where Rust's sum says minus zero.
fn total(parts: impl Iterator<Item = f64>) -> f64 {
    parts.fold(0.0, |a, b| a + b)
}
