//! One block of rows, tile by tile. The one rule: what a block computes depends on its rows and the plan alone.

use super::aside::{Aside, pull};
use super::call::{Call, numbers, put};
use super::margin::Margin;
use super::sums::{Acc, Dot2, Lanes, Plain};
use super::{RowOp, TILE};
use crate::Dtype;
use crate::dd::Num;
use crate::micro::{fetch, stream};
use crate::simd::*;
use crate::store::{STEP, Store};
use std::ops::Range;

/// The two types tile kernels are compiled for, each with the sums its data needs.
pub trait Wide: Store {
    type Acc<S: Simd>: Acc<S>;
    /// How rows stored as `dtype` are set aside, if they have to be.
    fn aside(dtype: Dtype, large: bool) -> Option<Aside<Self>>;
}
impl Wide for f64 {
    type Acc<S: Simd> = Dot2<S>;
    fn aside(_: Dtype, large: bool) -> Option<Aside<f64>> {
        large.then(Aside::past)
    }
}
impl Wide for f32 {
    type Acc<S: Simd> = Plain<S>;
    fn aside(dtype: Dtype, large: bool) -> Option<Aside<f32>> {
        Aside::half(dtype).or_else(|| large.then(Aside::past))
    }
}

/// What all blocks of a call share.
pub struct Plan<K, const O: usize, const R: usize> {
    pub d: usize,
    /// rows in a tile
    pub tile: usize,
    /// d rounded up to whole steps: the stride of partial sums
    pub pad: usize,
    pub summed_rows: [bool; O],
    pub summed: [bool; R],
    pub aside: Option<Aside<K>>,
    pub edge: Option<(Margin, f64)>,
}

pub struct Block<'a, OP, K, const V: usize, const C: usize, const O: usize, const R: usize> {
    pub op: &'a OP,
    pub call: &'a Call<'a, V, C, O, R>,
    pub plan: &'a Plan<K, O, R>,
    pub range: Range<usize>,
    pub space: &'a mut [K],
    pub sum_rows: &'a mut [f64],
    pub sum: &'a mut [f64],
}

