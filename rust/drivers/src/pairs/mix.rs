//! Mixtures of rows: Σ w y over the columns, with weights made of the scores of a strip. The one rule: a product of matrices,
//! made a tile at a time, in f64 and in the order of the columns; where near rows would cancel, Σ w (x − y).

use super::columns::{Columns, Parts, columns_of};
use super::{Extent, Number, ROWS, Reduce, STRIP, Score, Sides, walk};
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use std::ops::Range;

/// Makes weights of scores, and something of the mixtures.
pub trait Weigh<T>: Sync {
    /// Numbers that a row adds up beside its mixture.
    type Sum: Copy + Send;
    const NONE: Self::Sum;
    /// Whether a pair pulls along the difference of its rows.
    const APART: bool = false;
    /// Whether mixtures of the rows of x are wanted, or their numbers alone.
    fn wanted(&self) -> bool {
        true
    }
    /// Turns the keys of at most 16 rows, 64 for each, into weights: 0 where a pair is not live. `beside` has two numbers of every
    /// column to add to, where mixtures of columns are made too.
    fn weigh<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        cols: Range<usize>,
        live: &[u64],
        keys: &mut [f64],
        sums: &mut [Mixed<Self::Sum>],
        beside: Option<[&mut [f64]; 2]>,
    );
    /// Adds the numbers of later columns.
    fn merge(&self, into: &mut Self::Sum, later: &Self::Sum);
    /// What is made of the mixture of a row, padded with zeros to whole steps.
    fn row<S: Simd>(&self, s: S, row: usize, acc: &[f64], sum: Self::Sum);
    /// What is made of the mixture Σ w x of a column.
    fn column(&self, _: usize, _acc: &[f64], _beside: [f64; 2]) {}
}

/// A mixture so far, and the numbers beside it.
pub struct Mixed<N> {
    acc: Vec<f64>,
    pub sum: N,
}

/// The reducer; [`Mix::rows`] and [`Mix::both`] run it.
pub struct Mix<'a, T, W> {
    sides: Sides<'a, T>,
    weigh: &'a W,
    columns: Option<Parts>,
}

impl<'a, T: Number, W: Weigh<T>> Mix<'a, T, W> {
    /// Mixtures for the rows of x.
    pub fn rows<Sc: Score<Class = T::Class>, E: Extent>(
        score: &Sc,
        extent: &E,
        weigh: &'a W,
        sides: &Sides<'a, T>,
    ) -> Result<()> {
        sides.run(score, extent, &Mix { sides: *sides, weigh, columns: None })
    }

    /// For those of y too, from one walk; `blocks` is what [`Columns::blocks`] allows.
    pub fn both<Sc: Score<Class = T::Class>, E: Extent>(
        score: &Sc,
        extent: &E,
        weigh: &'a W,
        sides: &Sides<'a, T>,
        blocks: usize,
    ) -> Result<()> {
        let Sides { n, m, d, .. } = *sides;
        let blocks = blocks.min(n.div_ceil(ROWS)).max(1);
        let mut columns = Columns::new(blocks, m, d)?;
        for first in (0..n).step_by(blocks * ROWS) {
            let mix = Mix { sides: *sides, weigh, columns: Some(columns.parts()) };
            walk(score, extent, &mix, sides, first..n.min(first + blocks * ROWS))?;
            columns.gather();
        }
        columns.each(|col, acc, beside| weigh.column(col, acc, beside));
        Ok(())
    }

