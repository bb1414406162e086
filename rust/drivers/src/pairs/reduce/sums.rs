//! Sums over the columns of a row. The one rule: the greatest term so far is kept apart, so that none overflows.

use super::super::STRIP;
use super::super::pack::PANEL;
use super::super::score::Score;
use super::{Reduce, Rows, dead, rows_of, single};
use base::Result;
use base::math;
use base::simd::*;
use base::store::Store;
use std::ops::Range;

/// log Σ exp(scale · score) over the columns; −∞ for none.
pub struct LogSumExp<'a, T> {
    scale: f64,
    out: Rows<'a, T>,
}
impl<'a, T: Store> LogSumExp<'a, T> {
    pub fn new(n: usize, scale: f64, out: &'a mut [T]) -> Result<Self> {
        rows_of(out.len(), 1, n)?;
        Ok(LogSumExp { scale, out: Rows::new(out, 1) })
    }
}
/// The greatest term so far and the sum of e^(term − greatest).
type Sum = (f64, f64);
fn joined(a: Sum, b: Sum) -> Sum {
    let top = if a.0 > b.0 || a.0.is_nan() { a.0 } else { b.0 };
    if top.is_infinite() {
        // no terms at all, or one that outweighs every other; a NaN among them stays
        return (top, if (a.1 + b.1).is_nan() { f64::NAN } else { 1.0 });
    }
    (top, a.1 * (a.0 - top).exp() + b.1 * (b.0 - top).exp())
}
impl<T: Store> Reduce for LogSumExp<'_, T> {
    type State = Sum;
    fn start(&self, _: usize) -> Result<Sum> {
        Ok((f64::NEG_INFINITY, 0.0))
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        s: S,
        score: &Sc,
        state: &mut Sum,
        _: usize,
        _: Range<usize>,
        live: u64,
        keys: &[f64],
    ) {
        if live == 0 {
            return;
        }
        let none = f64x8::splat(s, f64::NEG_INFINITY);
        let mut terms = [none; STRIP / PANEL];
        for (term, keys) in terms.iter_mut().zip(keys.chunks_exact(PANEL)) {
            *term = score.value(s, f64x8::from_slice(s, keys), single::<T>()) * self.scale;
        }
        if live != u64::MAX {
            for (i, term) in terms.iter_mut().enumerate() {
                *term = dead(s, live, i * PANEL).select(none, *term);
            }
        }
        let mut top = none;
        for &term in &terms {
            top = top.max(term);
        }
        let top = top.as_slice().iter().fold(f64::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let mut sum = f64x8::splat(s, 0.0);
        // with an infinite top the sum only has to tell NaN from numbers
        let from = if top.is_infinite() { 0.0 } else { top };
        for &term in &terms {
            sum += math::exp(s, term - from);
        }
        *state = joined(*state, (top, hsum(sum)));
    }
    fn merge(&self, into: &mut Sum, later: Sum) {
        *into = joined(*into, later);
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, _: S, _: &Sc, row: usize, (top, sum): Sum) {
        // SAFETY: the driver finishes each row once.
        let out = unsafe { self.out.part(row, 0..1) };
        out[0] = T::from_f64(if sum == 0.0 { f64::NEG_INFINITY } else { top + sum.ln() });
    }
}
