//! One block of rows, tile by tile. The one rule: what a block computes depends on its rows and the plan alone.

use super::aside::{Aside, pull};
use super::call::{Call, numbers, put};
use super::kind::Wide;
use super::margin::Margin;
use super::sums::{Acc, Dot2};
use super::walk::{Rows, combine, combine_summed, products};
use super::{RowOp, Solved, TILE};
use base::dd::Num;
use base::simd::*;
use base::store::STEP;
use base::stream;
use std::ops::Range;

/// What all blocks of a call share.
pub struct Plan<K, const V: usize, const O: usize, const R: usize> {
    pub d: usize,
    /// rows in a tile
    pub tile: usize,
    /// inputs of one row that serves all
    pub one: [bool; V],
    pub summed_rows: [bool; O],
    pub summed: [bool; R],
    pub aside: Option<Aside<K>>,
    pub edge: Option<(Margin, f64)>,
}

pub struct Block<'a, OP, K, const V: usize, const C: usize, const O: usize, const R: usize> {
    pub op: &'a OP,
    pub call: &'a Call<'a, V, C, O, R>,
    pub plan: &'a Plan<K, V, O, R>,
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

/// The numbers of a tile's rows, between the two walks. What a short tile leaves over from the one before belongs to no
/// row, and nothing reads it.
#[repr(align(64))]
struct Room<L, const C: usize, const P: usize, const W: usize, const R: usize> {
    lanes: [L; P],
    products: [[f64; TILE]; P],
    c: [[f64; TILE]; C],
    weights: [[f64; TILE]; W],
    found: [[f64; TILE]; R],
    gap: [f64; TILE],
}