    /// Σ w x for the columns of a strip, over 16 rows at most, for 16 features from `at` on.
    #[inline(always)]
    fn across<S: Simd, const R: usize>(
        &self,
        s: S,
        columns: &Parts,
        rows: Range<usize>,
        cols: Range<usize>,
        f: &[f64],
        at: usize,
    ) {
        let (d, end) = (self.sides.d, self.sides.d.min(at + STEP));
        let mut x = [0.0; STEP * STEP];
        for (row, x) in rows.clone().zip(x.chunks_exact_mut(STEP)) {
            let from = &self.sides.x[row * d + at..row * d + end];
            f64::store16(s, if from.len() == STEP { T::load16(s, from) } else { T::load_tail(s, from) }, x);
        }
        let x = &x[..rows.len() * STEP];
        // SAFETY: a block of rows is met by one task at a time, and has a part of its own.
        let acc = unsafe { columns.mixtures(rows.start, cols.clone()) };
        let whole = cols.len() / R * R;
        for first in (0..whole).step_by(R) {
            columns_of::<S, R>(s, &mut acc[first * columns.pad + at..], columns.pad, &f[first..], x);
        }
        for first in whole..cols.len() {
            columns_of::<S, 1>(s, &mut acc[first * columns.pad + at..], columns.pad, &f[first..], x);
        }
    }

    /// acc += Σ w y over the columns of a strip, for features from `at` on; where they end.
    #[inline(always)]
    fn product<S: Simd, const N: usize, const R: usize>(
        &self,
        s: S,
        sums: &mut [Mixed<W::Sum>],
        cols: Range<usize>,
        f: &[f64],
        at: usize,
    ) -> usize {
        let (d, width) = (self.sides.d, N * STEP);
        let end = d.min(at + width);
        let mut y = [0.0; 2 * STEP * STRIP];
        for (col, y) in cols.clone().zip(y.chunks_exact_mut(width)) {
            let from = &self.sides.y[col * d + at..col * d + end];
            for (from, y) in from.chunks(STEP).zip(y.chunks_exact_mut(STEP)) {
                f64::store16(s, if from.len() == STEP { T::load16(s, from) } else { T::load_tail(s, from) }, y);
            }
        }
        let y = &y[..cols.len() * width];
        let whole = sums.len() / R * R;
        for first in (0..whole).step_by(R) {
            rows_of::<S, N, R, _>(s, &mut sums[first..first + R], &f[first * STRIP..], y, at);
        }
        for first in whole..sums.len() {
            rows_of::<S, N, 1, _>(s, &mut sums[first..=first], &f[first * STRIP..], y, at);
        }
        end
    }

    /// acc += Σ w (x − y) over the columns
    #[inline(always)]
    fn pull<S: Simd, const N: usize>(&self, s: S, acc: &mut [f64], row: usize, cols: Range<usize>, f: &[f64]) {
        let d = self.sides.d;
        let x = &self.sides.x[row * d..][..d];
        let y = &self.sides.y[cols.start * d..cols.end * d];
        let zero = f64x8::splat(s, 0.0);
        let mut at = 0;
        while at < d {
            if d - at >= N * STEP {
                let (mut a, mut v) = ([[zero; 2]; N], [[zero; 2]; N]);
                for i in 0..N {
                    v[i] = T::load16(s, &x[at + i * STEP..]);
                    a[i] = f64::load16(s, &acc[at + i * STEP..]);
                }
                for (y, &f) in y.chunks_exact(d).zip(f) {
                    let (y, f) = (&y[at..at + N * STEP], f64x8::splat(s, f));
                    for i in 0..N {
                        let u = T::load16(s, &y[i * STEP..]);
                        a[i] = [(v[i][0] - u[0]).mul_add(f, a[i][0]), (v[i][1] - u[1]).mul_add(f, a[i][1])];
                    }
                }
                for i in 0..N {
                    f64::store16(s, a[i], &mut acc[at + i * STEP..]);
                }
                at += N * STEP;
            } else {
                let end = d.min(at + STEP);
                let (v, mut a) = (T::load_tail(s, &x[at..end]), f64::load16(s, &acc[at..]));
                for (y, &f) in y.chunks_exact(d).zip(f) {
                    let (u, f) = (T::load_tail(s, &y[at..end]), f64x8::splat(s, f));
                    a = [(v[0] - u[0]).mul_add(f, a[0]), (v[1] - u[1]).mul_add(f, a[1])];
                }
                f64::store16(s, a, &mut acc[at..]);
                at = end;
            }
        }
    }
}

