//! What gradients of distances add up to at each row. The one rule: a pair pulls along the difference of its rows, as it is,
//! so that near pairs lose nothing.

use crate::dd::{Dd, Num};
use crate::math;
use crate::ops::hyperbolic::roots::arsinh_root_d;
use crate::pairs::{self, Hyperbolic, Reduce, STRIP, Score};
use crate::pool::Shared;
use crate::simd::*;
use crate::store::{STEP, Store};
use crate::{Result, try_vec};
use std::marker::PhantomData;
use std::ops::Range;

/// Lanes of a vector.
const LANES: usize = 8;

/// Rows, and what distances need to know of each: 1/α and |x|².
pub struct Side<'a, T> {
    pub rows: &'a [T],
    inverse: Vec<f64>,
    squares: Vec<f64>,
}

struct Squares;
impl Score for Squares {
    type Class = pairs::Real;
    const TERMS: bool = true;
    #[inline(always)]
    fn step<S: Simd>(&self, _: S, sum: f64x8<S>, _: f64x8<S>, _: f64x8<S>) -> f64x8<S> {
        sum
    }
    #[inline(always)]
    fn term<S: Simd>(&self, _: S, norm2: Dd<S>) -> f64x8<S> {
        norm2.get()
    }
}

impl<'a, T: Store> Side<'a, T> {
    pub fn new(score: &Hyperbolic, rows: &'a [T], n: usize, d: usize) -> Result<Self> {
        let mut inverse = pairs::terms(score, rows, n, d)?;
        for v in &mut inverse {
            *v = 1.0 / *v;
        }
        Ok(Side { rows, inverse, squares: pairs::terms(&Squares, rows, n, d)? })
    }
}

/// The gradient that arrives at each distance.
pub enum Upstream<'a, T> {
    /// As an array, with the steps from row to row and from column to column.
    Matrix { g: &'a [T], strides: [usize; 2] },
    /// g e^(−βd − log Σ), one g and one sum for each row of x; `turned`: those are the columns here.
    Soft { beta: f64, g: &'a [T], sums: &'a [f64], turned: bool },
}

/// A reducer that adds up, for every row, the gradient of its distances to all columns.
pub struct Slopes<'a, T> {
    score: &'a Hyperbolic,
    d: usize,
    own: &'a Side<'a, T>,
    other: &'a Side<'a, T>,
    up: Upstream<'a, T>,
    into: Option<Shared<T>>,
    /// Sums of a row: of the gradient by c, and of w d.
    numbers: Option<[Shared<f64>; 2]>,
    life: PhantomData<&'a mut [T]>,
}

