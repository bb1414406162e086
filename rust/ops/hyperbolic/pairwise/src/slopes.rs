//! What gradients of distances add up to at each row. The one rule: a pair pulls along the difference of its rows, so that
//! near pairs lose nothing: f64 rows are taken apart first. Rows of fewer bits are so in f64 to the last of their own when
//! Σ f x and Σ f y are.

use base::Result;
use base::dd::{Dd, Num};
use base::math;
use base::pool::Shared;
use base::roots::arsinh_root_d;
use base::simd::*;
use base::store::{STEP, Store};
use drivers::pairs::{self, Hyperbolic, Mixed, Number, STRIP, Score, Weigh};
use std::marker::PhantomData;
use std::ops::Range;

/// Lanes of a vector.
const LANES: usize = 8;

/// Rows, and what distances need to know of each: 1/α and |x|².
pub struct Side<'a, T> {
    rows: &'a [T],
    d: usize,
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
        Ok(Side { rows, d, inverse, squares: pairs::terms(&Squares, rows, n, d)? })
    }
}

/// The gradient that arrives at each distance.
pub enum Upstream<'a, T> {
    /// As an array, with the steps from row to row and from column to column.
    Matrix { g: &'a [T], strides: [usize; 2] },
    /// g e^(−βd − log Σ), one g and one sum for each row of x; `turned`: those are the columns here.
    Soft { beta: f64, g: &'a [T], sums: &'a [f64], turned: bool },
}

/// What makes of every distance what its gradient pulls by, and of that the gradients of the rows.
pub struct Slopes<'a, T> {
    score: &'a Hyperbolic,
    d: usize,
    own: &'a Side<'a, T>,
    other: &'a Side<'a, T>,
    up: Upstream<'a, T>,
    /// Gradients of the rows of x, and of y.
    into: [Option<Shared<T>>; 2],
    /// Sums of a row: of the gradient by c, and of w d.
    numbers: Option<[Shared<f64>; 2]>,
    life: PhantomData<&'a mut [T]>,
}

impl<'a, T: Number> Slopes<'a, T> {
    /// Σ f y, where differences would say no more.
    const NARROW: bool = size_of::<T>() < 8;

    pub fn new(
        score: &'a Hyperbolic,
        [own, other]: [&'a Side<'a, T>; 2],
        up: Upstream<'a, T>,
        into: [Option<&'a mut [T]>; 2],
        numbers: Option<[&'a mut [f64]; 2]>,
    ) -> Self {
        let into = into.map(|out| out.map(|out| Shared(out.as_mut_ptr())));
        let numbers = numbers.map(|[a, b]| [Shared(a.as_mut_ptr()), Shared(b.as_mut_ptr())]);
        let d = own.d;
        Slopes { score, d, own, other, up, into, numbers, life: PhantomData }
    }

    /// The gradients that arrive at a row's distances to `cols`, zeros past the end.
    #[inline(always)]
    fn weights<S: Simd>(&self, s: S, row: usize, cols: Range<usize>, distances: &[f64; STRIP], w: &mut [f64]) {
        w.fill(0.0);
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
                [a[i], b[i]] = T::load16(s, &g[(cols.start + at + i) * right + rows.start..]);
            }
            let (a, b) = (pairs::transpose(a), pairs::transpose(b));
            for i in 0..LANES {
                a[i].store_slice(&mut w[i * STRIP + at..][..LANES]);
                b[i].store_slice(&mut w[(i + LANES) * STRIP + at..][..LANES]);
            }
        }
        true
    }