impl<OP, K: Wide, const V: usize, const C: usize, const O: usize, const R: usize> Block<'_, OP, K, V, C, O, R> {
    /// Rows `start..start + n` of input `v` as K, with their stride; widened into the buffer if need be.
    #[inline(always)]
    fn input(&mut self, v: usize, start: usize, n: usize) -> (*const K, usize) {
        let (t, d) = (&self.call.x[v], self.plan.d);
        let one = self.plan.one[v];
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

    /// Brings elements `part` of a tile from the buffer to output `o`, if there is a buffer.
    fn write(&self, o: usize, start: usize, part: Range<usize>) {
        if let Some(aside) = self.plan.aside {
            let (d, tile) = (self.plan.d, self.plan.tile);
            let space = &self.space[(V + o) * tile * d..][part.clone()];
            (aside.write)(space, &self.call.y[o], start * d + part.start);
        }
    }

    /// All tiles, with sums of type A.
    #[inline(always)]
    fn tiles<S: Simd, A: Acc<S>, const P: usize, const W: usize>(&mut self, s: S)
    where
        OP: RowOp<V, C, P, W, O, R>,
    {
        let Range { start, end } = self.range;
        let mut room = Room::<A::Lanes, C, P, W, R> {
            lanes: [A::EMPTY; P],
            products: [[0.0; TILE]; P],
            c: [[0.0; TILE]; C],
            weights: [[0.0; TILE]; W],
            found: [[0.0; TILE]; R],
            gap: [0.0; TILE],
        };
        for (c, t) in room.c.iter_mut().zip(&self.call.c) {
            if t.len() == 1 {
                numbers(t, 0, c);
            }
        }
        for at in (start..end).step_by(self.plan.tile) {
            self.tile::<S, A, P, W>(s, at, self.plan.tile.min(end - at), &mut room);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, A: Acc<S>, const P: usize, const W: usize>(
        &mut self,
        s: S,
        start: usize,
        n: usize,
        room: &mut Room<A::Lanes, C, P, W, R>,
    ) where
        OP: RowOp<V, C, P, W, O, R>,
    {
        let (plan, op) = (self.plan, self.op);
        let mut x = [(std::ptr::null(), 0); V];
        for (v, place) in x.iter_mut().enumerate() {
            *place = self.input(v, start, n);
        }
        let rows = Rows { x, d: plan.d, next: plan.tile * plan.d, early: if O == 0 { V } else { V / 2 } };
        // SAFETY: `input` gave V places with n rows of d elements (or one row with stride 0), and n <= plan.tile <= TILE.
        unsafe { products::<OP, S, K, A, V, C, P, W, O, R>(s, op, rows, n, &mut room.lanes) };

        for (c, t) in room.c.iter_mut().zip(&self.call.c) {
            if t.len() != 1 {
                numbers(t, start, &mut c[..n]);
            }
        }
        // rows nearer to the edge than this may have been rounded onto it
        let edge = plan.edge.map_or(f64::NEG_INFINITY, |(_, edge)| edge);
        let mut near = false;
        // apart from what follows, which is one long chain: the fewer instructions wait in it, the more of the next rows'
        // are begun meanwhile
        if !A::TWICE {
            for g in (0..n).step_by(8) {
                for k in 0..P {
                    A::totals(s, &room.lanes[k], g).get().store_slice(&mut room.products[k][g..g + 8]);
                }
            }
        }
        for g in (0..n).step_by(8) {
            let mut p = [Num::of(f64x8::splat(s, 0.0)); P];
            for k in 0..P {
                p[k] = if A::TWICE {
                    A::totals(s, &room.lanes[k], g)
                } else {
                    A::Num::of(f64x8::from_slice(s, &room.products[k][g..g + 8]))
                };
            }
            let mut row_numbers = [f64x8::splat(s, 0.0); C];
            for k in 0..C {
                row_numbers[k] = f64x8::from_slice(s, &room.c[k][g..g + 8]);
            }
            let mut solved = op.solve(s, p, row_numbers);
            if OP::WIDE && !A::TWICE {
                let mut sums = [f64x8::splat(s, 0.0); P];
                for k in 0..P {
                    sums[k] = p[k].get();
                }
                let doubt = op.doubt(sums, row_numbers, &solved);
                if doubt.any_true() {
                    // SAFETY: as above, of the rows from g on.
                    let exact = unsafe {
                        again::<OP, S, K, V, C, P, W, O, R>(s, op, rows.skip(g), (n - g).min(8), row_numbers)
                    };
                    for k in 0..W {
                        solved.weights[k] = doubt.select(exact.weights[k], solved.weights[k]);
                    }
                    for k in 0..R {
                        solved.numbers[k] = doubt.select(exact.numbers[k], solved.numbers[k]);
                    }
                    solved.gap = doubt.select(exact.gap, solved.gap);
                }
            }
            for k in 0..W {
                solved.weights[k].store_slice(&mut room.weights[k][g..g + 8]);
            }
            for k in 0..R {
                solved.numbers[k].store_slice(&mut room.found[k][g..g + 8]);
            }
            solved.gap.store_slice(&mut room.gap[g..g + 8]);
            near |= solved.gap.simd_lt(edge).any_true();
        }
        for k in 0..R {
            if plan.summed[k] {
                // lane by lane: a sum of one number after the other is a chain that all else would wait for
                let (lanes, found) = (&mut self.sum[8 * k..][..8], &room.found[k]);
                let whole = n / 8 * 8;
                let mut v = f64x8::from_slice(s, lanes);
                for g in (0..whole).step_by(8) {
                    v += f64x8::from_slice(s, &found[g..g + 8]);
                }
                v.store_slice(lanes);
                for r in whole..n {
                    lanes[r - whole] += found[r];
                }
            } else {
                // SAFETY: rows start..start + n belong to this block.
                unsafe { self.put(s, k, start, &room.found[k][..n]) };
            }
        }
        if O == 0 {
            return;
        }

        let mut y = [std::ptr::null_mut(); O];
        for (o, place) in y.iter_mut().enumerate() {
            *place = self.output(o, start);
        }
        let mut written = [0; O];
        if plan.summed_rows.contains(&true) {
            // SAFETY: as above; rows start..start + n of the outputs belong to this block.
            unsafe {
                combine_summed::<OP, S, K, V, C, P, W, O, R>(
                    s,
                    op,
                    rows,
                    n,
                    &room.weights,
                    &y,
                    &plan.summed_rows,
                    self.sum_rows,
                );
            }
        } else {
            // what is set aside leaves the buffer while the next rows are computed
            let some = plan.aside.map_or(n, |aside| aside.chunk.div_ceil(plan.d.max(1)));
            let mut done = 0;
            while done < n {
                let range = done..n.min(done + some);
                done = range.end;
                // SAFETY: as above.
                unsafe { combine::<OP, S, K, V, C, P, W, O, R>(s, op, rows, range, &room.weights, &y) };
                if done < n {
                    for o in 0..O {
                        let line = stream::line(&self.call.y[o], start * plan.d, done * plan.d);
                        self.write(o, start, written[o]..line);
                        written[o] = line;
                    }
                }
            }
        }
        for o in (0..O).filter(|&o| !plan.summed_rows[o]) {
            let y = &self.call.y[o];
            self.write(o, start, written[o]..n * plan.d);
            if let (true, 0, Some((margin, edge))) = (near, o, plan.edge) {
                for r in (0..n).filter(|&r| room.gap[r] < edge) {
                    // SAFETY: rows start..start + n of output o belong to this block.
                    unsafe { pull(y, (start + r) * plan.d, plan.d, room.c[C - 1][r], margin) };
                }
            }
        }
    }
}

/// Solves rows `0..n`, at most eight, from sums in twice the precision.
///
/// # Safety
/// As for [`products`].
#[inline(always)]
unsafe fn again<
    OP,
    S: Simd,
    K: Wide,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(
    s: S,
    op: &OP,
    rows: Rows<K, V>,
    n: usize,
    c: [f64x8<S>; C],
) -> Solved<S, W, R>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    let mut lanes = [Dot2::<S>::EMPTY; P];
    // SAFETY: promised by the caller.
    unsafe { products::<OP, S, K, Dot2<S>, V, C, P, W, O, R>(s, op, rows, n, &mut lanes) };
    let mut p = [Num::of(f64x8::splat(s, 0.0)); P];
    for k in 0..P {
        p[k] = Dot2::totals(s, &lanes[k], 0);
    }
    op.solve(s, p, c)
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
        block.tiles::<S, K::Acc<S>, P, W>(s);
    }
}
