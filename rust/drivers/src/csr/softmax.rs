//! Softmax over the entries of rows, and what it sends back. The one rule: exponentials are taken of many rows at once, so that
//! short ones fill the vectors; sums are in f64, in the order of the entries.

use super::{ROWS, offsets, sized};
use crate::index::Index;
use base::math;
use base::pool::{self, Shared};
use base::simd::*;
use base::store::{STEP, Store};
use base::{Dtype, Error, Result, try_vec};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Entries that are in flight: they stay in the L1 cache. A longer row is met twice.
const CHUNK: usize = 2048;

/// Rows of one task: `y = softmax(x)` or, of a gradient g and values y, `x' = y (g - Σ g y)`.
struct Rows<'a, T> {
    ptr: &'a [usize],
    rows: Range<usize>,
    x: &'a [T],
    /// Absent for the values.
    g: Option<&'a [T]>,
    out: Shared<T>,
    room: &'a mut [f64],
}

#[inline(always)]
fn widened<S: Simd, T: Store>(s: S, x: &[T], room: &mut [f64]) {
    let whole = x.len() / STEP * STEP;
    for i in (0..whole).step_by(STEP) {
        f64::store16(s, T::load16(s, &x[i..i + STEP]), &mut room[i..i + STEP]);
    }
    f64::store_tail(s, T::load_tail(s, &x[whole..]), &mut room[whole..]);
}

#[inline(always)]
fn rounded<S: Simd, T: Store>(s: S, room: &[f64], y: &mut [T]) {
    let whole = y.len() / STEP * STEP;
    for i in (0..whole).step_by(STEP) {
        T::store16(s, f64::load16(s, &room[i..i + STEP]), &mut y[i..i + STEP]);
    }
    T::store_tail(s, f64::load_tail(s, &room[whole..]), &mut y[whole..]);
}

/// Of values that are stored in T: for those of less than f64, of so many digits.
#[inline(always)]
fn exponentials<S: Simd, T: Store>(s: S, room: &mut [f64]) {
    #[inline(always)]
    fn of<S: Simd, T: Store>(s: S, [a, b]: [f64x8<S>; 2]) -> [f64x8<S>; 2] {
        if T::DTYPE == Dtype::F64 {
            [math::exp(s, a), math::exp(s, b)]
        } else {
            [math::single::exp(s, a), math::single::exp(s, b)]
        }
    }
    let whole = room.len() / STEP * STEP;
    let (head, tail) = room.split_at_mut(whole);
    for r in head.chunks_exact_mut(STEP) {
        f64::store16(s, of::<S, T>(s, f64::load16(s, r)), r);
    }
    f64::store_tail(s, of::<S, T>(s, f64::load_tail(s, tail)), tail);
}

#[inline(always)]
fn largest(x: &[f64]) -> f64 {
    let mut m = f64::NEG_INFINITY;
    for &v in x {
        m = if v > m { v } else { m };
    }
    m
}

impl<T: Store> Kernel for Rows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rows { ptr, rows, x, g, out, room } = self;
        let mut first = rows.start;
        while first < rows.end {
            // as many rows as fit, or one that does not
            let mut last = first + 1;
            while last < rows.end && ptr[last + 1] - ptr[first] <= CHUNK {
                last += 1;
            }
            let all = ptr[first]..ptr[last];
            // SAFETY: the entries of these rows are this task's, and there is a result for every entry.
            let y = unsafe { out.part(all.start, all.len()) };
            if all.len() > CHUNK {
                long(s, &x[all.clone()], g.map(|g| &g[all.clone()]), y, room);
            } else if let Some(g) = g {
                let (v, w) = room.split_at_mut(CHUNK);
                let (v, w) = (&mut v[..all.len()], &mut w[..all.len()]);
                widened(s, &x[all.clone()], v);
                widened(s, &g[all.clone()], w);
                for i in first..last {
                    let row = ptr[i] - all.start..ptr[i + 1] - all.start;
                    let (v, w) = (&v[row.clone()], &mut w[row]);
                    let mean: f64 = v.iter().zip(&*w).map(|(v, w)| v * w).sum();
                    for (v, w) in v.iter().zip(w) {
                        *w = v * (*w - mean);
                    }
                }
                rounded(s, w, y);
            } else {
                let v = &mut room[..all.len()];
                widened(s, &x[all.clone()], v);
                for i in first..last {
                    let row = &mut v[ptr[i] - all.start..ptr[i + 1] - all.start];
                    let m = largest(row);
                    for v in row {
                        *v -= m;
                    }
                }
                exponentials::<S, T>(s, v);
                for i in first..last {
                    let row = &mut v[ptr[i] - all.start..ptr[i + 1] - all.start];
                    let mut total = 0.0;
                    for v in &*row {
                        total += v;
                    }
                    for v in row {
                        *v /= total;
                    }
                }
                rounded(s, v, y);
            }
            first = last;
        }
    }
}