    /// The distances of a row, where anything needs them; keys that do not count become 0.
    #[inline(always)]
    fn distances<S: Simd>(&self, s: S, live: u64, keys: &mut [f64]) -> [f64; STRIP] {
        pairs::clear(keys, live);
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
        beside: &mut Option<[&mut [f64]; 2]>,
    ) -> [f64; STRIP] {
        let (c, zero) = (self.score.c, f64x8::splat(s, 0.0));
        let inverse = self.own.inverse[row];
        let mut f = [0.0; STRIP];
        let mut across = [0.0; STRIP];
        let (mut along, mut mass) = (f64x8::from_slice(s, &sum.along), f64x8::from_slice(s, &sum.mass));
        for at in (0..cols.len()).step_by(2 * LANES) {
            let (mut m, mut t) = ([zero; 2], [zero; 2]);
            for k in 0..2 {
                m[k] = f64x8::from_slice(s, &keys[at + k * LANES..][..LANES]);
                t[k] = m[k] * m[k].mul_add(c, 1.0);
            }
            let roots = if Self::NARROW { inverse_roots(s, t) } else { [1.0 / t[0].sqrt(), 1.0 / t[1].sqrt()] };
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
                (u * m[k] * other).store_slice(&mut across[at..at + LANES]);
                let v = v * other;
                mass += v;
                v.store_slice(&mut f[at..at + LANES]);
            }
        }
        if let Some([along, mass]) = beside {
            for i in 0..cols.len() {
                along[i] += across[i];
                mass[i] += f[i];
            }
        }
        along.store_slice(&mut sum.along);
        if Self::NARROW {
            mass.store_slice(&mut sum.mass);
        }
        if self.numbers.is_some() {
            self.curve(s, sum, row, cols, keys, w, distances);
        }
        f
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

/// The weight of x beside its pulls, Σ f, and the sums for c and for w d, in lanes.
#[derive(Clone, Copy)]
pub struct Sum {
    along: [f64; LANES],
    mass: [f64; LANES],
    dc: [f64; LANES],
    spread: [f64; LANES],
}

#[inline(always)]
fn total<S: Simd>(s: S, lanes: &[f64; LANES]) -> f64 {
    hsum(f64x8::from_slice(s, lanes))
}

impl<T: Number> Weigh<T> for Slopes<'_, T> {
    type Sum = Sum;
    const NONE: Sum = Sum { along: [0.0; LANES], mass: [0.0; LANES], dc: [0.0; LANES], spread: [0.0; LANES] };
    const APART: bool = !Self::NARROW;
    fn wanted(&self) -> bool {
        self.into[0].is_some()
    }
    #[inline(always)]
    fn weigh<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        cols: Range<usize>,
        live: &[u64],
        keys: &mut [f64],
        sums: &mut [Mixed<Sum>],
        mut beside: Option<[&mut [f64]; 2]>,
    ) {
        let mut w = [0.0; STEP * STRIP];
        let ready = self.turned(s, rows.clone(), cols.clone(), &mut w);
        for (((row, keys), w), (sum, &live)) in
            rows.zip(keys.chunks_exact_mut(STRIP)).zip(w.chunks_exact_mut(STRIP)).zip(sums.iter_mut().zip(live))
        {
            let distances = self.distances(s, live, keys);
            if !ready {
                self.weights(s, row, cols.clone(), &distances, w);
            }
            pairs::clear(w, live);
            let f = self.factors(s, &mut sum.sum, row, cols.clone(), keys, w, &distances, &mut beside);
            keys.copy_from_slice(&f);
        }
    }
    fn merge(&self, into: &mut Sum, later: &Sum) {
        for i in 0..LANES {
            into.along[i] += later.along[i];
            into.mass[i] += later.mass[i];
            into.dc[i] += later.dc[i];
            into.spread[i] += later.spread[i];
        }
    }
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, row: usize, acc: &[f64], sum: Sum) {
        if let Some([dc, spread]) = &self.numbers {
            // SAFETY: the driver finishes each row once, and these have a number for each row.
            unsafe { (*dc.at(row), *spread.at(row)) = (total(s, &sum.dc), total(s, &sum.spread)) };
        }
        let Some(out) = &self.into[0] else { return };
        let (along, mass) = (total(s, &sum.along) * self.score.c, total(s, &sum.mass));
        let sign = if Self::NARROW { -1.0 } else { 1.0 };
        let x = &self.own.rows[row * self.d..][..self.d];
        // SAFETY: as above; the output has a row of d for each row.
        let out = unsafe { out.part(row * self.d, self.d) };
        for ((x, a), out) in x.chunks(STEP).zip(acc.chunks_exact(STEP)).zip(out.chunks_mut(STEP)) {
            let (x, a) = (T::load_tail(s, x), f64::load16(s, a));
            let own = along + mass;
            T::store_tail(s, [x[0].mul_add(own, a[0] * sign), x[1].mul_add(own, a[1] * sign)], out);
        }
    }
    fn column(&self, col: usize, acc: &[f64], [along, mass]: [f64; 2]) {
        let Some(out) = &self.into[1] else { return };
        let (own, part) = (along.mul_add(self.score.c, mass), col * self.d..(col + 1) * self.d);
        // SAFETY: each column is shown once, and the output has a row of d for each.
        let out = unsafe { out.part(part.start, self.d) };
        for ((y, a), out) in self.other.rows[part].iter().zip(acc).zip(out) {
            *out = T::from_f64(y.to_f64().mul_add(own, -a));
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
