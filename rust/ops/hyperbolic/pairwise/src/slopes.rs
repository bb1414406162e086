//! What gradients of distances add up to at each row. The one rule: a pair pulls along the difference of its rows, so that
//! near pairs lose nothing: f64 rows are taken apart first. Rows of fewer bits are so in f64 to the last of their own when
//! Σ f x and Σ f y are, and Σ f y is a product of matrices, made a tile at a time.

use super::columns::{Parts, columns_of};
use base::dd::{Dd, Num};
use base::math;
use base::pool::Shared;
use base::roots::arsinh_root_d;
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::pairs::{self, Hyperbolic, Number, Reduce, STRIP, Score};
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

impl<'a, T: Number> Side<'a, T> {
    pub fn new(score: &Hyperbolic, rows: &'a [T], n: usize, d: usize) -> Result<Self> {
        let inverse = pairs::terms(score, rows, n, d)?;
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
    /// The row of x that is the first here.
    offset: usize,
    columns: Option<&'a Parts>,
    life: PhantomData<&'a mut [T]>,
}

impl<'a, T: Number> Slopes<'a, T> {
    pub fn new(
        score: &'a Hyperbolic,
        d: usize,
        [own, other]: [&'a Side<'a, T>; 2],
        up: Upstream<'a, T>,
        into: Option<&'a mut [T]>,
        numbers: Option<[&'a mut [f64]; 2]>,
        offset: usize,
        columns: Option<&'a Parts>,
    ) -> Self {
        let into = into.map(|out| Shared(out.as_mut_ptr()));
        let numbers = numbers.map(|[a, b]| [Shared(a.as_mut_ptr()), Shared(b.as_mut_ptr())]);
        Slopes { score, d, own, other, up, into, numbers, offset, columns, life: PhantomData }
    }

    /// The gradients that arrive at a row's distances to `cols`, zeros past the end.
    #[inline(always)]
    fn weights<S: Simd>(&self, s: S, row: usize, cols: Range<usize>, distances: &[f64; STRIP], w: &mut [f64]) {
        w.fill(0.0);
        match &self.up {
            Upstream::Matrix { g, strides: [down, 1] } => {
                let g = &g[(row + self.offset) * down + cols.start..][..cols.len()];
                for (w, g) in w.iter_mut().zip(g) {
                    *w = g.to_f64();
                }
            }
            Upstream::Matrix { g, strides: [down, right] } => {
                for (w, col) in w.iter_mut().zip(cols) {
                    *w = g[(row + self.offset) * down + col * right].to_f64();
                }
            }
            Upstream::Soft { beta, g, sums, turned } => {
                let mut sum = [0.0; STRIP];
                for (i, (w, sum)) in w[..cols.len()].iter_mut().zip(&mut sum).enumerate() {
                    let at = if *turned { cols.start + i } else { row + self.offset };
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
    }

    /// The weights of 16 rows at most where they lie column by column, eight columns at a time; false where they do not.
    #[inline(always)]
    fn turned<S: Simd>(&self, s: S, rows: Range<usize>, cols: Range<usize>, w: &mut [f64]) -> bool {
        let Upstream::Matrix { g, strides: [1, right] } = &self.up else { return false };
        if *right == 1 || rows.len() < STEP {
            return false;
        }
        w.fill(0.0);
        let zero = f64x8::splat(s, 0.0);
        for at in (0..cols.len()).step_by(LANES) {
            let (mut a, mut b) = ([zero; LANES], [zero; LANES]);
            for i in 0..LANES.min(cols.len() - at) {
                [a[i], b[i]] = T::load16(s, &g[(cols.start + at + i) * right + rows.start + self.offset..]);
            }
            let (a, b) = (pairs::transpose(a), pairs::transpose(b));
            for i in 0..LANES {
                a[i].store_slice(&mut w[i * STRIP + at..][..LANES]);
                b[i].store_slice(&mut w[(i + LANES) * STRIP + at..][..LANES]);
            }
        }
        true
    }

    /// The distances of a row, where anything needs them; keys past the end become 0.
    #[inline(always)]
    fn distances<S: Simd>(&self, s: S, len: usize, keys: &mut [f64]) -> [f64; STRIP] {
        keys[len..].fill(0.0);
        let soft = matches!(self.up, Upstream::Soft { .. });
        let mut distances = [0.0; STRIP];
        if soft || self.numbers.is_some() {
            for (keys, d) in keys.chunks_exact(LANES).zip(distances.chunks_exact_mut(LANES)) {
                self.score.value(s, f64x8::from_slice(s, keys), size_of::<T>() < 8 && !soft).store_slice(d);
            }
        }
        distances
    }

    /// f of a row, and the sums of numbers.
    #[inline(always)]
    fn factors<S: Simd>(
        &self,
        s: S,
        sum: &mut Sum,
        row: usize,
        cols: Range<usize>,
        keys: &[f64],
        w: &[f64],
        distances: &[f64; STRIP],
    ) -> [f64; STRIP] {
        let (c, zero) = (self.score.c, f64x8::splat(s, 0.0));
        let inverse = self.own.inverse[row + self.offset];
        let mut f = [0.0; STRIP];
        let mut beside = [0.0; STRIP];
        let (mut along, mut mass) = (f64x8::from_slice(s, &sum.along), f64x8::from_slice(s, &sum.mass));
        for at in (0..cols.len()).step_by(2 * LANES) {
            let (mut m, mut t) = ([zero; 2], [zero; 2]);
            for k in 0..2 {
                m[k] = f64x8::from_slice(s, &keys[at + k * LANES..][..LANES]);
                t[k] = m[k] * m[k].mul_add(c, 1.0);
            }
            let roots = if Self::BLOCKED { inverse_roots(s, t) } else { [1.0 / t[0].sqrt(), 1.0 / t[1].sqrt()] };
            for k in 0..2 {
                let at = at + k * LANES;
                if at >= cols.len() {
                    break;
                }
                let other = &self.other.inverse[cols.start + at..cols.end.min(cols.start + at + LANES)];
                let w = f64x8::from_slice(s, &w[at..at + LANES]);
                let u = m[k].simd_eq(0.0).select(zero, (w + w) * roots[k]);
                let (v, other) = (u * inverse, pairs::padded(s, other));
                along += v * m[k];
                (u * m[k] * other).store_slice(&mut beside[at..at + LANES]);
                let v = v * other;
                mass += v;
                v.store_slice(&mut f[at..at + LANES]);
            }
        }
        if let Some(columns) = self.columns {
            // SAFETY: a block of rows is met by one task at a time, and has a part of its own.
            let (_, along, mass) = unsafe { columns.part(row / pairs::ROWS, cols.start, cols.len()) };
            for i in 0..cols.len() {
                along[i] += beside[i];
                mass[i] += f[i];
            }
        }
        along.store_slice(&mut sum.along);
        if Self::BLOCKED {
            mass.store_slice(&mut sum.mass);
        }
        if self.numbers.is_some() {
            self.curve(s, sum, row, cols, keys, w, distances);
        }
        f
    }

    /// Σ f x for the columns of a strip, over 16 rows at most, for 16 features from `at` on.
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
        let (d, end) = (self.d, self.d.min(at + STEP));
        let mut x = [0.0; STEP * STEP];
        for (row, x) in rows.clone().zip(x.chunks_exact_mut(STEP)) {
            let from = &self.own.rows[(row + self.offset) * d + at..(row + self.offset) * d + end];
            f64::store16(s, if from.len() == STEP { T::load16(s, from) } else { T::load_tail(s, from) }, x);
        }
        let x = &x[..rows.len() * STEP];
        // SAFETY: a block of rows is met by one task at a time, and has a part of its own.
        let (acc, ..) = unsafe { columns.part(rows.start / pairs::ROWS, cols.start, cols.len()) };
        let whole = cols.len() / R * R;
        for first in (0..whole).step_by(R) {
            columns_of::<S, R>(s, &mut acc[first * columns.pad + at..], columns.pad, &f[first..], x);
        }
        for first in whole..cols.len() {
            columns_of::<S, 1>(s, &mut acc[first * columns.pad + at..], columns.pad, &f[first..], x);
        }
    }

    /// acc += Σ f y over the columns of a strip, for features from `at` on; where they end.
    #[inline(always)]
    fn product<S: Simd, const N: usize, const R: usize>(
        &self,
        s: S,
        sums: &mut [Sum],
        cols: Range<usize>,
        f: &[f64],
        at: usize,
    ) -> usize {
        let (d, width) = (self.d, N * STEP);
        let end = d.min(at + width);
        let mut y = [0.0; 2 * STEP * STRIP];
        for (col, y) in cols.clone().zip(y.chunks_exact_mut(width)) {
            let from = &self.other.rows[col * d + at..col * d + end];
            for (from, y) in from.chunks(STEP).zip(y.chunks_exact_mut(STEP)) {
                f64::store16(s, if from.len() == STEP { T::load16(s, from) } else { T::load_tail(s, from) }, y);
            }
        }
        let y = &y[..cols.len() * width];
        let whole = sums.len() / R * R;
        for first in (0..whole).step_by(R) {
            rows_of::<S, N, R>(s, &mut sums[first..first + R], &f[first * STRIP..], y, at);
        }
        for first in whole..sums.len() {
            rows_of::<S, N, 1>(s, &mut sums[first..=first], &f[first * STRIP..], y, at);
        }
        end
    }

    /// acc += Σ f (x − y) over the columns
    #[inline(always)]
    fn pull<S: Simd, const N: usize>(&self, s: S, acc: &mut [f64], row: usize, cols: Range<usize>, f: &[f64; STRIP]) {
        let d = self.d;
        let x = &self.own.rows[(row + self.offset) * d..][..d];
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

/// 1/√t to 2^-45: in f32, and one step of Newton's; as it is said where f32 has no such number.
#[inline(always)]
fn inverse_roots<S: Simd>(s: S, t: [f64x8<S>; 2]) -> [f64x8<S>; 2] {
    let [least, most] = [t[0].min(t[1]), t[0].max(t[1])];
    if !(least.simd_ge(1e-30).all_true() && most.simd_le(1e30).all_true()) {
        return [1.0 / t[0].sqrt(), 1.0 / t[1].sqrt()];
    }
    let rough = f32x16::splat(s, 1.0) / t[0].narrow(t[1]).sqrt();
    let (a, b) = rough.widen();
    let mut out = [a, b];
    for k in 0..2 {
        let v = out[k];
        out[k] = v * (t[k] * v * v).mul_add(-0.5, 1.5);
    }
    out
}

/// The sum of the pulls, the weight of x beside it, and the sums for c and for w d.
pub struct Sum {
    acc: Vec<f64>,
    along: [f64; LANES],
    /// Σ f, where acc is Σ f y.
    mass: [f64; LANES],
    dc: [f64; LANES],
    spread: [f64; LANES],
}

#[inline(always)]
fn total<S: Simd>(s: S, lanes: &[f64; LANES]) -> f64 {
    hsum(f64x8::from_slice(s, lanes))
}

impl<T: Number> Reduce for Slopes<'_, T> {
    type State = Sum;
    fn bytes(&self, _: usize) -> usize {
        size_of::<Sum>() + self.d.next_multiple_of(STEP) * size_of::<f64>()
    }
    fn start(&self, _: usize) -> Result<Sum> {
        let acc = try_vec(self.d.next_multiple_of(STEP), 0.0)?;
        Ok(Sum { acc, along: [0.0; LANES], mass: [0.0; LANES], dc: [0.0; LANES], spread: [0.0; LANES] })
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
        let distances = self.distances(s, cols.len(), keys);
        let mut w = [0.0; STRIP];
        self.weights(s, row, cols.clone(), &distances, &mut w);
        let f = self.factors(s, sum, row, cols.clone(), keys, &w, &distances);
        if self.into.is_some() {
            if S::f64s::N == 8 {
                self.pull::<S, 4>(s, &mut sum.acc, row, cols, &f);
            } else {
                self.pull::<S, 1>(s, &mut sum.acc, row, cols, &f);
            }
        }
    }
    const BLOCKED: bool = size_of::<T>() < 8;
    #[inline(always)]
    fn block<S: Simd, Sc: Score>(
        &self,
        s: S,
        _: &Sc,
        sums: &mut [Sum],
        rows: Range<usize>,
        cols: Range<usize>,
        keys: &mut [f64],
    ) {
        let mut w = [0.0; STEP * STRIP];
        for first in (0..sums.len()).step_by(STEP) {
            let end = sums.len().min(first + STEP);
            let ready = self.turned(s, rows.start + first..rows.start + end, cols.clone(), &mut w);
            for at in first..end {
                let keys = &mut keys[at * STRIP..][..STRIP];
                let distances = self.distances(s, cols.len(), keys);
                let w = &mut w[(at - first) * STRIP..][..STRIP];
                if !ready {
                    self.weights(s, rows.start + at, cols.clone(), &distances, w);
                }
                let f = self.factors(s, &mut sums[at], rows.start + at, cols.clone(), keys, w, &distances);
                keys.copy_from_slice(&f);
            }
            if let Some(columns) = self.columns {
                let (own, f) = (rows.start + first..rows.start + end, &keys[first * STRIP..]);
                for at in (0..self.d).step_by(STEP) {
                    if S::f64s::N == 8 {
                        self.across::<S, 8>(s, columns, own.clone(), cols.clone(), f, at);
                    } else {
                        self.across::<S, 2>(s, columns, own.clone(), cols.clone(), f, at);
                    }
                }
            }
        }
        if self.into.is_some() {
            // as many sums as there are registers
            let mut at = 0;
            while at < self.d {
                at = match (S::f64s::N == 8, self.d - at >= 2 * STEP) {
                    (true, true) => self.product::<S, 2, 4>(s, sums, cols.clone(), keys, at),
                    (true, false) => self.product::<S, 1, 8>(s, sums, cols.clone(), keys, at),
                    _ => self.product::<S, 1, 2>(s, sums, cols.clone(), keys, at),
                };
            }
        }
    }
    fn merge(&self, into: &mut Sum, later: Sum) {
        for (a, b) in into.acc.iter_mut().zip(&later.acc) {
            *a += b;
        }
        for i in 0..LANES {
            into.along[i] += later.along[i];
            into.mass[i] += later.mass[i];
            into.dc[i] += later.dc[i];
            into.spread[i] += later.spread[i];
        }
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, s: S, _: &Sc, row: usize, sum: Sum) {
        if let Some([dc, spread]) = &self.numbers {
            // SAFETY: the driver finishes each row once, and these have a number for each row.
            unsafe {
                (*dc.at(row + self.offset), *spread.at(row + self.offset)) = (total(s, &sum.dc), total(s, &sum.spread));
            };
        }
        let Some(out) = &self.into else { return };
        let (along, mass) = (total(s, &sum.along) * self.score.c, total(s, &sum.mass));
        let sign = if Self::BLOCKED { -1.0 } else { 1.0 };
        let row = row + self.offset;
        let x = &self.own.rows[row * self.d..][..self.d];
        // SAFETY: as above; the output has a row of d for each row.
        let out = unsafe { out.part(row * self.d, self.d) };
        for ((x, a), out) in x.chunks(STEP).zip(sum.acc.chunks_exact(STEP)).zip(out.chunks_mut(STEP)) {
            let (x, a) = (T::load_tail(s, x), f64::load16(s, a));
            let own = along + mass;
            T::store_tail(s, [x[0].mul_add(own, a[0] * sign), x[1].mul_add(own, a[1] * sign)], out);
        }
    }
}

impl<T: Number> Slopes<'_, T> {
    /// dc += w√m (ν/√(1 + u) + 2S'(u) m), ν = |x|²/α + |y|²/β, u = cm; and the sum of w d
    #[inline(always)]
    fn curve<S: Simd>(
        &self,
        s: S,
        sum: &mut Sum,
        row: usize,
        cols: Range<usize>,
        keys: &[f64],
        w: &[f64],
        distances: &[f64; STRIP],
    ) {
        let own = self.own.squares[row + self.offset] * self.own.inverse[row + self.offset];
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

/// R rows of the product.
#[inline(always)]
fn rows_of<S: Simd, const N: usize, const R: usize>(s: S, sums: &mut [Sum], f: &[f64], y: &[f64], at: usize) {
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
