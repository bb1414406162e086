//! One block of rows, tile by tile. The one rule: what a block computes depends on its rows and the plan alone.

use super::call::{Call, number, put};
use super::margin::{Margin, inside};
use super::sums::{Acc, Dot2, Lanes, Plain};
use super::{RowOp, TILE};
use crate::simd::*;
use crate::store::{STEP, Store};
use std::marker::PhantomData;
use std::ops::Range;

/// The two types tile kernels are compiled for, each with the sums its data needs.
pub trait Wide: Store {
    type Acc<S: Simd>: Acc<S>;
}
impl Wide for f64 {
    type Acc<S: Simd> = Dot2<S>;
}
impl Wide for f32 {
    type Acc<S: Simd> = Plain<S>;
}

/// What all blocks of a call share.
pub struct Plan<const O: usize, const R: usize> {
    pub d: usize,
    /// d rounded up to whole steps: the stride of partial sums
    pub pad: usize,
    pub summed_rows: [bool; O],
    pub summed: [bool; R],
    pub widen: bool,
    pub edge: Option<(Margin, f64)>,
}

pub struct Block<'a, OP, T, K, const V: usize, const C: usize, const O: usize, const R: usize> {
    pub op: &'a OP,
    pub call: &'a Call<'a, V, C, O, R>,
    pub plan: &'a Plan<O, R>,
    pub range: Range<usize>,
    pub space: &'a mut [K],
    pub sum_rows: &'a mut [f64],
    pub sum: &'a mut [f64],
    pub stored: PhantomData<T>,
}

/// A block with the numbers of products and weights said, which its fields do not mention.
pub struct Tiles<
    'a,
    OP,
    T,
    K,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(pub Block<'a, OP, T, K, V, C, O, R>);

impl<OP, T: Store, K: Wide, const V: usize, const C: usize, const O: usize, const R: usize>
    Block<'_, OP, T, K, V, C, O, R>
{
    /// Rows `start..start + n` of input `v` as K, with their stride; widened into the scratch space if need be.
    #[inline(always)]
    fn input(&mut self, v: usize, start: usize, n: usize) -> (*const K, usize) {
        let (t, d) = (&self.call.x[v], self.plan.d);
        let one = t.rows().0 == 1;
        let (first, count) = if one { (0, 1) } else { (start, n) };
        // SAFETY: rows `first..first + count` exist (checked by Call::new) and hold elements of type T.
        let stored = unsafe { t.as_ptr().cast::<T>().cast_const().add(first * d) };
        let stride = if one { 0 } else { d };
        if !self.plan.widen {
            return (stored.cast(), stride);
        }
        let space = &mut self.space[v * TILE * d..][..count * d];
        // SAFETY: as above.
        let rows = unsafe { std::slice::from_raw_parts(stored, count * d) };
        for (wide, narrow) in space.iter_mut().zip(rows) {
            *wide = K::from_f32(narrow.to_f32());
        }
        (space.as_ptr(), stride)
    }

    /// Where the rows of output `o` go: its memory, or the scratch space if they are narrowed later.
    #[inline(always)]
    fn output(&mut self, o: usize, start: usize) -> *mut K {
        if self.plan.widen {
            return self.space[(V + o) * TILE * self.plan.d..].as_mut_ptr();
        }
        // SAFETY: row `start` exists unless this output is summed, and then the pointer is not used.
        self.call.y[o].as_ptr().cast::<K>().wrapping_add(start * self.plan.d)
    }

    #[inline(always)]
    fn tile<S: Simd, const P: usize, const W: usize>(&mut self, s: S, start: usize, n: usize)
    where
        OP: RowOp<V, C, P, W, O, R>,
    {
        let d = self.plan.d;
        let mut x = [(std::ptr::null(), 0); V];
        for (v, place) in x.iter_mut().enumerate() {
            *place = self.input(v, start, n);
        }
        let rows = |r: usize| -> [*const K; V] {
            std::array::from_fn(
                #[inline(always)]
                |v| x[v].0.wrapping_add(r * x[v].1),
            )
        };

        let mut lanes = [const { Lanes::ZERO }; P];
        for r in 0..n {
            let x = rows(r);
            let mut sums = [[K::Acc::<S>::zero(s); P]; 2];
            let mut i = 0;
            while i + STEP <= d {
                // SAFETY: `input` gave V places with n rows of d elements (or one row with stride 0).
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, STEP) };
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
            if t.len() == 1 {
                *c = [number(t, 0); TILE];
            } else {
                for (r, c) in c.iter_mut().enumerate().take(n) {
                    *c = number(t, start + r);
                }
            }
        }
        let mut weights = [[0.0; TILE]; W];
        let mut numbers = [[0.0; TILE]; R];
        let mut gap = [0.0; TILE];
        for g in (0..n).step_by(8) {
            let at = |v: &[f64; TILE]| f64x8::from_slice(s, &v[g..g + 8]);
            let p: [<K::Acc<S> as Acc<S>>::Num; P] = std::array::from_fn(
                #[inline(always)]
                |p| K::Acc::<S>::totals(s, &lanes[p], g),
            );
            let c: [f64x8<S>; C] = std::array::from_fn(
                #[inline(always)]
                |k| at(&c[k]),
            );
            let solved = self.op.solve(s, p, c);
            for k in 0..W {
                solved.weights[k].store_slice(&mut weights[k][g..g + 8]);
            }
            for k in 0..R {
                solved.numbers[k].store_slice(&mut numbers[k][g..g + 8]);
            }
            solved.gap.store_slice(&mut gap[g..g + 8]);
        }
        for k in 0..R {
            for (r, &v) in numbers[k][..n].iter().enumerate() {
                if self.plan.summed[k] {
                    self.sum[k] += v;
                } else {
                    // SAFETY: rows start..start + n belong to this block.
                    unsafe { put(&self.call.n[k], start + r, v) };
                }
            }
        }
        if O == 0 {
            return;
        }

        let mut y = [std::ptr::null_mut(); O];
        for (o, place) in y.iter_mut().enumerate() {
            *place = self.output(o, start);
        }
        for r in 0..n {
            let x = rows(r);
            let w: [f64x8<S>; W] = std::array::from_fn(
                #[inline(always)]
                |k| f64x8::splat(s, weights[k][r]),
            );
            let mut i = 0;
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
                            K::store16(s, [a[o], b[o]], row)
                        } else {
                            K::store_tail(s, [a[o], b[o]], row)
                        }
                    }
                }
                i += step;
            }
        }
        for o in (0..O).filter(|&o| !self.plan.summed_rows[o]) {
            // SAFETY: rows start..start + n of output o belong to this block.
            let stored =
                unsafe { std::slice::from_raw_parts_mut(self.call.y[o].as_ptr().cast::<T>().add(start * d), n * d) };
            if self.plan.widen {
                let wide = &self.space[(V + o) * TILE * d..][..n * d];
                for (narrow, wide) in stored.iter_mut().zip(wide) {
                    *narrow = T::from_f32(wide.to_f32());
                }
            }
            if let (0, Some((margin, edge))) = (o, self.plan.edge) {
                for r in (0..n).filter(|&r| gap[r] < edge) {
                    inside(&mut stored[r * d..][..d], c[C - 1][r], margin);
                }
            }
        }
    }
}

impl<
    OP,
    T: Store,
    K: Wide,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
> Kernel for Tiles<'_, OP, T, K, V, C, P, W, O, R>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut block = self.0;
        let range = block.range.clone();
        for start in range.clone().step_by(TILE) {
            block.tile::<S, P, W>(s, start, TILE.min(range.end - start));
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