/// A block with the numbers of products and weights said, which its fields do not mention.
pub struct Tiles<
    'a,
    OP,
    K,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(pub Block<'a, OP, K, V, C, O, R>);

impl<OP, K: Wide, const V: usize, const C: usize, const O: usize, const R: usize> Block<'_, OP, K, V, C, O, R> {
    /// Rows `start..start + n` of input `v` as K, with their stride; widened into the buffer if need be.
    #[inline(always)]
    fn input(&mut self, v: usize, start: usize, n: usize) -> (*const K, usize) {
        let (t, d) = (&self.call.x[v], self.plan.d);
        let one = t.rows().0 == 1;
        let (first, count) = if one { (0, 1) } else { (start, n) };
        let stride = if one { 0 } else { d };
        let Some(Aside { read: Some(read), .. }) = self.plan.aside else {
            return (t.as_ptr().cast::<K>().cast_const().wrapping_add(first * d), stride);
        };
        let space = &mut self.space[v * self.plan.tile * d..][..count * d];
        read(t, first * d, space);
        (space.as_ptr(), stride)
    }

    /// Where the rows of output `o` go: its memory, or the buffer.
    #[inline(always)]
    fn output(&mut self, o: usize, start: usize) -> *mut K {
        if self.plan.aside.is_some() {
            return self.space[(V + o) * self.plan.tile * self.plan.d..].as_mut_ptr();
        }
        // row `start` exists unless this output is summed, and then the pointer is not used
        self.call.y[o].as_ptr().cast::<K>().wrapping_add(start * self.plan.d)
    }

    /// Brings elements `part` of a tile from the buffer to output `o`, if there is a buffer.
    fn write(&self, o: usize, start: usize, part: Range<usize>) {
        if let Some(aside) = self.plan.aside {
            let (d, tile) = (self.plan.d, self.plan.tile);
            let space = &self.space[(V + o) * tile * d..][part.clone()];
            (aside.write)(space, &self.call.y[o], start * d + part.start);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, A: Acc<S>, const P: usize, const W: usize>(
        &mut self,
        s: S,
        start: usize,
        n: usize,
        lanes: &mut [Lanes; P],
    ) where
        OP: RowOp<V, C, P, W, O, R>,
    {
        let d = self.plan.d;
        // the next tile comes in while this one is worked on, so that memory never rests
        let next = self.plan.tile * d;
        let early = if O == 0 { V } else { V / 2 };
        let mut x = [(std::ptr::null(), 0); V];
        for (v, place) in x.iter_mut().enumerate() {
            *place = self.input(v, start, n);
        }
        for r in 0..n {
            let x = at_row(&x, r);
            let mut sums = [[A::zero(s); P]; 2];
            let mut i = 0;
            while i + STEP <= d {
                // SAFETY: `input` gave V places with n rows of d elements (or one row with stride 0).
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, STEP) };
                ahead(&x[..early], i + next);
                self.op.dots(&a, &mut sums[0]);
                self.op.dots(&b, &mut sums[1]);
                i += STEP;
            }
            if i < d {
                // SAFETY: as above.
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, d - i) };
                self.op.dots(&a, &mut sums[0]);
                if d - i > STEP / 2 {
                    self.op.dots(&b, &mut sums[1]);
                }
            }
            for p in 0..P {
                sums[0][p].keep(sums[1][p], &mut lanes[p], r);
            }
        }

        let mut c = [[0.0; TILE]; C];
        for (c, t) in c.iter_mut().zip(&self.call.c) {
            numbers(t, start, &mut c[..n]);
        }
        let mut weights = [[0.0; TILE]; W];
        let mut found = [[0.0; TILE]; R];
        let mut gap = [0.0; TILE];
        for g in (0..n).step_by(8) {
            let mut p = [Num::of(f64x8::splat(s, 0.0)); P];
            for k in 0..P {
                p[k] = A::totals(s, &lanes[k], g);
            }
            let mut row_numbers = [f64x8::splat(s, 0.0); C];
            for k in 0..C {
                row_numbers[k] = f64x8::from_slice(s, &c[k][g..g + 8]);
            }
            let solved = self.op.solve(s, p, row_numbers);
            for k in 0..W {
                solved.weights[k].store_slice(&mut weights[k][g..g + 8]);
            }
            for k in 0..R {
                solved.numbers[k].store_slice(&mut found[k][g..g + 8]);
            }
            solved.gap.store_slice(&mut gap[g..g + 8]);
        }
        for k in 0..R {
            if self.plan.summed[k] {
                for &v in &found[k][..n] {
                    self.sum[k] += v;
                }
            } else {
                // SAFETY: rows start..start + n belong to this block.
                unsafe { put(&self.call.n[k], start, &found[k][..n]) };
            }
        }
        if O == 0 {
            return;
        }

        let mut y = [std::ptr::null_mut(); O];
        for (o, place) in y.iter_mut().enumerate() {
            *place = self.output(o, start);
        }
        let plain = !self.plan.summed_rows.contains(&true);
        let chunk = self.plan.aside.map_or(usize::MAX, |aside| aside.chunk);
        let mut written = [0; O];
        for r in 0..n {
            let x = at_row(&x, r);
            let mut w = [f64x8::splat(s, 0.0); W];
            for k in 0..W {
                w[k] = f64x8::splat(s, weights[k][r]);
            }
            let mut i = 0;
            // the common case apart: whole steps into memory, nothing to decide
            while plain && i + STEP <= d {
                // SAFETY: as below.
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, STEP) };
                ahead(&x[early..], i + next);
                let (a, b) = (self.op.combine(&a, &w), self.op.combine(&b, &w));
                for o in 0..O {
                    // SAFETY: as below.
                    let row = unsafe { std::slice::from_raw_parts_mut(y[o].add(r * d + i), STEP) };
                    K::store16(s, [a[o], b[o]], row);
                }
                i += STEP;
            }
            while i < d {
                let step = STEP.min(d - i);
                // SAFETY: as above; no reference to a row outlives its step, since an output may be an input.
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, step) };
                let (a, b) = (self.op.combine(&a, &w), self.op.combine(&b, &w));
                let mut at = 0;
                for o in 0..O {
                    if self.plan.summed_rows[o] {
                        let sum = &mut self.sum_rows[at * self.plan.pad + i..][..STEP];
                        (f64x8::from_slice(s, &sum[..8]) + a[o]).store_slice(&mut sum[..8]);
                        (f64x8::from_slice(s, &sum[8..]) + b[o]).store_slice(&mut sum[8..]);
                        at += 1;
                    } else {
                        // SAFETY: row r of this output's tile, owned by this block; `alias` inputs of the row were read
                        // up to this step, and a step is read before it is written.
                        let row = unsafe { std::slice::from_raw_parts_mut(y[o].add(r * d + i), step) };
                        if step == STEP {
                            K::store16(s, [a[o], b[o]], row);
                        } else {
                            K::store_tail(s, [a[o], b[o]], row);
                        }
                    }
                }
                i += step;
            }
            if plain && (r + 1) * d - written[0] >= chunk {
                for o in 0..O {
                    let line = stream::line(&self.call.y[o], start * d, (r + 1) * d);
                    self.write(o, start, written[o]..line);
                    written[o] = line;
                }
            }
        }
        for o in (0..O).filter(|&o| !self.plan.summed_rows[o]) {
            let y = &self.call.y[o];
            self.write(o, start, written[o]..n * d);
            if let (0, Some((margin, edge))) = (o, self.plan.edge) {
                for r in (0..n).filter(|&r| gap[r] < edge) {
                    // SAFETY: rows start..start + n of output o belong to this block.
                    unsafe { pull(y, (start + r) * d, d, c[C - 1][r], margin) };
                }
            }
        }
    }
}