impl<'a, T: Store> Slopes<'a, T> {
    pub fn new(
        score: &'a Hyperbolic,
        d: usize,
        [own, other]: [&'a Side<'a, T>; 2],
        up: Upstream<'a, T>,
        into: Option<&'a mut [T]>,
        numbers: Option<[&'a mut [f64]; 2]>,
    ) -> Self {
        let into = into.map(|out| Shared(out.as_mut_ptr()));
        let numbers = numbers.map(|[a, b]| [Shared(a.as_mut_ptr()), Shared(b.as_mut_ptr())]);
        Slopes { score, d, own, other, up, into, numbers, life: PhantomData }
    }

    /// The gradients that arrive at a row's distances to `cols`, zeros past the end.
    #[inline(always)]
    fn weights<S: Simd>(&self, s: S, row: usize, cols: Range<usize>, distances: &[f64; STRIP]) -> [f64; STRIP] {
        let mut w = [0.0; STRIP];
        match &self.up {
            Upstream::Matrix { g, strides: [down, 1] } => {
                let g = &g[row * down + cols.start..][..cols.len()];
                for (w, g) in w.iter_mut().zip(g) {
                    *w = g.to_f64();
                }
            }
            Upstream::Matrix { g, strides: [down, right] } => {
                for (w, col) in w.iter_mut().zip(cols) {
                    *w = g[row * down + col * right].to_f64();
                }
            }
            Upstream::Soft { beta, g, sums, turned } => {
                let mut sum = [0.0; STRIP];
                for (i, (w, sum)) in w[..cols.len()].iter_mut().zip(&mut sum).enumerate() {
                    let at = if *turned { cols.start + i } else { row };
                    (*w, *sum) = (g[at].to_f64(), sums[at]);
                }
                for at in (0..STRIP).step_by(LANES) {
                    let part = at..at + LANES;
                    let d = f64x8::from_slice(s, &distances[part.clone()]);
                    let share = math::exp(s, d * -*beta - f64x8::from_slice(s, &sum[part.clone()]));
                    (f64x8::from_slice(s, &w[part.clone()]) * share).store_slice(&mut w[part]);
                }
            }
        }
        w
    }

    /// acc += Σ f (x − y) over the columns
    #[inline(always)]
    fn pull<S: Simd, const N: usize>(&self, s: S, acc: &mut [f64], row: usize, cols: Range<usize>, f: &[f64; STRIP]) {
        let d = self.d;
        let x = &self.own.rows[row * d..][..d];
        let y = &self.other.rows[cols.start * d..cols.end * d];
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

/// The sum of the pulls, the weight of x beside it, and the sums for c and for w d.
pub struct Sum {
    acc: Vec<f64>,
    along: [f64; LANES],
    dc: [f64; LANES],
    spread: [f64; LANES],
}

#[inline(always)]
fn total<S: Simd>(s: S, lanes: &[f64; LANES]) -> f64 {
    hsum(f64x8::from_slice(s, lanes))
}

impl<T: Store> Reduce for Slopes<'_, T> {
    type State = Sum;
    fn bytes(&self, _: usize) -> usize {
        size_of::<Sum>() + self.d.next_multiple_of(STEP) * size_of::<f64>()
    }
    fn start(&self, _: usize) -> Result<Sum> {
        let acc = try_vec(self.d.next_multiple_of(STEP), 0.0)?;
        Ok(Sum { acc, along: [0.0; LANES], dc: [0.0; LANES], spread: [0.0; LANES] })
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        s: S,
        _: &Sc,
        sum: &mut Sum,
        row: usize,
        cols: Range<usize>,
        keys: &mut [f64],
    ) {
        keys[cols.len()..].fill(0.0);
        let (c, zero) = (self.score.c, f64x8::splat(s, 0.0));
        let soft = matches!(self.up, Upstream::Soft { .. });
        let mut distances = [0.0; STRIP];
        if soft || self.numbers.is_some() {
            for (keys, d) in keys.chunks_exact(LANES).zip(distances.chunks_exact_mut(LANES)) {
                self.score.value(s, f64x8::from_slice(s, keys), size_of::<T>() < 8 && !soft).store_slice(d);
            }
        }
        let w = self.weights(s, row, cols.clone(), &distances);
        let inverse = self.own.inverse[row];
        let mut f = [0.0; STRIP];
        let mut along = f64x8::from_slice(s, &sum.along);
        for at in (0..STRIP).step_by(LANES) {
            if at >= cols.len() {
                break;
            }
            let other = &self.other.inverse[cols.start + at..cols.end.min(cols.start + at + LANES)];
            let (m, w) = (f64x8::from_slice(s, &keys[at..at + LANES]), f64x8::from_slice(s, &w[at..at + LANES]));
            let v = (w + w) / (m * m.mul_add(c, 1.0)).sqrt();
            let v = m.simd_eq(0.0).select(zero, v) * inverse;
            along += v * m;
            (v * pairs::padded(s, other)).store_slice(&mut f[at..at + LANES]);
        }
        along.store_slice(&mut sum.along);
        if self.numbers.is_some() {
            self.curve(s, sum, row, cols.clone(), keys, &w, &distances);
        }
        if self.into.is_some() {
            if S::f64s::N == 8 {
                self.pull::<S, 4>(s, &mut sum.acc, row, cols, &f);
            } else {
                self.pull::<S, 1>(s, &mut sum.acc, row, cols, &f);
            }
        }
    }
    fn merge(&self, into: &mut Sum, later: Sum) {
        for (a, b) in into.acc.iter_mut().zip(&later.acc) {
            *a += b;
        }
        for i in 0..LANES {
            into.along[i] += later.along[i];
            into.dc[i] += later.dc[i];
            into.spread[i] += later.spread[i];
        }
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, s: S, _: &Sc, row: usize, sum: Sum) {
        if let Some([dc, spread]) = &self.numbers {
            // SAFETY: the driver finishes each row once, and these have a number for each row.
            unsafe { (*dc.at(row), *spread.at(row)) = (total(s, &sum.dc), total(s, &sum.spread)) };
        }
        let Some(out) = &self.into else { return };
        let along = total(s, &sum.along) * self.score.c;
        let x = &self.own.rows[row * self.d..][..self.d];
        // SAFETY: as above; the output has a row of d for each row.
        let out = unsafe { out.part(row * self.d, self.d) };
        for ((x, a), out) in x.chunks(STEP).zip(sum.acc.chunks_exact(STEP)).zip(out.chunks_mut(STEP)) {
            let (x, a) = (T::load_tail(s, x), f64::load16(s, a));
            T::store_tail(s, [x[0].mul_add(along, a[0]), x[1].mul_add(along, a[1])], out);
        }
    }
}

impl<T: Store> Slopes<'_, T> {
    /// dc += w√m (ν/√(1 + u) + 2S'(u) m), ν = |x|²/α + |y|²/β, u = cm; and the sum of w d
    #[inline(always)]
    fn curve<S: Simd>(
        &self,
        s: S,
        sum: &mut Sum,
        row: usize,
        cols: Range<usize>,
        keys: &[f64],
        w: &[f64; STRIP],
        distances: &[f64; STRIP],
    ) {
        let own = self.own.squares[row] * self.own.inverse[row];
        let (mut dc, mut spread) = (f64x8::from_slice(s, &sum.dc), f64x8::from_slice(s, &sum.spread));
        for at in (0..cols.len()).step_by(LANES) {
            let range = cols.start + at..cols.end.min(cols.start + at + LANES);
            let nu = pairs::padded(s, &self.other.squares[range.clone()])
                .mul_add(pairs::padded(s, &self.other.inverse[range]), own);
            let part = at..at + LANES;
            let (m, w) = (f64x8::from_slice(s, &keys[part.clone()]), f64x8::from_slice(s, &w[part.clone()]));
            let d = f64x8::from_slice(s, &distances[part]);
            let (root, u) = (m.sqrt(), m * self.score.c);
            let shape = root.simd_gt(0.0).select(d / (root + root), f64x8::splat(s, 1.0));
            let slope = arsinh_root_d(u, shape) * 2.0;
            dc = (w * root).mul_add(slope.mul_add(m, nu / (u + 1.0).sqrt()), dc);
            spread = w.mul_add(d, spread);
        }
        dc.store_slice(&mut sum.dc);
        spread.store_slice(&mut sum.spread);
    }
}