impl<T: Number, W: Weigh<T>> Reduce for Mix<'_, T, W> {
    type State = Mixed<W::Sum>;
    const BLOCKED: bool = true;
    fn bytes(&self, _: usize) -> usize {
        size_of::<Self::State>() + self.sides.d.next_multiple_of(STEP) * size_of::<f64>()
    }
    fn start(&self, _: usize) -> Result<Self::State> {
        Ok(Mixed { acc: try_vec(self.sides.d.next_multiple_of(STEP), 0.0)?, sum: W::NONE })
    }
    #[inline(always)]
    fn block<S: Simd, Sc: Score>(
        &self,
        s: S,
        _: &Sc,
        sums: &mut [Self::State],
        rows: Range<usize>,
        cols: Range<usize>,
        live: &[u64],
        keys: &mut [f64],
    ) {
        for first in (0..sums.len()).step_by(STEP) {
            let end = sums.len().min(first + STEP);
            let (own, part) = (rows.start + first..rows.start + end, &mut keys[first * STRIP..end * STRIP]);
            // SAFETY: a block of rows is met by one task at a time, and has a part of its own.
            let beside = self.columns.as_ref().map(|c| unsafe { c.beside(rows.start, cols.clone()) });
            let live = &live[first..end];
            self.weigh.weigh(s, own.clone(), cols.clone(), live, part, &mut sums[first..end], beside);
            if let Some(columns) = &self.columns {
                for at in (0..self.sides.d).step_by(STEP) {
                    if S::f64s::N == 8 {
                        self.across::<S, 8>(s, columns, own.clone(), cols.clone(), part, at);
                    } else {
                        self.across::<S, 2>(s, columns, own.clone(), cols.clone(), part, at);
                    }
                }
            }
        }
        if !self.weigh.wanted() {
            return;
        }
        if W::APART {
            for ((row, sum), f) in rows.zip(sums).zip(keys.chunks_exact(STRIP)) {
                if S::f64s::N == 8 {
                    self.pull::<S, 4>(s, &mut sum.acc, row, cols.clone(), f);
                } else {
                    self.pull::<S, 1>(s, &mut sum.acc, row, cols.clone(), f);
                }
            }
            return;
        }
        // as many sums as there are registers
        let mut at = 0;
        while at < self.sides.d {
            at = match (S::f64s::N == 8, self.sides.d - at >= 2 * STEP) {
                (true, true) => self.product::<S, 2, 4>(s, sums, cols.clone(), keys, at),
                (true, false) => self.product::<S, 1, 8>(s, sums, cols.clone(), keys, at),
                _ => self.product::<S, 1, 2>(s, sums, cols.clone(), keys, at),
            };
        }
    }
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        for (a, b) in into.acc.iter_mut().zip(&later.acc) {
            *a += b;
        }
        self.weigh.merge(&mut into.sum, &later.sum);
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, s: S, _: &Sc, row: usize, Mixed { acc, sum }: Self::State) {
        self.weigh.row(s, row, &acc, sum);
    }
}

/// R rows of the product.
#[inline(always)]
fn rows_of<S: Simd, const N: usize, const R: usize, M>(s: S, sums: &mut [Mixed<M>], f: &[f64], y: &[f64], at: usize) {
    let mut acc = [[[f64x8::splat(s, 0.0); 2]; N]; R];
    for r in 0..R {
        for i in 0..N {
            acc[r][i] = f64::load16(s, &sums[r].acc[at + i * STEP..]);
        }
    }
    let f = &f[..R * STRIP];
    for (col, y) in y.chunks_exact(N * STEP).enumerate() {
        let mut v = [[f64x8::splat(s, 0.0); 2]; N];
        for i in 0..N {
            v[i] = f64::load16(s, &y[i * STEP..]);
        }
        for r in 0..R {
            let f = f64x8::splat(s, f[r * STRIP + col]);
            for i in 0..N {
                acc[r][i] = [v[i][0].mul_add(f, acc[r][i][0]), v[i][1].mul_add(f, acc[r][i][1])];
            }
        }
    }
    for r in 0..R {
        for i in 0..N {
            f64::store16(s, acc[r][i], &mut sums[r].acc[at + i * STEP..]);
        }
    }
}