/// A row that does not fit, piece by piece.
#[inline(always)]
fn long<S: Simd, T: Store>(s: S, x: &[T], g: Option<&[T]>, y: &mut [T], room: &mut [f64]) {
    let (v, w) = room.split_at_mut(CHUNK);
    let mut m = f64::NEG_INFINITY;
    if g.is_none() {
        for x in x.chunks(CHUNK) {
            let v = &mut v[..x.len()];
            widened(s, x, v);
            m = m.max(largest(v));
        }
    }
    let mut total = 0.0;
    for sweep in 0..2 {
        for (c, y) in y.chunks_mut(CHUNK).enumerate() {
            let here = c * CHUNK..c * CHUNK + y.len();
            let (v, w) = (&mut v[..y.len()], &mut w[..y.len()]);
            widened(s, &x[here.clone()], v);
            if let Some(g) = g {
                widened(s, &g[here], w);
                if sweep == 0 {
                    total += v.iter().zip(&*w).map(|(v, w)| v * w).sum::<f64>();
                } else {
                    v.iter_mut().zip(&*w).for_each(|(v, w)| *v *= w - total);
                }
            } else {
                for v in v.iter_mut() {
                    *v -= m;
                }
                exponentials::<S, T>(s, v);
                if sweep == 0 {
                    total += v.iter().sum::<f64>();
                } else {
                    for v in v.iter_mut() {
                        *v /= total;
                    }
                }
            }
            if sweep == 1 {
                rounded(s, v, y);
            }
        }
    }
}

/// `y_e = exp(x_e) / Σ exp(x_k)` over the entries k of its row, or with a gradient the other way, where x are the values.
fn walk<T: Store, I: Index>(indptr: &[I], x: &[T], g: Option<&[T]>, out: &mut [T]) -> Result<()> {
    let ptr = offsets(indptr, x.len())?;
    sized(&[("the result", out.len(), Some(x.len())), ("g", g.map_or(x.len(), <[T]>::len), Some(x.len()))])?;
    let rows = ptr.len() - 1;
    let (out, short) = (Shared(out.as_mut_ptr()), AtomicBool::new(false));
    pool::run(rows.div_ceil(ROWS), x.len(), |b| {
        let Ok(mut room) = try_vec(2 * CHUNK, 0f64) else { return short.store(true, Ordering::Relaxed) };
        let rows = b * ROWS..rows.min((b + 1) * ROWS);
        dispatch(Rows { ptr: &ptr, rows, x, g, out, room: &mut room });
    })?;
    if short.into_inner() { Err(Error::Memory(2 * CHUNK * size_of::<f64>())) } else { Ok(()) }
}

pub fn softmax<T: Store, I: Index>(indptr: &[I], x: &[T], y: &mut [T]) -> Result<()> {
    walk(indptr, x, None, y)
}

pub fn softmax_bwd<T: Store, I: Index>(indptr: &[I], g: &[T], y: &[T], dx: &mut [T]) -> Result<()> {
    walk(indptr, y, Some(g), dx)
}