impl<OP, K: Wide, const V: usize, const C: usize, const P: usize, const W: usize, const O: usize, const R: usize> Kernel
    for Tiles<'_, OP, K, V, C, P, W, O, R>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut block = self.0;
        let range = block.range.clone();
        // what a short last tile leaves over from the one before belongs to no row, and nothing reads it
        let mut lanes = [const { Lanes::ZERO }; P];
        let tile = block.plan.tile;
        for start in range.clone().step_by(tile) {
            let n = tile.min(range.end - start);
            if OP::WIDE {
                block.tile::<S, Dot2<S>, P, W>(s, start, n, &mut lanes);
            } else {
                block.tile::<S, K::Acc<S>, P, W>(s, start, n, &mut lanes);
            }
        }
    }
}

/// Where row `r` of each input starts.
#[inline(always)]
fn at_row<K, const V: usize>(x: &[(*const K, usize); V], r: usize) -> [*const K; V] {
    let mut rows = [std::ptr::null(); V];
    for v in 0..V {
        rows[v] = x[v].0.wrapping_add(r * x[v].1);
    }
    rows
}

/// Fetches step `i` of each row, wherever that is.
#[inline(always)]
fn ahead<K: Wide>(x: &[*const K], i: usize) {
    for v in 0..x.len() {
        let p = x[v].wrapping_add(i);
        fetch(p);
        if size_of::<K>() == 8 {
            fetch(p.wrapping_add(STEP / 2));
        }
    }
}

/// Step `i` of each row: two halves of eight lanes, zeros past the end.
///
/// # Safety
/// Each row has `i + step` elements at least.
#[inline(always)]
unsafe fn load<S: Simd, K: Wide, const V: usize>(s: S, x: &[*const K; V], i: usize, step: usize) -> [[f64x8<S>; V]; 2] {
    let zero = f64x8::splat(s, 0.0);
    let (mut a, mut b) = ([zero; V], [zero; V]);
    for v in 0..V {
        // SAFETY: promised by the caller.
        let part = unsafe { std::slice::from_raw_parts(x[v].add(i), step) };
        [a[v], b[v]] = if step == STEP { K::load16(s, part) } else { K::load_tail(s, part) };
    }
    [a, b]
}
